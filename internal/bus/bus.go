// Package bus is sealfleet's use of NATS JetStream.
package bus

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"sealfleet/internal/phases"
)

var errNotBuilt = errors.New("not built yet")

// Bus is one connection to the fleet's streams.
type Bus struct{}

// Connect connects, and keeps trying until ctx ends: it logs each failure and never gives
// up on its own. Once connected it reconnects by itself for ever.
func Connect(ctx context.Context, c Config, clientName string, log *slog.Logger) (*Bus, error) {
	return nil, errNotBuilt
}

// Connected returns nil, or the reason why the bus cannot be used now.
func (b *Bus) Connected() error { return errNotBuilt }

// Close closes the connection.
func (b *Bus) Close() {}

// AckWait is the lease's length; Heartbeat how often to extend it.
func (b *Bus) AckWait() time.Duration   { return 0 }
func (b *Bus) Heartbeat() time.Duration { return 0 }

// Change is one line of a plan.
type Change struct {
	Kind   string `json:"kind"`   // stream or consumer
	Name   string `json:"name"`   // SEAL_TASKS, or SEAL_TASKS/group1-p1
	Action string `json:"action"` // create, update, none, foreign
	Detail string `json:"detail,omitempty"`
}

// Plan shows what Apply would make or change.
func (b *Bus) Plan(ctx context.Context, groups []string) ([]Change, error) { return nil, errNotBuilt }

// Apply makes the streams and consumers, and returns what it did.
func (b *Bus) Apply(ctx context.Context, groups []string) ([]Change, error) { return nil, errNotBuilt }

// ErrConflict is what errors.Is finds in a *ConflictError.
var ErrConflict = errors.New("the chain has moved on")

// ErrWentBack: the log lost acknowledged events. Nothing may go on.
var ErrWentBack = errors.New("the event log went backwards")

// ErrNoConsumer: the durable of a phase doesn't exist.
var ErrNoConsumer = errors.New("no such consumer")

// ErrUnreachable: no connection, or no answer.
var ErrUnreachable = errors.New("NATS is unreachable")

// ConflictError: another event is where this one was to be.
type ConflictError struct {
	Event phases.Event  // the one that lost
	Last  *phases.Event // the chain's last event now; nil if not known
}

func (c *ConflictError) Error() string        { return "conflict" }
func (c *ConflictError) Is(target error) bool { return target == ErrConflict }

// Append writes an event if the chain's last sequence is expectLast (0: the chain is
// empty; for Submitted: in every group). A lost race is a *ConflictError. It retries
// until ctx ends, and tells its own event from another's, so that calling it again with
// the same event is safe.
func (b *Bus) Append(ctx context.Context, e phases.Event, expectLast uint64) (uint64, error) {
	return 0, errNotBuilt
}

// Last reads a chain's last event, nil if there is none. Seq is set.
func (b *Bus) Last(ctx context.Context, group, sector string, step phases.Step) (*phases.Event, error) {
	return nil, errNotBuilt
}

// History reads all events of a sector in stream order.
func (b *Bus) History(ctx context.Context, sector string) ([]phases.Event, error) {
	return nil, errNotBuilt
}

// Replay calls fn for every event up to now.
func (b *Bus) Replay(ctx context.Context, fn func(phases.Event) error) (lastSeq uint64, err error) {
	return 0, errNotBuilt
}

// Follow calls fn for every event from sequence from on, in order, until ctx ends or fn
// fails. What cannot be parsed comes as an event with V 0 and the tokens of its subject,
// which the fold rejects.
func (b *Bus) Follow(ctx context.Context, from uint64, fn func(phases.Event) error) error {
	return errNotBuilt
}

// Delivery is one event to be acted on by exactly one dispatcher.
type Delivery struct {
	Event phases.Event
	Raw   []byte
}

// Ack, Nak and SetAside end the delivery.
func (d Delivery) Ack() error                    { return errNotBuilt }
func (d Delivery) Nak(delay time.Duration) error { return errNotBuilt }
func (d Delivery) SetAside(reason string) error  { return errNotBuilt }

// Work calls fn for the events that fall to this dispatcher: in parallel, but for each
// sector one after the other in the order of delivery. It returns when ctx ends.
func (b *Bus) Work(ctx context.Context, fn func(context.Context, Delivery)) error {
	return errNotBuilt
}

// PublishTask publishes a task; if it is there already, that is success. With NotBefore
// in the future the bus holds it back until then.
func (b *Bus) PublishTask(ctx context.Context, t phases.Task) error { return errNotBuilt }

// TaskExists tells whether a task's message is in the stream, delivered or not.
func (b *Bus) TaskExists(ctx context.Context, group string, step phases.Step, sector string, issue int) (bool, error) {
	return false, errNotBuilt
}

// Lease is one task that was given to this host until AckWait passes without Extend.
type Lease struct {
	Task       phases.Task
	Deliveries int // 1: the first time that the task is given to anybody
}

// Extend, Ack (waits for the server's answer), Nak and Term.
func (l *Lease) Extend() error                 { return errNotBuilt }
func (l *Lease) Ack(ctx context.Context) error { return errNotBuilt }
func (l *Lease) Nak(delay time.Duration) error { return errNotBuilt }
func (l *Lease) Term(reason string) error      { return errNotBuilt }

// Reply is the subject that the lease's answers go to: what a journal keeps.
func (l *Lease) Reply() string { return "" }

// Resume makes a lease again after a restart.
func (b *Bus) Resume(t phases.Task, reply string) *Lease { return nil }

// Fetch waits up to maxWait for exactly one task. nil, nil: nothing came.
func (b *Bus) Fetch(ctx context.Context, group string, step phases.Step, maxWait time.Duration) (*Lease, error) {
	return nil, errNotBuilt
}

// Tombstone is what remains of a sector.
type Tombstone struct {
	V       int           `json:"v"`
	Group   string        `json:"group"`
	Sector  string        `json:"sector"`
	Outcome phases.Status `json:"outcome"`
	Reason  string        `json:"reason,omitempty"`
	At      time.Time     `json:"at"`
}

// Archive lays down a sector's tombstone; a second time is success.
func (b *Bus) Archive(ctx context.Context, sector string, t Tombstone) error { return errNotBuilt }

// Archived reads a sector's tombstone, nil if there is none.
func (b *Bus) Archived(ctx context.Context, sector string) (*Tombstone, error) {
	return nil, errNotBuilt
}
