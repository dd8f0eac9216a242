package bus

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"sealfleet/internal/phases"
	"sealfleet/internal/trace"

	"github.com/nats-io/nats.go"
)

// Lease is one task that was given to this host. It lasts AckWait from the delivery or
// the last Extend; then the task is given to somebody else, and this host isn't told.
// None of its answers carries authority: see the package comment.
type Lease struct {
	Task       phases.Task
	Deliveries int // 1: the task was never given to anybody before
	// Trace is the message's header traceparent; empty: it has none.
	Trace string

	b     *Bus
	reply string
}

// Reply is the subject that the lease's answers go to: what a host's journal keeps. It
// stays valid over restarts of the host and of the server.
func (l *Lease) Reply() string { return l.reply }

// Resume makes a lease again from what a journal kept.
func (b *Bus) Resume(t phases.Task, reply string) *Lease {
	return &Lease{Task: t, Deliveries: deliveries(reply), b: b, reply: reply}
}

// Extend lets the lease last AckWait from now. Read the chain before: an extension by a
// holder that was overtaken would keep the new holder's lease alive.
func (l *Lease) Extend() error { return l.tell("+WPI") }

// Ack removes the task from the queue, and waits until the server says so.
func (l *Lease) Ack(ctx context.Context) error {
	_, err := l.b.request(ctx, &nats.Msg{Subject: l.reply, Data: []byte("+ACK")})
	return err
}

// Nak gives the task back; it is given out again after the delay.
func (l *Lease) Nak(delay time.Duration) error { return l.tell(nak(delay)) }

// Term removes a task that nobody can do. The reason shows in the server's advisories.
func (l *Lease) Term(reason string) error { return l.tell("+TERM " + reason) }

func (l *Lease) tell(what string) error {
	if err := l.b.nc.Publish(l.reply, []byte(what)); err != nil {
		return unreachable(err)
	}
	return nil
}

func nak(delay time.Duration) string {
	if delay <= 0 {
		return "-NAK"
	}
	return fmt.Sprintf(`-NAK {"delay": %d}`, delay.Nanoseconds())
}

// deliveries reads from a reply subject how often the message was given out, 0 if it
// can't. Its forms: $JS.ACK.<stream>.<durable>.<deliveries>.…, and with domain and
// account before the stream.
func deliveries(reply string) int {
	t := strings.Split(reply, ".")
	at := 4
	if len(t) >= 11 {
		at = 6
	}
	if len(t) <= at {
		return 0
	}
	n, err := strconv.Atoi(t[at])
	if err != nil {
		return 0
	}
	return n
}

// Fetch waits up to maxWait for exactly one task of a phase, or with 0 asks for one that
// is there already; nil, nil means that none came. Call it only for a slot that is free:
// a task that comes after Fetch gave up is handed back at once. A message that is no task is set aside, and the wait goes on.
func (b *Bus) Fetch(ctx context.Context, group string, step phases.Step, maxWait time.Duration) (*Lease, error) {
	if err := checkTokens(group, "-", step, "-"); err != nil {
		return nil, err
	}
	if err := b.LearnClock(ctx, group, step); err != nil {
		return nil, err
	}
	until := time.Now().Add(maxWait)
	for {
		if err := b.Stopped(); err != nil {
			return nil, err
		}
		m, err := b.pulls.one(ctx, Durable(group, step), left(until))
		if m == nil || err != nil {
			return nil, err
		}
		l := &Lease{Deliveries: deliveries(m.Reply), Trace: m.Header.Get(trace.Header), b: b, reply: m.Reply}
		l.Task, err = decodeTask(m.Subject, m.Data)
		switch {
		case err != nil:
			b.setAsideTask(ctx, l, m, group, err)
		case l.Task.V > phases.Newest:
			b.leaveToNewer(ctx, l, m)
		case l.Task.NotBefore.After(b.Now()):
			_ = l.Nak(l.Task.NotBefore.Sub(b.Now())) // lost: it comes again after AckWait
		default:
			return l, nil
		}
	}
}

// StopFetching ends all fetching for good: what Fetch still waits for does not come, and what
// the server was about to give goes back to it. Call it before the last tasks are handed
// back. It fails with ErrUnreachable if the server does not confirm within ctx; then too
// nothing more is fetched.
func (b *Bus) StopFetching(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	return b.pulls.stop(ctx)
}

// left is how long it is until then; below a millisecond it is nothing.
func left(until time.Time) time.Duration {
	if d := time.Until(until); d >= time.Millisecond {
		return d
	}
	return 0
}

func clip(data []byte) string {
	const enough = 200
	if len(data) > enough {
		return string(data[:enough]) + "…"
	}
	return string(data)
}
