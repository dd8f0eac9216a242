package bus

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"sealfleet/internal/phases"
)

// asides waits until so many messages are set aside.
func (f *fleet) asides(ctx context.Context, t *testing.T, n int) []Aside {
	t.Helper()
	for try := 0; ; try++ {
		list, err := f.Asides(ctx, 0)
		if err == nil && len(list) >= n {
			if len(list) > n {
				t.Fatalf("%d messages are set aside, want %d: %+v", len(list), n, list)
			}
			return list
		}
		if !pause(ctx, min(try, 3)) {
			t.Fatalf("%d messages are set aside, want %d: %v", len(list), n, err)
		}
	}
}

// What is set aside keeps everything of the original, and what the server would obey does
// no harm in the copy.
func TestTheOriginalIsKept(t *testing.T) {
	f := newFleet(t, nil)
	ctx := testContext(t)
	host := f.host(t, "host1") // has a host's permissions
	m := &nats.Msg{Subject: "seal.group1.p1.s-t01000-1.1", Data: []byte{0xff, 0, 'x'}, Header: nats.Header{
		"traceparent": {"00-a-b-01"}, "Nats-Msg-Id": {"mine"}, "nats-expected-stream": {TasksStream}, "Many": {"a", "b"},
	}}
	seq, err := f.publish(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	if l, err := host.Fetch(ctx, "group1", phases.P1, 0); l != nil || err != nil {
		t.Fatalf("garbage was given out as a task: %+v, %v", l, err)
	}
	a := f.asides(ctx, t, 1)[0]
	if a.Kind != AsideTask || a.Group != "group1" || a.By != "host1" || a.Stream != TasksStream || a.Original != seq || a.Subject != m.Subject || a.Size != 3 || string(a.Data) != string(m.Data) {
		t.Errorf("got %+v", a)
	}
	if len(a.Headers) != len(m.Header) || a.Headers["traceparent"][0] != "00-a-b-01" || a.Headers["Nats-Msg-Id"][0] != "mine" || len(a.Headers["Many"]) != 2 {
		t.Errorf("headers %v", a.Headers)
	}
	for try := 0; ; try++ { // the server takes it out a moment after it was told to
		tasks, _, err := f.Tasks(ctx)
		if err == nil && len(tasks) == 0 {
			break
		}
		if !pause(ctx, min(try, 3)) {
			t.Fatalf("it is still in its queue: %v, %v", tasks, err)
		}
	}
}

// Whoever meets a message, and however often: it is shown once. One of the same subject
// that comes later is another.
func TestAMessageIsSetAsideOnce(t *testing.T) {
	f := newFleet(t, nil)
	ctx := testContext(t)
	for range 2 {
		if _, err := f.publish(ctx, &nats.Msg{Subject: "seal.strange", Data: []byte(strings.Repeat("x", 600<<10))}); err != nil {
			t.Fatal(err)
		}
		m, err := f.get(ctx, TasksStream, getRequest{LastBySubj: "seal.strange"})
		if err != nil {
			t.Fatal(err)
		}
		o := original{kind: AsideTask, reason: "two\nlines", stream: TasksStream, seq: m.Seq, stored: m.Time, subject: m.Subject, data: m.Data}
		for range 3 {
			if err := f.setAsideMessage(ctx, o); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.SetAsideTask(ctx, "seal.strange", AsideTask, "again"); err != nil {
			t.Fatal(err)
		}
	}
	list := f.asides(ctx, t, 2)
	if a := list[0]; a.Reason != "two lines" || a.Group != "strange" && a.Group != "" || len(a.Data) != asideMost || a.Size != 600<<10 {
		t.Errorf("reason %q, group %q, %d of %d bytes", a.Reason, a.Group, len(a.Data), a.Size)
	}
	if err := f.SetAsideTask(ctx, "seal.strange", AsideTask, "it is gone"); err != nil {
		t.Errorf("what is gone already: %v", err)
	}
	if last, err := f.Asides(ctx, 1); err != nil || len(last) != 1 || last[0].Seq != list[1].Seq {
		t.Errorf("the last one is %+v, %v", last, err)
	}
}

// Without SEAL_ASIDE a task's message stays, and an event's is in the log: none is lost, none blocks.
func TestNothingLeavesItsQueueBeforeItIsSetAside(t *testing.T) {
	f := newFleet(t, nil)
	ctx := testContext(t)
	if err := f.js.DeleteStream(ctx, AsideStream); err != nil {
		t.Fatal(err)
	}
	const bad = "seal.group1.p1.s-t01000-1.1"
	if _, err := f.publish(ctx, &nats.Msg{Subject: bad, Data: []byte("garbage")}); err != nil {
		t.Fatal(err)
	}
	if err := f.PublishTask(ctx, task(5)); err != nil {
		t.Fatal(err)
	}
	if l, err := f.Fetch(ctx, "group1", phases.P1, patience); err != nil || l == nil || l.Task.Sector != "s-t01000-5" {
		t.Fatalf("got %+v, %v", l, err)
	}
	if m, err := f.get(ctx, TasksStream, getRequest{LastBySubj: bad}); m == nil || err != nil {
		t.Fatalf("the message is lost: %v", err)
	}
	if _, err := f.Asides(ctx, 0); !errors.Is(err, ErrNoStream) {
		t.Errorf("without a stream: %v", err)
	}
}

func TestRetryAndDropAreRecorded(t *testing.T) {
	f := newFleet(t, nil)
	ctx := testContext(t)
	newer := task(7)
	newer.V = phases.Newest
	subject := TaskSubject(newer.Group, newer.Step, newer.Sector, newer.Issue)
	if err := f.PublishTask(ctx, newer); err != nil {
		t.Fatal(err)
	}
	for s, kind := range map[string]AsideKind{subject: AsidePhase, "seal.strange": AsideTask} {
		if s != subject {
			if _, err := f.publish(ctx, &nats.Msg{Subject: s, Data: []byte("garbage")}); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.SetAsideTask(ctx, s, kind, "a test"); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range f.asides(ctx, t, 2) {
		_, err := f.RetryAside(ctx, a.Seq, "ann@desk", "the hosts are new")
		if a.Subject == subject && err != nil || a.Subject != subject && !errors.Is(err, ErrNoRetry) {
			t.Errorf("retry of %s: %v", a.Subject, err)
		}
	}
	left := f.asides(ctx, t, 1)[0]
	if l, err := f.Fetch(ctx, "group1", phases.P1, patience); err != nil || l == nil || l.Task.IssuedID != newer.IssuedID {
		t.Fatalf("the retried task came as %+v, %v", l, err)
	}
	if _, err := f.DropAside(ctx, left.Seq, "ann@desk", "known"); err != nil {
		t.Fatal(err)
	}
	f.asides(ctx, t, 0)
	if _, err := f.Aside(ctx, left.Seq); !errors.Is(err, ErrNoAside) {
		t.Errorf("what was dropped: %v", err)
	}
	records, err := f.Controls(ctx, ControlAside)
	if err != nil || len(records) != 2 {
		t.Fatalf("records %+v, %v", records, err)
	}
	for _, r := range records {
		if r.By != "ann@desk" || r.Reason == "" || !strings.Contains(string(r.Value), TasksStream) {
			t.Errorf("record %+v", r)
		}
	}
}
