package dispatch

import (
	"container/list"
	"fmt"
	"slices"
	"sync"

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

// HeldBack says that a group's new sectors are not started, and why.
type HeldBack struct {
	Group    string      `json:"group"`
	Limit    int         `json:"limit"`     // Options.HoldP1
	InFlight int         `json:"in_flight"` // sectors from p1's issue until p6 is done
	Held     int         `json:"held"`      // submitted sectors that may not start yet
	Behind   phases.Step `json:"behind"`    // the step that most of those in flight are at
	At       int         `json:"at"`        // how many are
	Parked   int         `json:"parked"`    // of those in flight, wait for an operator
}

// String is the reason as lists show it.
func (h HeldBack) String() string {
	s := fmt.Sprintf("held: %d sectors of %s wait for %s (%d of at most %d are between p1 and p6", h.At, h.Group, h.Behind, h.InFlight, h.Limit)
	if h.At == 1 {
		s = fmt.Sprintf("held: 1 sector of %s waits for %s (%d of at most %d are between p1 and p6", h.Group, h.Behind, h.InFlight, h.Limit)
	}
	if h.Parked > 0 {
		s += fmt.Sprintf(", %d of them parked", h.Parked)
	}
	return s + ")"
}

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
}

type flow struct {
	inFlight int
	queue    *list.List // of *sector
}

// place is where a sector stands in its group's flow; guarded by flows.mu.
type place struct {
	inFlight bool
	queued   *list.Element // nil: not in the queue
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
	p := &s.place
	if p.inFlight == flying && (p.queued != nil) == waiting {
		return false
	}
	g := f.groups[state.Group]
	if g == nil {
		g = &flow{queue: list.New()}
		f.groups[state.Group] = g
	}
	started := flying && !p.inFlight
	if p.inFlight != flying {
		p.inFlight = flying
		g.inFlight--
		if flying {
			g.inFlight += 2
		}
	}
	switch {
	case waiting && p.queued == nil:
		p.queued = g.queue.PushBack(s)
		return false // its own event starts it
	case !waiting && p.queued != nil:
		g.queue.Remove(p.queued)
		p.queued = nil
	}
	return !started && g.queue.Len() > 0 && g.inFlight < f.limit
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
	free := f.limit - g.inFlight
	if free >= g.queue.Len() {
		return true
	}
	for e := g.queue.Front(); e != nil && free > 0; e = e.Next() {
		if e.Value == s {
			return true
		}
		free--
	}
	return false
}

// next lists the sectors of a group that were not started and may be now.
func (f *flows) next(group string) []*sector {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.groups[group]
	if f.limit == 0 || g == nil {
		return nil
	}
	var all []*sector
	free := f.limit - g.inFlight
	for e := g.queue.Front(); e != nil && free > 0; e = e.Next() {
		all = append(all, e.Value.(*sector))
		free--
	}
	return all
}

// back moves a sector that cannot start to the end of the queue, so that it does not
// keep others from it.
func (f *flows) back(s *sector, group string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if g := f.groups[group]; g != nil && s.place.queued != nil {
		g.queue.MoveToBack(s.place.queued)
	}
}

// anyHeld tells whether a sector of any group may not start yet.
func (f *flows) anyHeld() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, g := range f.groups {
		if g.queue.Len() > max(f.limit-g.inFlight, 0) {
			return true
		}
	}
	return false
}

// held is how many sectors of a group may not start yet.
func (f *flows) held(group string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.groups[group]
	if f.limit == 0 || g == nil {
		return 0
	}
	return max(g.queue.Len()-max(f.limit-g.inFlight, 0), 0)
}

// HeldSectors finds the sectors that are held back among all, which are in the order of their
// submission, by their ids.
func HeldSectors(all []*phases.Sector, p phases.Policy, limit int) map[string]HeldBack {
	held := map[string]HeldBack{}
	if limit == 0 {
		return held
	}
	type tally struct {
		h     HeldBack
		at    map[phases.Step]int
		queue []string
	}
	groups := map[string]*tally{}
	for _, s := range all {
		g := groups[s.Group]
		if g == nil {
			g = &tally{h: HeldBack{Group: s.Group, Limit: limit}, at: map[phases.Step]int{}}
			groups[s.Group] = g
		}
		switch {
		case inFlight(s):
			g.h.InFlight++
			g.at[isAt(s)]++
			if s.Status(p) == phases.StatusParked {
				g.h.Parked++
			}
		case startable(s):
			g.queue = append(g.queue, s.ID)
		}
	}
	for _, g := range groups {
		free := max(limit-g.h.InFlight, 0)
		if len(g.queue) <= free {
			continue
		}
		g.h.Held = len(g.queue) - free
		g.at[phases.P1] += free               // they are being started
		for _, step := range phases.Steps() { // of two that are equal, the later one is nearer to p6
			if n := g.at[step]; n > 0 && n >= g.h.At {
				g.h.Behind, g.h.At = step, n
			}
		}
		for _, id := range g.queue[free:] {
			held[id] = g.h
		}
	}
	return held
}

// isAt is the last step that a sector in flight is at.
func isAt(s *phases.Sector) phases.Step {
	steps := phases.Steps()
	for _, step := range slices.Backward(steps) {
		switch s.Step(step).Status {
		case phases.StatusIssued, phases.StatusRunning, phases.StatusFailed:
			return step
		}
	}
	for _, step := range steps {
		if s.Step(step).Status != phases.StatusDone {
			return step
		}
	}
	return phases.P6
}
