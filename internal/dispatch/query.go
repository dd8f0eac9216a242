package dispatch

import (
	"cmp"
	"container/heap"
	"math"
	"slices"
	"strings"
	"time"

	"sealfleet/internal/phases"
)

// Query says which part of a list is wanted.
type Query struct {
	Filter
	Hosts []string // only what is at these
	Text  string   // to be found in a sector's id, group, hosts or reason
	Codes []string // of failures
	Sort  string   // of sectors: one of Sorts, with - in front for the reverse; empty: number
	Limit int      // most items of a page
	After *Key     // the last item of the page before; nil: from the beginning
}

// Key is an item's place in a sorted list: what a cursor carries.
type Key struct {
	Rank   int64  `json:"r,omitempty"`
	Miner  uint64 `json:"m"`
	Number uint64 `json:"n"`
	Step   int    `json:"s,omitempty"`
}

func (k Key) compare(o Key) int {
	return cmp.Or(cmp.Compare(k.Rank, o.Rank), cmp.Compare(k.Miner, o.Miner), cmp.Compare(k.Number, o.Number), k.Step-o.Step)
}

// Page is a part of a list.
type Page[T any] struct {
	Items []T
	Total int       // items that pass the filter
	Next  *Key      // nil: this is the last page
	At    time.Time // the moment of the list
	Seq   uint64    // every event up to it was taken
}

// Sorts lists the orders of sectors.
func Sorts() []string { return []string{"number", "age", "ended", "state", "wait"} }

// pager keeps the first items after a key, of any number that it is shown.
type pager[T any] struct {
	limit    int
	after    *Key
	backward bool
	total    int
	more     bool
	kept     keyed[T]
}

type keyed[T any] struct {
	keys  []Key
	items []T
	sign  int
}

func newPager[T any](limit int, after *Key, backward bool) *pager[T] {
	p := &pager[T]{limit: max(limit, 1), after: after, backward: backward}
	p.kept.sign = 1
	if backward {
		p.kept.sign = -1
	}
	return p
}

// The worst of those kept is on top.
func (k *keyed[T]) Len() int           { return len(k.keys) }
func (k *keyed[T]) Less(i, j int) bool { return k.sign*k.keys[i].compare(k.keys[j]) > 0 }
func (k *keyed[T]) Swap(i, j int) {
	k.keys[i], k.keys[j] = k.keys[j], k.keys[i]
	k.items[i], k.items[j] = k.items[j], k.items[i]
}
func (k *keyed[T]) Push(any) {}
func (k *keyed[T]) Pop() any {
	n := len(k.keys) - 1
	k.keys, k.items = k.keys[:n], k.items[:n]
	return nil
}

// show offers an item.
func (p *pager[T]) show(key Key, item T) {
	if p.wants(key) {
		p.keep(key, item)
	}
}

// wants counts an item, and tells whether it is to be kept, as far as is known now.
func (p *pager[T]) wants(key Key) bool {
	p.total++
	if p.after != nil && p.kept.sign*key.compare(*p.after) <= 0 {
		return false
	}
	if len(p.kept.keys) < p.limit {
		return true
	}
	p.more = true
	return p.kept.sign*key.compare(p.kept.keys[0]) < 0
}

// keep takes an item that is wanted.
func (p *pager[T]) keep(key Key, item T) {
	if len(p.kept.keys) == p.limit {
		p.kept.keys[0], p.kept.items[0] = key, item
		heap.Fix(&p.kept, 0)
		return
	}
	p.kept.keys, p.kept.items = append(p.kept.keys, key), append(p.kept.items, item)
	heap.Fix(&p.kept, len(p.kept.keys)-1)
}

func page[T any](p *pager[T], at time.Time, seq uint64) Page[T] {
	order := make([]int, len(p.kept.keys))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return p.kept.sign * p.kept.keys[a].compare(p.kept.keys[b]) })
	out := Page[T]{Items: make([]T, 0, len(order)), Total: p.total, At: at.UTC(), Seq: seq}
	for _, i := range order {
		out.Items = append(out.Items, p.kept.items[i])
	}
	if p.more && len(order) > 0 {
		out.Next = &p.kept.keys[order[len(order)-1]]
	}
	return out
}

// rankOf is a row's place in an order of sectors.
func rankOf(sort string, r *Row) int64 {
	switch sort {
	case "age":
		return r.SubmittedAt.UnixNano()
	case "ended": // the latest first, those that have not ended last
		if r.EndedAt.IsZero() {
			return math.MaxInt64
		}
		return -r.EndedAt.UnixNano()
	case "state":
		return int64(slices.Index([]phases.Status{phases.StatusParked, phases.StatusSealing, phases.StatusFailed, phases.StatusCancelled, phases.StatusFinished}, r.State))
	case "wait": // the longest in its present state first
		first := int64(math.MaxInt64)
		for _, n := range r.Now {
			first = min(first, n.Since.UnixNano())
		}
		return first
	}
	return 0
}

func (q *Query) has(r *Row, line *bookLine) bool {
	if !q.Has(r) {
		return false
	}
	if len(q.Hosts) > 0 && !slices.ContainsFunc(r.Now, func(n Now) bool { return slices.Contains(q.Hosts, n.Host) }) {
		return false
	}
	return q.Text == "" || strings.Contains(line.words(), q.Text)
}

// Sectors lists sectors, ended ones too.
func (d *Dispatcher) Sectors(q Query) Page[Row] {
	b, now := d.board, d.bus.Now()
	seq, held := b.position(), b.heldNow()
	sort, backward := strings.CutPrefix(q.Sort, "-")
	q.Text = strings.ToLower(q.Text)
	p := newPager[*Row](q.Limit, q.After, backward)
	scan := b.book.scan
	if backward && sort == "number" {
		scan = b.book.scanBack // the other way each one would be better than all before
	}
	var marked Row
	scan(b.policy, now, func(r *record, line *bookLine) {
		row, isHeld := held.mark(r, &line.row, &marked)
		if !q.has(row, line) {
			return
		}
		if key := (Key{rankOf(sort, row), r.miner, r.number, 0}); p.wants(key) {
			if isHeld {
				row = row.clone()
			}
			p.keep(key, row)
		}
	})
	pointers := page(p, now, seq)
	out := Page[Row]{Items: make([]Row, 0, len(pointers.Items)), Total: pointers.Total, Next: pointers.Next, At: pointers.At, Seq: seq}
	for _, r := range pointers.Items {
		out.Items = append(out.Items, *r)
	}
	return out
}

// Job is a step that waits or runs now.
type Job struct {
	Sector string `json:"sector"`
	Group  string `json:"group"`
	Size   string `json:"size"`
	Now
}

// Jobs lists the steps that wait or run, the longest in its state first.
func (d *Dispatcher) Jobs(q Query) Page[Job] {
	b, now := d.board, d.bus.Now()
	seq := b.position()
	p := newPager[Job](q.Limit, q.After, false)
	b.book.scan(b.policy, now, func(r *record, line *bookLine) {
		row := &line.row
		if len(q.Groups) > 0 && !slices.Contains(q.Groups, row.Group) {
			return
		}
		for _, n := range row.Now {
			if n.State == NowParked || n.State == NowHeld ||
				len(q.Phases) > 0 && !slices.Contains(q.Phases, n.Phase) ||
				len(q.Hosts) > 0 && !slices.Contains(q.Hosts, n.Host) ||
				len(q.States) > 0 && !slices.Contains(q.States, strings.ReplaceAll(n.State, " ", "-")) {
				continue
			}
			p.show(Key{n.Since.UnixNano(), r.miner, r.number, stepIndex(n.Phase)}, Job{row.Sector, row.Group, row.Size, n})
		}
	})
	return page(p, now, seq)
}

// Failed is a failure that is not mended yet.
type Failed struct {
	Sector     string       `json:"sector"`
	Group      string       `json:"group"`
	Size       string       `json:"size"`
	Phase      phases.Step  `json:"phase"`
	State      string       `json:"state"` // parked: for an operator; failing: is tried again by itself
	Code       string       `json:"code"`
	Class      phases.Class `json:"class"`
	Message    string       `json:"message"`
	Host       string       `json:"host,omitempty"`
	Attempt    int          `json:"attempt"`
	Issue      int          `json:"issue"`
	At         time.Time    `json:"at"`
	DeadlineAt time.Time    `json:"deadline_at,omitzero"`
	Redo       bool         `json:"redo"` // an operator may have it done again
	Mend       string       `json:"mend,omitempty"`
}

// States of Failed.
const (
	FailedParked  = "parked"
	FailedFailing = "failing"
)

// Failures lists what is parked or being tried again, the latest failure first.
func (d *Dispatcher) Failures(q Query) Page[Failed] {
	b, now := d.board, d.bus.Now()
	seq := b.position()
	type found struct {
		r    *record
		step phases.Step
		f    Failure
	}
	p := newPager[found](q.Limit, q.After, false)
	for _, r := range b.book.allFailing() {
		row := &r.current(b.policy, now).row
		if len(q.Groups) > 0 && !slices.Contains(q.Groups, row.Group) {
			continue
		}
		steps, fails := r.failures()
		for i, f := range fails {
			state := FailedFailing
			if slices.ContainsFunc(row.Now, func(n Now) bool { return n.Phase == steps[i] && n.State == NowParked }) {
				state = FailedParked
			}
			if (len(q.Phases) == 0 || slices.Contains(q.Phases, steps[i])) && (len(q.States) == 0 || slices.Contains(q.States, state)) &&
				(len(q.Codes) == 0 || slices.Contains(q.Codes, f.Result.Code)) {
				p.show(Key{-f.At.UnixNano(), r.miner, r.number, stepIndex(steps[i])}, found{r, steps[i], f})
			}
		}
	}
	places := page(p, now, seq)
	out := Page[Failed]{Items: make([]Failed, 0, len(places.Items)), Total: places.Total, Next: places.Next, At: places.At, Seq: seq}
	for _, x := range places.Items {
		if s := x.r.s.Load(); s != nil { // else it has ended at this moment
			state, _, _ := s.view()
			out.Items = append(out.Items, failedOf(&state, x.step, x.f, b.policy))
		}
	}
	return out
}

func failedOf(s *phases.Sector, step phases.Step, f Failure, p phases.Policy) Failed {
	item := Failed{
		Sector: s.ID, Group: s.Group, Size: phases.SizeName(s.Spec.ProofType), Phase: step, State: FailedFailing,
		Code: f.Result.Code, Class: f.Result.Class, Message: f.Result.Message, Host: f.Host, Attempt: f.Attempt, Issue: f.Issue,
		At: f.At, DeadlineAt: s.Deadline().At, Redo: phases.CheckRedo(s, step) == nil,
	}
	switch {
	case s.Step(step).Parked(p) && item.Redo:
		item.State, item.Mend = FailedParked, "mend what the message names, then redo it"
	case s.Step(step).Parked(p):
		item.State, item.Mend = FailedParked, phases.CheckRedo(s, step).Error()
	default:
		item.Mend = "none if the next attempt succeeds: it is tried again by itself"
	}
	return item
}
