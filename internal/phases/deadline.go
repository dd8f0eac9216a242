package phases

import "time"

// The chain's deadlines reach the steps as inputs: wall-clock times in RFC 3339 that the
// dispatcher works out from the chain's epochs when it draws a ticket, and when the
// precommit has landed.
const (
	// InputPrecommitBy is an input of p1: when a precommit with its ticket must be on chain.
	InputPrecommitBy = "precommit_by"
	// InputCommitBy is an output of the precommit: when the proof must be on chain.
	InputCommitBy = "commit_by"
)

// Deadline is when the chain no longer takes what a step works for.
type Deadline struct {
	At   time.Time // zero: never
	Code string    // of the failure after it: CodeTicketExpired or CodeCommitExpired
}

// Passed tells whether the time is up.
func (d Deadline) Passed(now time.Time) bool { return !d.At.IsZero() && now.After(d.At) }

// HasDeadline tells whether the chain waits for what a step works for. p5 and p6 have no
// deadline: what is sealed is worth its copy, and cleaning is never too late.
func HasDeadline(step Step) bool { return step != P5 && step != P6 && step != SectorEnd }

// DeadlineOf returns the deadline of a step whose inputs these are.
func DeadlineOf(step Step, inputs map[string]string) Deadline {
	d := Deadline{Code: CodeTicketExpired}
	key := InputPrecommitBy
	switch step {
	case P1, P2, Precommit:
	case P3, P4, Commit:
		d.Code, key = CodeCommitExpired, InputCommitBy
	default:
		return Deadline{}
	}
	if at, err := time.Parse(time.RFC3339, inputs[key]); err == nil {
		d.At = at
	}
	return d
}

// Deadline returns the sector's next deadline: that of the precommit until it has landed,
// then that of the proof until that has. Zero if the chain gave none, or none is left.
func (s *Sector) Deadline() Deadline {
	switch {
	case s.outcome != "" || s.at(Commit).Status == StatusDone:
		return Deadline{}
	case s.at(Precommit).Status != StatusDone:
		return DeadlineOf(P1, s.at(P1).Inputs)
	case s.at(Precommit).Result == nil:
		return Deadline{}
	}
	return DeadlineOf(P4, s.at(Precommit).Result.Outputs)
}
