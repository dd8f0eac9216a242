package bus

import (
	"fmt"
	"maps"
	"time"

	"sealfleet/internal/phases"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// maxWaiting is how many pulls may wait on one durable: one for each free slot of
	// each host. The server's own default refuses the 513th.
	maxWaiting = 20_000
	// maxConsumers is explicit, because the server's hidden limit is 1,000.
	maxConsumers = 100_000
	// dispatcherAckWait is how soon another dispatcher takes over an event.
	dispatcherAckWait = 10 * time.Second
)

// managed adds our mark to metadata.
func managed(more map[string]string) map[string]string {
	m := map[string]string{ManagedKey: ManagedValue}
	maps.Copy(m, more)
	return m
}

// streams are the streams as they shall be.
func (c Config) streams() []jetstream.StreamConfig {
	replicas := max(c.Replicas, 1)
	monitor := func(more map[string]string) map[string]string {
		m := map[string]string{"io.nats.monitor.enabled": "1"}
		if replicas > 1 {
			m["io.nats.monitor.peer-expect"] = fmt.Sprint(replicas)
			m["io.nats.monitor.peer-lag-critical"] = "1000"
			m["io.nats.monitor.peer-seen-critical"] = "1m"
		}
		maps.Copy(m, more)
		return managed(m)
	}
	return []jetstream.StreamConfig{
		{
			Name: EventsStream, Subjects: []string{eventSubjects},
			Description: "sealfleet: the truth, every event of every sector (ev.<group>.<sector>.<step>.<actor>)",
			Retention:   jetstream.LimitsPolicy, Discard: jetstream.DiscardNew,
			Storage: jetstream.FileStorage, Replicas: replicas, MaxConsumers: maxConsumers,
			DenyDelete: true, DenyPurge: true, AllowDirect: true,
			Metadata: monitor(nil),
		},
		{
			Name: TasksStream, Subjects: []string{taskSubjects},
			Description: "sealfleet: phase tasks to be done (seal.<group>.<phase>.<sector>.<issue>)",
			Retention:   jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew,
			MaxMsgsPerSubject: 1, DiscardNewPerSubject: true,
			Storage: jetstream.FileStorage, Replicas: replicas, MaxConsumers: maxConsumers,
			Metadata: monitor(map[string]string{
				// One message per subject: this is the backlog. (msgs-warn and
				// msgs-critical are about too few.)
				"io.nats.monitor.subjects-warn":     "20000",
				"io.nats.monitor.subjects-critical": "100000",
			}),
		},
		{
			Name: ArchiveStream, Subjects: []string{archiveSubjects},
			Description: "sealfleet: a tombstone for each sector that ended (archive.<sector>)",
			Retention:   jetstream.LimitsPolicy, Discard: jetstream.DiscardNew,
			MaxMsgsPerSubject: 1, DiscardNewPerSubject: true,
			Storage: jetstream.FileStorage, Replicas: replicas, MaxConsumers: maxConsumers,
			Metadata: monitor(nil),
		},
		{
			Name: ControlStream, Subjects: []string{controlSubjects},
			Description: "sealfleet: what operators set, such as drain.<host> and pause.<group>.<phase>; the last message of a subject counts",
			Retention:   jetstream.LimitsPolicy, Discard: jetstream.DiscardOld, MaxMsgsPerSubject: keptControls,
			Storage: jetstream.FileStorage, Replicas: replicas, MaxConsumers: maxConsumers,
			DenyDelete: true, DenyPurge: true, AllowDirect: true,
			Metadata: monitor(nil),
		},
		{
			Name: AsideStream, Subjects: []string{asideSubjects},
			Description: "sealfleet: messages that nobody could act on, as they were, with the reason (aside.<kind>.<group>)",
			Retention:   jetstream.LimitsPolicy, Discard: jetstream.DiscardOld, MaxMsgs: keptAside,
			Storage: jetstream.FileStorage, Replicas: replicas, MaxConsumers: maxConsumers, Duplicates: asideWindow,
			Metadata: monitor(nil),
		},
	}
}

// consumerOf is one durable as it shall be, and its stream.
type consumerOf struct {
	stream string
	jetstream.ConsumerConfig
}

// consumers are the durables as they shall be.
func (c Config) consumers(groups []string) []consumerOf {
	list := []consumerOf{{EventsStream, jetstream.ConsumerConfig{
		Durable: DispatcherDurable, Description: "sealfleet: events to be acted on, shared by all dispatchers",
		AckPolicy: jetstream.AckExplicitPolicy, DeliverPolicy: jetstream.DeliverAllPolicy,
		AckWait: dispatcherAckWait, MaxDeliver: -1, MaxAckPending: -1, MaxWaiting: maxWaiting,
		Metadata: managed(map[string]string{
			"io.nats.monitor.enabled":              "1",
			"io.nats.monitor.unprocessed-critical": "100000",
		}),
	}}}
	for _, g := range groups {
		for _, p := range phases.Phases() {
			list = append(list, consumerOf{TasksStream, jetstream.ConsumerConfig{
				Durable:     Durable(g, p),
				Description: fmt.Sprintf("sealfleet: %s (%s) of %s, shared by all its hosts", p, p.OldName(), g),
				AckPolicy:   jetstream.AckExplicitPolicy, FilterSubject: taskFilter(g, p),
				AckWait: c.AckWait, MaxDeliver: -1, MaxAckPending: -1, MaxWaiting: maxWaiting,
				Metadata: managed(map[string]string{
					"io.nats.monitor.enabled":              "1",
					"io.nats.monitor.unprocessed-critical": "10000",
					"io.nats.monitor.redelivery-critical":  "100",
					"io.nats.monitor.waiting-critical":     fmt.Sprint(maxWaiting * 9 / 10),
				}),
			}})
		}
	}
	return list
}
