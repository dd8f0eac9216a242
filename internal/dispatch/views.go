package dispatch

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"sealfleet/internal/bus"
	"sealfleet/internal/phases"
)

// PhaseFlow is what a step of a group, or of all, has before it.
type PhaseFlow struct {
	Phase   phases.Step `json:"phase"`
	Waiting int         `json:"waiting"` // for a host with a free slot
	Running int         `json:"running"`
	Delayed int         `json:"delayed"` // until their next attempt
	OnChain int         `json:"on_chain"`
	Parked  int         `json:"parked"`
	Held    int         `json:"held"` // p1: not started until others of the group are cleaned
	Oldest  float64     `json:"oldest_wait_seconds"`
	Done    int         `json:"done_per_hour"` // in the last hour
	Failed  int         `json:"failed_per_hour"`
	Paused  bool        `json:"paused,omitempty"` // by an operator; filled in by who knows the controls
}

func (f *PhaseFlow) add(n Now, now time.Time) {
	switch n.State {
	case NowWaiting:
		f.Waiting++
		f.Oldest = max(f.Oldest, now.Sub(n.Since).Seconds())
	case NowRunning:
		f.Running++
	case NowDelayed:
		f.Delayed++
	case NowOnChain:
		f.OnChain++
	case NowParked:
		f.Parked++
	case NowHeld:
		f.Held++
	}
}

func (f *PhaseFlow) sum(g PhaseFlow) {
	f.Waiting += g.Waiting
	f.Running += g.Running
	f.Delayed += g.Delayed
	f.OnChain += g.OnChain
	f.Parked += g.Parked
	f.Held += g.Held
	f.Done += g.Done
	f.Failed += g.Failed
	f.Oldest = max(f.Oldest, g.Oldest)
}

// SectorCounts counts sectors by where they stand.
type SectorCounts struct {
	Sealing   int `json:"sealing"`
	Parked    int `json:"parked"`
	Failed    int `json:"failed"`
	Cancelled int `json:"cancelled"`
	Finished  int `json:"finished"`
}

func (c *SectorCounts) add(s phases.Status, n int) {
	switch s {
	case phases.StatusSealing:
		c.Sealing += n
	case phases.StatusParked:
		c.Parked += n
	case phases.StatusFailed:
		c.Failed += n
	case phases.StatusCancelled:
		c.Cancelled += n
	case phases.StatusFinished:
		c.Finished += n
	}
}

// GroupView is a group on one line, and its flow from p1 to p6.
type GroupView struct {
	Group     string       `json:"group"`
	Sectors   SectorCounts `json:"sectors"`
	InFlight  int          `json:"in_flight"`            // sectors between p1 and p6
	HoldLimit int          `json:"hold_limit,omitempty"` // 0: none
	Held      int          `json:"held"`
	Waiting   int          `json:"waiting"`
	Running   int          `json:"running"`
	Oldest    float64      `json:"oldest_wait_seconds"`
	Phases    []PhaseFlow  `json:"phases"`
}

// FarmView is all groups at one moment.
type FarmView struct {
	At             time.Time
	Seq            uint64
	Sectors        SectorCounts
	Phases         []PhaseFlow // over all groups
	Groups         []GroupView
	FinishedPerDay float64 // over the last seven days
	Days           []Day
}

// Day counts the sectors that ended on a day (UTC).
type Day struct {
	Day       string `json:"day"`
	Finished  int    `json:"finished"`
	Failed    int    `json:"failed"`
	Cancelled int    `json:"cancelled"`
}

const (
	perDayOver = 7
	daysShown  = 30
)

// farmFor is how long a count of everything serves those who ask: a hundred browsers cost
// no more than one.
const farmFor = 250 * time.Millisecond

// Farm counts everything, as of a moment ago at most. The answer is shared: not to be changed.
func (d *Dispatcher) Farm() *FarmView {
	d.farmMu.Lock()
	defer d.farmMu.Unlock()
	if d.farm == nil || time.Since(d.farmAt) > farmFor {
		d.farm, d.farmAt = d.countFarm(), time.Now()
	}
	return d.farm
}

// countFarm is one walk over the book.
func (d *Dispatcher) countFarm() *FarmView {
	b, now := d.board, d.bus.Now()
	v := &FarmView{At: now.UTC(), Seq: b.position(), Groups: []GroupView{}, Days: []Day{}}
	held := b.heldNow()
	groups, days, week := map[string]*GroupView{}, map[string]*Day{}, 0
	for _, g := range d.Groups {
		groups[g] = newGroupView(g, d.HoldP1)
	}
	var marked Row
	b.book.scan(b.policy, now, func(r *record, line *bookLine) {
		row := &line.row
		g := groups[row.Group]
		if g == nil {
			g = newGroupView(row.Group, d.HoldP1)
			groups[row.Group] = g
		}
		g.Sectors.add(row.State, 1)
		if !row.EndedAt.IsZero() {
			if row.State == phases.StatusFinished && now.Sub(row.EndedAt) < perDayOver*24*time.Hour {
				week++
			}
			name := row.EndedAt.UTC().Format(time.DateOnly)
			if days[name] == nil {
				days[name] = &Day{Day: name}
			}
			switch row.State {
			case phases.StatusFinished:
				days[name].Finished++
			case phases.StatusFailed:
				days[name].Failed++
			default:
				days[name].Cancelled++
			}
			return
		}
		row, _ = held.mark(r, row, &marked)
		for _, n := range row.Now {
			g.Phases[stepIndex(n.Phase)].add(n, now)
		}
		if len(row.Now) > 0 && row.Now[0].State != NowHeld {
			g.InFlight++
		}
	})
	v.Phases = newFlowOf()
	for _, g := range groups {
		for i := range g.Phases {
			f := &g.Phases[i]
			f.Done, f.Failed = b.pulses.hour(station{g.Group, f.Phase}, now)
			v.Phases[i].sum(*f)
			g.Held += f.Held
			g.Waiting += f.Waiting
			g.Running += f.Running
			g.Oldest = max(g.Oldest, f.Oldest)
		}
		v.Sectors.Sealing += g.Sectors.Sealing
		v.Sectors.Parked += g.Sectors.Parked
		v.Sectors.Failed += g.Sectors.Failed
		v.Sectors.Cancelled += g.Sectors.Cancelled
		v.Sectors.Finished += g.Sectors.Finished
		v.Groups = append(v.Groups, *g)
	}
	slices.SortFunc(v.Groups, func(a, b GroupView) int { return compareNames(a.Group, b.Group) })
	for _, day := range days {
		v.Days = append(v.Days, *day)
	}
	slices.SortFunc(v.Days, func(a, b Day) int { return -compareNames(a.Day, b.Day) })
	v.Days = v.Days[:min(len(v.Days), daysShown)]
	v.FinishedPerDay = float64(week) / perDayOver
	return v
}

// compareNames orders group2 before group10.
func compareNames(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return slices.Compare([]byte(a), []byte(b))
}

func newGroupView(name string, hold int) *GroupView {
	return &GroupView{Group: name, HoldLimit: hold, Phases: newFlowOf()}
}

func newFlowOf() []PhaseFlow {
	flow := []PhaseFlow{}
	for _, step := range phases.Steps() {
		flow = append(flow, PhaseFlow{Phase: step})
	}
	return flow
}

// Backlog is the advice for every phase of every group.
func (d *Dispatcher) Backlog() []Advice { return d.board.backlog(d.bus.Now()) }

// Stats are how long phases take; only may be nil.
func (d *Dispatcher) Stats(only func(phases.Step) bool) []PhaseStats {
	return d.board.pulses.stats(d.Metrics.hosts.model, only)
}

// Known tells whether a sector was ever submitted, as far as this dispatcher has read.
func (d *Dispatcher) Known(id string) bool { return d.board.book.get(id) != nil }

// Find tells whether a sector was ever submitted, and else which look alike. It may just have
// been: what the log has of it is waited for. An error says that this dispatcher is behind.
func (d *Dispatcher) Find(ctx context.Context, id string) (known bool, near []string, err error) {
	if d.Known(id) {
		return true, nil, nil
	}
	last, err := d.bus.LastOf(ctx, id)
	if err == nil && last != nil {
		err = d.Await(ctx, last.Seq)
	}
	if err != nil || d.Known(id) {
		return err == nil, nil, err
	}
	return false, Near(id, d.board.book.ids()), nil
}

// Load reads a sector with its events; the error wraps ErrUnknown if there is none.
func (d *Dispatcher) Load(ctx context.Context, id string) (*phases.Sector, []phases.Event, error) {
	return Load(ctx, d.bus, id)
}

// Why says what exactly a sector waits for.
func (d *Dispatcher) Why(ctx context.Context, id string) (*Reasons, error) {
	r := d.board.book.get(id)
	if r == nil {
		return nil, fmt.Errorf("%w: %s", ErrUnknown, id)
	}
	now := d.bus.Now()
	f := &farm{policy: d.Policy, board: d.board, now: now}
	s := r.s.Load()
	if s == nil {
		return &Reasons{Row: r.current(d.Policy, now).row, Waits: []Wait{}}, nil
	}
	mine, _, _ := s.view()
	if h := d.board.heldWithin(0).of(r, mine.Group); h != nil {
		f.held = &h.HeldBack
	}
	f.all = d.board.states()
	reasons, err := f.reasons(ctx, d.bus, &mine)
	if err != nil {
		return nil, err
	}
	for i := range reasons.Waits {
		if w := &reasons.Waits[i]; w.State == NowWaiting {
			d.askHosts(w, mine.Group)
		}
	}
	return reasons, nil
}

// askHosts adds to why a task waits what the hosts that could do it say: their disk is full,
// their doctor refuses.
func (d *Dispatcher) askHosts(w *Wait, group string) {
	const most = 3
	told := 0
	for _, h := range d.Hosts() {
		if h.Status == nil || h.Away() {
			continue
		}
		for _, text := range h.Status.Waiting {
			// As the host tells it: "doctor: group1: the doctor refuses p1 of 512MiB: …".
			if !strings.Contains(text, group+": ") || !strings.Contains(text, string(w.Phase)+" of ") {
				continue
			}
			if told++; told > most {
				return
			}
			w.Why += "; " + h.Host + " lets it wait for " + text
			w.Mend = "mend what the host names (dispatcher hosts " + h.Host + " has it all); the task goes on by itself"
		}
	}
}

// Row is a sector's row, and whether it was ever submitted.
func (d *Dispatcher) Row(id string) (Row, bool) {
	r := d.board.book.get(id)
	if r == nil {
		return Row{}, false
	}
	now := d.bus.Now()
	row, _ := d.board.heldNow().mark(r, &r.current(d.Policy, now).row, &Row{})
	return *row, true
}

// Await waits until this dispatcher has read the log up to a sequence.
func (d *Dispatcher) Await(ctx context.Context, seq uint64) error { return d.board.await(ctx, seq) }

// Position is the sequence of the log up to which this dispatcher has read.
func (d *Dispatcher) Position() uint64 { return d.board.position() }

// HostSeen is what is known of a host: what it tells, and what it was seen to do.
type HostSeen struct {
	Host   string
	Status *bus.HostStatus // nil: it tells nothing
	Heard  time.Time
	Groups []string
	// Running counts the phases that it holds, by the log.
	Running int
	Last    time.Time // when it last claimed or ended something
}

// Hosts lists the hosts, by name.
func (d *Dispatcher) Hosts() []HostSeen {
	all := d.Metrics.hosts.told()
	d.board.meters.seen(d.bus.Now(), func(host, group string, running int, last time.Time) {
		h := all[host]
		if h == nil {
			h = &HostSeen{Host: host}
			all[host] = h
		}
		h.Running += running
		if last.After(h.Last) {
			h.Last = last
		}
		if !slices.Contains(h.Groups, group) {
			h.Groups = append(h.Groups, group)
		}
	})
	list := make([]HostSeen, 0, len(all))
	for _, h := range all {
		slices.SortFunc(h.Groups, compareNames)
		list = append(list, *h)
	}
	slices.SortFunc(list, func(a, b HostSeen) int { return compareNames(a.Host, b.Host) })
	return list
}

// Away tells whether a host that told of itself is missed now.
func (h *HostSeen) Away() bool { return h.Status != nil && time.Since(h.Heard) > hostSilent }
