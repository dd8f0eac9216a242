// Package bus is sealfleet's use of NATS JetStream: the streams of events, tasks and
// tombstones, appending by compare-and-set, the hosts' leases, and an embedded server.
//
// # What keeps a phase's effect single
//
// Events of one (sector, step) form a chain. An event is appended only if the chain's
// last sequence is the one that its writer saw (compare-and-set on a subject filter, so
// that it holds over all writers), and carries the id of the event before it. A host that
// gets a task appends a claim with a random id before it works, and its completion
// chains to its own claim: whoever was overtaken cannot complete. Acknowledgements carry
// no authority. The work queue only says who shall try; the chain says who did.
//
// A log that lost what it had acknowledged would break all this without a sign, so every
// connection remembers how far the log went, and stops for good if it went back.
//
// # What keeps it going
//
// The events are the truth. A task that is missing (a purged queue, a stray
// acknowledgement) can be made again from its chain, because publishing a task that is
// there already is refused by the server and counts as success. A lost answer is no lost
// write: Append tells its own event from another's by reading the chain, so the same
// event may be appended again.
//
// # What it does not do
//
// A host that is cut off goes on working until its next heartbeat fails to read its
// chain; its output is discarded, but the electricity is spent. And whoever holds the
// dispatchers' key can write anything.
package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"sealfleet/internal/trace"
)

// ErrConflict is what errors.Is finds in a *ConflictError.
var ErrConflict = errors.New("the chain has moved on")

// ErrWentBack says that the log lost events that it had acknowledged. Nothing may go on:
// what the lost events had started would be started again.
var ErrWentBack = errors.New("the event log went backwards; stop the fleet, restore SEAL_EVENTS from a backup or a replica, and only then remove bus-seen*.json in the state directories")

// ErrNoConsumer says that a phase of a group has no durable consumer.
var ErrNoConsumer = errors.New("the phase has no durable consumer; make it with: dispatcher bus apply")

// ErrNoStream says that a stream is missing.
var ErrNoStream = errors.New("the stream does not exist; make it with: dispatcher bus apply")

// ErrUnreachable says that there is no connection, or no answer; what was written may or
// may not have arrived.
var ErrUnreachable = errors.New("NATS is unreachable")

// attemptTimeout is how long one request may take before it is made again.
const attemptTimeout = 5 * time.Second

// Bus is one connection to the fleet's streams. It is safe for concurrent use.
type Bus struct {
	cfg    Config
	client string
	log    *slog.Logger
	nc     *nats.Conn
	js     jetstream.JetStream

	mu       sync.Mutex
	down     error // why the connection is down
	wentBack error
	since    time.Time // of down
	up       time.Time // since when the connection stands

	seen  *seen
	pulls *pulls
	clock *clock

	setAside atomic.Uint64
}

func newBus(c Config, client string, log *slog.Logger) *Bus {
	if c.AckWait == 0 {
		c.AckWait = 2 * time.Minute
	}
	if c.Replicas == 0 {
		c.Replicas = 1
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	b := &Bus{cfg: c, client: client, log: log, seen: newSeen(c, log), clock: &clock{poke: make(chan struct{}, 1)}}
	b.pulls = newPulls(b)
	return b
}

// AckWait is how long a lease lasts without an extension.
func (b *Bus) AckWait() time.Duration { return b.cfg.AckWait }

// Heartbeat is how often a holder extends its lease.
func (b *Bus) Heartbeat() time.Duration { return b.cfg.Heartbeat() }

// Tracer tells of sectors to a collector; nil tells nothing.
func (b *Bus) Tracer() *trace.Tracer { return b.cfg.Tracer }

// SetAside counts the messages that could not be parsed and were set aside.
func (b *Bus) SetAside() uint64 { return b.setAside.Load() }

// Connected returns nil, or the reason why the bus cannot be used now.
func (b *Bus) Connected() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.wentBack != nil {
		return b.wentBack
	}
	if b.nc.IsConnected() {
		return nil
	}
	if b.down != nil {
		return fmt.Errorf("%w since %s: %w", ErrUnreachable, b.since.Format(time.RFC3339), b.down)
	}
	return ErrUnreachable
}

// UpSince is when the connection last came to stand. Others may still be on their way
// back after an outage of the server.
func (b *Bus) UpSince() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.up
}

// Stopped returns ErrWentBack if the log lost acknowledged events, else nil.
func (b *Bus) Stopped() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.wentBack
}

// Close closes the connection. What was not answered yet fails.
func (b *Bus) Close() {
	if b.nc != nil {
		b.nc.Close()
	}
	b.seen.save()
}

func (b *Bus) disconnected(err error) {
	if err == nil {
		err = errors.New("the connection was closed")
	}
	b.mu.Lock()
	b.down, b.since = err, time.Now()
	b.mu.Unlock()
	b.log.Warn("lost NATS, reconnecting", "error", err)
}

func (b *Bus) reconnected() {
	b.mu.Lock()
	away := time.Since(b.since)
	b.down, b.up = nil, time.Now()
	b.mu.Unlock()
	b.log.Info("NATS is back", "server", b.nc.ConnectedUrlRedacted(), "away", away.Round(time.Millisecond))
	b.pulls.renew() // the server has forgotten them
	ctx, cancel := context.WithTimeout(context.Background(), attemptTimeout)
	defer cancel()
	_ = b.checkLog(ctx) // it is logged and remembered
}

func (b *Bus) asyncError(err error) {
	if errors.Is(err, nats.ErrPermissionViolation) {
		// To the one who asked it looks like a timeout.
		b.log.Error("NATS denies a request; give this user the permissions of docs/operations", "error", err)
		return
	}
	b.log.Warn("NATS", "error", err)
}
