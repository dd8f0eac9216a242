package phases

import "errors"

// Why an event was not believed.
type Reason string

// The reasons.
const (
	Duplicate   Reason = "duplicate"    // it was applied already
	Stale       Reason = "stale"        // it does not chain to the last event, or holds an old claim
	Early       Reason = "early"        // the steps before it are not done
	Over        Reason = "over"         // the sector was cancelled, or has ended
	Forbidden   Reason = "forbidden"    // its writer may not write it
	Malformed   Reason = "malformed"    // it contradicts itself
	NewerFormat Reason = "newer_format" // written by a newer release; set aside
	Unreadable  Reason = "unreadable"   // no event at all; set aside
)

// Rejected is the error of an event that was not believed. The state is as before,
// except that the chain's last sequence is known.
type Rejected struct {
	Event  Event
	Reason Reason
	Detail string
}

func (r *Rejected) Error() string {
	return "event " + r.Event.ID + " (" + string(r.Event.Type) + " " + string(r.Event.Step) + " of " + r.Event.Sector +
		" by " + r.Event.Host + ") is not believed: " + string(r.Reason) + ": " + r.Detail
}

// Apply takes the sector's next event, in stream order. An event that does not chain to
// what came before is rejected with *Rejected; the state does not change.
func (s *Sector) Apply(e Event) error { return errors.New("not built yet") }
