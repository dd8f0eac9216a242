package dispatch

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sealfleet/internal/bus"
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
	failures   *prometheus.CounterVec
	takeovers  *prometheus.CounterVec
	again      prometheus.Counter
	position   prometheus.GaugeFunc

	codes *bus.Words
	hosts *hostBook

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
			Name: "sealfleet_repairs_total", Help: "What this dispatcher did because another one, or the task stream, had not: issue, revoke, finish, task (it was missing), stuck (it was there, and came to nobody), archive, bus.",
		}, []string{"what"}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sealfleet_lost_races_total", Help: "Events that another dispatcher had appended first.",
		}),
		sweeps: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sealfleet_sweeps_total", Help: "Comparisons of the open issues with the task stream.",
		}),
		strangers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sealfleet_task_strangers", Help: "Messages in the task stream that were no task, by their subject, at the last sweep; they are set aside.",
		}),
		gateErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sealfleet_gate_errors_total", Help: "Questions that the chain could not answer.",
		}, []string{"phase"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sealfleet_phase_failures_total", Help: "Attempts that failed, by the code of their failure (docs/runbooks/phase-failing.md); a code beyond the first 64 is other.",
		}, []string{"group", "phase", "code"}),
		takeovers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sealfleet_phase_takeovers_total", Help: "Phases that another host claimed while one had them: the first was silent for longer than ACK_WAIT.",
		}, stationLabels),
		again: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sealfleet_event_redeliveries_total", Help: "Events that were given to this dispatcher and had been given out before.",
		}),
		codes: bus.NewWords(64), hosts: newHostBook(),
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

// Buckets for what takes between a tenth of a second (2 KiB) and days (64 GiB).
var durationBuckets = []float64{.01, .1, 1, 10, 60, 300, 900, 1800, 3600, 7200, 10800, 14400, 21600, 43200, 86400, 129600, 216000}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.parts() {
		c.Describe(ch)
	}
	for _, d := range boardDescs {
		ch <- d
	}
	m.hosts.Describe(ch)
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.parts() {
		c.Collect(ch)
	}
	now := time.Now()
	if b := m.watched(); b != nil {
		fleet := b.now()
		b.survey(fleet).collect(ch, b.backlog(fleet), m.hosts.offers(now))
	}
	m.hosts.collect(ch, now)
}

func (m *Metrics) parts() []prometheus.Collector {
	return []prometheus.Collector{
		m.events, m.rejected, m.duration, m.wait, m.handoff, m.acted, m.issued, m.repairs, m.lost, m.sweeps, m.strangers, m.gateErrors,
		m.failures, m.takeovers, m.again, m.position,
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

// count counts one event and what it changed.
func (m *Metrics) count(e phases.Event, c change) {
	// Labels come from the wire: what is not a known word must not make a new series.
	if stepIndex(e.Step) < 0 && e.Step != phases.SectorEnd {
		e.Step = "unknown"
	}
	switch e.Type {
	case phases.Submitted, phases.Issued, phases.Claimed, phases.Progress, phases.Done, phases.Failed,
		phases.Cancelled, phases.Redo, phases.Finished, phases.Stopped, phases.Paused, phases.Resumed:
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
			// Taken over: it waited for its host, not for a slot.
			m.takeovers.WithLabelValues(e.Group, string(e.Step)).Inc()
			return
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
		if e.Type == phases.Failed && e.Result != nil {
			m.failures.WithLabelValues(e.Group, string(e.Step), m.codes.Known(e.Result.Code)).Inc()
		}
		from := c.before.ClaimedAt
		if e.Step.IsGate() {
			from = c.before.IssuedAt
		}
		m.duration.WithLabelValues(e.Group, string(e.Step), string(e.Type)).Observe(max(e.At.Sub(from).Seconds(), 0))
	}
}
