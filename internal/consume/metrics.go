package consume

import "github.com/prometheus/client_golang/prometheus"

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
			Name: "sealfleet_attempts_total", Help: "Attempts that ended on this host, by phase and code: ok, an error's code, lost (another host holds the claim) or handed_back.",
		}, []string{"phase", "code"}),
		runSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sealfleet_phase_run_seconds", Help: "How long successful attempts worked, without waiting.",
			// A tenth of a second to 60 hours: the old note's range from 2 KiB to 32 GiB.
			Buckets: []float64{.1, .5, 1, 5, 15, 60, 300, 900, 1800, 3600, 2 * 3600, 3 * 3600, 4 * 3600, 6 * 3600, 12 * 3600, 24 * 3600, 36 * 3600, 48 * 3600, 60 * 3600},
		}, []string{"phase"}),
		copied: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sealfleet_copied_bytes_total", Help: "Bytes that p5 copied to storage nodes and verified.",
		}),
		freed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sealfleet_freed_bytes_total", Help: "Bytes that p6 freed.",
		}),
		kills: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sealfleet_child_kills_total", Help: "Engines that had to be killed: cancelled, hung or protocol.",
		}, []string{"reason"}),
		heartbeats: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sealfleet_heartbeat_failures_total", Help: "Heartbeats that failed: lost (another host's claim was found) or unreachable.",
		}, []string{"reason"}),
	}
	m.audits = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sealfleet_storage_audits_total", Help: "Stored sectors that were audited on schedule, by result: ok, bad (cannot answer for its CommR), unreadable or unknown.",
	}, []string{"result"})
	for _, result := range []string{AuditOK, AuditBad, AuditUnreadable, AuditUnknown} {
		m.audits.WithLabelValues(result)
	}
	r.MustRegister(m.audits)
	r.MustRegister(m.slots, m.busy, m.attempts, m.runSeconds, m.copied, m.freed, m.kills, m.heartbeats)
	for _, why := range []string{"cancelled", "hung", "protocol"} {
		m.kills.WithLabelValues(why)
	}
	for _, why := range []string{"lost", "unreachable"} {
		m.heartbeats.WithLabelValues(why)
	}
	return m
}
