package phases

import (
	"fmt"
	"slices"
)

// Reason says why an event was not believed.
type Reason string

// The reasons.
const (
	Duplicate   Reason = "duplicate"    // it was applied already
	Stale       Reason = "stale"        // it does not chain to the last event, or holds an old claim
	Early       Reason = "early"        // what must come before it has not
	Over        Reason = "over"         // the sector was cancelled, or has ended
	Forbidden   Reason = "forbidden"    // its writer may not write it
	Malformed   Reason = "malformed"    // it contradicts itself
	NewerFormat Reason = "newer_format" // written by a newer release; set aside
	Unreadable  Reason = "unreadable"   // no event at all; set aside
)

// Rejected is the error of an event that was not believed. The sector's state is as it
// was, except that the sequence of the chain's last message is known.
type Rejected struct {
	Event  Event
	Reason Reason
	Detail string
}

func (r *Rejected) Error() string {
	return fmt.Sprintf("event %s (%s %s of %s by %s, sequence %d) is not believed: %s: %s",
		r.Event.ID, r.Event.Type, r.Event.Step, r.Event.Sector, r.Event.Host, r.Event.Seq, r.Reason, r.Detail)
}

func reject(r Reason, format string, args ...any) *Rejected {
	return &Rejected{Reason: r, Detail: fmt.Sprintf(format, args...)}
}

// Apply takes the sector's next event, in stream order. An event that does not chain to
// what came before is refused with *Rejected, and the state does not change; a second
// delivery of an event (told by Seq) is a Duplicate.
func (s *Sector) Apply(e Event) error {
	if e.Seq != 0 && e.Seq <= s.seq {
		r := reject(Duplicate, "the sector's state already covers sequence %d", s.seq)
		r.Event = e
		return r
	}
	if e.Step != SectorEnd && !slices.Contains(Steps(), e.Step) {
		r := reject(Malformed, "%q is no step", e.Step)
		r.Event = e
		return r
	}
	if e.Seq != 0 {
		s.seq = e.Seq
	}
	t := s.at(e.Step)
	r := s.check(&e, t)
	if e.Seq != 0 {
		t.LastSeq = e.Seq
		t.disturbed = r != nil
	}
	if r != nil {
		r.Event = e
		switch {
		case r.Reason == NewerFormat:
			s.newer = true
		case r.Reason == Early && e.Type == Issued && s.Known() && e.Issue == t.Issue+1:
			// A dispatcher that had not yet seen a redo or a cancellation. Its task may
			// be out, so this issue's number is spent: the next task must not meet it.
			t.Issue++
		}
		return r
	}
	t.LastID = e.ID
	if e.Step == SectorEnd {
		s.take(&e, t)
	} else {
		s.takeStep(&e, t)
	}
	return nil
}

// check tells why an event is not to be believed, nil if it is.
func (s *Sector) check(e *Event, t *StepState) *Rejected {
	switch {
	case e.V > Newest:
		return reject(NewerFormat, "it has version %d, this release knows %d", e.V, Newest)
	case e.V < 1 || e.ID == "":
		return reject(Unreadable, "it has no version or no id: %s", e.Note)
	case e.ID == t.LastID:
		return reject(Duplicate, "it is the chain's last event")
	case s.Known() && (e.Sector != s.ID || e.Group != s.Group):
		return reject(Malformed, "the sector is %s of %s", s.ID, s.Group)
	case !s.Known() && e.Type != Submitted:
		return reject(Early, "the sector was not submitted")
	case !s.ended.IsZero():
		return reject(Over, "the sector has ended")
	case e.PrevID != t.LastID:
		return reject(Stale, "it chains to %q, the chain's last event is %q", e.PrevID, t.LastID)
	}
	if e.Step == SectorEnd {
		return s.checkSector(e)
	}
	return s.checkStep(e, t)
}

func (s *Sector) checkSector(e *Event) *Rejected {
	if !IsDispatcher(e.Host) {
		return reject(Forbidden, "only dispatchers and operators write on the sector's chain")
	}
	switch e.Type {
	case Submitted:
		if s.Known() {
			return reject(Duplicate, "the sector was submitted already")
		}
		return checkSpec(e)
	case Cancelled:
		if err := CheckCancel(s); err != nil {
			return reject(Over, "%v", err)
		}
		return nil
	case Redo:
		if err := CheckRedo(s, e.Target); err != nil {
			return reject(Early, "%v", err)
		}
		return nil
	case Finished:
		return s.checkFinished(e)
	case Paused, Resumed:
		if err := CheckPause(s, e.Type == Paused); err != nil {
			return reject(Early, "%v", err)
		}
		return nil
	}
	return reject(Malformed, "a sector's chain has no %q", e.Type)
}

func checkSpec(e *Event) *Rejected {
	const proofTypes = 10 // 0 to 9: five sizes, V1 and V1_1
	switch {
	case e.Spec == nil:
		return reject(Malformed, "it has no spec")
	case SectorID(e.Spec.Miner, e.Spec.Number) != e.Sector:
		return reject(Malformed, "its spec is that of %s", SectorID(e.Spec.Miner, e.Spec.Number))
	case e.Spec.ProofType < 0 || e.Spec.ProofType >= proofTypes:
		return reject(Malformed, "proof type %d: use 0 to 9", e.Spec.ProofType)
	}
	return nil
}

func (s *Sector) checkFinished(e *Event) *Rejected {
	if e.Result == nil {
		return reject(Malformed, "it has no result")
	}
	want, may := s.mayFinish()
	if !may {
		return reject(Early, "steps are still to be done")
	}
	if Status(e.Result.Code) != want {
		return reject(Malformed, "it says %q, the sector is %q", e.Result.Code, want)
	}
	return nil
}

func (s *Sector) checkStep(e *Event, t *StepState) *Rejected {
	byDispatcher := e.Type == Issued || e.Type == Cancelled || e.Step.IsGate()
	if byDispatcher != IsDispatcher(e.Host) && e.Type != Stopped { // a dispatcher may say it of a host that is silent
		return reject(Forbidden, "%q may not write %s of %s", e.Host, e.Type, e.Step)
	}
	switch e.Type {
	case Issued:
		return s.checkIssued(e, t)
	case Cancelled:
		if !t.open() || !t.revoke {
			return reject(Early, "nothing is to be revoked")
		}
		return nil
	case Stopped:
		return checkStopped(e, t)
	case Claimed, Progress, Done, Failed, Released:
		return checkWork(e, t)
	}
	return reject(Malformed, "a step's chain has no %q", e.Type)
}

func (s *Sector) checkIssued(e *Event, t *StepState) *Rejected {
	if e.Issue != t.Issue+1 {
		return reject(Stale, "it is issue %d, the next one is %d", e.Issue, t.Issue+1)
	}
	if !t.issuable() {
		return reject(Stale, "the step is %s", t.Status)
	}
	if want := t.nextAttempt(); e.Attempt != want {
		return reject(Malformed, "it is attempt %d, the next one is %d", e.Attempt, want)
	}
	if why := s.blocked(e.Step); why != "" {
		return reject(Early, "%s", why)
	}
	return nil
}

// checkStopped: the holder of the claim that was cancelled says that it is dead, or a
// dispatcher gives up waiting for that.
func checkStopped(e *Event, t *StepState) *Rejected {
	switch {
	case t.stopping == "":
		return reject(Early, "nothing is being stopped")
	case e.ClaimID != t.stopping:
		return reject(Stale, "it holds claim %q, the one that is being stopped is %q", e.ClaimID, t.stopping)
	}
	return nil
}

// checkWork checks the events of who does the step: the claim is the authority.
func checkWork(e *Event, t *StepState) *Rejected {
	switch {
	case !t.open():
		return reject(Stale, "the step is %s", t.Status)
	case t.revoke:
		return reject(Over, "the work was revoked")
	case e.Issue != t.Issue:
		return reject(Stale, "it is of issue %d, the open one is %d", e.Issue, t.Issue)
	case e.Type == Claimed && e.ClaimID == "":
		return reject(Malformed, "a claim needs a claim id")
	case e.Type == Claimed && e.ClaimID == t.ClaimID:
		return reject(Malformed, "a claim needs a new claim id")
	case e.Type == Claimed:
		return nil
	case e.ClaimID != t.ClaimID:
		return reject(Stale, "it holds claim %q, the current one is %q", e.ClaimID, t.ClaimID)
	case e.ClaimID == "" && (!e.Step.IsGate() || e.Type == Released):
		return reject(Early, "nobody has claimed the step")
	case e.Type == Failed && (e.Result == nil || !slices.Contains([]Class{Transient, Retryable, Permanent}, e.Result.Class)):
		return reject(Malformed, "a failure needs a class: transient, retryable or permanent")
	}
	return nil
}

// take changes the state by an event of the sector's chain that was checked.
func (s *Sector) take(e *Event, t *StepState) {
	switch e.Type {
	case Submitted:
		s.Group, s.ID, s.Spec, s.submitted = e.Group, e.Sector, *e.Spec, e.At
		s.firstSeq = e.Seq
		t.Status = StatusDone
	case Cancelled:
		s.outcome, s.Reason = StatusCancelled, e.Reason
		s.revokeOpen(Steps()[:7])
	case Redo:
		for _, step := range append(dependents(e.Target), e.Target) {
			s.reset(s.at(step))
		}
	case Paused:
		s.paused, s.PauseReason = true, e.Reason
		for _, step := range Phases() {
			if t := s.at(step); t.Status == StatusIssued {
				t.revoke = true // nobody has begun: it is issued again when the sector is resumed
			}
		}
	case Resumed:
		s.paused, s.PauseReason = false, ""
	case Finished:
		s.outcome, s.ended = Status(e.Result.Code), e.At
		for i := range s.steps {
			s.steps[i].conclude()
		}
	}
}

// reset has a step done again, as far as it ever was.
func (s *Sector) reset(t *StepState) {
	switch {
	case t.open():
		t.revoke, t.redo = true, true
	case t.started():
		t.Status, t.redo = StatusWaiting, true
	}
	t.Result, t.transients = nil, 0
}

// conclude drops what an ended sector's step no longer needs.
func (t *StepState) conclude() {
	if t.Status == StatusWaiting {
		t.Status = StatusSkipped
	}
	t.Inputs = nil
	if t.Result != nil {
		r := *t.Result
		r.Outputs = nil
		t.Result = &r
	}
}

func (s *Sector) revokeOpen(steps []Step) {
	for _, step := range steps {
		if t := s.at(step); t.open() {
			t.revoke = true
		}
	}
}

// takeStep changes the state by an event of a step's chain that was checked.
func (s *Sector) takeStep(e *Event, t *StepState) {
	switch e.Type {
	case Issued:
		t.Issue, t.Attempt = e.Issue, e.Attempt
		t.Status, t.Host, t.ClaimID, t.Note, t.Fraction = StatusIssued, "", "", "", 0
		t.IssuedID, t.IssuedSeq, t.IssuedAt, t.NotBefore, t.Inputs = e.ID, e.Seq, e.At, e.NotBefore, e.Inputs
		t.redo, t.Result, t.stopping, t.Claims = false, nil, "", 0
	case Claimed:
		t.Status, t.Host, t.ClaimID, t.ClaimedAt = StatusRunning, e.Host, e.ClaimID, e.At
		t.Note, t.Fraction = "", 0
		t.Claims++
		if ip := e.Inputs[InputIP]; ip != "" && e.Step == P1 {
			t.IP = ip
		}
	case Progress:
		t.Note, t.Fraction = e.Note, e.Fraction
	case Released:
		t.Status, t.ClaimID, t.Note, t.Fraction = StatusIssued, "", "", 0
		t.Claims--
		t.revoke = s.paused && s.outcome == "" // as of all that nobody has begun
	case Done:
		t.Status, t.ClaimID, t.EndedAt, t.Result, t.transients = StatusDone, "", e.At, e.Result, 0
	case Failed:
		t.Status, t.ClaimID, t.EndedAt, t.Result = StatusFailed, "", e.At, e.Result
		t.transients++
		if e.Result.Class != Transient {
			t.transients = 0
		}
		if e.Step == Precommit && e.Result.Class == Permanent && s.outcome == "" {
			s.outcome, s.Reason = StatusFailed, e.Result.Message
		}
		if FallsBack(e.Step, e.Result) && s.outcome == "" {
			s.fallBack(e)
		}
	case Cancelled:
		t.stopping = t.ClaimID
		t.Status, t.ClaimID, t.EndedAt, t.revoke = StatusWaiting, "", e.At, false
	case Stopped:
		t.stopping = ""
	}
}

// fallBack has p1 fail for a failure of a later step: its next attempt draws a new
// ticket, and is spent, so that a farm that is too slow for its tickets parks the sector
// at last instead of sealing it for ever.
func (s *Sector) fallBack(e *Event) {
	p1 := s.at(P1)
	if p1.Status != StatusDone {
		return
	}
	for _, step := range dependents(P1) {
		s.reset(s.at(step))
	}
	r := *e.Result
	r.Message = string(e.Step) + ": " + r.Message
	p1.Status, p1.EndedAt, p1.Result = StatusFailed, e.At, &r
}
