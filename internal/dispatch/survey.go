package dispatch

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sealfleet/internal/phases"
)

// What the board tells at each scrape.
var (
	sectorsDesc   = prometheus.NewDesc("sealfleet_sectors", "Sectors by where they stand.", []string{"group", "state"}, nil)
	waitingDesc   = prometheus.NewDesc("sealfleet_phase_waiting", "Tasks that wait for a host with a free slot.", stationLabels, nil)
	runningDesc   = prometheus.NewDesc("sealfleet_phase_running", "Tasks that a host has claimed, or that are with the chain.", stationLabels, nil)
	oldestDesc    = prometheus.NewDesc("sealfleet_phase_oldest_wait_seconds", "How long the longest of the waiting tasks has waited; 0 if none waits.", stationLabels, nil)
	oldestRunDesc = prometheus.NewDesc("sealfleet_phase_oldest_run_seconds", "How long the longest of the running tasks has run; 0 if none runs.", stationLabels, nil)
	overdueDesc   = prometheus.NewDesc("sealfleet_phase_overdue", "Running tasks that take longer than three times the 95th percentile of those before them, or than a limit of the phase's own while fewer than five were seen.", stationLabels, nil)
	parkedDesc    = prometheus.NewDesc("sealfleet_phase_parked", "Sectors that are parked at a phase or gate until an operator acts.", stationLabels, nil)
	unservedDesc  = prometheus.NewDesc("sealfleet_phase_unserved", "Tasks that wait although no living host offers a slot for them.", stationLabels, nil)
	neededDesc    = prometheus.NewDesc("sealfleet_backlog_slots_needed", "How many more slots a phase needs to keep up and to work its backlog off (dispatcher backlog says why).", stationLabels, nil)
	heldDesc      = prometheus.NewDesc("sealfleet_p1_held", "Sectors that are not started because too many of their group are not cleaned yet.", []string{"group"}, nil)
	marginDesc    = prometheus.NewDesc("sealfleet_deadline_margin_seconds", "Time left to the nearest deadline of a group: of the precommit (the ticket expires) or of the commit (the sector number is lost). Negative: missed.", deadlineLabels, nil)
	usedDesc      = prometheus.NewDesc("sealfleet_deadline_used_ratio", "The largest part of its time that a sector of a group has used up, 0 to 1.", deadlineLabels, nil)
	atRiskDesc    = prometheus.NewDesc("sealfleet_deadline_sectors", "Sectors that have used up so many per cent of the time to a deadline, or more.", append(deadlineLabels, "used"), nil)

	boardDescs = []*prometheus.Desc{
		sectorsDesc, waitingDesc, runningDesc, oldestDesc, oldestRunDesc, overdueDesc, parkedDesc, unservedDesc, neededDesc, heldDesc,
		marginDesc, usedDesc, atRiskDesc,
	}
)

var (
	stationLabels  = []string{"group", "phase"}
	deadlineLabels = []string{"group", "deadline"}
)

// The parts of the time to a deadline that are told of.
var risks = []struct {
	label string
	part  float64
}{{"50", .5}, {"80", .8}, {"95", .95}}

// survey is what is to be told of all sectors, from one walk over the board.
type survey struct {
	sectors   map[tally]int
	stations  map[station]*stationSurvey
	deadlines map[deadlineOf]*deadlineSurvey
}

type stationSurvey struct {
	onChain   int // of a gate
	oldestRun time.Duration
	overdue   int
	parked    int
}

type deadlineOf struct{ group, kind string }

type deadlineSurvey struct {
	margin time.Duration
	used   float64
	atRisk [3]int // by risks
}

// timeframe is the time that a sector has for its next deadline: from when it became known.
type timeframe struct{ from, to time.Time }

// note keeps when a deadline became known: an issue after a failure has the same ticket,
// and its clock goes on.
func (w *timeframe) note(d phases.Deadline, at time.Time) {
	if !d.At.Equal(w.to) {
		*w = timeframe{at, d.At}
	}
}

func (w timeframe) used(now time.Time) float64 {
	whole := w.to.Sub(w.from)
	if whole <= 0 {
		return 1
	}
	return max(float64(now.Sub(w.from))/float64(whole), 0)
}

func (b *board) survey(now time.Time) *survey {
	v := &survey{sectors: map[tally]int{}, stations: map[station]*stationSurvey{}, deadlines: map[deadlineOf]*deadlineSurvey{}}
	limits := map[station]time.Duration{}
	for _, s := range b.all() {
		s.mu.Lock()
		state, frame, gone := *s.state, s.frame, s.gone
		s.mu.Unlock()
		if gone {
			continue
		}
		v.sectors[tally{state.Group, state.Status(b.policy)}]++
		v.deadline(&state, frame, now)
		for _, step := range phases.Steps() {
			n, ok := nowOf(state.Step(step), b.policy, now)
			if !ok {
				continue
			}
			at := station{state.Group, step}
			limit, known := limits[at]
			if !known {
				limit = b.meters.limit(at)
				limits[at] = limit
			}
			v.station(at).add(n, limit, now)
		}
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	for t, n := range b.ended {
		v.sectors[t] += n
	}
	return v
}

func (v *survey) station(at station) *stationSurvey {
	if v.stations[at] == nil {
		v.stations[at] = &stationSurvey{}
	}
	return v.stations[at]
}

func (t *stationSurvey) add(n Now, limit time.Duration, now time.Time) {
	switch n.State {
	case NowParked:
		t.parked++
		return
	case NowOnChain:
		t.onChain++
	case NowRunning:
	default:
		return
	}
	ran := now.Sub(n.Since)
	t.oldestRun = max(t.oldestRun, ran)
	if ran > limit {
		t.overdue++
	}
}

func (v *survey) deadline(s *phases.Sector, frame timeframe, now time.Time) {
	d := s.Deadline()
	if d.At.IsZero() {
		return
	}
	kind := string(phases.Precommit)
	if d.Code == phases.CodeCommitExpired {
		kind = string(phases.Commit)
	}
	key := deadlineOf{s.Group, kind}
	t := v.deadlines[key]
	if t == nil {
		t = &deadlineSurvey{margin: d.At.Sub(now)}
		v.deadlines[key] = t
	}
	used := frame.used(now)
	t.margin, t.used = min(t.margin, d.At.Sub(now)), max(t.used, used)
	for i, r := range risks {
		if used >= r.part {
			t.atRisk[i]++
		}
	}
}

func (v *survey) collect(ch chan<- prometheus.Metric, backlog []Advice, offers *offers) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	for t, n := range v.sectors {
		gauge(sectorsDesc, float64(n), t.group, string(t.status))
	}
	var groups []string
	for _, a := range backlog {
		at := []string{a.Group, string(a.Phase)}
		gauge(waitingDesc, float64(a.Waiting), at...)
		gauge(runningDesc, float64(a.Running), at...)
		gauge(oldestDesc, a.Oldest, at...)
		gauge(neededDesc, float64(a.Need), at...)
		gauge(unservedDesc, float64(offers.unserved(a)), at...)
		if a.Phase == phases.P1 {
			gauge(heldDesc, float64(a.Held), a.Group)
			groups = append(groups, a.Group)
		}
	}
	for _, g := range slices.Compact(groups) {
		for _, step := range phases.Steps() {
			t := v.station(station{g, step})
			at := []string{g, string(step)}
			if step.IsGate() {
				gauge(runningDesc, float64(t.onChain), at...)
			}
			gauge(oldestRunDesc, t.oldestRun.Seconds(), at...)
			gauge(overdueDesc, float64(t.overdue), at...)
			gauge(parkedDesc, float64(t.parked), at...)
		}
	}
	for k, t := range v.deadlines {
		gauge(marginDesc, t.margin.Seconds(), k.group, k.kind)
		gauge(usedDesc, t.used, k.group, k.kind)
		for i, r := range risks {
			gauge(atRiskDesc, float64(t.atRisk[i]), k.group, k.kind, r.label)
		}
	}
}

// What a step may take while nothing was measured: long enough for 64 GiB on a host
// without SHA extensions, and for a chain that is slow.
var patienceOf = map[phases.Step]time.Duration{
	phases.P1: 48 * time.Hour, phases.P2: 12 * time.Hour, phases.Precommit: 3 * time.Hour, phases.P3: time.Hour,
	phases.P4: 12 * time.Hour, phases.P5: 6 * time.Hour, phases.Commit: 6 * time.Hour, phases.P6: time.Hour,
}

const (
	overdueTimes = 3
	overdueFloor = 10 * time.Minute // below it, a busy moment would be called trouble
	overdueKnown = 5                // attempts that must have been measured
)

// limit is how long a step of a group may take before it is overdue.
func (m *meters) limit(at station) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.all[at]
	if p == nil || len(p.took.items) < overdueKnown {
		return patienceOf[at.step]
	}
	took := slices.Sorted(slices.Values(p.took.items))
	return max(overdueTimes*quantile(took, .95), overdueFloor)
}
