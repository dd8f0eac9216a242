package bus

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"sealfleet/internal/phases"

	"github.com/nats-io/nats.go/jetstream"
)

// A subscription that is stopped may still deliver: what comes then goes back, and starts
// nothing that nobody waits for.
func TestNothingIsTakenAfterTheStop(t *testing.T) {
	called := make(chan struct{}, 1)
	w := &workers{
		ctx: context.Background(), queues: map[string][]Delivery{}, room: make(chan struct{}, 1),
		fn: func(context.Context, Delivery) { called <- struct{}{} },
	}
	w.stop()
	m := &late{t: t}
	w.take(m)
	w.running.Wait()
	if len(called) != 0 || m.naks != 1 || len(w.room) != 0 {
		t.Errorf("called %d times, %d naks, %d tokens left", len(called), m.naks, len(w.room))
	}
}

// late is a delivery of the event that a sector's p1 is done.
type late struct {
	jetstream.Msg
	t    *testing.T
	naks int
}

func (m *late) event() phases.Event {
	return phases.Event{V: 1, ID: "e1", Type: phases.Done, Group: "group1", Sector: "s-t01000-1", Step: phases.P1, Host: "h1", At: time.Unix(1, 0).UTC()}
}

func (m *late) Subject() string { return EventSubject(m.event()) }

func (m *late) Data() []byte {
	data, err := json.Marshal(m.event())
	if err != nil {
		m.t.Fatal(err)
	}
	return data
}

func (m *late) Metadata() (*jetstream.MsgMetadata, error) {
	return &jetstream.MsgMetadata{NumDelivered: 1}, nil
}

func (m *late) Nak() error {
	m.naks++
	return nil
}
