package dispatch

import (
	"container/heap"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"sealfleet/internal/bus"
	"sealfleet/internal/phases"
)

// agenda says which sectors are to be looked at, and when. A sector is on it once, at
// the earliest of the times asked for.
type agenda struct {
	mu    sync.Mutex
	items agendaHeap
	wake  chan struct{}
}

// agendaItem is a sector's place on the agenda.
type agendaItem struct {
	at    time.Time
	index int // in the heap, from 1; 0: not on the agenda
}

func newAgenda() *agenda { return &agenda{wake: make(chan struct{}, 1)} }

func (a *agenda) add(s *sector, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case s.due.index == 0:
		s.due.at = at
		heap.Push(&a.items, s)
	case at.Before(s.due.at):
		s.due.at = at
		heap.Fix(&a.items, s.due.index-1)
	default:
		return
	}
	if a.items[0] == s {
		select {
		case a.wake <- struct{}{}:
		default:
		}
	}
}

// next returns the sectors whose time has come, and how long until the next one's.
func (a *agenda) next(now time.Time) (due []*sector, wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.items) > 0 {
		if wait = a.items[0].due.at.Sub(now); wait > 0 {
			return due, wait
		}
		due = append(due, heap.Pop(&a.items).(*sector))
	}
	return due, time.Hour
}

type agendaHeap []*sector

func (h agendaHeap) Len() int           { return len(h) }
func (h agendaHeap) Less(i, j int) bool { return h[i].due.at.Before(h[j].due.at) }
func (h agendaHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].due.index, h[j].due.index = i+1, j+1
}

func (h *agendaHeap) Push(x any) {
	s := x.(*sector)
	*h = append(*h, s)
	s.due.index = len(*h)
}

func (h *agendaHeap) Pop() any {
	old := *h
	s := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	s.due.index = 0
	return s
}

// lookAtAll puts every sector on the agenda, spread over two graces: after a start
// nobody knows what the one before left undone. Of those that have ended, the last ones
// may lack their tombstone.
func (d *Dispatcher) lookAtAll() {
	for _, s := range append(d.board.all(), d.board.endedSince(d.bus.Now().Add(-time.Hour))...) {
		d.agenda.add(s, time.Now().Add(rand.N(2*d.Grace+1)))
	}
}

// care looks at sectors when their time has come.
func (d *Dispatcher) care(ctx context.Context) error {
	const atOnce = 32
	var g errgroup.Group
	g.SetLimit(atOnce)
	defer g.Wait() //nolint:errcheck // they return nil
	for {
		due, wait := d.agenda.next(time.Now())
		for _, s := range due {
			g.Go(func() error {
				d.look(ctx, s)
				return nil
			})
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-d.agenda.wake:
		case <-ctx.Done():
			t.Stop()
			return nil
		}
		t.Stop()
	}
}

func (d *Dispatcher) look(ctx context.Context, s *sector) {
	if !d.caught.Load() || ctx.Err() != nil {
		return
	}
	err := d.buried(ctx, s)
	if err == nil {
		err = d.advance(ctx, s.id, 0, byCare)
	}
	if err != nil && ctx.Err() == nil {
		d.Log.Warn("a sector could not be looked after; trying again", "sector", s.id, "error", err)
		d.lookLater(s, d.GatePoll)
	}
}

// buried makes sure that a sector that has ended has its tombstone.
func (d *Dispatcher) buried(ctx context.Context, s *sector) error {
	s.work.Lock()
	defer s.work.Unlock()
	if _, _, gone := s.view(); !gone || s.archived {
		return nil
	}
	stone, err := d.bus.Archived(ctx, s.id)
	if err == nil && stone == nil {
		if err = d.archive(ctx, s.id); err == nil {
			d.Metrics.repairs.WithLabelValues("archive").Inc()
		}
	}
	s.archived = err == nil
	return err
}

// openTask is an issue whose task should be in the stream.
type openTask struct {
	s      *sector
	key    bus.TaskKey
	id     string // of the issued event
	silent bool   // nothing was written for as long as Options.Silence
}

// sweep compares the open issues with the task stream, now and then.
func (d *Dispatcher) sweep(ctx context.Context) error {
	for {
		if !pause(ctx, d.SweepEvery*4/5+rand.N(d.SweepEvery*2/5+1)) {
			return nil
		}
		d.heal(ctx)
		if err := d.bus.Stopped(); err != nil {
			return err
		}
		d.sweepOnce(ctx)
	}
}

// heal makes streams and consumers again that somebody deleted. It changes none that is
// there: two dispatchers with different settings would change it back and forth.
func (d *Dispatcher) heal(ctx context.Context) {
	if len(d.Groups) == 0 {
		return
	}
	plan, err := d.bus.Plan(ctx, d.Groups)
	missing := slices.ContainsFunc(plan, func(c bus.Change) bool { return c.Action == bus.ActionCreate })
	if err == nil && missing {
		d.Log.Error("streams or consumers are gone; making them again", "plan", fmt.Sprint(plan))
		d.Metrics.repairs.WithLabelValues("bus").Inc()
		_, err = d.bus.Apply(ctx, d.Groups)
	}
	if err != nil && ctx.Err() == nil {
		d.Log.Warn("the sweeper could not look after the bus", "error", err)
	}
}

// sweepOnce publishes the tasks that are open on the board and missing in the stream.
func (d *Dispatcher) sweepOnce(ctx context.Context) {
	defer d.Metrics.sweeps.Inc()
	open := d.openTasks()
	// What was seen open before the list is asked for, and is not on the list, is
	// missing, or has just been done: publishing asks the state again.
	there, strangers, err := d.bus.Tasks(ctx)
	if err != nil {
		if ctx.Err() == nil {
			d.Log.Warn("the sweeper could not list the tasks", "error", err)
		}
		return
	}
	d.Metrics.strangers.Set(float64(len(strangers)))
	if err := d.clearQueue(ctx, there, strangers); err != nil && ctx.Err() == nil {
		d.Log.Warn("the sweeper could not set aside what is no task", "error", err)
	}
	look := d.lookForStuck()
	for _, o := range open {
		err := error(nil)
		switch {
		case !there[o.key]:
			err = d.republish(ctx, o, "task", "a task was missing from its stream, and was published again")
		case o.silent:
			err = look.unstick(ctx, o)
		}
		if err != nil {
			if ctx.Err() == nil {
				d.Log.Warn("the sweeper could not publish a task", "sector", o.s.id, "phase", string(o.key.Step), "error", err)
			}
			return
		}
	}
}

// openTasks lists the issues that nobody has claimed for a while, and those whose host
// has written nothing for long.
func (d *Dispatcher) openTasks() []openTask {
	var open []openTask
	now, fleet := time.Now(), d.bus.Now()
	for _, s := range d.board.all() {
		state, touched, gone := s.view()
		if gone {
			continue
		}
		for i, step := range phases.Steps() {
			if !step.IsPhase() {
				continue
			}
			t := state.Step(step)
			quiet := now.Sub(touched[i])
			if t.NotBefore.After(fleet.Add(-d.Grace)) {
				continue // the bus holds it back
			}
			if may, _ := d.board.lines.may(s, &state, step); !may {
				continue // it has none yet
			}
			switch {
			case t.Status == phases.StatusIssued && quiet > d.Grace,
				t.Status == phases.StatusRunning && quiet > d.Silence:
				open = append(open, openTask{s, bus.TaskKey{Group: state.Group, Step: step, Sector: s.id, Issue: t.Issue}, t.IssuedID, quiet > d.Silence})
			}
		}
	}
	return open
}

func (d *Dispatcher) republish(ctx context.Context, o openTask, repair, says string) error {
	o.s.work.Lock()
	defer o.s.work.Unlock()
	state, _, gone := o.s.view()
	t := state.Step(o.key.Step)
	task, ok := state.TaskFor(o.key.Step)
	if gone || !ok || t.IssuedID != o.id {
		return nil // it has moved on
	}
	if err := d.publish(ctx, task); err != nil {
		return err
	}
	d.Metrics.repairs.WithLabelValues(repair).Inc()
	d.Log.Warn(says, "group", task.Group,
		"sector", o.s.id, "phase", string(o.key.Step), "attempt", task.Attempt)
	return nil
}
