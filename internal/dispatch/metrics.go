package dispatch

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sealfleet/internal/phases"
)

// Metrics are a dispatcher's numbers. Every dispatcher sees every event, so each tells
// of the whole fleet: with several, take the maximum, not the sum, of all but issued
// tasks, repairs and lost races, which are its own work.
type Metrics struct {
	events     *prometheus.CounterVec
	rejected   *prometheus.CounterVec
	duration   *prometheus.HistogramVec
	wait       *prometheus.HistogramVec
	handoff    prometheus.Histogram
	acted      prometheus.Histogram
	issued     *prometheus.CounterVec
	repairs    *prometheus.CounterVec
	lost       prometheus.Counter
	sweeps     prometheus.Counter
	strangers  prometheus.Gauge
	gateErrors *prometheus.CounterVec
	position   prometheus.GaugeFunc
	sectors    *prometheus.Desc
	waiting    *prometheus.Desc
	running    *prometheus.Desc
	oldest     *prometheus.Desc
	needed     *prometheus.Desc
	held       *prometheus.Desc

	mu    sync.Mutex
	board *board
}

// NewMetrics makes the numbers; register them with Register.
func NewMetrics() *Metrics {
	m := &Metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sealfleet_events_total", Help: "Events read from the log since this dispatcher started.",
		}, []string{"type", "phase"}),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sealfleet_events_rejected_total", Help: "Events that are not believed, because they do not chain to what came before.",
		}, []string{"reason"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sealfleet_phase_duration_seconds", Help: "From a phase's claim to its end, or from a gate's opening to its end.",
			Buckets: durationBuckets,
		}, []string{"group", "phase", "outcome"}),
		wait: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sealfleet_phase_wait_seconds", Help: "From the time when a phase could start to its claim by a host.",
			Buckets: durationBuckets,
		}, []string{"group", "phase"}),
		handoff: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sealfleet_handoff_seconds", Help: "From the event that ends a step to the claim of the next phase, as this dispatcher sees them; waiting for a slot is included.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .25, .5, 1, 5, 30, 120, 600, 3600, 14400},
		}),
		acted: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sealfleet_dispatch_seconds", Help: "From an event's delivery to the acknowledgement that all that follows from it is written.",
			Buckets: []float64{.0002, .0005, .001, .002, .005, .01, .02, .05, .1, .25, .5, 1, 5},
		}),
		issued: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sealfleet_tasks_issued_total", Help: "Tasks that this dispatcher published.",
		}, []string{"group", "phase"}),
		repairs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sealfleet_repairs_total", Help: "What this dispatcher did because another one, or the task stream, had not: issue, revoke, finish, task, archive, bus.",
		}, []string{"what"}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sealfleet_lost_races_total", Help: "Events that another dispatcher had appended first.",
		}),
		sweeps: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sealfleet_sweeps_total", Help: "Comparisons of the open issues with the task stream.",
		}),
		strangers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sealfleet_task_strangers", Help: "Messages in the task stream that are no task, by their subject.",
		}),
		gateErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sealfleet_gate_errors_total", Help: "Questions that the chain could not answer.",
		}, []string{"phase"}),
		sectors: prometheus.NewDesc("sealfleet_sectors", "Sectors by where they stand.", []string{"group", "state"}, nil),
		waiting: prometheus.NewDesc("sealfleet_phase_waiting", "Tasks that wait for a host with a free slot.", stationLabels, nil),
		running: prometheus.NewDesc("sealfleet_phase_running", "Tasks that a host has claimed.", stationLabels, nil),
		oldest:  prometheus.NewDesc("sealfleet_phase_oldest_wait_seconds", "How long the longest of the waiting tasks has waited; 0 if none waits.", stationLabels, nil),
		needed:  prometheus.NewDesc("sealfleet_backlog_slots_needed", "How many more slots a phase needs to keep up and to work its backlog off (dispatcher backlog says why).", stationLabels, nil),
		held:    prometheus.NewDesc("sealfleet_p1_held", "Sectors that are not started because too many of their group are not cleaned yet.", []string{"group"}, nil),
	}
	m.position = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "sealfleet_log_position", Help: "Sequence of the last event that this dispatcher has read.",
	}, func() float64 {
		if b := m.watched(); b != nil {
			return float64(b.position())
		}
		return 0
	})
	return m
}

var stationLabels = []string{"group", "phase"}

// Buckets for what takes between a tenth of a second (2 KiB) and days (64 GiB).
var durationBuckets = []float64{.01, .1, 1, 10, 60, 300, 900, 1800, 3600, 7200, 10800, 14400, 21600, 43200, 86400, 129600, 216000}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.parts() {
		c.Describe(ch)
	}
	for _, d := range []*prometheus.Desc{m.sectors, m.waiting, m.running, m.oldest, m.needed, m.held} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.parts() {
		c.Collect(ch)
	}
	if b := m.watched(); b != nil {
		for t, n := range b.tallies() {
			ch <- prometheus.MustNewConstMetric(m.sectors, prometheus.GaugeValue, float64(n), t.group, string(t.status))
		}
		m.collectBacklog(ch, b.backlog(time.Now()))
	}
}

func (m *Metrics) collectBacklog(ch chan<- prometheus.Metric, backlog []Advice) {
	for _, a := range backlog {
		gauge := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, a.Group, string(a.Phase))
		}
		gauge(m.waiting, float64(a.Waiting))
		gauge(m.running, float64(a.Running))
		gauge(m.oldest, a.Oldest)
		gauge(m.needed, float64(a.Need))
		if a.Phase == phases.P1 {
			ch <- prometheus.MustNewConstMetric(m.held, prometheus.GaugeValue, float64(a.Held), a.Group)
		}
	}
}

func (m *Metrics) parts() []prometheus.Collector {
	return []prometheus.Collector{
		m.events, m.rejected, m.duration, m.wait, m.handoff, m.acted, m.issued, m.repairs, m.lost, m.sweeps, m.strangers, m.gateErrors, m.position,
	}
}

func (m *Metrics) watch(b *board) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.board = b
}

func (m *Metrics) watched() *board {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.board
}

// tallies counts the sectors by group and status.
func (b *board) tallies() map[tally]int {
	counts := map[tally]int{}
	for _, s := range b.all() {
		state, _, gone := s.view()
		if !gone {
			counts[tally{state.Group, state.Status(b.policy)}]++
		}
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	for t, n := range b.ended {
		counts[t] += n
	}
	return counts
}

// count counts one event and what it changed.
func (m *Metrics) count(e phases.Event, c change) {
	// Labels come from the wire: what is not a known word must not make a new series.
	if stepIndex(e.Step) < 0 && e.Step != phases.SectorEnd {
		e.Step = "unknown"
	}
	switch e.Type {
	case phases.Submitted, phases.Issued, phases.Claimed, phases.Progress, phases.Done, phases.Failed,
		phases.Cancelled, phases.Redo, phases.Finished:
	default:
		e.Type = "unknown"
	}
	m.events.WithLabelValues(string(e.Type), string(e.Step)).Inc()
	if c.rejected != nil {
		m.rejected.WithLabelValues(string(c.rejected.Reason)).Inc()
		return
	}
	if c.entry == nil || c.after.Step == "" {
		return
	}
	switch e.Type {
	case phases.Claimed:
		if c.before.Status != phases.StatusIssued {
			return // taken over: it waits for its host, not for a slot
		}
		from := c.before.IssuedAt
		if c.before.NotBefore.After(from) {
			from = c.before.NotBefore
		}
		m.wait.WithLabelValues(e.Group, string(e.Step)).Observe(max(e.At.Sub(from).Seconds(), 0))
		if c.before.Issue == 1 && !c.doneAt.IsZero() {
			m.handoff.Observe(time.Since(c.doneAt).Seconds())
		}
	case phases.Done, phases.Failed:
		from := c.before.ClaimedAt
		if e.Step.IsGate() {
			from = c.before.IssuedAt
		}
		m.duration.WithLabelValues(e.Group, string(e.Step), string(e.Type)).Observe(max(e.At.Sub(from).Seconds(), 0))
	}
}
