package dispatch

import (
	"cmp"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidwall/btree"

	"sealfleet/internal/phases"
)

// book has a line for every sector that was ever submitted, ended or not, in the order of
// miner and number: what lists are made from. A line is worked out when somebody asks for
// it after its sector changed, so that a log of many events costs no more than before.
type book struct {
	mu      sync.RWMutex
	byID    map[string]*record
	order   *btree.BTreeG[*record]
	listed  []*record            // order, as of the last time that somebody asked
	failing map[*record]struct{} // that have failures which are not mended
}

// record is a sector's line.
type record struct {
	id            string
	miner, number uint64
	gen           atomic.Uint64 // counts the sector's changes
	line          atomic.Pointer[bookLine]
	s             atomic.Pointer[sector] // nil: it has ended, and its line is the last one

	failMu sync.Mutex
	fails  map[phases.Step]Failure
}

type bookLine struct {
	gen   uint64
	row   Row
	until time.Time // when it changes by itself: a delay is over; zero: never
	text  atomic.Pointer[string]
}

// words are what a search looks at, in small letters.
func (l *bookLine) words() string {
	if text := l.text.Load(); text != nil {
		return *text
	}
	words := []string{l.row.Sector, l.row.Group, l.row.Reason}
	for _, n := range l.row.Now {
		words = append(words, n.Host)
	}
	text := strings.ToLower(strings.Join(words, "\n"))
	l.text.Store(&text)
	return text
}

// Failure is the last failure of a step that has not succeeded since.
type Failure struct {
	Result  phases.Result
	Host    string
	Attempt int
	Issue   int
	At      time.Time
}

func byNumber(a, b *record) bool {
	return cmp.Or(cmp.Compare(a.miner, b.miner), cmp.Compare(a.number, b.number)) < 0
}

func newBook() *book {
	return &book{byID: map[string]*record{}, order: btree.NewBTreeGOptions(byNumber, btree.Options{NoLocks: true}), failing: map[*record]struct{}{}}
}

// take notes that an event changed a sector. The caller holds the sector's lock.
func (b *book) take(s *sector, e *phases.Event, p phases.Policy) {
	r := s.record
	if r == nil {
		if !s.state.Known() {
			return
		}
		r = &record{id: s.id, miner: s.state.Spec.Miner, number: s.state.Spec.Number}
		r.s.Store(s)
		s.record = r
		b.mu.Lock()
		b.byID[r.id] = r
		b.order.Set(r)
		b.mu.Unlock()
	}
	b.note(r, s.state, e)
	gen := r.gen.Add(1)
	if !s.state.Ended().IsZero() {
		r.line.Store(&bookLine{gen: gen, row: RowOf(s.state, p, s.state.Ended())})
		r.s.Store(nil)
	}
}

// note keeps failures until they are mended, or nobody can mend them any more.
func (b *book) note(r *record, state *phases.Sector, e *phases.Event) {
	over := !state.Ended().IsZero() || e.Type == phases.Cancelled && e.Step == phases.SectorEnd
	failed := e.Type == phases.Failed && e.Result != nil
	r.failMu.Lock()
	had := len(r.fails)
	switch {
	case over:
		r.fails = nil
	case failed && e.ID == state.Step(e.Step).LastID:
		if r.fails == nil {
			r.fails = map[phases.Step]Failure{}
		}
		r.fails[e.Step] = Failure{*e.Result, e.Host, e.Attempt, e.Issue, e.At}
	case e.Type == phases.Done && had > 0:
		delete(r.fails, e.Step)
	case e.Type == phases.Redo && had > 0:
		delete(r.fails, e.Target)
	}
	has := len(r.fails)
	r.failMu.Unlock()
	if (had > 0) == (has > 0) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if has > 0 {
		b.failing[r] = struct{}{}
	} else {
		delete(b.failing, r)
	}
}

// current returns the record's line as of now; not to be changed.
func (r *record) current(p phases.Policy, now time.Time) *bookLine {
	for {
		gen, s, line := r.gen.Load(), r.s.Load(), r.line.Load()
		if line != nil && line.gen == gen && (line.until.IsZero() || now.Before(line.until)) {
			return line
		}
		if s == nil {
			continue // it is ending at this moment
		}
		state, _, _ := s.view()
		fresh := &bookLine{gen: gen, row: RowOf(&state, p, now)}
		for _, step := range phases.Steps() {
			t := state.Step(step)
			if t.Status == phases.StatusIssued && t.NotBefore.After(now) && (fresh.until.IsZero() || t.NotBefore.Before(fresh.until)) {
				fresh.until = t.NotBefore
			}
		}
		if r.gen.Load() == gen {
			r.line.CompareAndSwap(line, fresh)
			return fresh
		}
	}
}

// scan calls f for every sector, in the order of miner and number.
func (b *book) scan(p phases.Policy, now time.Time, f func(*record, *bookLine)) {
	for _, r := range b.inOrder() {
		f(r, r.current(p, now))
	}
}

// scanBack is scan from the last sector to the first.
func (b *book) scanBack(p phases.Policy, now time.Time, f func(*record, *bookLine)) {
	for _, r := range slices.Backward(b.inOrder()) {
		f(r, r.current(p, now))
	}
}

// inOrder lists all sectors; not to be changed. It is made anew only when one has come.
func (b *book) inOrder() []*record {
	b.mu.RLock()
	all, n := b.listed, b.order.Len()
	b.mu.RUnlock()
	if len(all) == n {
		return all
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	all = make([]*record, 0, b.order.Len())
	b.order.Scan(func(r *record) bool { all = append(all, r); return true })
	b.listed = all
	return all
}

func (b *book) get(id string) *record {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.byID[id]
}

// failures are a record's, in the order of the steps.
func (r *record) failures() (steps []phases.Step, fails []Failure) {
	r.failMu.Lock()
	defer r.failMu.Unlock()
	for _, step := range phases.Steps() {
		if f, is := r.fails[step]; is {
			steps, fails = append(steps, step), append(fails, f)
		}
	}
	return steps, fails
}

func (b *book) allFailing() []*record {
	b.mu.RLock()
	defer b.mu.RUnlock()
	all := make([]*record, 0, len(b.failing))
	for r := range b.failing {
		all = append(all, r)
	}
	return all
}

// ids are those of all sectors, in the order of miner and number.
func (b *book) ids() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, r := range b.inOrder() {
			if !yield(r.id) {
				return
			}
		}
	}
}
