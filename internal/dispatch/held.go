package dispatch

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"sealfleet/internal/phases"
)

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

// heldTally counts the sectors of a group for HeldBack.
type heldTally struct {
	h  HeldBack
	at map[phases.Step]int
}

func newHeldTally(group string, limit int) *heldTally {
	return &heldTally{h: HeldBack{Group: group, Limit: limit}, at: map[phases.Step]int{}}
}

// fly counts a sector in flight.
func (t *heldTally) fly(s *phases.Sector, p phases.Policy) {
	t.h.InFlight++
	t.at[isAt(s)]++
	if s.Status(p) == phases.StatusParked {
		t.h.Parked++
	}
}

// free is how many may start.
func (t *heldTally) free() int { return max(t.h.Limit-t.h.InFlight, 0) }

// back tells what holds the last ones of so many that were not started.
func (t *heldTally) back(queued int) HeldBack {
	h := t.h
	h.Held = queued - t.free()
	for _, step := range phases.Steps() { // of two that are equal, the later one is nearer to p6
		n := t.at[step]
		if step == phases.P1 {
			n += t.free() // they are being started
		}
		if n > 0 && n >= h.At {
			h.Behind, h.At = step, n
		}
	}
	return h
}

// HeldSectors finds the sectors that are held back among all, which are in the order of their
// submission, by their ids.
func HeldSectors(all []*phases.Sector, p phases.Policy, limit int) map[string]HeldBack {
	held := map[string]HeldBack{}
	if limit == 0 {
		return held
	}
	groups, queues := map[string]*heldTally{}, map[string][]string{}
	for _, s := range all {
		t := groups[s.Group]
		if t == nil {
			t = newHeldTally(s.Group, limit)
			groups[s.Group] = t
		}
		switch {
		case inFlight(s):
			t.fly(s, p)
		case startable(s):
			queues[s.Group] = append(queues[s.Group], s.ID)
		}
	}
	for group, queue := range queues {
		t := groups[group]
		if len(queue) <= t.free() {
			continue
		}
		h := t.back(len(queue))
		for _, id := range queue[t.free():] {
			held[id] = h
		}
	}
	return held
}

// holds are the groups that hold sectors back at a moment. A group may hold a hundred thousand:
// they are told by their place in its queue, and not listed.
type holds map[string]*hold

type hold struct {
	HeldBack
	text   string // HeldBack's: it is the same for all
	beyond uint64 // held is whose place.order is greater
}

// of tells what holds a sector of a group back, nil if nothing does.
func (h holds) of(r *record, group string) *hold {
	s := r.s.Load()
	if len(h) == 0 || s == nil {
		return nil
	}
	order := s.place.order.Load()
	if g := h[group]; g != nil && order > g.beyond { // 0 never is
		return g
	}
	return nil
}

// mark returns a sector's row, or if it is held back, into with the row and the reason: that is
// valid as long as into, so that a hundred thousand rows can be looked at in one.
func (h holds) mark(r *record, row, into *Row) (marked *Row, isHeld bool) {
	g := h.of(r, row.Group)
	if g == nil {
		return row, false
	}
	now := append(into.Now[:0], row.Now...)
	*into = *row
	into.Now = now
	into.hold(g.text)
	return into, true
}

// heldNow tells what is held back, as of a second ago at most.
func (b *board) heldNow() holds { return b.heldWithin(time.Second) }

// heldWithin is the same, as of at most so long ago.
func (b *board) heldWithin(age time.Duration) holds {
	b.heldMu.Lock()
	defer b.heldMu.Unlock()
	if b.flows.limit > 0 && time.Since(b.heldAt) >= age {
		b.heldAt, b.held = time.Now(), b.holding()
	}
	return b.held
}

// holding walks over the sectors in flight. They are looked at after the lock is given back, so
// they may be a step further than when they were counted.
func (b *board) holding() holds {
	all := holds{}
	for group, q := range b.flows.queues() {
		t := newHeldTally(group, b.flows.limit)
		for _, s := range q.flying {
			state, _, _ := s.view()
			t.fly(&state, b.policy)
		}
		h := t.back(q.queued)
		all[group] = &hold{h, h.String(), q.beyond}
	}
	return all
}

// queued is a group's queue that is longer than what may start.
type queued struct {
	flying []*sector
	queued int
	beyond uint64
}

// queues tells of the groups that hold sectors back.
func (f *flows) queues() map[string]queued {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := map[string]queued{}
	for group, g := range f.groups {
		if g.queue.Len() > g.free(f.limit) {
			all[group] = queued{slices.Collect(maps.Keys(g.flying)), g.queue.Len(), g.mayUpTo(f.limit)}
		}
	}
	return all
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
