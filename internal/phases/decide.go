package phases

import (
	"fmt"
	"hash/fnv"
	"maps"
	"time"
)

// ActionKind says what a dispatcher must do.
type ActionKind string

// The kinds of actions.
const (
	DoIssue  ActionKind = "issue"  // append issued, and publish the task (the bus holds it until NotBefore)
	DoRevoke ActionKind = "revoke" // append cancelled on the step's chain: its holder must stop
	DoFinish ActionKind = "finish" // append finished on the sector's chain, and archive it
)

// Action is one event that a dispatcher must append now. Appending is compare-and-set on
// ExpectSeq, so of many dispatchers that decide the same, one wins and the others lose
// without harm.
//
// A dispatcher publishes a task only when the issued event has come back to it and its
// fold has believed it (TaskFor says so): between its decision and its append a redo or
// a cancellation may have come, which makes the issue void, and p6 would delete.
type Action struct {
	Kind      ActionKind
	Group     string
	Sector    string
	Step      Step
	Issue     int
	Attempt   int
	NotBefore time.Time // zero: now
	PrevID    string
	ExpectSeq uint64
	Outcome   Status // DoFinish: finished, failed or cancelled
	Reason    string // DoRevoke, DoFinish
}

// Event is the event that carries the action out: id is a new ULID, actor the
// dispatcher's name (DispatcherName), at the time by its clock.
func (a Action) Event(id, actor string, at time.Time) Event {
	e := Event{
		V: Version, ID: id, Group: a.Group, Sector: a.Sector, Step: a.Step,
		PrevID: a.PrevID, Host: actor, At: at, Issue: a.Issue, Reason: a.Reason,
	}
	switch a.Kind {
	case DoIssue:
		e.Type, e.Attempt, e.NotBefore = Issued, a.Attempt, a.NotBefore
	case DoRevoke:
		e.Type = Cancelled
	case DoFinish:
		e.Type = Finished
		e.Result = &Result{Code: string(a.Outcome), Message: a.Reason}
	}
	return e
}

// Decide says what a dispatcher must do now for a sector. It is pure and idempotent:
// the same state gives the same actions, until the actions' own events are applied.
// A sector on which a newer release has written is left to that release.
func Decide(s *Sector, p Policy) []Action {
	if !s.Known() || !s.ended.IsZero() || s.newer {
		return nil
	}
	var actions []Action
	for _, step := range Steps() {
		t := s.at(step)
		switch {
		case t.open() && t.revoke:
			a := s.action(DoRevoke, t)
			a.Issue, a.Reason = t.Issue, s.Reason
			actions = append(actions, a)
		case s.due(t, p):
			a := s.action(DoIssue, t)
			a.Issue, a.Attempt, a.NotBefore = t.Issue+1, t.nextAttempt(), s.notBefore(t, p)
			actions = append(actions, a)
		}
	}
	if outcome, may := s.mayFinish(); may {
		a := s.action(DoFinish, s.at(SectorEnd))
		a.Outcome, a.Reason = outcome, s.Reason
		actions = append(actions, a)
	}
	return actions
}

func (s *Sector) action(kind ActionKind, t *StepState) Action {
	return Action{Kind: kind, Group: s.Group, Sector: s.ID, Step: t.Step, PrevID: t.LastID, ExpectSeq: t.LastSeq}
}

// due tells whether a step is to be issued now.
func (s *Sector) due(t *StepState, p Policy) bool {
	if !t.issuable() || t.Parked(p) || s.blocked(t.Step) != "" {
		return false
	}
	if s.paused && s.outcome == "" {
		return false
	}
	if s.stops(t) != "" {
		return false
	}
	if t.Step == P6 && s.outcome == "" && !p.CleanBeforeCommit {
		return s.at(Commit).Status == StatusDone
	}
	return true
}

// stops tells what must be known to have stopped before a step is issued, "" if nothing:
// the step's own holder, and for p6, which deletes, everybody.
func (s *Sector) stops(t *StepState) string {
	for i := range s.steps {
		other := &s.steps[i]
		if other.stopping != "" && (other == t || t.Step == P6) {
			return fmt.Sprintf("%s was cancelled, and %s has not yet said that it has stopped", other.Step, other.Host)
		}
	}
	return ""
}

// notBefore is when a failed step may be tried again: twice as long after each failure,
// and up to a quarter longer for some sectors than for others, so that a hundred that
// failed together do not come back together.
func (s *Sector) notBefore(t *StepState, p Policy) time.Time {
	if t.Status != StatusFailed || t.redo {
		return time.Time{}
	}
	delay, times := p.RetryDelay, t.Attempt-1
	if t.Result.Class == Transient {
		delay, times = p.TransientDelay, t.transients-1
	}
	for ; times > 0 && delay < p.MaxDelay; times-- {
		delay *= 2
	}
	delay = min(delay, p.MaxDelay)
	h := fnv.New32a()
	_, _ = h.Write([]byte(s.ID + t.LastID)) // never fails
	return t.EndedAt.Add(delay + time.Duration(float64(delay)/4*float64(h.Sum32())/(1<<32)))
}

// InputDoneBy is the input of p6 that names the host which did a phase.
func InputDoneBy(step Step) string { return string(step) + "_by" }

// TaskFor returns the task of a step's open issue, with its inputs merged from the
// outputs of the steps before it and from the issued event; false if no issue is open.
func (s *Sector) TaskFor(step Step) (Task, bool) {
	t := s.at(step)
	if !s.Known() || !t.open() || t.revoke {
		return Task{}, false
	}
	inputs := map[string]string{}
	if p1 := s.at(P1); step == P6 && p1.IP != "" {
		inputs[InputIP] = p1.IP // a sector that was given up may have a p1 that never got done
	}
	for _, b := range Steps() {
		if b == step {
			break
		}
		if r := s.at(b).Result; r != nil && s.at(b).Status == StatusDone {
			maps.Copy(inputs, r.Outputs)
			maps.Copy(inputs, s.at(b).Inputs)
		}
	}
	maps.Copy(inputs, t.Inputs)
	if step == P6 {
		// p6 deletes, and asks the chains itself: these tell it whose word to look for.
		for _, b := range [...]Step{P4, P5} {
			if s.at(b).Status == StatusDone {
				inputs[InputDoneBy(b)] = s.at(b).Host
			}
		}
	}
	return Task{
		V: Version, Group: s.Group, Sector: s.ID, Step: step, Issue: t.Issue, Attempt: t.Attempt,
		IssuedID: t.IssuedID, IssuedSeq: t.IssuedSeq, NotBefore: t.NotBefore, Spec: s.Spec, Inputs: inputs,
	}, true
}
