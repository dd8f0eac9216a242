package phases

import "time"

// Status says where a step or a sector stands.
type Status string

// The statuses. A step is waiting, issued, running, done, failed or skipped; a sector is
// sealing, parked, failed, cancelled or finished.
const (
	StatusWaiting Status = "waiting" // for the steps before it, or for its next issue
	StatusIssued  Status = "issued"  // the task is out, nobody has claimed it
	StatusRunning Status = "running" // claimed
	StatusDone    Status = "done"
	StatusSkipped Status = "skipped" // the sector ends, or ended, without it
	// StatusFailed of a step may lead to another issue (see StepState.Parked); of a
	// sector it is the end: the precommit was refused for good, only p6 remains.
	StatusFailed Status = "failed"

	StatusSealing   Status = "sealing"
	StatusParked    Status = "parked"    // stopped at a step until an operator redoes it or cancels
	StatusCancelled Status = "cancelled" // by an operator; p6 may still be to come
	StatusFinished  Status = "finished"
)

// StepState is where one step stands.
type StepState struct {
	Step      Step
	Status    Status
	Issue     int       // of the last issued event, 0 before the first; numbers may be skipped
	Attempt   int       // of that issue's series
	Host      string    // of the last claim
	ClaimID   string    // the current claim's; empty unless running
	LastID    string    // the last valid event: the next one's PrevID
	LastSeq   uint64    // the last event on the chain, valid or not: the next one's expected sequence
	IssuedID  string    // the event of the open issue
	IssuedSeq uint64    // its sequence
	NotBefore time.Time // of the open issue
	IssuedAt  time.Time
	ClaimedAt time.Time
	EndedAt   time.Time
	Note      string  // of the last progress
	Fraction  float64 // of the last progress, 0 to 1
	Claims    int     // of the open issue: above 1 it was taken over
	IP        string  // of p1: where its last claim works, see InputIP
	Result    *Result // of the last done or failed
	Inputs    map[string]string

	transients int    // consecutive transient failures
	disturbed  bool   // an event that was not believed is the chain's last
	revoke     bool   // open, but its work is no longer wanted
	redo       bool   // may be issued again although it is done or permanently failed
	stopping   string // the claim that was cancelled, until its holder is known to have stopped
}

// Stopping returns the claim whose work was cancelled and that may still run somewhere;
// empty if there is none. Host is its holder's.
func (t StepState) Stopping() string { return t.stopping }

// open tells whether the step's task is out: issued or claimed.
func (t *StepState) open() bool { return t.Status == StatusIssued || t.Status == StatusRunning }

// started tells whether the step was ever issued. (Its issue number may be above 0 all
// the same: see Apply.)
func (t *StepState) started() bool { return t.IssuedID != "" }

// issuable tells whether an issued event may come next. A step that is open may be
// issued again only if something that is not believed lies at its chain's end: whoever
// reads the chain's last event then can't go on from there.
func (t *StepState) issuable() bool {
	switch t.Status {
	case StatusWaiting:
		return true
	case StatusFailed:
		return t.redo || t.Result.Class != Permanent
	case StatusIssued, StatusRunning:
		return t.disturbed && !t.revoke
	}
	return false
}

// nextAttempt is the attempt that the next issue has: a retryable failure spends one.
func (t *StepState) nextAttempt() int {
	switch {
	case !t.started() || t.redo:
		return 1
	case t.Status == StatusFailed && t.Result.Class == Retryable:
		return t.Attempt + 1
	}
	return t.Attempt
}

// Parked tells whether the step waits for an operator: its last failure is permanent, or
// was its last attempt.
func (t StepState) Parked(p Policy) bool {
	if t.Status != StatusFailed || t.redo || t.Result == nil {
		return false
	}
	switch t.Result.Class {
	case Transient:
		return false
	case Permanent:
		return true
	}
	return t.Attempt >= p.MaxAttempts
}

// Sector is the state of one sector: what follows from its events. The zero value is not
// usable; NewSector makes one that has no events yet.
//
// It is filled by Apply in stream order, and is not safe for concurrent use.
type Sector struct {
	Group  string
	ID     string // SectorID
	Spec   Spec
	Reason string // of the cancellation, or of the failure that ended it
	// PauseReason is why the sector is paused.
	PauseReason string

	steps     [9]StepState // in the order of Steps(), then the sector's own chain
	submitted time.Time
	firstSeq  uint64 // of the submission
	ended     time.Time
	outcome   Status // finished, failed or cancelled, once decided
	paused    bool   // nothing new begins
	newer     bool   // an event of a newer version was seen: leave the sector to a newer dispatcher
	seq       uint64 // the highest sequence applied
}

// NewSector returns the state of a sector that nothing is known of.
func NewSector() *Sector {
	s := &Sector{}
	for i, step := range Steps() {
		s.steps[i] = StepState{Step: step, Status: StatusWaiting}
	}
	s.steps[8] = StepState{Step: SectorEnd, Status: StatusWaiting}
	return s
}

// Known tells whether the sector was submitted.
func (s *Sector) Known() bool { return !s.submitted.IsZero() }

// Submitted is when the sector was submitted.
func (s *Sector) Submitted() time.Time { return s.submitted }

// SubmittedSeq is the stream's sequence of the submission: the order of sectors.
func (s *Sector) SubmittedSeq() uint64 { return s.firstSeq }

// Ended is when the sector's last event came, or zero: nothing more happens after it.
func (s *Sector) Ended() time.Time { return s.ended }

// Seq is the highest stream sequence that was applied.
func (s *Sector) Seq() uint64 { return s.seq }

// GivenUp returns failed or cancelled if only p6 is left to be done, else "".
func (s *Sector) GivenUp() Status {
	if s.outcome == StatusFailed || s.outcome == StatusCancelled {
		return s.outcome
	}
	return ""
}

// Paused tells whether an operator has nothing new begun.
func (s *Sector) Paused() bool { return s.paused }

// Step returns where a step stands. SectorEnd gives the sector's own chain, whose LastID
// and LastSeq a cancelled or redo event needs.
func (s *Sector) Step(step Step) StepState { return *s.at(step) }

// at returns the state of a step, which must be one of Steps or SectorEnd.
func (s *Sector) at(step Step) *StepState {
	for i := range s.steps {
		if s.steps[i].Step == step {
			return &s.steps[i]
		}
	}
	panic("phases: no such step: " + string(step))
}

// Parked lists the steps that wait for an operator, with their failures in Result.
func (s *Sector) Parked(p Policy) []StepState {
	var parked []StepState
	if s.Status(p) == StatusParked {
		for i := range s.steps {
			if s.steps[i].Parked(p) {
				parked = append(parked, s.steps[i])
			}
		}
	}
	return parked
}

// Status says where the sector stands.
func (s *Sector) Status(p Policy) Status {
	if s.ended.IsZero() {
		for i := range s.steps {
			t := &s.steps[i]
			if t.Parked(p) && (s.outcome == "" || t.Step == P6) {
				return StatusParked
			}
		}
	}
	if s.outcome != "" {
		return s.outcome
	}
	return StatusSealing
}
