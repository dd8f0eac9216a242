package bus

import (
	"context"
	"fmt"
	"sync"
	"time"

	"sealfleet/internal/phases"
)

// clock makes one clock out of those of many machines: the NATS server's. What one machine
// writes and another compares with its own time (until when a task waits, when a deadline
// is over, when something happened) is told by it. A machine's own clock is believed as
// long as it agrees with the server's; otherwise the time is reckoned from the server's,
// as it was asked for last, and from the machine's monotonic clock, which nobody sets.
type clock struct {
	mu     sync.Mutex
	server time.Time     // what the server said; zero: nobody asked it yet
	local  time.Time     // the moment here, with its monotonic reading
	sure   time.Duration // half of the round trip
	poke   chan struct{} // this machine's clock was set: ask again
	wrong  bool          // it was not believed last time
	asking sync.Mutex    // for the first time: one asks for all
}

// clockSlack is how far this machine's clock may be from the server's and be believed:
// more than a time service ever leaves, and less than anything that is compared.
const clockSlack = time.Second

// Now is the fleet's time. It never fails: before the server was asked (LearnClock) it is
// this machine's clock. A time that was reckoned has no monotonic reading, so
// measure durations with time.Now.
func (b *Bus) Now() time.Time { return b.clock.now(time.Now()) }

func (c *clock) now(here time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server.IsZero() {
		return here
	}
	there := c.server.Add(here.Sub(c.local)) // by the monotonic clock
	if off := here.Round(0).Sub(there).Abs(); off > clockSlack+c.sure {
		if !c.wrong {
			c.wrong = true
			select {
			case c.poke <- struct{}{}:
			default:
			}
		}
		return there
	}
	c.wrong = false
	return here
}

// LearnClock asks the server for the time if it has never answered yet, about a phase's queue,
// which hosts may ask about. Nobody may judge by a clock before that: it may be wrong by days.
func (b *Bus) LearnClock(ctx context.Context, group string, step phases.Step) error {
	b.clock.asking.Lock()
	defer b.clock.asking.Unlock()
	if b.clock.known() {
		return nil
	}
	return b.setClock(ctx, group, step)
}

// FollowClock asks the server for the time, now and again, until ctx ends.
func (b *Bus) FollowClock(ctx context.Context, group string, step phases.Step) {
	const (
		every = time.Minute
		soon  = 5 * time.Second // after a failure
	)
	for ask := b.LearnClock; ; ask = b.setClock { // who starts it has often learnt it a moment ago
		next := every
		if err := ask(ctx, group, step); err != nil {
			b.log.Debug("could not ask the server for the time", "error", err)
			next = soon
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-b.clock.poke:
			timer.Stop()
		case <-timer.C:
		}
	}
}

func (b *Bus) setClock(ctx context.Context, group string, step phases.Step) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	server, local, sure, err := b.askClock(ctx, group, step)
	if err != nil {
		return fmt.Errorf("ask the server for the time: %w", err)
	}
	b.clock.set(server, local, sure)
	if off := local.Round(0).Sub(server); off.Abs() > clockSlack+sure {
		b.log.Warn("this machine's clock is wrong, and is not believed: start a time service (chrony or systemd-timesyncd) here and on the server",
			"ahead_of_the_server", off.Round(time.Millisecond).String(), "give_or_take", sure.Round(time.Microsecond).String())
	}
	return nil
}

func (c *clock) known() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.server.IsZero()
}

func (c *clock) set(server, local time.Time, sure time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.server, c.local, c.sure = server, local, sure
}

// Clock tells how far this host's clock is ahead of the server's (negative: behind), and
// how sure that is.
func (b *Bus) Clock(ctx context.Context, group string, step phases.Step) (ahead, sure time.Duration, err error) {
	server, local, sure, err := b.askClock(ctx, group, step)
	// Wall clocks are compared, without the monotonic one.
	return local.Round(0).Sub(server), sure, err
}

// askClock returns the server's time and the moment here that belongs to it, give or take
// half of the fastest of some round trips. The server tells its time in what it says of the
// log, and to hosts, which may not ask for that, in what it says of a phase's durable consumer.
func (b *Bus) askClock(ctx context.Context, group string, step phases.Step) (server, local time.Time, sure time.Duration, err error) {
	const tries = 4
	if err := checkTokens(group, "-", step, "-"); err != nil {
		return server, local, 0, err
	}
	for i := range tries {
		var info struct {
			At time.Time `json:"ts"`
		}
		subject := "$JS.API.STREAM.INFO." + EventsStream
		if b.cfg.Role == RoleHost {
			subject = "$JS.API.CONSUMER.INFO." + TasksStream + "." + Durable(group, step)
		}
		sent := time.Now()
		switch err := b.api(ctx, subject, struct{}{}, &info); {
		case isCode(err, codeNoConsumer):
			return server, local, 0, fmt.Errorf("%s/%s: %w", TasksStream, Durable(group, step), ErrNoConsumer)
		case isCode(err, codeNoStream):
			return server, local, 0, ErrNoStream
		case err != nil:
			return server, local, 0, err
		}
		if half := time.Since(sent) / 2; i == 0 || half < sure {
			server, local, sure = info.At, sent.Add(half), half
		}
	}
	return server, local, sure, nil
}
