package phases

import "time"

// ActionKind says what a dispatcher must do.
type ActionKind string

// The kinds of actions.
const (
	DoIssue  ActionKind = "issue"  // append issued, and publish the task (not before NotBefore)
	DoRevoke ActionKind = "revoke" // append cancelled on the step's chain: its holder must stop
	DoFinish ActionKind = "finish" // append finished on the sector's chain, and archive it
)

// Action is one event that a dispatcher must append now. Appending is compare-and-set on
// ExpectSeq, so of many dispatchers that decide the same, one wins and the others lose
// without harm.
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
// dispatcher's name (DispatcherName), at its clock.
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
// the same events give the same actions, until the actions' own events are applied.
func Decide(s *Sector, p Policy) []Action { return nil }

// CheckRedo tells why a step cannot be done again, or nil. See Redo for what follows.
func CheckRedo(s *Sector, step Step) error { return nil }

// CheckCancel tells why the sector cannot be cancelled, or nil.
func CheckCancel(s *Sector) error { return nil }

// TaskFor returns the task of a step's open issue, with its inputs merged from the
// outputs of the steps before it and from the issued event; false if no issue is open.
func (s *Sector) TaskFor(step Step) (Task, bool) { return Task{}, false }
