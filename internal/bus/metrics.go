package bus

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
)

var (
	connectedDesc  = prometheus.NewDesc("sealfleet_bus_connected", "1 if the connection to NATS stands and the log may be trusted, else 0.", nil, nil)
	wentBackDesc   = prometheus.NewDesc("sealfleet_bus_log_went_back", "1 if the event log lost events that it had acknowledged: everything stops.", nil, nil)
	reconnectsDesc = prometheus.NewDesc("sealfleet_bus_reconnects_total", "How often the connection to NATS was lost and made again.", nil, nil)
	setAsideDesc   = prometheus.NewDesc("sealfleet_bus_set_aside_total", "Messages that could not be read and were set aside.", nil, nil)
	seenDesc       = prometheus.NewDesc("sealfleet_bus_highest_sequence", "The highest sequence of SEAL_EVENTS that this program was ever acknowledged.", nil, nil)

	streamLabels   = []string{"stream"}
	streamMsgsDesc = prometheus.NewDesc("sealfleet_bus_stream_messages", "Messages in a stream.", streamLabels, nil)
	streamSizeDesc = prometheus.NewDesc("sealfleet_bus_stream_size_bytes", "Size of a stream.", streamLabels, nil)
	streamLastDesc = prometheus.NewDesc("sealfleet_bus_stream_last_sequence", "Sequence of a stream's last message.", streamLabels, nil)
	wantedDesc     = prometheus.NewDesc("sealfleet_bus_stream_copies", "Servers that shall have all of a stream (STREAM_REPLICAS when it was made).", streamLabels, nil)
	missingDesc    = prometheus.NewDesc("sealfleet_bus_stream_copies_missing", "Of those, servers that are away or behind.", streamLabels, nil)

	durableLabels   = []string{"stream", "durable"}
	pendingDesc     = prometheus.NewDesc("sealfleet_bus_durable_pending", "Messages that were given to nobody yet.", durableLabels, nil)
	ackPendingDesc  = prometheus.NewDesc("sealfleet_bus_durable_ack_pending", "Messages in somebody's hands, or held back until a time.", durableLabels, nil)
	redeliveredDesc = prometheus.NewDesc("sealfleet_bus_durable_redelivered", "Messages in somebody's hands that were given out before.", durableLabels, nil)
	pullsDesc       = prometheus.NewDesc("sealfleet_bus_durable_waiting_pulls", "Requests of hosts with a free slot that wait for a message.", durableLabels, nil)
	deliveriesDesc  = prometheus.NewDesc("sealfleet_bus_durable_deliveries_total", "Messages that were given out, again or for the first time.", durableLabels, nil)
	askedDesc       = prometheus.NewDesc("sealfleet_bus_last_asked_timestamp_seconds", "When the server last told about its streams.", nil, nil)

	connectionDescs = []*prometheus.Desc{connectedDesc, wentBackDesc, reconnectsDesc, setAsideDesc, seenDesc}
	streamDescs     = []*prometheus.Desc{
		streamMsgsDesc, streamSizeDesc, streamLastDesc, wantedDesc, missingDesc,
		pendingDesc, ackPendingDesc, redeliveredDesc, pullsDesc, deliveriesDesc, askedDesc,
	}
)

// Metrics are the numbers of a connection and, for dispatchers, of the streams. A host may
// not ask about streams.
type Metrics struct {
	b *Bus

	mu        sync.Mutex
	streams   []*jetstream.StreamInfo
	consumers []*jetstream.ConsumerInfo
	asked     time.Time
}

// NewMetrics makes them; Follow keeps the part about streams up to date.
func NewMetrics(b *Bus) *Metrics { return &Metrics{b: b} }

// AskEvery is how often the server is asked about its streams. A scrape never waits for it.
const AskEvery = 10 * time.Second

// Follow asks about the streams until ctx ends.
func (m *Metrics) Follow(ctx context.Context) {
	tick := time.NewTicker(AskEvery)
	defer tick.Stop()
	for {
		m.Ask(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Ask asks about the streams once. What does not answer keeps its numbers, and shows by
// the time of the last answer.
func (m *Metrics) Ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, AskEvery/2)
	defer cancel()
	var streams []*jetstream.StreamInfo
	var consumers []*jetstream.ConsumerInfo
	for _, name := range []string{EventsStream, TasksStream, ArchiveStream, ControlStream, AsideStream} {
		s, err := m.b.js.Stream(ctx, name)
		if err != nil {
			m.b.log.Debug("cannot ask about a stream", "stream", name, "error", err)
			if ctx.Err() != nil || m.b.Connected() != nil {
				return
			}
			continue // it is missing, and its numbers with it
		}
		streams = append(streams, s.CachedInfo())
		if name != EventsStream && name != TasksStream {
			continue
		}
		list := s.ListConsumers(ctx)
		for c := range list.Info() {
			if c.Config.Durable != "" && c.Config.Metadata[ManagedKey] != "" { // others come and go under random names
				consumers = append(consumers, c)
			}
		}
		if list.Err() != nil {
			return
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.streams, m.consumers, m.asked = streams, consumers, time.Now()
}

// Streams returns what the server last told of the streams and of our durables, and when.
func (m *Metrics) Streams() ([]*jetstream.StreamInfo, []*jetstream.ConsumerInfo, time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.streams, m.consumers, m.asked
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range connectionDescs {
		ch <- d
	}
	if m.b.cfg.Role == RoleDispatcher {
		for _, d := range streamDescs {
			ch <- d
		}
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	put := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, t, v, labels...)
	}
	put(connectedDesc, prometheus.GaugeValue, oneIf(m.b.Connected() == nil))
	put(wentBackDesc, prometheus.GaugeValue, oneIf(m.b.Stopped() != nil))
	put(reconnectsDesc, prometheus.CounterValue, float64(m.b.nc.Stats().Reconnects))
	put(setAsideDesc, prometheus.CounterValue, float64(m.b.SetAside()))
	put(seenDesc, prometheus.GaugeValue, float64(m.b.seen.highest()))
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.asked.IsZero() {
		return
	}
	put(askedDesc, prometheus.GaugeValue, float64(m.asked.UnixMilli())/1000)
	for _, s := range m.streams {
		name := s.Config.Name
		put(streamMsgsDesc, prometheus.GaugeValue, float64(s.State.Msgs), name)
		put(streamSizeDesc, prometheus.GaugeValue, float64(s.State.Bytes), name)
		put(streamLastDesc, prometheus.GaugeValue, float64(s.State.LastSeq), name)
		wanted := max(s.Config.Replicas, 1)
		put(wantedDesc, prometheus.GaugeValue, float64(wanted), name)
		put(missingDesc, prometheus.GaugeValue, float64(max(wanted-current(s.Cluster), 0)), name)
	}
	for _, c := range m.consumers {
		at := []string{c.Stream, c.Name}
		put(pendingDesc, prometheus.GaugeValue, float64(c.NumPending), at...)
		put(ackPendingDesc, prometheus.GaugeValue, float64(c.NumAckPending), at...)
		put(redeliveredDesc, prometheus.GaugeValue, float64(c.NumRedelivered), at...)
		put(pullsDesc, prometheus.GaugeValue, float64(c.NumWaiting), at...)
		put(deliveriesDesc, prometheus.CounterValue, float64(c.Delivered.Consumer), at...)
	}
}

// copySilent is when a copy counts as away. The server itself calls it so a minute later.
const copySilent = 15 * time.Second

// current counts the servers that have all of a stream. A server alone tells of no cluster.
func current(c *jetstream.ClusterInfo) int {
	if c == nil || c.Leader == "" && len(c.Replicas) == 0 {
		return 1
	}
	n := 0
	if c.Leader != "" {
		n++
	}
	for _, r := range c.Replicas {
		if r.Current && !r.Offline && r.Active < copySilent {
			n++
		}
	}
	return n
}

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
