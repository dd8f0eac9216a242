package dispatch

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"sealfleet/internal/bus"
	"sealfleet/internal/phases"
)

// remembered is how many durations and arrivals are kept for a phase of a group.
const remembered = 256

// meters measure each phase of each group from the events that the fold believed. They
// follow from the log alone, so a dispatcher that starts anew measures the same.
type meters struct {
	mu  sync.Mutex
	all map[station]*meter
}

type station struct {
	group string
	step  phases.Step
}

type meter struct {
	took    ring[time.Duration]
	arrived ring[time.Time]
	hosts   map[string]*seen
}

// seen is what a host was seen to do of a phase. No host tells the dispatchers its slots;
// what it did at once, it has slots for.
type seen struct {
	running int
	peak    int       // the most at once
	last    time.Time // when it last claimed or ended one
}

// forgetHost is how long a host that does nothing counts as one that could: longer than
// a p1 without SHA extensions.
const forgetHost = 48 * time.Hour

func newMeters() *meters { return &meters{all: map[station]*meter{}} }

// take measures what one event changed.
func (m *meters) take(e *phases.Event, before, after *phases.StepState) {
	if !e.Step.IsPhase() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	at := station{e.Group, e.Step}
	p := m.all[at]
	if p == nil {
		p = &meter{hosts: map[string]*seen{}}
		m.all[at] = p
	}
	if before.Status == phases.StatusRunning && (after.Status != phases.StatusRunning || after.Host != before.Host) {
		p.host(before.Host, e.At).running--
	}
	if after.Status == phases.StatusRunning && (before.Status != phases.StatusRunning || after.Host != before.Host) {
		h := p.host(after.Host, e.At)
		h.running++
		h.peak = max(h.peak, h.running)
	}
	switch e.Type {
	case phases.Issued:
		due := e.At
		if e.NotBefore.After(due) {
			due = e.NotBefore
		}
		p.arrived.add(due)
	case phases.Done:
		p.took.add(max(e.At.Sub(before.ClaimedAt), 0))
	}
}

func (p *meter) host(name string, at time.Time) *seen {
	h := p.hosts[name]
	if h == nil {
		h = &seen{}
		p.hosts[name] = h
	}
	if h.running == 0 && at.Sub(h.last) >= forgetHost {
		h.peak = 0 // as if it were new: its slots may have changed
	}
	if at.After(h.last) {
		h.last = at
	}
	return h
}

// seen calls f for each host of each phase of each group that did something not long ago.
func (m *meters) seen(now time.Time, f func(host, group string, running int, last time.Time)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for at, p := range m.all {
		for name, h := range p.hosts {
			if name != "" && (h.running > 0 || now.Sub(h.last) < forgetHost) {
				f(name, at.group, h.running, h.last)
			}
		}
	}
}

// fill adds what was measured.
func (m *meters) fill(l *Traffic, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.all[station{l.Group, l.Phase}]
	if p == nil {
		return
	}
	l.Took = slices.Clone(p.took.items)
	l.Arrived = slices.Clone(p.arrived.items)
	slices.SortFunc(l.Arrived, time.Time.Compare)
	l.Full = len(l.Arrived) == remembered
	for name, h := range p.hosts {
		if h.running == 0 && now.Sub(h.last) >= forgetHost {
			delete(p.hosts, name)
			continue
		}
		l.Slots += h.peak
		l.Hosts++
	}
}

// ring keeps the last ones.
type ring[T any] struct {
	items []T
	next  int
}

func (r *ring[T]) add(v T) {
	if len(r.items) < remembered {
		r.items = append(r.items, v)
		return
	}
	r.items[r.next] = v
	r.next = (r.next + 1) % remembered
}

// traffic tells of every phase of every group that was ever submitted to.
func (b *board) traffic(now time.Time) []Traffic {
	all := map[station]*Traffic{}
	at := func(group string, step phases.Step) *Traffic {
		l := all[station{group, step}]
		if l == nil {
			l = &Traffic{Group: group, Phase: step}
			all[station{group, step}] = l
		}
		return l
	}
	b.book.scan(b.policy, now, func(_ *record, line *bookLine) {
		at(line.row.Group, phases.P1) // a group that has nothing to do is one too
		for _, n := range line.row.Now {
			if !n.Phase.IsPhase() {
				continue
			}
			l := at(line.row.Group, n.Phase)
			switch n.State {
			case NowRunning:
				l.Running++
			case NowWaiting:
				l.Waiting++
				l.Oldest = max(l.Oldest, now.Sub(n.Since))
			}
		}
	})
	var out []Traffic
	for _, group := range groupsOf(all) {
		for _, step := range phases.Phases() {
			l := at(group, step)
			b.meters.fill(l, now)
			if step == phases.P1 {
				l.Held = b.flows.held(group)
			}
			out = append(out, *l)
		}
	}
	return out
}

func groupsOf(all map[station]*Traffic) []string {
	var groups []string
	for s := range all {
		if !slices.Contains(groups, s.group) {
			groups = append(groups, s.group)
		}
	}
	slices.SortFunc(groups, cmp.Compare)
	return groups
}

// backlog is the advice for every phase of every group.
func (b *board) backlog(now time.Time) []Advice {
	advice := []Advice{}
	for _, t := range b.traffic(now) {
		advice = append(advice, Advise(t, now))
	}
	return advice
}

// ReadBacklog reads the log, and gives the advice for every phase of every group that was
// ever submitted to. holdP1 is what the dispatchers have for Options.HoldP1.
func ReadBacklog(ctx context.Context, b *bus.Bus, p phases.Policy, holdP1 int) ([]Advice, error) {
	board := newBoard(p, holdP1, 0)
	if _, err := b.Replay(ctx, func(e phases.Event) error {
		board.take(e)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read the event log: %w", err)
	}
	return board.backlog(b.Now()), nil
}
