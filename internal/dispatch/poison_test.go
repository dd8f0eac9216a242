package dispatch

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"sealfleet/internal/bus"
	"sealfleet/internal/chain"
	"sealfleet/internal/phases"
)

// Poison of every kind lies before the work. All of it comes into view, none of it stays in
// the task queue, and the sectors behind it are sealed, each phase once.
func TestPoisonBlocksNothing(t *testing.T) {
	f := newFleet(t)
	js := f.admin()
	newer := phases.Event{
		V: phases.Newest + 1, ID: ulid.Make().String(), Type: "polished", Group: group, Sector: "s-t01000-99", Step: phases.P1,
		Host: "tomorrow", At: time.Now().UTC(), Issue: 1, Attempt: 1,
	}
	data, err := newer.AppendJSON(nil)
	if err != nil {
		t.Fatal(err)
	}
	poison := map[string]struct {
		data string
		kind bus.AsideKind
	}{
		bus.EventSubject(newer):               {string(data), bus.AsideNewer},
		"ev.group1.s-t01000-98.p1.h1":         {"\x00\xff", bus.AsideEvent},
		"ev.group1":                           {"", bus.AsideEvent},
		"seal.group1.p1.s-t01000-97.1":        {"garbage", bus.AsideTask},  // a host meets it
		"seal.group1.p1.strange":              {"{}", bus.AsideTask},       // a host or the sweeper
		"seal.strange":                        {"{}", bus.AsideTask},       // nobody but the sweeper
		"seal.group1.p7.s-t01000-96.1":        {"{}", bus.AsidePhase},      // no host can
		"seal.nobodys-group.p1.s-t01000-95.1": {"garbage", bus.AsidePhase}, // nobody is asked
	}
	for subject, p := range poison {
		if _, err := js.Publish(f.ctx, subject, []byte(p.data)); err != nil {
			t.Fatal(err)
		}
	}
	o := impatient("d", chain.NewDev(instant(), nil, nil))
	o.Groups = []string{group}
	f.dispatch(o)
	f.hosts("h1")
	f.submit(0, 5)
	sealed := f.ended(5)
	maps.DeleteFunc(sealed, func(_ string, s *phases.Sector) bool { return !s.Known() }) // the poison's
	f.onceEach(sealed)
	deadline := time.Now().Add(patience)
	var list []bus.Aside
	for len(list) < len(poison) && time.Now().Before(deadline) {
		if list, err = f.bus.Asides(f.ctx, 0); err != nil {
			t.Fatal(err)
		}
		pause(f.ctx, 10*time.Millisecond)
	}
	if len(list) != len(poison) {
		t.Fatalf("%d of %d are in view: %+v", len(list), len(poison), list)
	}
	for _, a := range list {
		p, ok := poison[a.Subject]
		if !ok || a.Kind != p.kind || string(a.Data) != p.data {
			t.Errorf("%s is in view as %s %q: %s; want %s %q", a.Subject, a.Kind, a.Data, a.Reason, p.kind, p.data)
		}
	}
	f.published(0)
}

// A sector of a group that no dispatcher serves waits for its hosts: its task is no poison.
func TestATaskOfAnOpenIssueStays(t *testing.T) {
	f := newFleet(t)
	o := impatient("d", chain.NewDev(instant(), nil, nil))
	o.Groups = []string{group}
	d, _ := f.dispatch(o)
	spec := specs(3, 1)[0]
	if _, err := submitOne(f.ctx, f.bus, "group9", "test", spec); err != nil {
		t.Fatal(err)
	}
	f.published(1)
	sweeps := func() float64 { return testutil.ToFloat64(d.Metrics.sweeps) }
	for before := sweeps(); sweeps() < before+3; {
		if !pause(f.ctx, time.Millisecond) {
			t.Fatal("stopped")
		}
	}
	f.published(1)
	if list, err := f.bus.Asides(f.ctx, 0); err != nil || len(list) != 0 {
		t.Fatalf("set aside: %+v, %v", list, err)
	}
	if _, err := f.admin().CreateConsumer(f.ctx, bus.TasksStream, jetstream.ConsumerConfig{
		Durable: bus.Durable("group9", phases.P1), FilterSubject: "seal.group9.p1.>", AckPolicy: jetstream.AckExplicitPolicy,
	}); err != nil {
		t.Fatal(err)
	}
	l, err := f.bus.Fetch(f.ctx, "group9", phases.P1, patience)
	if err != nil || l == nil || !strings.HasSuffix(l.Task.Sector, "-3") {
		t.Fatalf("its host got %+v, %v", l, err)
	}
}
