package consume

import (
	"cmp"
	"context"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	dto "github.com/prometheus/client_model/go"

	"sealfleet/internal/bus"
	"sealfleet/internal/host"
	"sealfleet/internal/phases"
	"sealfleet/internal/version"
)

// board knows what of this host is worth telling: the jobs that hold a claim, and whether
// it drains.
type board struct {
	since    time.Time
	draining atomic.Bool
	changed  chan struct{} // something is worth telling at once

	mu   sync.Mutex
	jobs map[*job]*running
}

// running is a job that holds a claim.
type running struct {
	since time.Time
	ended bool // its outcome is not on the chain yet
}

func newBoard() *board {
	return &board{since: time.Now().UTC(), changed: make(chan struct{}, 1), jobs: map[*job]*running{}}
}

func (b *board) poke() {
	select {
	case b.changed <- struct{}{}:
	default: // it will be told anyway
	}
}

// begin shows a job that has begun; over takes it away again.
func (b *board) begin(j *job, since time.Time) (over func()) {
	b.mu.Lock()
	b.jobs[j] = &running{since: since.UTC()}
	b.mu.Unlock()
	b.poke()
	return func() {
		b.mu.Lock()
		delete(b.jobs, j)
		b.mu.Unlock()
		b.poke()
	}
}

// ended notes that a job's work is over and that its outcome is still to be reported.
func (b *board) ended(j *job) {
	b.mu.Lock()
	if r := b.jobs[j]; r != nil {
		r.ended = true
	}
	b.mu.Unlock()
	b.poke()
}

// drain notes whether this host takes nothing new.
func (b *board) drain(on bool) {
	if b.draining.Swap(on) != on {
		b.poke()
	}
}

const (
	// statusPause keeps hundreds of phases that begin at once from telling hundreds of times.
	statusPause = 250 * time.Millisecond
	// statusDisks is how often file systems are asked: on an export it costs the server.
	statusDisks = 3 * bus.StatusEvery
	// statusJobs is how many jobs are listed: of more, the slots tell the number.
	statusJobs = 2000
)

// tellStatus tells this host's status at intervals, and when something changes, until ctx
// ends; and then once more that it is quiet.
func (c *Consumer) tellStatus(ctx context.Context) {
	s := &statusOf{c: c, patience: host.NewPatience(cmp.Or(c.cfg.Doctor.Limit, 10*time.Second)), model: host.Model()}
	disks := make(chan []bus.HostDisk, 1)
	look := func() { // a hung mount must not keep the rest from being told
		go func() { disks <- s.disks() }()
	}
	look()
	looking, lookAt := true, time.Now().Add(statusDisks)
	tick := time.NewTicker(bus.StatusEvery)
	defer tick.Stop()
	for {
		if !looking && time.Now().After(lookAt) {
			look()
			looking, lookAt = true, time.Now().Add(statusDisks)
		}
		c.sayStatus(s.now(time.Now()))
		select {
		case <-ctx.Done():
			c.sayStatus(s.now(time.Now()))
			return
		case s.lastDisks = <-disks:
			looking = false
			c.metrics.disks(s.lastDisks)
		case <-tick.C:
		case <-c.board.changed:
			select {
			case <-time.After(statusPause):
			case <-ctx.Done():
			}
		}
	}
}

func (c *Consumer) sayStatus(s bus.HostStatus) {
	c.told.Store(&s)
	if c.bus.Connected() != nil {
		return // it would be told when the bus is back, and be old news
	}
	for _, g := range c.cfg.Groups {
		if err := c.bus.Notice(g, c.cfg.HostName, bus.NoticeStatus, s); err != nil {
			c.log.Debug("could not tell this host's status", "group", g, "error", err)
		}
	}
}

// Status is what this host last told of itself; nothing before it runs.
func (c *Consumer) Status() bus.HostStatus {
	if s := c.told.Load(); s != nil {
		return *s
	}
	return bus.HostStatus{V: phases.Version, Host: c.cfg.HostName, Groups: c.cfg.Groups, Version: version.String()}
}

// statusOf gathers a host's status.
type statusOf struct {
	c         *Consumer
	patience  *host.Patience
	model     string
	lastDisks []bus.HostDisk

	moved   map[*job]uint64 // bytes of the copies that run, at the last look
	movedAt time.Time
	rate    float64
}

func (s *statusOf) now(now time.Time) bus.HostStatus {
	c := s.c
	st := bus.HostStatus{
		V: phases.Version, Host: c.cfg.HostName, IP: c.cfg.IP, Groups: c.cfg.Groups, At: now.UTC(), Since: c.board.since,
		Version: version.String(), Draining: c.board.draining.Load(), Slots: c.slotsNow(), Jobs: c.board.list(now),
		Waiting: c.admission.texts(), Model: s.model, Disks: s.lastDisks,
		CopyLimit: c.shares.limit(), CopyRate: s.copyRate(now), Findings: c.admission.findings(),
	}
	st.MemoryTotal, st.MemoryFree = host.Memory()
	if a := c.admission; a != nil {
		st.Cores = len(a.cores.Allowed())
	}
	if st.Draining {
		st.QuietIn = c.board.quietIn(now)
	}
	return st
}

// slotsNow tells which slots there are and how many are busy. The gauge that /metrics
// shows is the one count of it.
func (c *Consumer) slotsNow() []bus.HostSlots {
	list := []bus.HostSlots{}
	for _, w := range c.cfg.Workers {
		var m dto.Metric
		busy := 0
		if err := c.metrics.busy.WithLabelValues(w.String()).Write(&m); err == nil {
			busy = int(m.GetGauge().GetValue())
		}
		list = append(list, bus.HostSlots{Entry: w.String(), Phases: w.Phases, Slots: w.Num, Busy: min(busy, w.Num)})
	}
	return list
}

// list returns the jobs that run, the oldest first.
func (b *board) list(now time.Time) []bus.HostJob {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := make([]bus.HostJob, 0, len(b.jobs))
	for j, r := range b.jobs {
		note, fraction := j.note.text(now)
		list = append(list, bus.HostJob{
			Group: j.task.Group, Sector: j.task.Sector, Phase: j.task.Step, Attempt: j.task.Attempt, Since: r.since,
			Note: note, Fraction: fraction, Reported: r.ended,
		})
	}
	slices.SortFunc(list, func(a, b bus.HostJob) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Sector, b.Sector), cmp.Compare(a.Phase, b.Phase))
	})
	return list[:min(len(list), statusJobs)]
}

// quietIn estimates how many seconds it takes until nothing runs any more: of what runs,
// the longest that is left, if it goes on as fast as it did on the whole. Negative: not known.
func (b *board) quietIn(now time.Time) float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	longest := 0.0
	for j, r := range b.jobs {
		if r.ended {
			continue
		}
		left, known := j.note.left(now)
		if !known {
			return -1
		}
		longest = max(longest, left.Seconds())
	}
	return longest
}

// copyRate returns how many bytes per second the copies of this host moved since the last
// look, reading back included.
func (s *statusOf) copyRate(now time.Time) float64 {
	moved := map[*job]uint64{}
	var sum uint64
	s.c.board.mu.Lock()
	for j := range s.c.board.jobs {
		if j.task.Step == phases.P5 {
			moved[j] = j.note.bytes()
			sum += moved[j] - min(moved[j], s.moved[j])
		}
	}
	s.c.board.mu.Unlock()
	took := now.Sub(s.movedAt).Seconds()
	if s.moved == nil || len(moved) == 0 {
		s.rate = 0
	} else if took < 1 {
		return s.rate // told again so soon that a difference would say nothing
	} else {
		s.rate = float64(sum) / took
	}
	s.moved, s.movedAt = moved, now
	return s.rate
}

// disks asks the file systems that this host works on.
func (s *statusOf) disks() []bus.HostDisk {
	cfg := &s.c.cfg
	if cfg.Engine == EngineNoop {
		return nil
	}
	share := ""
	if cfg.Supports(phases.P1) {
		share = cfg.share(cfg.IP)
	}
	var list []bus.HostDisk
	add := func(name, path, share string) {
		d, err := s.patience.Disk(path, share)
		if err != nil {
			return // the doctor says so, with the mend
		}
		list = append(list, bus.HostDisk{Name: name, Path: path, Total: d.Total, Free: d.Free, Reserved: d.Reserved})
	}
	add("LOCAL_DIR", filepath.Clean(cfg.LocalDir), share)
	if cfg.Supports(phases.P5) {
		for _, n := range cfg.Nodes {
			if !n.IsS3() {
				add(n.Name, n.Dir, "")
			} else if free, known := s.c.quotas.known(n, ""); n.Quota > 0 && known {
				list = append(list, bus.HostDisk{Name: n.Name, Path: n.Dir, Total: uint64(n.Quota), Free: uint64(max(free, 0))})
			}
		}
	}
	return list
}

// texts returns what queues wait for, a line for each. a may be nil.
func (a *admission) texts() (list []string) {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for q, w := range a.waits {
		if w.holds(a.rest) {
			list = append(list, w.reason+": "+q.group+": "+w.err.Error())
		}
	}
	slices.Sort(list)
	return list
}

// findings returns what the doctor found at his last look, without what is well. a may be nil.
func (a *admission) findings() (list []bus.HostFound) {
	if a == nil || a.checkup == nil {
		return nil
	}
	last := a.checkup.last.Load()
	if last == nil {
		return nil
	}
	for _, f := range last.Findings {
		if f.Severity != host.OK {
			list = append(list, bus.HostFound{Code: f.Code, Severity: string(f.Severity), Subject: f.Subject, Evidence: f.Evidence, Mend: f.Mend})
		}
	}
	return list
}

// limit returns the bytes per second of all copies of this host together, 0: unlimited.
func (s *shares) limit() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}

// text tells how far a phase is, for people; empty before it told anything.
func (n *progressNote) text(now time.Time) (note string, fraction float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.started.IsZero() {
		return "", 0
	}
	return n.say(now)
}

// left estimates how much longer the running step takes, if it goes on as it did.
func (n *progressNote) left(now time.Time) (time.Duration, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p, took := n.last, now.Sub(n.began)
	if n.began.IsZero() || p.Done <= n.beganDone || p.Total == 0 || took <= 0 {
		return 0, false
	}
	rest := float64(p.Total-min(p.Done, p.Total)) / float64(p.Done-n.beganDone)
	return time.Duration(rest * float64(took)), true
}

// bytes returns how many bytes a copy moved so far, both ways.
func (n *progressNote) bytes() (sum uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for done := range maps.Values(n.steps) {
		sum += done
	}
	return sum
}
