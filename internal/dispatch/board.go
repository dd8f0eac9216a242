package dispatch

import (
	"context"
	"errors"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"sealfleet/internal/bus"
	"sealfleet/internal/phases"
)

// board is the state of all sectors that have not ended, as the follower folds it. Ended
// ones are only counted: the log and the archive remember them.
type board struct {
	policy phases.Policy
	now    func() time.Time // the fleet's
	pos    atomic.Uint64    // every event up to here was taken

	mu      sync.RWMutex
	sectors map[string]*sector
	over    map[string]struct{} // those that have ended: whatever comes for them is not believed
	ended   map[tally]int
	recent  []*bus.Tombstone // a ring of those that ended last, to be archived
	next    int              // in recent

	book   *book   // a line for every sector
	feed   *feed   // what happens, for who watches
	flows  *flows  // what is in flight, and what waits to start
	lines  *lines  // what is issued and not claimed, by urgency
	meters *meters // what the phases take
	pulses *pulses // what ended in the last hour, and on which host

	heldMu sync.Mutex
	heldAt time.Time
	held   holds

	live atomic.Bool // what is taken happens now; before, it is history

	waitMu  sync.Mutex
	waiters []waiter
}

// recentLen is how many ended sectors are remembered. Their ends are delivered within moments;
// for one that is not here any more the log is read.
const recentLen = 4096

type tally struct {
	group  string
	status phases.Status
}

type waiter struct {
	seq  uint64
	done chan struct{}
}

// sector is one sector on the board.
type sector struct {
	id string

	mu      sync.Mutex // of state and the times
	state   *phases.Sector
	touched [8]time.Time // when the follower last saw an event of the step, by its index in Steps
	ends    [8]time.Time // when it saw the step end; zero if that is history
	gone    bool         // ended, and no longer on the board
	frame   timeframe    // of the next deadline

	// work makes sure that one goroutine at a time carries out what is due. It also
	// guards what follows.
	work      sync.Mutex
	ahead     uint64     // the last event that this dispatcher appended
	published [8]string  // the issued events whose task this dispatcher published, or whose gate it opened
	archived  bool       // this dispatcher laid down its tombstone, or saw it
	gate      gateWaits  // when an open gate was last asked about
	due       agendaItem // guarded by the agenda
	place     place      // guarded by the board's flows
	record    *record    // in the book; guarded by mu
}

// change is what an event did.
type change struct {
	entry         *sector // nil if the sector is not known
	before, after phases.StepState
	rejected      *phases.Rejected
	doneAt        time.Time // when the step before was seen to end, for a claim
	freed         bool      // a sector of the group that was held back may start now
	entered       *sector   // one of its tasks is to be published now
}

func newBoard(p phases.Policy, holdP1, window int) *board {
	return &board{
		policy: p, now: time.Now, sectors: map[string]*sector{}, over: map[string]struct{}{}, ended: map[tally]int{},
		book: newBook(), feed: newFeed(), flows: newFlows(holdP1), lines: newLines(window), meters: newMeters(), pulses: newPulses(),
	}
}

// position is the sequence up to which every event was taken.
func (b *board) position() uint64 { return b.pos.Load() }

// open is the number of sectors that have not ended.
func (b *board) open() int {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return len(b.sectors)
}

func (b *board) get(id string) *sector {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.sectors[id]
}

func (b *board) all() []*sector {
	b.mu.RLock()
	defer b.mu.RUnlock()
	all := make([]*sector, 0, len(b.sectors))
	for _, s := range b.sectors {
		all = append(all, s)
	}
	return all
}

// states are those of all sectors that have not ended; each is valid until the next.
func (b *board) states() iter.Seq[*phases.Sector] {
	return func(yield func(*phases.Sector) bool) {
		var state phases.Sector
		var gone bool
		for _, s := range b.all() {
			if state, _, gone = s.view(); !gone && !yield(&state) {
				return
			}
		}
	}
}

// take folds one event. Events come in the order of the log, from one goroutine.
func (b *board) take(e phases.Event) change {
	defer b.advance(e.Seq)
	s, fresh := b.get(e.Sector), false
	if s == nil {
		fresh = true
		if r := b.strange(e); r != nil {
			return change{rejected: r}
		}
		s = &sector{id: e.Sector, state: phases.NewSector()}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := change{entry: s}
	i := stepIndex(e.Step)
	if i >= 0 {
		c.before = s.state.Step(e.Step)
		if e.Type == phases.Claimed {
			c.doneAt = s.lastEnd(e.Step)
		}
	}
	before := *s.state
	if err := s.state.Apply(e); err != nil {
		if errors.As(err, &c.rejected); c.rejected != nil && c.rejected.Reason == phases.Duplicate {
			c.rejected = nil
		}
	} else if i >= 0 {
		s.touched[i] = time.Now()
		if s.ends[i] = (time.Time{}); e.Type == phases.Done && b.live.Load() {
			s.ends[i] = s.touched[i]
		}
		c.after = s.state.Step(e.Step)
		b.meters.take(&e, &c.before, &c.after)
		b.pulses.take(&e, &c.before, s.state.Spec.ProofType)
		if e.Type == phases.Issued || e.Type == phases.Done {
			s.frame.note(s.state.Deadline(), e.At)
		}
	}
	if c.rejected == nil || c.rejected.Reason == phases.Early { // that one may change an issue's number
		b.book.take(s, &e, b.policy)
	}
	if i >= 0 {
		c.entered = b.lines.take(s, s.state, e.Step, e.Seq)
	}
	c.freed = b.flows.take(s, s.state)
	switch {
	case !s.state.Ended().IsZero():
		s.gone = true
		b.end(s, tombstone(&before, s.state, b.policy))
	case fresh && s.state.Known():
		b.mu.Lock()
		b.sectors[s.id] = s
		b.mu.Unlock()
	case fresh:
		c.entry = nil // a submission that was not believed
	}
	return c
}

func (b *board) end(s *sector, stone *bus.Tombstone) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over[s.id] = struct{}{}
	b.ended[tally{s.state.Group, s.state.Status(b.policy)}]++
	delete(b.sectors, s.id)
	if len(b.recent) < recentLen {
		b.recent = append(b.recent, stone)
		return
	}
	b.recent[b.next] = stone
	b.next = (b.next + 1) % recentLen
}

// justEnded returns the tombstone of a sector that ended not long ago, or nil.
func (b *board) justEnded(id string) *bus.Tombstone {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for i := range b.recent {
		// The latest first: it is nearly always the one that is asked for.
		stone := b.recent[(b.next+len(b.recent)-1-i)%len(b.recent)]
		if stone.Sector == id {
			return stone
		}
	}
	return nil
}

// endedSince returns the sectors that ended since a time, as far as they are remembered.
func (b *board) endedSince(t time.Time) []*sector {
	b.mu.RLock()
	defer b.mu.RUnlock()
	var all []*sector
	for _, stone := range b.recent {
		if stone.At.After(t) {
			all = append(all, &sector{id: stone.Sector, state: phases.NewSector(), gone: true})
		}
	}
	return all
}

// strange tells why an event of a sector that is not on the board cannot be believed.
func (b *board) strange(e phases.Event) *phases.Rejected {
	b.mu.RLock()
	_, over := b.over[e.Sector]
	b.mu.RUnlock()
	switch {
	case over:
		return &phases.Rejected{Event: e, Reason: phases.Over, Detail: "the sector has ended"}
	case e.Type != phases.Submitted:
		return &phases.Rejected{Event: e, Reason: phases.Early, Detail: "the sector was not submitted"}
	}
	return nil
}

// lastEnd is when the follower saw the latest of the steps before this one end.
func (s *sector) lastEnd(step phases.Step) time.Time {
	var last time.Time
	for i, before := range phases.Steps() {
		if before == step {
			break
		}
		if s.ends[i].After(last) {
			last = s.ends[i]
		}
	}
	return last
}

// view is a copy of the sector's state to decide on and to apply one's own events to.
// The copy is shallow: the fold replaces maps and results, it never changes them.
func (s *sector) view() (state phases.Sector, touched [8]time.Time, gone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *s.state, s.touched, s.gone
}

func stepIndex(step phases.Step) int {
	for i, s := range phases.Steps() {
		if s == step {
			return i
		}
	}
	return -1
}

func (b *board) advance(seq uint64) {
	if seq <= b.pos.Load() {
		return
	}
	b.waitMu.Lock()
	defer b.waitMu.Unlock()
	b.pos.Store(seq)
	kept := b.waiters[:0]
	for _, w := range b.waiters {
		if w.seq <= seq {
			close(w.done)
		} else {
			kept = append(kept, w)
		}
	}
	b.waiters = kept
}

// await waits until every event up to seq was taken.
func (b *board) await(ctx context.Context, seq uint64) error {
	if b.pos.Load() >= seq {
		return nil
	}
	w := waiter{seq, make(chan struct{})}
	b.waitMu.Lock()
	if b.pos.Load() >= seq {
		b.waitMu.Unlock()
		return nil
	}
	b.waiters = append(b.waiters, w)
	b.waitMu.Unlock()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
