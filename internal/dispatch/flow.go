package dispatch

import (
	"container/list"
	"iter"
	"slices"
	"sync"
	"sync/atomic"

	"sealfleet/internal/phases"
)

// Holding back p1. From p1's first issue until p6 is done a sector has files on its
// group's disks: it is in flight. When as many sectors of a group are in flight as
// Options.HoldP1 says, no other one's p1 is issued until one of them is cleaned.
//
// Safety with many dispatchers. Sectors start in the order of their submission: with k
// places free, only the k first in the queue may start. Both the queue and the number in
// flight follow from the log, so dispatchers that have read it up to different points
// name the same sectors, a longer or a shorter beginning of one list; two never use one
// place for two sectors. (A dispatcher whose chain can draw no ticket for a sector moves
// it to the end of its own queue; a redo of p6 puts a sector in flight again. Then there
// may be a few more in flight than the limit, and never for long.)
//
// Liveness. What is held depends on sectors in flight only, never the other way round:
// these go on, and each that is cleaned lets the next one start. Whoever acts on the
// event that frees a place starts the next sector before it acknowledges; if it stops
// before, aftercare does. A sector that is parked stays in flight, because its files stay:
// a group full of them waits for its operator, and says so.

// inFlight tells whether a sector has files on its group's disks, as far as the log knows.
func inFlight(s *phases.Sector) bool {
	return s.Ended().IsZero() && s.Step(phases.P1).IssuedID != "" && s.Step(phases.P6).Status != phases.StatusDone
}

// startable tells whether a sector was never started, and is to be.
func startable(s *phases.Sector) bool {
	return s.Ended().IsZero() && s.Step(phases.P1).IssuedID == "" &&
		slices.ContainsFunc(phases.Decide(s, phases.DefaultPolicy()), isStart)
}

func isStart(a phases.Action) bool { return a.Kind == phases.DoIssue && a.Step == phases.P1 }

// flows counts, for each group, what is in flight, and has the sectors that were not
// started in the order of their submission.
type flows struct {
	limit int // 0: nothing is held back

	mu     sync.Mutex
	groups map[string]*flow
	order  uint64 // of who came last to the end of a queue
}

type flow struct {
	flying map[*sector]struct{} // in flight
	queue  *list.List           // of *sector
}

// place is where a sector stands in its group's flow; guarded by flows.mu.
type place struct {
	queued *list.Element // nil: not in the queue
	// order grows along the queue; 0: not in the queue. It is read without the lock.
	order atomic.Uint64
}

func newFlows(limit int) *flows { return &flows{limit: limit, groups: map[string]*flow{}} }

// take notes where a sector stands after an event. Only the follower calls it, in the
// order of the log. freed says that a sector that was held may start now.
func (f *flows) take(s *sector, state *phases.Sector) (freed bool) {
	if f.limit == 0 || !state.Known() {
		return false
	}
	flying, waiting := inFlight(state), startable(state)
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.groups[state.Group]
	if g == nil {
		g = &flow{flying: map[*sector]struct{}{}, queue: list.New()}
		f.groups[state.Group] = g
	}
	p := &s.place
	_, flew := g.flying[s]
	if flew == flying && (p.queued != nil) == waiting {
		return false
	}
	started := flying && !flew
	if flying {
		g.flying[s] = struct{}{}
	} else {
		delete(g.flying, s)
	}
	switch {
	case waiting && p.queued == nil:
		p.queued = g.queue.PushBack(s)
		f.last(s)
		return false // its own event starts it
	case !waiting && p.queued != nil:
		g.queue.Remove(p.queued)
		p.queued = nil
		p.order.Store(0)
	}
	return !started && g.queue.Len() > 0 && len(g.flying) < f.limit
}

// may tells whether a sector that was never started may start. One that the follower
// does not have in the queue is none of its business: the log will say.
func (f *flows) may(s *sector, group string) bool {
	if f.limit == 0 {
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.groups[group]
	if g == nil || s.place.queued == nil {
		return true
	}
	return g.queue.Len() <= g.free(f.limit) || s.place.order.Load() <= g.mayUpTo(f.limit)
}

// free is how many more may be in flight.
func (g *flow) free(limit int) int { return max(limit-len(g.flying), 0) }

// first are the sectors that may start, from the head of the queue.
func (g *flow) first(limit int) iter.Seq[*sector] {
	return func(yield func(*sector) bool) {
		free := g.free(limit)
		for e := g.queue.Front(); e != nil && free > 0 && yield(e.Value.(*sector)); e = e.Next() {
			free--
		}
	}
}

// mayUpTo is the place.order of the last one that may start, 0 if none may.
func (g *flow) mayUpTo(limit int) (order uint64) {
	for s := range g.first(limit) {
		order = s.place.order.Load()
	}
	return order
}

// next lists the sectors of a group that were not started and may be now.
func (f *flows) next(group string) []*sector {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.groups[group]
	if f.limit == 0 || g == nil {
		return nil
	}
	return slices.Collect(g.first(f.limit))
}

// back moves a sector that cannot start to the end of the queue, so that it does not
// keep others from it.
func (f *flows) back(s *sector, group string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if g := f.groups[group]; g != nil && s.place.queued != nil {
		g.queue.MoveToBack(s.place.queued)
		f.last(s)
	}
}

// last notes that a sector is at the end of its queue now.
func (f *flows) last(s *sector) {
	f.order++
	s.place.order.Store(f.order)
}

// held is how many sectors of a group may not start yet.
func (f *flows) held(group string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.groups[group]
	if f.limit == 0 || g == nil {
		return 0
	}
	return max(g.queue.Len()-g.free(f.limit), 0)
}
