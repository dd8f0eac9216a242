package consume

import (
	"github.com/prometheus/client_golang/prometheus"

	"sealfleet/internal/bus"
)

// metrics are the consumer's numbers. Slots are labelled by their entry in WORKERS.
type metrics struct {
	slots      *prometheus.GaugeVec
	busy       *prometheus.GaugeVec
	attempts   *prometheus.CounterVec
	runSeconds *prometheus.HistogramVec
	copied     prometheus.Counter
	freed      prometheus.Counter
	kills      *prometheus.CounterVec
	heartbeats *prometheus.CounterVec
	audits     *prometheus.CounterVec

	redelivered  *prometheus.CounterVec
	moved        *prometheus.CounterVec
	copyLimit    prometheus.Gauge
	diskSize     *prometheus.GaugeVec
	diskFree     *prometheus.GaugeVec
	diskReserved *prometheus.GaugeVec

	takeovers *prometheus.CounterVec
	codes     *bus.Words // of attempts: an engine's program may make up any
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		slots: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sealfleet_slots", Help: "Slots of this host, by their entry in WORKERS.",
		}, []string{"entry"}),
		busy: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sealfleet_slots_busy", Help: "Slots that work, by their entry in WORKERS.",
		}, []string{"entry"}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sealfleet_attempts_total", Help: "Attempts that ended on this host, by phase and code: ok, an error's code, lost (another host holds the claim) or handed_back; a code beyond the first 64 is other.",
		}, []string{"phase", "code"}),
		runSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sealfleet_phase_run_seconds", Help: "How long successful attempts worked, without waiting.",
			// A tenth of a second to 60 hours: the old note's range from 2 KiB to 32 GiB.
			Buckets: []float64{.1, .5, 1, 5, 15, 60, 300, 900, 1800, 3600, 2 * 3600, 3 * 3600, 4 * 3600, 6 * 3600, 12 * 3600, 24 * 3600, 36 * 3600, 48 * 3600, 60 * 3600},
		}, []string{"phase"}),
		copied: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sealfleet_copied_bytes_total", Help: "Bytes that p5 copied to storage nodes and verified, counted when it is done.",
		}),
		freed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sealfleet_freed_bytes_total", Help: "Bytes that p6 freed.",
		}),
		kills: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sealfleet_child_kills_total", Help: "Engines that had to be killed: cancelled, hung, protocol or limit.",
		}, []string{"reason"}),
		heartbeats: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sealfleet_heartbeat_failures_total", Help: "Heartbeats that failed: lost (another host's claim was found) or unreachable.",
		}, []string{"reason"}),
	}
	disk := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"disk"})
	}
	m.diskSize = disk("sealfleet_disk_size_bytes", "Size of this host's share (LOCAL_DIR) or of a storage node, by its name.")
	m.diskFree = disk("sealfleet_disk_free_bytes", "Free space of this host's share (LOCAL_DIR) or of a storage node.")
	m.diskReserved = disk("sealfleet_disk_reserved_bytes", "What running phases, of all hosts that share it, will still write there.")
	m.redelivered = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sealfleet_task_redeliveries_total", Help: "Tasks that came to this host and had been given out before, to it or to another one.",
	}, []string{"phase"})
	m.moved = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sealfleet_copy_moved_bytes_total", Help: "Bytes that copies moved, as they go: step copy writes, step verify reads back. Its rate is the speed of the copies.",
	}, []string{"node", "step"})
	m.copyLimit = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sealfleet_copy_limit_bytes_per_second", Help: "Most that all copies of this host move together; 0: unlimited.",
	})
	m.codes = bus.NewWords(64)
	r.MustRegister(m.redelivered, m.moved, m.copyLimit, m.diskSize, m.diskFree, m.diskReserved)
	m.audits = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sealfleet_storage_audits_total", Help: "Stored sectors that were audited on schedule, by result: ok, bad (cannot answer for its CommR), unreadable or unknown.",
	}, []string{"result"})
	for _, result := range []string{AuditOK, AuditBad, AuditUnreadable, AuditUnknown} {
		m.audits.WithLabelValues(result)
	}
	m.takeovers = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sealfleet_takeovers_total", Help: "Tasks that came although somebody held them: taken, holder_lives (left alone) or grace (the holder gets time to come back).",
	}, []string{"what"})
	for _, what := range []string{"taken", "holder_lives", "grace"} {
		m.takeovers.WithLabelValues(what)
	}
	r.MustRegister(m.audits, m.takeovers)
	r.MustRegister(m.slots, m.busy, m.attempts, m.runSeconds, m.copied, m.freed, m.kills, m.heartbeats)
	for _, why := range []string{"cancelled", "hung", "protocol", "limit"} {
		m.kills.WithLabelValues(why)
	}
	for _, why := range []string{"lost", "unreachable"} {
		m.heartbeats.WithLabelValues(why)
	}
	return m
}

// disks shows what the file systems that this host works on have. One that does not
// answer is missing: the doctor says what is wrong with it.
func (m *metrics) disks(list []bus.HostDisk) {
	for _, v := range []*prometheus.GaugeVec{m.diskSize, m.diskFree, m.diskReserved} {
		v.Reset()
	}
	for _, d := range list {
		m.diskSize.WithLabelValues(d.Name).Set(float64(d.Total))
		m.diskFree.WithLabelValues(d.Name).Set(float64(d.Free))
		m.diskReserved.WithLabelValues(d.Name).Set(float64(d.Reserved))
	}
}

// movedTo counts what a copy to a storage node moves.
func (m *metrics) movedTo(node string) func(step string, bytes uint64) {
	return func(step string, bytes uint64) {
		if isCopy(step) {
			m.moved.WithLabelValues(node, step).Add(float64(bytes))
		}
	}
}
