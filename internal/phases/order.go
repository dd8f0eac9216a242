package phases

import (
	"fmt"
	"slices"
)

// before lists the steps that must be done before a step may start. This, and nothing
// else, is the order of sealing: p6 has two more ways, see blocked.
var before = map[Step][]Step{
	P2:        {P1},
	Precommit: {P2},
	P3:        {Precommit},
	P4:        {P3},
	P5:        {P3},
	Commit:    {P4},
	P6:        {P4, P5},
}

// needs lists the steps whose results a step works on. A redo does again what works on
// the results of the step redone: p5 copies what p2 made, so redoing p3 leaves it alone.
var needs = map[Step][]Step{
	P2:        {P1},
	Precommit: {P2},
	P3:        {P2, Precommit},
	P4:        {P3},
	P5:        {P2},
	Commit:    {P4},
}

// dependents lists the steps that work, directly or not, on a step's results.
func dependents(step Step) []Step {
	var all []Step
	for _, next := range Steps() { // in order, so one pass is enough
		for _, n := range needs[next] {
			if n == step || slices.Contains(all, n) {
				all = append(all, next)
				break
			}
		}
	}
	return all
}

// blocked tells why a step may not be issued yet, "" if it may.
func (s *Sector) blocked(step Step) string {
	if s.outcome == "" {
		for _, b := range before[step] {
			if t := s.at(b); t.Status != StatusDone {
				return fmt.Sprintf("%s is %s", b, t.Status)
			}
		}
		return ""
	}
	if step != P6 {
		return fmt.Sprintf("the sector is %s: only p6 is left", s.outcome)
	}
	if !s.at(P1).started() {
		return "p1 was never issued: there is nothing to clean"
	}
	for _, st := range Steps()[:7] {
		if t := s.at(st); t.open() {
			return fmt.Sprintf("%s is %s and not yet revoked", st, t.Status)
		}
	}
	return ""
}

// mayFinish tells how the sector ends, and whether it may end now.
func (s *Sector) mayFinish() (outcome Status, may bool) {
	for _, step := range Steps() {
		if s.at(step).open() {
			return s.outcome, false
		}
	}
	cleaned := s.at(P6).Status == StatusDone
	switch s.outcome {
	case StatusFailed:
		return StatusFailed, cleaned
	case StatusCancelled:
		return StatusCancelled, cleaned || !s.at(P1).started()
	}
	return StatusFinished, cleaned && s.at(Commit).Status == StatusDone
}

// CheckRedo tells why a step cannot be done again, or nil. A redo issues the step again,
// even if it is done, parked or running (then its holder must stop), and after it the
// steps that work on its results, as far as they had started. What is on chain is never
// done again, and what went into it neither.
func CheckRedo(s *Sector, step Step) error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%s of %s cannot be done again: %s", step, s.ID, fmt.Sprintf(format, args...))
	}
	if !slices.Contains(Steps(), step) {
		return fmt.Errorf("%q is no step: use p1 to p6, precommit or commit", step)
	}
	switch {
	case !s.Known():
		return fail("it was not submitted")
	case !s.ended.IsZero():
		return fail("the sector has ended (%s)", s.outcome)
	case s.outcome != "" && step != P6:
		return fail("the sector is %s, only p6 is left", s.outcome)
	case !s.at(step).started():
		return fail("it was not started yet; it will start by itself when the steps before it are done")
	case step == P6:
		return nil
	case s.at(P6).started():
		return fail("p6 has begun to delete what it needs")
	case s.at(step).Status == StatusDone && step.IsGate():
		return fail("its message is on chain")
	case s.at(Commit).Status == StatusDone && step != P5:
		return fail("the proof is on chain")
	}
	for _, next := range dependents(step) {
		t := s.at(next)
		if next == Precommit && t.Status == StatusDone {
			return fail("the precommit that rests on it is on chain")
		}
		if next.IsGate() && t.open() {
			return fail("the %s message may be on its way; wait until it has landed or failed", next)
		}
	}
	return nil
}

// CheckPause tells why the sector cannot be paused (or resumed), or nil. What runs goes on
// to its end; only then the sector rests.
func CheckPause(s *Sector, pause bool) error {
	what := "resumed"
	if pause {
		what = "paused"
	}
	switch {
	case !s.Known():
		return fmt.Errorf("%s cannot be %s: it was not submitted", s.ID, what)
	case !s.ended.IsZero() || s.outcome != "":
		return fmt.Errorf("%s cannot be %s: it is %s", s.ID, what, s.outcome)
	case pause && s.paused:
		return fmt.Errorf("%s cannot be paused: it is already (%s)", s.ID, s.PauseReason)
	case !pause && !s.paused:
		return fmt.Errorf("%s cannot be resumed: it is not paused", s.ID)
	}
	return nil
}

// CheckCancel tells why the sector cannot be cancelled, or nil. After the proof is on
// chain there is a sector to be kept, and once p6 has begun there is nothing to stop.
func CheckCancel(s *Sector) error {
	switch {
	case !s.Known():
		return fmt.Errorf("%s cannot be cancelled: it was not submitted", s.ID)
	case !s.ended.IsZero() || s.outcome != "":
		return fmt.Errorf("%s cannot be cancelled: it is %s", s.ID, s.outcome)
	case s.at(Commit).Status == StatusDone:
		return fmt.Errorf("%s cannot be cancelled: its proof is on chain", s.ID)
	case s.at(P6).started():
		return fmt.Errorf("%s cannot be cancelled: p6 has begun", s.ID)
	}
	return nil
}
