package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"sealfleet/internal/phases"
	"sealfleet/internal/quietport"

	"github.com/nats-io/nats.go"
	"github.com/oklog/ulid/v2"
)

// patience is how long a test waits for what must come; nothing is asserted about time.
const patience = 2 * time.Minute

func testLog(t testing.TB) *slog.Logger {
	if os.Getenv("SEALFLEET_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.DiscardHandler)
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

type fleet struct {
	dir    string
	server *Server
	*Bus
}

// newFleet starts an embedded server and a dispatcher's bus with the streams of group1.
func newFleet(t testing.TB, change func(*Config)) *fleet {
	t.Helper()
	f := &fleet{dir: t.TempDir()}
	f.startServer(t, quietAddress(t))
	c := Config{StateDir: f.dir, AckWait: 2 * time.Minute, Server: f.server}
	if change != nil {
		change(&c)
	}
	f.Bus = connect(t, c, "dispatcher-a")
	if _, err := f.Apply(testContext(t), []string{"group1"}); err != nil {
		t.Fatal(err)
	}
	return f
}

func quietAddress(t testing.TB) string {
	t.Helper()
	address, err := quietport.Address()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

func (f *fleet) startServer(t testing.TB, listen string) {
	t.Helper()
	s, err := StartEmbedded(ServerConfig{Listen: listen, StateDir: f.dir}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	f.server = s
	t.Cleanup(s.Close)
}

func connect(t testing.TB, c Config, name string) *Bus {
	t.Helper()
	b, err := Connect(testContext(t), c, name, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// host connects as a host, over the network, with the host's seed.
func (f *fleet) host(t testing.TB, name string) *Bus {
	return connect(t, Config{StateDir: f.dir, AckWait: f.cfg.AckWait, Role: RoleHost}, name)
}

const testSector = "s-t01000-7"

func event(typ phases.EventType, step phases.Step, by string) phases.Event {
	return phases.Event{
		V: phases.Version, ID: ulid.Make().String(), Type: typ, Group: "group1", Sector: testSector,
		Step: step, Host: by, At: time.Now().UTC(), Issue: 1, Attempt: 1,
	}
}

func task(n int) phases.Task {
	return phases.Task{
		V: phases.Version, Group: "group1", Sector: phases.SectorID(1000, uint64(n)), Step: phases.P1,
		Issue: 1, Attempt: 1, IssuedID: ulid.Make().String(),
	}
}

func TestOneOfManyWinsTheChain(t *testing.T) {
	f := newFleet(t, nil)
	ctx := testContext(t)
	issued := event(phases.Issued, phases.P1, "dispatcher-a")
	seq, err := f.Append(ctx, issued, 0)
	if err != nil {
		t.Fatal(err)
	}
	const hosts = 40
	var won, lost []string
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range hosts {
		b := f.Bus
		if i%4 == 0 {
			b = f.host(t, fmt.Sprintf("host%d", i))
		}
		all.Go(func() {
			e := event(phases.Claimed, phases.P1, fmt.Sprintf("host%d", i))
			e.PrevID, e.ClaimID = issued.ID, e.ID
			_, err := b.Append(ctx, e, seq)
			var c *ConflictError
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				won = append(won, e.ID)
			case errors.As(err, &c) && errors.Is(err, ErrConflict) && c.Other != nil && c.Other.ID != e.ID:
				lost = append(lost, c.Other.ID)
			default:
				t.Errorf("host%d: %v", i, err)
			}
		})
	}
	all.Wait()
	if len(won) != 1 || len(lost) != hosts-1 {
		t.Fatalf("%d won and %d lost, want 1 and %d", len(won), len(lost), hosts-1)
	}
	for _, id := range lost {
		if id != won[0] {
			t.Fatalf("a loser was told of %s, the winner is %s", id, won[0])
		}
	}
	last, err := f.Last(ctx, "group1", testSector, phases.P1)
	if err != nil || last == nil || last.ID != won[0] || last.Seq <= seq {
		t.Fatalf("the chain's last event is %+v (%v), want %s", last, err, won[0])
	}
}

func TestAppendingTheSameEventAgainIsSuccess(t *testing.T) {
	f := newFleet(t, nil)
	ctx := testContext(t)
	for name, b := range map[string]*Bus{"dispatcher-a": f.Bus, "host1": f.host(t, "host1")} {
		step := phases.P2
		e := event(phases.Issued, step, name)
		if name == "host1" {
			e = event(phases.Claimed, phases.P3, name)
			e.ClaimID = "c"
			step = phases.P3
		}
		first, err := b.Append(ctx, e, 0)
		if err != nil {
			t.Fatal(err)
		}
		again, err := b.Append(ctx, e, 0)
		if err != nil || again != first {
			t.Fatalf("%s: the second time gave %d, %v, want %d", name, again, err, first)
		}
		next := event(phases.Done, step, name)
		next.PrevID, next.ClaimID = e.ID, e.ClaimID
		if _, err := b.Append(ctx, next, first); err != nil {
			t.Fatal(err)
		}
		// Its answer came so late that the chain has moved on.
		if _, err := b.Append(ctx, e, 0); err != nil {
			t.Fatalf("%s: after the chain moved on: %v", name, err)
		}
	}
}

func TestASectorIsSubmittedOnceOverAllGroups(t *testing.T) {
	f := newFleet(t, nil)
	ctx := testContext(t)
	for i, group := range []string{"group1", "group2", "group1"} {
		e := event(phases.Submitted, phases.SectorEnd, "dispatcher-cli")
		e.Group = group
		_, err := f.Append(ctx, e, 0)
		if i == 0 && err != nil || i > 0 && !errors.Is(err, ErrConflict) {
			t.Fatalf("submission %d to %s: %v", i, group, err)
		}
	}
}

func TestHistoryReplayAndFollowKeepStreamOrder(t *testing.T) {
	f := newFleet(t, nil)
	ctx := testContext(t)
	var want []string
	add := func(step phases.Step) {
		e := event(phases.Issued, step, "dispatcher-a")
		if _, err := f.Append(ctx, e, 0); err != nil {
			t.Fatal(err)
		}
		want = append(want, e.ID)
	}
	add(phases.P1)
	add(phases.P2)
	if err := f.nc.Publish("ev.group1."+testSector+".p3.host9", []byte("no json")); err != nil {
		t.Fatal(err)
	}
	want = append(want, "")
	add(phases.P4)
	got := func(events []phases.Event) {
		t.Helper()
		if len(events) != len(want) {
			t.Fatalf("%d events, want %d", len(events), len(want))
		}
		for i, e := range events {
			if e.ID != want[i] || e.Seq != uint64(i+1) || e.Sector != testSector || (e.ID == "") != (e.V == 0) {
				t.Fatalf("event %d is %+v, want id %q", i, e, want[i])
			}
		}
	}
	history, err := f.History(ctx, testSector)
	if err != nil {
		t.Fatal(err)
	}
	got(history)

	var replayed []phases.Event
	last, err := f.Replay(ctx, func(e phases.Event) error { replayed = append(replayed, e); return nil })
	if err != nil || last != 4 {
		t.Fatalf("replay up to %d: %v", last, err)
	}
	got(replayed)

	add(phases.P5)
	enough := errors.New("enough")
	var followed []phases.Event
	err = f.Follow(ctx, last+1, func(e phases.Event) error {
		followed = append(followed, e)
		if len(followed) == 1 {
			add(phases.P6)
			return nil
		}
		return enough
	})
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
	got(append(history, followed...))
}

func TestPoisonIsSetAsideAndBlocksNothing(t *testing.T) {
	f := newFleet(t, nil)
	ctx, cancel := context.WithCancel(testContext(t))
	poison := map[string]string{
		"seal.group1.p1.s-t01000-1.1":              "garbage",
		"seal.group1.p1.strange":                   "{}",
		"ev.group1.s-t01000-1.p1.host1":            "garbage",
		"ev.group1.s-t01000-2.p1.host1":            `{"v":1,"id":"x","group":"group1","sector":"s-t01000-3","phase":"p1","host":"host1"}`,
		"ev.much.too.long.to.be.a.subject.of.ours": "{}",
	}
	for subject, data := range poison {
		if _, err := f.publish(ctx, &nats.Msg{Subject: subject, Data: []byte(data)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.PublishTask(ctx, task(5)); err != nil {
		t.Fatal(err)
	}
	l, err := f.Fetch(ctx, "group1", phases.P1, patience)
	if err != nil || l == nil || l.Task.Sector != "s-t01000-5" {
		t.Fatalf("got %+v, %v", l, err)
	}
	quiet := event(phases.Issued, phases.P2, "dispatcher-a") // nothing follows from it
	good := event(phases.Done, phases.P1, "host1")
	for _, e := range []phases.Event{quiet, good} {
		if _, err := f.Append(ctx, e, 0); err != nil {
			t.Fatal(err)
		}
	}
	var got []phases.Event
	err = f.Work(ctx, func(_ context.Context, d Delivery) {
		got = append(got, d.Event)
		if err := d.Ack(); err != nil {
			t.Error(err)
		}
		cancel()
	})
	if !errors.Is(err, context.Canceled) || len(got) != 1 || got[0].ID != good.ID {
		t.Fatalf("got %+v, %v", got, err)
	}
	if n := f.SetAside(); n != uint64(len(poison)) {
		t.Fatalf("%d messages were set aside, want %d", n, len(poison))
	}
	shown, err := f.Asides(testContext(t), 0)
	if err != nil || len(shown) != len(poison) {
		t.Fatalf("%d messages are shown, want %d: %v", len(shown), len(poison), err)
	}
	for _, a := range shown {
		if data, ok := poison[a.Subject]; !ok || data != string(a.Data) || a.Reason == "" || a.By != "dispatcher-a" || a.Original == 0 || a.Stored.IsZero() {
			t.Errorf("shown as %+v", a)
		}
		delete(poison, a.Subject)
	}
}

func TestWorkKeepsASectorsOrderAndSharesBetweenDispatchers(t *testing.T) {
	f := newFleet(t, nil)
	ctx, cancel := context.WithCancel(testContext(t))
	second := connect(t, Config{StateDir: f.dir}, "dispatcher-b")
	const sectors, each = 20, 8
	var mu sync.Mutex
	seen := map[string][]uint64{}
	total := 0
	handle := func(_ context.Context, d Delivery) {
		mu.Lock()
		defer mu.Unlock()
		seen[d.Event.Sector] = append(seen[d.Event.Sector], d.Event.Seq)
		if err := d.Ack(); err != nil {
			t.Error(err)
		}
		if total++; total == sectors*each {
			cancel()
		}
	}
	for i := range each {
		for n := range sectors {
			e := event(phases.Done, phases.Steps()[i], "host1")
			e.Sector = phases.SectorID(1000, uint64(n))
			if _, err := f.Append(ctx, e, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	var all sync.WaitGroup
	for _, b := range []*Bus{f.Bus, second} {
		all.Go(func() {
			if err := b.Work(ctx, handle); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if total != sectors*each {
		t.Fatalf("%d deliveries, want %d", total, sectors*each)
	}
	had := map[uint64]bool{}
	for s, seqs := range seen {
		for _, q := range seqs {
			if had[q] {
				t.Fatalf("event %d of %s was given out twice", q, s)
			}
			had[q] = true
		}
	}
}

// A dispatcher that stops gives back what it took ahead, before the ack wait.
func TestWorkGivesBackWhatItDidNotDo(t *testing.T) {
	f := newFleet(t, nil)
	c, err := f.js.Consumer(testContext(t), EventsStream, DispatcherDurable)
	if err != nil {
		t.Fatal(err)
	}
	long := c.CachedInfo().Config
	long.AckWait = 100 * patience // so that nothing comes by waiting for it
	if _, err := f.js.UpdateConsumer(testContext(t), EventsStream, long); err != nil {
		t.Fatal(err)
	}
	const events = 30
	for n := range events {
		e := event(phases.Done, phases.P1, "host1")
		e.Sector = phases.SectorID(1000, uint64(n))
		if _, err := f.Append(testContext(t), e, 0); err != nil {
			t.Fatal(err)
		}
	}
	first, stop := context.WithCancel(testContext(t))
	err = f.Work(first, func(_ context.Context, d Delivery) {
		stop() // with nothing acknowledged
		_ = d.Nak(0)
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	second := connect(t, Config{StateDir: f.dir}, "dispatcher-b")
	var mu sync.Mutex
	got := map[string]bool{}
	err = second.Work(ctx, func(_ context.Context, d Delivery) {
		mu.Lock()
		defer mu.Unlock()
		if got[d.Event.Sector] = true; len(got) == events {
			cancel()
		}
		_ = d.Ack()
	})
	if !errors.Is(err, context.Canceled) || len(got) != events {
		t.Fatalf("%d of %d events came: %v", len(got), events, err)
	}
}

func TestArchive(t *testing.T) {
	f := newFleet(t, nil)
	ctx := testContext(t)
	if a, err := f.Archived(ctx, testSector); a != nil || err != nil {
		t.Fatalf("got %+v, %v", a, err)
	}
	for _, o := range []phases.Status{phases.StatusFinished, phases.StatusFailed} {
		if err := f.Archive(ctx, testSector, Tombstone{Group: "group1", Outcome: o, At: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	a, err := f.Archived(ctx, testSector)
	if err != nil || a == nil || a.Outcome != phases.StatusFinished || a.Sector != testSector {
		t.Fatalf("got %+v, %v, want the first tombstone", a, err)
	}
}

func TestStateFilesAreUnderTheStateDirectory(t *testing.T) {
	f := newFleet(t, nil)
	if _, err := f.Append(testContext(t), event(phases.Issued, phases.P1, "dispatcher-a"), 0); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for name, mode := range map[string]os.FileMode{
		"nats/dispatcher.nk": 0o600, "nats/host.nk": 0o600, "nats/server.json": 0o644, "bus-seen.json": 0o644,
	} {
		info, err := os.Stat(filepath.Join(f.dir, name))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v, want mode %o", name, info, err, mode)
		}
	}
}
