package bus

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sealfleet/internal/phases"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func actions(t *testing.T, changes []Change) map[string]int {
	t.Helper()
	n := map[string]int{}
	for _, c := range changes {
		n[c.Kind+" "+c.Action]++
	}
	return n
}

func TestPlanAndApply(t *testing.T) {
	dir := t.TempDir()
	f := &fleet{dir: dir}
	f.startServer(t, "127.0.0.1:0")
	f.Bus = connect(t, Config{StateDir: dir, Server: f.server}, "dispatcher-a")
	ctx := testContext(t)
	groups := []string{"group1", "group2"}
	streams := Config{}.streams()

	plan, err := f.Plan(ctx, groups)
	if err != nil || actions(t, plan)["stream create"] != len(streams) || actions(t, plan)["consumer create"] != 13 {
		t.Fatalf("plan of nothing: %v, %v", plan, err)
	}
	if again, _ := f.Plan(ctx, groups); actions(t, again)["stream create"] != len(streams) {
		t.Fatal("a plan changed something")
	}
	if done, err := f.Apply(ctx, groups); err != nil || actions(t, done)["consumer create"] != 13 {
		t.Fatalf("apply: %v, %v", done, err)
	}
	if again, err := f.Apply(ctx, groups); err != nil || actions(t, again)["stream none"] != len(streams) || actions(t, again)["consumer none"] != 13 {
		t.Fatalf("apply again: %v, %v", again, err)
	}

	c, err := f.js.Consumer(ctx, TasksStream, "group1-p1")
	if err != nil {
		t.Fatal(err)
	}
	if got := c.CachedInfo().Config; got.MaxDeliver != -1 || got.MaxAckPending != -1 || got.MaxWaiting < 20000 || got.FilterSubject != "seal.group1.p1.>" || got.AckWait != 2*time.Minute || got.Description == "" {
		t.Fatalf("consumer %+v", got)
	}
	s, err := f.js.Stream(ctx, EventsStream)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.CachedInfo().Config; !got.DenyDelete || !got.DenyPurge || got.Discard != jetstream.DiscardNew || got.MaxConsumers < 10000 || got.Description == "" {
		t.Fatalf("stream %+v", got)
	}
	if err := s.Purge(ctx); err == nil {
		t.Fatal("events can be purged")
	}
	if err := s.DeleteMsg(ctx, 1); err == nil {
		t.Fatal("an event can be deleted")
	}

	// What we made is changed to what it shall be; what an operator added stays.
	slower := connect(t, Config{StateDir: dir, Server: f.server, AckWait: 3 * time.Minute}, "dispatcher-b")
	if done, err := slower.Apply(ctx, groups); err != nil || actions(t, done)["consumer update"] != 12 {
		t.Fatalf("apply of a longer ack wait: %v, %v", done, err)
	}
}

func TestWhatIsNotOursIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	f := &fleet{dir: dir}
	f.startServer(t, "127.0.0.1:0")
	f.Bus = connect(t, Config{StateDir: dir, Server: f.server}, "dispatcher-a")
	ctx := testContext(t)
	foreign := jetstream.StreamConfig{Name: TasksStream, Subjects: []string{"others.>"}, Description: "another team's"}
	if _, err := f.js.CreateStream(ctx, foreign); err != nil {
		t.Fatal(err)
	}
	done, err := f.Apply(ctx, []string{"group1"})
	var report *ForeignError
	if !errors.As(err, &report) || !strings.Contains(err.Error(), TasksStream) || actions(t, done)["stream create"] != len(Config{}.streams())-1 {
		t.Fatalf("apply: %v, %v", done, err)
	}
	s, err := f.js.Stream(ctx, TasksStream)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.CachedInfo().Config; got.Description != foreign.Description || len(got.Subjects) != 1 || got.Subjects[0] != "others.>" || got.Metadata[ManagedKey] != "" {
		t.Fatalf("the foreign stream is now %+v", got)
	}
	if n := s.CachedInfo().State.Consumers; n != 0 {
		t.Fatalf("%d consumers were made on it", n)
	}
}

func TestAForeignConsumerIsLeftAlone(t *testing.T) {
	f := newFleet(t, nil)
	ctx := testContext(t)
	if err := f.js.DeleteConsumer(ctx, TasksStream, "group1-p3"); err != nil {
		t.Fatal(err)
	}
	foreign := jetstream.ConsumerConfig{Durable: "group1-p3", FilterSubject: "seal.group1.p3.x", AckPolicy: jetstream.AckExplicitPolicy}
	if _, err := f.js.CreateConsumer(ctx, TasksStream, foreign); err != nil {
		t.Fatal(err)
	}
	var report *ForeignError
	if _, err := f.Apply(ctx, []string{"group1"}); !errors.As(err, &report) || report.Names[0] != "consumer SEAL_TASKS/group1-p3" {
		t.Fatalf("got %v", err)
	}
	c, err := f.js.Consumer(ctx, TasksStream, "group1-p3")
	if err != nil || c.CachedInfo().Config.FilterSubject != foreign.FilterSubject {
		t.Fatalf("the foreign consumer is now %+v, %v", c, err)
	}
}

// A holder that was overtaken can neither complete nor harm the new holder by its event.
func TestAStaleHolderCannotComplete(t *testing.T) {
	f := newFleet(t, func(c *Config) { c.AckWait = 300 * time.Millisecond })
	ctx := testContext(t)
	issued := event(phases.Issued, phases.P1, "dispatcher-a")
	seq, err := f.Append(ctx, issued, 0)
	if err != nil {
		t.Fatal(err)
	}
	tk := task(7)
	tk.IssuedID, tk.IssuedSeq = issued.ID, seq
	if err := f.PublishTask(ctx, tk); err != nil {
		t.Fatal(err)
	}
	claim := func(b *Bus, l *Lease, last phases.Event) phases.Event {
		t.Helper()
		e := event(phases.Claimed, phases.P1, b.client)
		e.PrevID, e.ClaimID = last.ID, e.ID
		if e.Seq, err = b.Append(ctx, e, last.Seq); err != nil {
			t.Fatal(err)
		}
		return e
	}
	a, b := f.host(t, "host1"), f.host(t, "host2")
	la, err := a.Fetch(ctx, "group1", phases.P1, patience)
	if err != nil {
		t.Fatal(err)
	}
	first := claim(a, la, phases.Event{ID: issued.ID, Seq: seq})
	lb, err := b.Fetch(ctx, "group1", phases.P1, patience) // comes when a's lease has run out
	if err != nil || lb == nil || lb.Deliveries != 2 || lb.Task.IssuedID != issued.ID {
		t.Fatalf("second delivery %+v, %v", lb, err)
	}
	last, err := b.Last(ctx, "group1", testSector, phases.P1)
	if err != nil || last.ID != first.ID {
		t.Fatalf("%+v, %v", last, err)
	}
	second := claim(b, lb, *last)
	done := event(phases.Done, phases.P1, "host1")
	done.PrevID, done.ClaimID = first.ID, first.ClaimID
	var c *ConflictError
	if _, err := a.Append(ctx, done, first.Seq); !errors.As(err, &c) || c.Other.ID != second.ID {
		t.Fatalf("the stale holder's completion: %v", err)
	}
	done.ID, done.Host, done.PrevID, done.ClaimID = "another", "host2", second.ID, second.ClaimID
	if _, err := b.Append(ctx, done, second.Seq); err != nil {
		t.Fatal(err)
	}
}

func TestAfterTheServersRestart(t *testing.T) {
	f := newFleet(t, nil)
	ctx := testContext(t)
	listen := strings.TrimPrefix(f.server.ClientURL(), "nats://")
	host := f.host(t, "host1")
	if err := f.PublishTask(ctx, task(1)); err != nil {
		t.Fatal(err)
	}
	held, err := host.Fetch(ctx, "group1", phases.P1, patience)
	if err != nil {
		t.Fatal(err)
	}
	// One waits in a pull, one follows, while the server goes.
	waiting := make(chan *Lease, 1)
	go func() {
		for {
			l, err := host.Fetch(ctx, "group1", phases.P1, patience)
			if l != nil || ctx.Err() != nil {
				waiting <- l
				return
			}
			// A server that stops has its consumers gone before its connections.
			if err != nil && !errors.Is(err, ErrUnreachable) && !errors.Is(err, ErrNoConsumer) {
				t.Errorf("fetch: %v", err)
			}
		}
	}()
	f.untilWaiting(t, 1)
	e1 := event(phases.Done, phases.P1, "host1")
	e1.ClaimID = "c"
	appended := make(chan error, 1)

	f.server.Close()
	go func() {
		_, err := host.Append(ctx, e1, 0) // waits for the server
		appended <- err
	}()
	if err := host.Connected(); err == nil {
		// The client may need a moment to notice.
		for host.nc.IsConnected() {
			pause(ctx, 0)
		}
	}
	if err := host.Connected(); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("without a server Connected says %v", err)
	}
	f.startServer(t, listen)
	if err := <-appended; err != nil {
		t.Fatal(err)
	}
	d := connect(t, Config{StateDir: f.dir, Server: f.server}, "dispatcher-b")
	if last, err := d.Last(ctx, "group1", testSector, phases.P1); err != nil || last == nil || last.ID != e1.ID {
		t.Fatalf("after the restart the chain ends with %+v, %v", last, err)
	}
	if err := d.PublishTask(ctx, task(2)); err != nil {
		t.Fatal(err)
	}
	if l := <-waiting; l == nil || l.Task.Sector != "s-t01000-2" {
		t.Fatalf("the waiting pull got %+v", l)
	}
	// What was held before the restart can be answered after it, even by another process.
	again := f.host(t, "host1b").Resume(held.Task, held.Reply())
	if err := again.Ack(ctx); err != nil {
		t.Fatal(err)
	}
	if there, err := d.TaskExists(ctx, "group1", phases.P1, held.Task.Sector, 1); err != nil || there {
		t.Fatalf("the task is still there: %v", err)
	}
}

func TestALogThatWentBackwardsStopsEverything(t *testing.T) {
	f := newFleet(t, nil)
	ctx := testContext(t)
	host := f.host(t, "host1")
	for i, step := range []phases.Step{phases.P1, phases.P2, phases.P3} {
		by, b := "dispatcher-a", f.Bus
		if i == 2 {
			by, b = "host1", host
		}
		if _, err := b.Append(ctx, event(phases.Issued, step, by), 0); err != nil {
			t.Fatal(err)
		}
	}
	listen := strings.TrimPrefix(f.server.ClientURL(), "nats://")
	f.Close()
	f.server.Close()
	if err := os.RemoveAll(filepath.Join(f.dir, "nats", "store")); err != nil {
		t.Fatal(err)
	}
	f.startServer(t, listen)
	d := connect(t, Config{StateDir: f.dir, Server: f.server}, "dispatcher-a")
	if _, err := d.Apply(ctx, []string{"group1"}); !errors.Is(err, ErrWentBack) {
		t.Fatalf("a new log in the place of the old one: %v", err)
	}
	if _, err := d.Append(ctx, event(phases.Issued, phases.P1, "dispatcher-a"), 0); !errors.Is(err, ErrWentBack) || d.Connected() == nil {
		t.Fatalf("a dispatcher goes on: %v", err)
	}
	// The host was connected all the time.
	_, err := host.Append(ctx, event(phases.Claimed, phases.P4, "host1"), 0)
	if !errors.Is(err, ErrWentBack) {
		t.Fatalf("a host goes on: %v", err)
	}
}

func TestHostsMayDoNoMoreThanTheyMust(t *testing.T) {
	f := newFleet(t, nil)
	ctx := testContext(t)
	host := f.host(t, "host1")
	for _, subject := range []string{
		TaskSubject("group1", phases.P1, testSector, 1), "ev.group1." + testSector + ".sector.host1", "ev.group1." + testSector + ".p1.dispatcher",
		"$JS.API.STREAM.PURGE." + TasksStream, "$JS.API.STREAM.DELETE." + TasksStream, "$JS.API.CONSUMER.DELETE." + TasksStream + ".group1-p1",
		"$JS.API.STREAM.MSG.GET." + EventsStream, "$JS.ACK." + EventsStream + ".dispatcher.1.1.1.1.0",
	} {
		denied, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		if r, err := host.nc.RequestMsgWithContext(denied, &nats.Msg{Subject: subject, Data: []byte("{}")}); err == nil {
			t.Errorf("a host may publish to %s: %s", subject, r.Data)
		}
		cancel()
	}
}

func TestTheEmbeddedServerRefuses(t *testing.T) {
	dir := t.TempDir()
	for listen, want := range map[string]string{
		"0.0.0.0:4222": "SERVER_CERT", "192.0.2.1:4222": "SERVER_CERT", ":4222": "SERVER_CERT", "nats.example:4222": "SERVER_CERT",
		"127.0.0.1": "SERVER_LISTEN", "127.0.0.1:x": "SERVER_LISTEN", "127.0.0.1:70000": "SERVER_LISTEN",
	} {
		s, err := StartEmbedded(ServerConfig{Listen: listen, StateDir: dir}, testLog(t))
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want a word about %s", listen, err, want)
		}
	}
	if _, err := StartEmbedded(ServerConfig{Listen: "127.0.0.1:0"}, testLog(t)); err == nil || !strings.Contains(err.Error(), "STATE_DIR") {
		t.Errorf("without a directory: %v", err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() //nolint:errcheck // a test's
	if _, err := StartEmbedded(ServerConfig{Listen: taken.Addr().String(), StateDir: dir}, testLog(t)); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("on an address that is in use: %v", err)
	}
	s, err := StartEmbedded(ServerConfig{Listen: "127.0.0.1:0", StateDir: dir}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := StartEmbedded(ServerConfig{Listen: "127.0.0.1:0", StateDir: dir}, testLog(t)); err == nil || !strings.Contains(err.Error(), "another dispatcher") {
		t.Errorf("two servers on one store: %v", err)
	}
}

func TestConnectKeepsTryingAndSaysWhy(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "nats://" + listener.Addr().String()
	_ = listener.Close() // so that nobody listens there
	ctx, cancel := context.WithTimeout(context.Background(), 700*time.Millisecond)
	defer cancel()
	if _, err := Connect(ctx, Config{URL: nobody}, "x", nil); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), nobody) {
		t.Errorf("got %v", err)
	}
	ctx, cancel = context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := Connect(ctx, Config{StateDir: t.TempDir()}, "x", nil); err == nil || !strings.Contains(err.Error(), "NATS_URL") {
		t.Errorf("got %v", err)
	}
	for _, bad := range []Config{{AckWait: time.Millisecond}, {Replicas: 9}, {Cert: "x"}} {
		if _, err := Connect(ctx, bad, "x", nil); err == nil || errors.Is(err, ErrUnreachable) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestBadEventsAreRefusedBeforeTheyAreWritten(t *testing.T) {
	f := newFleet(t, nil)
	ctx := testContext(t)
	good := event(phases.Claimed, phases.P1, "host1")
	for name, change := range map[string]func(*phases.Event){
		"no host":       func(e *phases.Event) { e.Host = "" },
		"dotted host":   func(e *phases.Event) { e.Host = "a.b" },
		"wildcard":      func(e *phases.Event) { e.Group = "*" },
		"strange step":  func(e *phases.Event) { e.Step = "p1.x" },
		"no id":         func(e *phases.Event) { e.ID = "" },
		"no version":    func(e *phases.Event) { e.V = 0 },
		"far too large": func(e *phases.Event) { e.Note = strings.Repeat("x", 600<<10) },
	} {
		e := good
		change(&e)
		if _, err := f.Append(ctx, e, 0); err == nil || errors.Is(err, ErrUnreachable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	bad := task(1)
	bad.IssuedID = ""
	if err := f.PublishTask(ctx, bad); err == nil {
		t.Error("a task that nobody issued is published")
	}
}
