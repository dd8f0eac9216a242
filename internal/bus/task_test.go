package bus

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"sealfleet/internal/phases"
)

func TestTasks(t *testing.T) {
	f := newFleet(t, nil)
	ctx := testContext(t)
	host := f.host(t, "host1")
	one := task(1)
	for range 2 { // the second is refused by the server, and no error
		if err := f.PublishTask(ctx, one); err != nil {
			t.Fatal(err)
		}
	}
	retry := one
	retry.Issue, retry.Attempt = 2, 2
	if err := f.PublishTask(ctx, retry); err != nil {
		t.Fatalf("a retry is refused: %v", err)
	}
	for _, want := range []phases.Task{one, retry} {
		l, err := host.Fetch(ctx, "group1", phases.P1, patience)
		if err != nil || l == nil {
			t.Fatalf("no task: %v", err)
		}
		if l.Task.Issue != want.Issue || l.Task.IssuedID != want.IssuedID || l.Deliveries != 1 {
			t.Fatalf("got %+v", l)
		}
		there, err := f.TaskExists(ctx, "group1", phases.P1, one.Sector, want.Issue)
		if err != nil || !there {
			t.Fatalf("a task in a host's hands is not seen: %v", err)
		}
		if err := l.Extend(); err != nil {
			t.Fatal(err)
		}
		if err := l.Ack(ctx); err != nil {
			t.Fatal(err)
		}
		there, err = f.TaskExists(ctx, "group1", phases.P1, one.Sector, want.Issue)
		if err != nil || there {
			t.Fatalf("an acknowledged task is still seen: %v", err)
		}
	}
	l, err := host.Fetch(ctx, "group1", phases.P1, time.Millisecond)
	if l != nil || err != nil {
		t.Fatalf("got %+v, %v from an empty queue", l, err)
	}
}

func TestFetchTellsThatThereIsNoConsumer(t *testing.T) {
	f := newFleet(t, nil)
	_, err := f.Fetch(testContext(t), "group9", phases.P1, patience)
	if !errors.Is(err, ErrNoConsumer) || !strings.Contains(err.Error(), "bus apply") {
		t.Fatalf("got %v", err)
	}
}

func TestNakGivesTheTaskToTheNext(t *testing.T) {
	f := newFleet(t, nil)
	ctx := testContext(t)
	if err := f.PublishTask(ctx, task(1)); err != nil {
		t.Fatal(err)
	}
	l, err := f.Fetch(ctx, "group1", phases.P1, patience)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Nak(0); err != nil {
		t.Fatal(err)
	}
	if l, err = f.Fetch(ctx, "group1", phases.P1, patience); err != nil || l == nil || l.Deliveries != 2 {
		t.Fatalf("got %+v, %v", l, err)
	}
}

// A task that comes for a pull whose caller is gone must not wait out its lease.
func TestATaskForAnAbandonedPullIsHandedBack(t *testing.T) {
	f := newFleet(t, nil)
	ctx := testContext(t)
	gone, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		_, err := f.Fetch(gone, "group1", phases.P1, patience)
		ended <- err
	}()
	f.untilWaiting(t, 1)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	// The server still holds the pull, and gives it the task first.
	if err := f.PublishTask(ctx, task(1)); err != nil {
		t.Fatal(err)
	}
	l, err := f.Fetch(ctx, "group1", phases.P1, patience)
	if err != nil || l == nil || l.Deliveries != 2 {
		t.Fatalf("got %+v, %v, want the task's second delivery", l, err)
	}
}

// A host that stops must not be the first to get what it hands back: the server forgets what
// it asked for, waited for still or not.
func TestAHostThatStoppedFetchingIsGivenNothing(t *testing.T) {
	f := newFleet(t, nil)
	ctx := testContext(t)
	stopping := f.host(t, "h1")
	gone, cancel := context.WithCancel(ctx)
	const each = 5
	ended := make(chan error, 2*each)
	for i := range 2 * each {
		asking := ctx
		if i < each {
			asking = gone
		}
		go func() {
			l, err := stopping.Fetch(asking, "group1", phases.P1, patience)
			if l != nil {
				err = errors.New("it was given a task")
			}
			ended <- err
		}()
	}
	f.untilWaiting(t, 2*each)
	cancel()
	if err := stopping.StopFetching(ctx); err != nil {
		t.Fatal(err)
	}
	if err := f.PublishTask(ctx, task(1)); err != nil {
		t.Fatal(err)
	}
	l, err := f.Fetch(ctx, "group1", phases.P1, patience)
	if err != nil || l == nil || l.Deliveries != 1 {
		t.Errorf("got %+v, %v, want the task's first delivery", l, err)
	}
	if _, err := stopping.Fetch(ctx, "group1", phases.P1, 0); !errors.Is(err, errFetchingStopped) {
		t.Errorf("it fetches still: %v", err)
	}
	for range 2 * each {
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

// untilWaiting returns when so many pulls wait on group1-p1.
func (f *fleet) untilWaiting(t testing.TB, n int) {
	t.Helper()
	ctx := testContext(t)
	for try := 0; ; try++ {
		c, err := f.js.Consumer(ctx, TasksStream, Durable("group1", phases.P1))
		if err != nil {
			t.Fatal(err)
		}
		if c.CachedInfo().NumWaiting >= n {
			return
		}
		if !pause(ctx, min(try, 3)) {
			t.Fatalf("%d pulls wait, want %d", c.CachedInfo().NumWaiting, n)
		}
	}
}

func TestMoreThan512PullsMayWait(t *testing.T) {
	f := newFleet(t, nil)
	ctx := testContext(t)
	const slots = 700
	got := make(chan *Lease, slots)
	for range slots {
		go func() {
			l, err := f.Fetch(ctx, "group1", phases.P1, patience)
			if err != nil {
				t.Error(err)
			}
			got <- l
		}()
	}
	f.untilWaiting(t, slots)
	for i := range slots {
		if err := f.PublishTask(ctx, task(i)); err != nil {
			t.Fatal(err)
		}
	}
	had := map[string]bool{}
	for range slots {
		l := <-got
		if l == nil || had[l.Task.Sector] {
			t.Fatalf("got %+v", l)
		}
		had[l.Task.Sector] = true
	}
}

func TestATaskIsHeldBackUntilItsTime(t *testing.T) {
	f := newFleet(t, nil)
	ctx := testContext(t)
	later := task(1)
	later.NotBefore = time.Now().Add(1200 * time.Millisecond)
	for range 2 {
		if err := f.PublishTask(ctx, later); err != nil {
			t.Fatal(err)
		}
	}
	there, err := f.TaskExists(ctx, later.Group, later.Step, later.Sector, later.Issue)
	if err != nil || !there {
		t.Fatalf("a task that is held back is not seen: %v", err)
	}
	tasks, strangers, err := f.Tasks(ctx)
	if err != nil || len(tasks) != 1 || len(strangers) != 0 || !tasks[TaskKey{"group1", phases.P1, later.Sector, 1}] {
		t.Fatalf("tasks %v, strangers %v: %v", tasks, strangers, err)
	}
	l, err := f.Fetch(ctx, "group1", phases.P1, patience)
	if err != nil || l == nil {
		t.Fatalf("it never came: %v", err)
	}
	if now := time.Now(); now.Before(later.NotBefore) {
		t.Fatalf("it came %s early", later.NotBefore.Sub(now))
	}
	if err := l.Ack(ctx); err != nil {
		t.Fatal(err)
	}
	if tasks, _, err = f.Tasks(ctx); err != nil || len(tasks) != 0 {
		t.Fatalf("tasks %v are left: %v", tasks, err)
	}
}
