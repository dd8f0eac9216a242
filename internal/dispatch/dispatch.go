// Package dispatch turns events into the next tasks.
//
// A dispatcher reads the event log twice. As a follower it folds every event, in the
// order of the log, into the state of every sector (the board). As a worker it takes its
// share of the durable consumer that all dispatchers have in common, and for each event
// that can make something due (a step ended, a sector was submitted, an operator spoke)
// it asks phases.Decide what, appends the issued events, publishes the tasks, and only
// then acknowledges the delivery.
//
// Safety. Nothing is decided by who asks first, only by the log: every event is appended
// with the sequence that its chain must end with, so of any number of dispatchers that
// decide the same, one succeeds and the others read what happened and decide again.
// A dispatcher decides on a delivery only after its follower has passed the delivery's
// sequence. The log is one order: of two events that complete a join (p4 and p5 before
// p6), the later one's dispatcher has seen the earlier one. So no join is missed, and
// none needs a read from the leader: the follower's position says what a read from the
// leader would, without the round trip.
//
// Liveness. A dispatcher may stop at any instruction (the comments FAIL say what is left
// behind). What it had not acknowledged is delivered again; what every other one's
// follower saw is looked at again a moment later (aftercare): whatever is still due then
// is done by whoever looks first. The sweeper, now and then, compares the open issues
// with the task stream and publishes what a purge or a stray acknowledgement removed.
//
// So every submitted sector ends finished, failed with a reason or cancelled, or is parked
// with its reason until an operator says which; and whatever is issued is issued once.
//
// Gaps. A task that was removed while its host works on it is published again only when
// the host's chain has been silent for Options.Silence; if the host was alive all the
// same, the work is taken over and done twice, though its effect is recorded once. A task
// that is there and comes to nobody is exchanged after the same time (see stuck.go).
package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"sealfleet/internal/bus"
	"sealfleet/internal/chain"
	"sealfleet/internal/phases"
)

// Options are what a dispatcher needs besides a bus.
type Options struct {
	// Name tells this dispatcher from others in the log of events: letters, digits, - and _.
	Name   string
	Policy phases.Policy
	Chain  chain.Chain
	Log    *slog.Logger
	// Groups are those whose streams and consumers the sweeper makes again if somebody
	// deleted them; empty: it leaves the bus as it is.
	Groups []string
	// Metrics counts what happens; nil: nothing is counted.
	Metrics *Metrics
	// HoldP1 is how many sectors of a group may be in flight (from p1's issue until p6 is
	// done) before no further one is started; 0: any number. All dispatchers should have
	// the same: the most generous one's counts.
	HoldP1 int
	// Window is how many unclaimed tasks of a group's phase are in the stream at most, the
	// most urgent ones; 0 stands for DefaultWindow, -1 for all.
	Window int
	// Grace is how long another dispatcher gets for what is due before this one does it.
	Grace time.Duration
	// SweepEvery is how often the open issues are compared with the task stream.
	SweepEvery time.Duration
	// Silence is how long a running step whose task is gone may write nothing before its
	// task is published again.
	Silence time.Duration
	// StopWait is how long a host may take to say that a phase that was cancelled has
	// stopped; 0: twice the lease.
	StopWait time.Duration
	// GatePoll is how soon to ask a chain again that gave no time, or an error.
	GatePoll time.Duration

	// hook is called at each point where a crash may strike; an error is the crash.
	hook func(point string) error
}

// DefaultWindow is more than all hosts together claim in the milliseconds until the next
// task follows, and few enough that what is urgent does not wait long.
const DefaultWindow = 64

func (o *Options) withDefaults() Options {
	d := *o
	if d.Policy.MaxAttempts == 0 {
		d.Policy = phases.DefaultPolicy()
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Window == 0 {
		d.Window = DefaultWindow
	}
	if d.Grace == 0 {
		d.Grace = time.Second
	}
	if d.SweepEvery == 0 {
		d.SweepEvery = 15 * time.Second
	}
	if d.Silence == 0 {
		d.Silence = 10 * time.Minute
	}
	if d.GatePoll == 0 {
		d.GatePoll = 5 * time.Second
	}
	if d.Metrics == nil {
		d.Metrics = NewMetrics()
	}
	return d
}

// Dispatcher is one of many equals on a bus.
type Dispatcher struct {
	Options
	bus    *bus.Bus
	actor  string // phases.DispatcherName(Name)
	board  *board
	agenda *agenda
	farmMu sync.Mutex
	farm   *FarmView
	farmAt time.Time
	caught atomic.Bool // the follower has read what was there at start
	broken atomic.Pointer[error]

	unstuck  map[bus.TaskKey]time.Time // the sweeper's: see stuckLook
	unserved map[bus.TaskKey]bool      // the sweeper's: see clearQueue
	orphaned []string
}

// New makes a dispatcher; Run runs it.
func New(b *bus.Bus, o Options) *Dispatcher {
	if o.StopWait == 0 {
		o.StopWait = 2 * b.AckWait()
	}
	d := &Dispatcher{Options: o.withDefaults(), bus: b, actor: phases.DispatcherName(o.Name), unstuck: map[bus.TaskKey]time.Time{}}
	d.board = newBoard(d.Policy, d.HoldP1, max(d.Window, 0))
	d.board.now = b.Now
	d.agenda = newAgenda()
	d.Metrics.watch(d.board)
	return d
}

// Ready returns nil once the dispatcher has read the log and works, or why it does not.
func (d *Dispatcher) Ready() error {
	if err := d.broken.Load(); err != nil {
		return *err
	}
	if err := d.bus.Connected(); err != nil {
		return err
	}
	if !d.caught.Load() {
		return fmt.Errorf("still reading the event log (at sequence %d)", d.board.position())
	}
	return nil
}

// Status is what a dispatcher tells of itself on the bus.
type Status struct {
	Name     string `json:"name"`
	Ready    bool   `json:"ready"`
	Why      string `json:"why,omitempty"` // it is not
	Position uint64 `json:"position"`      // sequence of the last event read
	Open     int    `json:"open_sectors"`
}

// Status says how the dispatcher is.
func (d *Dispatcher) Status() Status {
	s := Status{Name: d.Name, Ready: true, Position: d.board.position(), Open: d.board.open()}
	if err := d.Ready(); err != nil {
		s.Ready, s.Why = false, err.Error()
	}
	return s
}

// Run reads the log, then works until ctx ends. Trouble with the bus is waited out; an
// error means that nothing may go on (bus.ErrWentBack).
func (d *Dispatcher) Run(ctx context.Context) error {
	started := time.Now()
	last, err := d.replay(ctx)
	if err != nil || ctx.Err() != nil {
		return err
	}
	d.Farm() // works every sector's line out, so that the first who asks need not wait for that
	d.board.live.Store(true)
	d.caught.Store(true)
	d.Log.Info("read the event log", "sequence", last, "sectors", d.board.open(), "seconds", time.Since(started).Seconds())

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.keep(ctx, "follow the event log", d.followOn) })
	g.Go(func() error {
		return d.keep(ctx, "work on events", func(ctx context.Context) error { return d.bus.Work(ctx, d.handle) })
	})
	g.Go(func() error { return d.care(ctx) })
	g.Go(func() error { return d.sweep(ctx) })
	g.Go(func() error { return d.keep(ctx, "listen to hosts", d.listen) })
	d.lookAtAll()
	if err := g.Wait(); err != nil {
		d.broken.Store(&err)
		return err
	}
	return nil
}

// replay reads the log up to now, again from where it broke off.
func (d *Dispatcher) replay(ctx context.Context) (last uint64, err error) {
	err = d.keep(ctx, "read the event log", func(ctx context.Context) (err error) {
		last, err = d.bus.Replay(ctx, func(e phases.Event) error {
			if e.Seq > d.board.position() {
				d.board.take(e)
			}
			return ctx.Err()
		})
		return err
	})
	return last, err
}

func (d *Dispatcher) followOn(ctx context.Context) error {
	return d.bus.Follow(ctx, d.board.position()+1, func(e phases.Event) error {
		d.follow(e)
		return nil
	})
}

// listen hears what hosts tell of themselves: for the metrics, and what is made of them.
func (d *Dispatcher) listen(ctx context.Context) error {
	stopHosts, err := d.bus.WatchHosts(d.Metrics.hosts.hear)
	if err != nil {
		return err
	}
	defer stopHosts()
	stopAudits, err := d.bus.WatchAudits(d.Metrics.hosts.audited)
	if err != nil {
		return err
	}
	defer stopAudits()
	<-ctx.Done()
	return nil
}

// keep runs f again after trouble, until it returns nil, ctx ends, or the log went back.
func (d *Dispatcher) keep(ctx context.Context, what string, f func(context.Context) error) error {
	const longest = 5 * time.Second
	for delay := 50 * time.Millisecond; ; delay = min(2*delay, longest) {
		began := time.Now()
		err := f(ctx)
		switch {
		case err == nil, ctx.Err() != nil:
			return nil //nolint:nilerr // told to stop: whatever the bus says then is no trouble
		case errors.Is(err, bus.ErrWentBack):
			return fmt.Errorf("%s: %w", what, err)
		}
		if time.Since(began) > longest {
			delay = 50 * time.Millisecond
		}
		d.Log.Warn("trouble with the bus; trying again", "what", what, "error", err, "in", delay)
		if !pause(ctx, delay) {
			return nil
		}
	}
}

// follow takes one event from the log, counts it, and has the sector looked at again
// once everybody had time to do what follows from it.
func (d *Dispatcher) follow(e phases.Event) {
	change := d.board.take(e)
	d.Metrics.count(e, change)
	d.board.feed.put(e)
	if change.rejected != nil {
		d.Log.Warn("an event is not believed", "group", e.Group, "sector", e.Sector, "phase", string(e.Step),
			"host", e.Host, "type", string(e.Type), "sequence", e.Seq, "reason", string(change.rejected.Reason), "detail", change.rejected.Detail)
	}
	if change.entry != nil && (change.rejected != nil || e.Type != phases.Progress && e.Type != phases.Claimed) {
		d.lookLater(change.entry, d.Grace)
	}
	if change.entered != nil {
		d.agenda.add(change.entered, time.Now())
	}
	if change.freed {
		for _, s := range d.board.flows.next(e.Group) {
			d.lookLater(s, d.Grace)
		}
	}
}

// lookLater puts a sector on the agenda, after delay and up to as long again, so that
// dispatchers do not all look at once.
func (d *Dispatcher) lookLater(s *sector, delay time.Duration) {
	d.agenda.add(s, time.Now().Add(delay+rand.N(delay+1)))
}

// lookAt puts a sector on the agenda for a time of the fleet, which this machine's clock may
// not show.
func (d *Dispatcher) lookAt(s *sector, at time.Time) {
	d.agenda.add(s, time.Now().Add(at.Sub(d.bus.Now())))
}

func (d *Dispatcher) at(point string) error {
	if d.hook == nil {
		return nil
	}
	return d.hook(point)
}

func pause(ctx context.Context, delay time.Duration) bool {
	t := time.NewTimer(delay)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
