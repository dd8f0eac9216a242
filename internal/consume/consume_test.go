package consume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"sealfleet/internal/bus"
	"sealfleet/internal/engine"
	"sealfleet/internal/phases"
)

func TestTaskIsClaimedDoneAndAcknowledged(t *testing.T) {
	f := newFleet(t, time.Minute)
	work := &ledger{do: func(_ context.Context, r engine.Request) (engine.Result, error) {
		return engine.Result{Outputs: map[string]string{"comm_r": "ab"}, Bytes: 5, Message: "fine"}, nil
	}}
	c := f.consumer("h1", "1:p2", work, nil)
	task := f.issue(group, phases.P2, 7, 1, map[string]string{"ticket": "cd"})
	done := f.events(1, ofType(phases.Done))[0]
	chain, err := f.bus.History(f.ctx, task.Sector)
	if err != nil || len(chain) != 3 {
		t.Fatal(chain, err)
	}
	claimed := chain[1]
	if claimed.Type != phases.Claimed || claimed.PrevID != task.IssuedID || claimed.ClaimID == "" || claimed.Host != "h1" || claimed.InputDigest == "" {
		t.Errorf("claimed: %+v", claimed)
	}
	if done.PrevID != claimed.ID || done.ClaimID != claimed.ClaimID || done.Issue != 1 || done.Attempt != 1 || done.Host != "h1" ||
		done.Result.Code != "ok" || done.Result.Outputs["comm_r"] != "ab" || done.Result.Bytes != 5 || done.Result.Digest == "" {
		t.Errorf("done: %+v %+v", done, done.Result)
	}
	f.eventually("the task's message is gone", func() bool { return f.tasksLeft() == 0 })
	c.stop()
	if got := testutil.ToFloat64(c.metrics.attempts.WithLabelValues("p2", "ok")); got != 1 {
		t.Errorf("attempts metric is %v", got)
	}
	if problems, err := testutil.GatherAndLint(c.registry); err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v %v", problems, err)
	}
}

func TestFailureHasCodeAndClass(t *testing.T) {
	f := newFleet(t, time.Minute)
	work := &ledger{do: func(context.Context, engine.Request) (engine.Result, error) {
		return engine.Result{}, &engine.Error{Code: "no_space", Class: phases.Transient, Message: "the disk is full"}
	}}
	f.consumer("h1", "1:p1", work, nil)
	f.issue(group, phases.P1, 7, 1, nil)
	failed := f.events(1, ofType(phases.Failed))[0]
	if r := failed.Result; r.Code != "no_space" || r.Class != phases.Transient || r.Message != "the disk is full" {
		t.Errorf("%+v", r)
	}
	f.eventually("the task's message is gone", func() bool { return f.tasksLeft() == 0 })

	// A panic in a host is its own kind of failure.
	work.do = func(context.Context, engine.Request) (engine.Result, error) { panic("oh") }
	f.issue(group, phases.P1, 8, 1, nil)
	failed = f.events(2, ofType(phases.Failed))[1]
	if r := failed.Result; r.Code != "panic" || r.Class != phases.Retryable {
		t.Errorf("%+v", r)
	}
}

// Two consumers, and every message delivered to both: one effect each.
func TestTwoHostsOneTaskOneEffect(t *testing.T) {
	// Long enough that a busy machine misses no heartbeat: a lease that runs out while the
	// phase runs is rightly taken over, and the phase runs again.
	f := newFleet(t, 3*time.Second)
	const sectors = 25
	work := &ledger{}
	race := make(chan struct{})
	// Hold every job right after its delivery, so that its lease runs out and the other
	// host gets the task too; then let all claim at once.
	slow := func(c *Consumer) {
		c.hooks.delivered = func(l *bus.Lease) {
			if l.Deliveries == 1 {
				<-race
			}
		}
	}
	a := f.consumer("h1", "25:p1", work, slow)
	b := f.consumer("h2", "25:p1", work, slow)
	for i := range sectors {
		f.issue(group, phases.P1, uint64(i), 1, nil)
	}
	// Redeliveries claim by taking the chain as it is: issued. The first holders come late.
	f.events(sectors/2, ofType(phases.Done))
	close(race)
	done := f.events(sectors, ofType(phases.Done))
	a.stop()
	b.stop()
	seen := map[string]int{}
	for _, e := range done {
		seen[e.Sector]++
	}
	all := 0
	if _, err := f.bus.Replay(f.ctx, func(e phases.Event) error {
		if e.Type == phases.Done {
			all++
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(seen) != sectors || all != sectors {
		t.Errorf("%d sectors done, %d done events, want %d of each", len(seen), all, sectors)
	}
	for i := range sectors {
		if n := work.count(phases.SectorID(1000, uint64(i)), phases.P1); n != 1 {
			t.Errorf("sector %d ran %d times", i, n)
		}
	}
}

func TestLostClaimKillsAndNeverAcks(t *testing.T) {
	f := newFleet(t, time.Minute)
	g := newGate()
	c := f.consumer("h1", "1:p1", &ledger{do: g.do}, nil)
	task := f.issue(group, phases.P1, 7, 1, nil)
	receive(t, g.entered, "the phase to start")

	// Another host's claim appears, as after a pause beyond the lease.
	claim := f.append(phases.Event{Type: phases.Claimed, Group: group, Sector: task.Sector, Step: phases.P1, Issue: 1, Attempt: 1, ClaimID: "other", Host: "h2"})
	if cause := receive(t, g.stopped, "the engine to be stopped"); !errors.Is(cause, errLost) {
		t.Errorf("stopped because of %v", cause)
	}
	c.stop()
	if last := f.last(claim); last.ID != claim.ID {
		t.Errorf("the loser wrote %+v", last)
	}
	if n := f.tasksLeft(); n != 1 {
		t.Errorf("%d tasks left, want the new holder's", n)
	}
	if got := testutil.ToFloat64(c.metrics.heartbeats.WithLabelValues("lost")); got != 1 {
		t.Errorf("lost metric is %v", got)
	}
}

// The outcome of a holder that lost its claim between two heartbeats is not written.
func TestOutcomeAfterALostClaimIsDiscarded(t *testing.T) {
	f := newFleet(t, time.Hour) // no heartbeat comes
	g := newGate()
	outcomes := make(chan string, 1)
	c := f.consumer("h1", "1:p1", &ledger{do: g.do}, func(c *Consumer) { c.hooks.outcome = func(_ *job, o string) { outcomes <- o } })
	task := f.issue(group, phases.P1, 7, 1, nil)
	receive(t, g.entered, "the phase to start")
	claim := f.append(phases.Event{Type: phases.Claimed, Group: group, Sector: task.Sector, Step: phases.P1, Issue: 1, Attempt: 1, ClaimID: "other", Host: "h2"})
	g.leave <- nil
	receive(t, outcomes, "the job to end")
	c.stop()
	if last := f.last(claim); last.ID != claim.ID || f.tasksLeft() != 1 {
		t.Errorf("the loser wrote %+v; %d tasks left", last, f.tasksLeft())
	}
}

func TestRevokedPhaseIsStopped(t *testing.T) {
	f := newFleet(t, 3*time.Second)
	g := newGate()
	f.consumer("h1", "1:p1", &ledger{do: g.do}, nil)
	task := f.issue(group, phases.P1, 7, 1, nil)
	receive(t, g.entered, "the phase to start")
	f.append(phases.Event{Type: phases.Cancelled, Group: group, Sector: task.Sector, Step: phases.P1, Issue: 1, Reason: "operator"})
	receive(t, g.stopped, "the engine to be stopped")
	// Its message is acknowledged by whoever gets it next: the chain says that it is over.
	f.eventually("the task's message is gone", func() bool { return f.tasksLeft() == 0 })
}

// A cancellation that no dispatcher wrote is answered by nobody: what followed it would be the
// last word of this host, in the place of what it did. (Found by make chaos -seed 20261128.)
func TestAForgedCancellationIsNotAnswered(t *testing.T) {
	f := newFleet(t, 3*time.Second)
	g := newGate()
	outcomes := make(chan string, 10)
	f.consumer("h1", "1:p1", &ledger{do: g.do}, func(c *Consumer) { c.hooks.outcome = func(_ *job, o string) { outcomes <- o } })
	task := f.issue(group, phases.P1, 1, 1, nil)
	receive(t, g.entered, "the phase")
	forged := f.append(phases.Event{Type: phases.Cancelled, Group: group, Sector: task.Sector, Step: task.Step, Issue: 1, Host: "forger"})
	if o := receive(t, outcomes, "the outcome"); o != "lost" {
		t.Errorf("outcome %s", o)
	}
	if last := f.last(forged); last.ID != forged.ID {
		t.Errorf("somebody answered: %s by %s", last.Type, last.Host)
	}
}

func TestHeartbeatsKeepTheLease(t *testing.T) {
	f := newFleet(t, 3*time.Second)
	g := newGate()
	work := &ledger{do: g.do}
	beats := make(chan error, 1000)
	keep := func(c *Consumer) { c.hooks.heartbeat = func(_ *job, err error) { beats <- err } }
	f.consumer("h1", "1:p1", work, keep)
	f.consumer("h2", "1:p1", work, keep)
	task := f.issue(group, phases.P1, 7, 1, nil)
	receive(t, g.entered, "the phase to start")
	for range 8 { // more than a lease
		if err := receive(t, beats, "a heartbeat"); errors.Is(err, errLost) { // others were only late
			t.Error(err)
		}
	}
	g.leave <- nil
	f.events(1, ofType(phases.Done))
	if n := work.count(task.Sector, phases.P1); n != 1 {
		t.Errorf("ran %d times", n)
	}
}

// A host that dies is replaced when its lease ends, and the new one takes the claim over.
func TestDeadHostsTaskIsTakenOver(t *testing.T) {
	f := newFleet(t, 2*time.Second)
	dead := f.hostBus("h1")
	task := f.issue(group, phases.P1, 7, 1, nil)
	lease, err := dead.Fetch(f.ctx, group, phases.P1, patience)
	if err != nil || lease == nil {
		t.Fatal(lease, err)
	}
	f.append(phases.Event{Type: phases.Claimed, Group: group, Sector: task.Sector, Step: phases.P1, Issue: 1, Attempt: 1, ClaimID: "dead", Host: "h1"})
	dead.Close()
	work := &ledger{}
	f.consumer("h2", "1:p1", work, nil)
	done := f.events(1, ofType(phases.Done))[0]
	claims := f.events(2, ofType(phases.Claimed))
	if done.Host != "h2" || claims[1].Host != "h2" || claims[1].PrevID != claims[0].ID || done.ClaimID != claims[1].ClaimID {
		t.Errorf("claims %+v, done %+v", claims, done)
	}
	f.eventually("the task's message is gone", func() bool { return f.tasksLeft() == 0 })
}

func TestStaleTasksAreAckedAwayOnlyOnTheChainsWord(t *testing.T) {
	f := newFleet(t, time.Minute)
	work := &ledger{}
	// Done, and its message comes once more.
	task := f.issue(group, phases.P1, 1, 1, nil)
	c := f.consumer("h1", "2:p1", work, nil)
	f.events(1, ofType(phases.Done))
	f.eventually("the task's message is gone", func() bool { return f.tasksLeft() == 0 })
	f.publish(task)
	f.eventually("the second message is gone", func() bool { return f.tasksLeft() == 0 })
	if n := work.count(task.Sector, phases.P1); n != 1 {
		t.Errorf("ran %d times", n)
	}
	// Of an older issue.
	f.issue(group, phases.P1, 1, 2, nil)
	f.events(2, ofType(phases.Done))
	f.publish(task)
	f.eventually("the old issue's message is gone", func() bool { return f.tasksLeft() == 0 })
	if n := work.count(task.Sector, phases.P1); n != 2 {
		t.Errorf("ran %d times", n)
	}
	// Of no issue at all: nobody knows it, so it is neither run nor removed.
	stray := phases.Task{V: phases.Version, Group: group, Sector: phases.SectorID(1000, 99), Step: phases.P1, Issue: 1, Attempt: 1, IssuedID: "forged", IssuedSeq: 4711}
	f.publish(stray)
	f.eventually("the consumer has seen the stray", func() bool { return strings.Contains(c.logs.String(), "does not know") })
	if work.count(stray.Sector, phases.P1) != 0 || f.tasksLeft() != 1 {
		t.Error("a task that no chain knows was run or removed")
	}
}

func TestSlotsAreTheLimitAndLaterPhasesGoFirst(t *testing.T) {
	f := newFleet(t, time.Minute, "group2")
	g := newGate()
	work := &ledger{do: g.do}
	const each = 4
	for i := range uint64(each) { // four queued, two slots
		f.issue(group, phases.P2, i, 1, nil)
	}
	for i := range uint64(each) {
		f.issue("group2", phases.P3, 10+i, 1, nil)
		f.issue(group, phases.P3, 20+i, 1, nil)
	}
	// The server's consumers hear of a message a moment after it was stored.
	for _, q := range []struct {
		group string
		step  phases.Step
	}{{group, phases.P2}, {group, phases.P3}, {"group2", phases.P3}} {
		f.eventually("the tasks can be had", func() bool {
			left, _, err := f.bus.Queue(f.ctx, q.group, q.step)
			return err == nil && left == each
		})
	}
	f.consumer("h1", "2:p2,p3", work, func(c *Consumer) { c.cfg.Groups = Groups{group, "group2"} })
	var order []string
	for range 3 * each {
		r := receive(t, g.entered, "a phase to start")
		order = append(order, string(r.Phase))
		if len(order) >= 2 {
			g.leave <- nil
		}
	}
	g.leave <- nil
	f.events(3*each, ofType(phases.Done))
	if work.most != 2 {
		t.Errorf("%d ran at once, want 2", work.most)
	}
	if want := strings.Repeat("p3 ", 2*each) + strings.Repeat("p2 ", each); strings.Join(order, " ")+" " != want {
		t.Errorf("order %v", order)
	}
}

// Groups of one phase take turns: none starves behind another.
func TestGroupsTakeTurns(t *testing.T) {
	f := newFleet(t, time.Minute, "group2")
	g := newGate()
	for i := range uint64(6) {
		f.issue(group, phases.P1, i, 1, nil)
	}
	for i := range uint64(2) {
		f.issue("group2", phases.P1, 10+i, 1, nil)
	}
	f.consumer("h1", "1:p1", &ledger{do: g.do}, func(c *Consumer) { c.cfg.Groups = Groups{group, "group2"} })
	var order []string
	for range 8 {
		order = append(order, receive(t, g.entered, "a phase to start").Sector)
		g.leave <- nil
	}
	if at := slices.Index(order, phases.SectorID(1000, 11)); at < 0 || at > 4 {
		t.Errorf("the second group's two sectors waited: %v", order)
	}
}

// A slot that waits on many queues holds one task: what the others bring goes back at
// once, and to another host if that has room.
func TestNoHostHoldsMoreThanItsSlots(t *testing.T) {
	f := newFleet(t, time.Minute)
	g := newGate()
	work := &ledger{do: g.do}
	f.consumer("h1", "1:p1,p2,p3,p4,p5,p6", work, nil)
	f.issue(group, phases.P1, 1, 1, nil)
	receive(t, g.entered, "the first phase")
	// h1 is full, and its long polls for the other phases are out.
	for i, p := range []phases.Step{phases.P2, phases.P3, phases.P4} {
		f.issue(group, p, uint64(10+i), 1, nil)
	}
	other := newGate()
	f.consumer("h2", "3:p2,p3,p4", &ledger{do: other.do}, nil)
	for range 3 {
		receive(t, other.entered, "the other host to get what the first can't do")
		other.leave <- nil
	}
	for _, e := range f.events(3, ofType(phases.Done)) {
		if e.Host != "h2" {
			t.Errorf("%s was done by %s", e.Sector, e.Host)
		}
	}
	g.leave <- nil
	f.events(4, ofType(phases.Done))
	if work.most != 1 {
		t.Errorf("one slot ran %d at once", work.most)
	}
}

func TestServerOutageStopsNoJob(t *testing.T) {
	f := newFleet(t, 2*time.Second)
	g := newGate()
	work := &ledger{do: g.do}
	outcomes := make(chan string, 10)
	c := f.consumer("h1", "2:p1", work, func(c *Consumer) { c.hooks.outcome = func(_ *job, o string) { outcomes <- o } })
	during := f.issue(group, phases.P1, 1, 1, nil)
	over := f.issue(group, phases.P1, 2, 1, nil)
	receive(t, g.entered, "the first phase")
	receive(t, g.entered, "the second phase")
	url := strings.TrimPrefix(f.server.ClientURL(), "nats://")
	f.server.Close()
	g.leave <- nil // one ends while the server is away
	f.eventually("the outcome meets the outage", func() bool { return strings.Contains(c.logs.String(), "cannot be told yet") })
	if err := c.Ready(); !errors.Is(err, bus.ErrUnreachable) {
		t.Errorf("ready during the outage: %v", err)
	}
	f.start(url)
	if o := receive(t, outcomes, "the first outcome"); o != "ok" {
		t.Error(o)
	}
	g.leave <- nil // the other after it
	if o := receive(t, outcomes, "the second outcome"); o != "ok" {
		t.Error(o)
	}
	f.bus = f.connect(bus.Config{}, "dispatcher-2")
	f.events(2, ofType(phases.Done))
	for _, task := range []phases.Task{during, over} {
		if n := work.count(task.Sector, phases.P1); n != 1 {
			t.Errorf("%s ran %d times", task.Sector, n)
		}
	}
	f.eventually("both messages are gone", func() bool { return f.tasksLeft() == 0 })
}

// After an outage the server gives a running task out again, also to its own holder.
func TestOwnRunningTaskDeliveredAgain(t *testing.T) {
	f := newFleet(t, time.Minute)
	g := newGate()
	work := &ledger{do: g.do}
	jobs := make(chan *job, 1)
	c := f.consumer("h1", "1:p1", work, func(c *Consumer) { c.hooks.outcome = func(j *job, _ string) { jobs <- j } })
	task := f.issue(group, phases.P1, 7, 1, nil)
	receive(t, g.entered, "the phase")
	again := c.bus.Resume(task, "$JS.ACK.SEAL_TASKS.group1-p1.2.1.1.1.0")
	c.do(f.ctx, again)
	older := task
	older.Issue = 0
	c.do(f.ctx, c.bus.Resume(older, "$JS.ACK.SEAL_TASKS.group1-p1.2.1.1.1.0")) // not waited for
	g.leave <- nil
	if j := receive(t, jobs, "the job to end"); j.currentLease() != again {
		t.Error("the job did not take the new delivery")
	}
	f.events(1, ofType(phases.Done))
	if n := work.count(task.Sector, phases.P1); n != 1 {
		t.Errorf("ran %d times", n)
	}
}

func TestDrainFinishesWhatRuns(t *testing.T) {
	f := newFleet(t, time.Minute)
	g := newGate()
	c := f.consumer("h1", "1:p1", &ledger{do: g.do}, nil)
	f.issue(group, phases.P1, 1, 1, nil)
	receive(t, g.entered, "the phase")
	stopped := make(chan struct{})
	go func() { c.stop(); close(stopped) }()
	f.eventually("the consumer drains", func() bool { return strings.Contains(c.logs.String(), "draining") })
	f.issue(group, phases.P1, 2, 1, nil) // not for us any more
	g.leave <- nil
	receive(t, stopped, "the consumer to stop")
	f.events(1, ofType(phases.Done))
	if n := f.tasksLeft(); n != 1 {
		t.Errorf("%d tasks left, want the new one", n)
	}
}

func TestDrainTimeoutHandsBack(t *testing.T) {
	f := newFleet(t, time.Minute)
	g := newGate()
	c := f.consumer("h1", "1:p1", &ledger{do: g.do}, func(c *Consumer) { c.cfg.DrainTimeout = 0 })
	task := f.issue(group, phases.P1, 1, 1, nil)
	receive(t, g.entered, "the phase")
	c.stop()
	if cause := receive(t, g.stopped, "the engine to be stopped"); !errors.Is(cause, ErrHandedBack) {
		t.Errorf("stopped because of %v", cause)
	}
	// Handed back at once, not after AckWait (a minute): another host goes on.
	work := &ledger{}
	f.consumer("h2", "1:p1", work, nil)
	done := f.events(1, ofType(phases.Done))[0]
	if done.Host != "h2" || done.Issue != task.Issue || f.last(done).Type != phases.Done {
		t.Errorf("%+v", done)
	}
}

func TestMissingDurableIsAReason(t *testing.T) {
	f := newFleet(t, time.Minute)
	c := f.consumer("h1", "1:p1", &ledger{}, func(c *Consumer) { c.cfg.Groups = Groups{"group9"} })
	f.eventually("the consumer is not ready", func() bool { return c.Ready() != nil })
	if err := c.Ready(); !strings.Contains(err.Error(), "group9") || !strings.Contains(err.Error(), "bus apply") {
		t.Errorf("%v", err)
	}
	if _, err := f.bus.Apply(f.ctx, []string{group, "group9"}); err != nil {
		t.Fatal(err)
	}
	f.eventually("the consumer is ready", func() bool { return c.Ready() == nil })
}

func TestTwoConsumersWithOneName(t *testing.T) {
	f := newFleet(t, time.Minute)
	const wait = 500 * time.Millisecond
	first := f.hostBus("h1")
	if err := first.Announce(f.ctx, "h1", "machine-a", wait); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		err := f.hostBus("h1").Announce(f.ctx, "h1", "machine-b", patience)
		if !errors.Is(err, bus.ErrNameTaken) || !strings.Contains(err.Error(), "machine-a") || !strings.Contains(err.Error(), "HOST_NAME") {
			t.Errorf("got %v", err)
		}
	}
	if err := f.hostBus("h2").Announce(f.ctx, "h2", "machine-b", wait); err != nil {
		t.Error("another name:", err)
	}
	first.Close()
	if err := f.hostBus("h1").Announce(f.ctx, "h1", "machine-b", wait); err != nil {
		t.Error("the name is free again:", err)
	}

	// Many at once: one stays.
	const many = 5
	results := make(chan error, many)
	for i := range many {
		b := f.hostBus("h3")
		go func() { results <- b.Announce(f.ctx, "h3", fmt.Sprint("machine-", i), 5*time.Second) }()
	}
	stayed := 0
	for range many {
		if err := receive(t, results, "an answer"); err == nil {
			stayed++
		} else if !errors.Is(err, bus.ErrNameTaken) {
			t.Error(err)
		}
	}
	if stayed != 1 {
		t.Errorf("%d of %d stayed", stayed, many)
	}
}

func TestCopyShares(t *testing.T) {
	s := newShares(900)
	a, aCh, leaveA := s.join("node1", group)
	b, bCh, leaveB := s.join("node1", group)
	c, _, leaveC := s.join("node1", group)
	if a != 900 || b != 450 || c != 300 || <-aCh != 300 || <-bCh != 300 {
		t.Error(a, b, c)
	}
	leaveC()
	s.set(1000, nil)
	if <-aCh != 500 || <-bCh != 500 { // only the newest
		t.Error("after set")
	}
	leaveB()
	if <-aCh != 1000 {
		t.Error("after leave")
	}
	s.set(0, nil)
	if <-aCh != 0 {
		t.Error("unlimited")
	}
	leaveA()
}

func TestProgressIsToldSeldom(t *testing.T) {
	start := time.Now()
	var n progressNote
	n.set(engine.Progress{Step: "layer 1/2", Done: 1, Total: 4})
	n.started = start
	tell := func(after time.Duration, p engine.Progress, want string) {
		t.Helper()
		n.set(p)
		note, _, due := n.due(start.Add(after))
		if due != (want != "") || note != want {
			t.Errorf("after %v: %q, %v; want %q", after, note, due, want)
		}
	}
	tell(5*time.Second, engine.Progress{Step: "layer 1/2", Done: 1, Total: 4}, "")
	tell(11*time.Second, engine.Progress{Step: "layer 1/2", Done: 1, Total: 4}, "layer 1/2 25 %")
	tell(31*time.Second, engine.Progress{Step: "layer 1/2", Done: 2, Total: 4}, "")
	tell(32*time.Second, engine.Progress{Step: "layer 2/2", Done: 0, Total: 4}, "layer 2/2 0 %")
	tell(80*time.Second, engine.Progress{Step: "layer 2/2", Done: 2, Total: 4}, "")
	tell(92*time.Second, engine.Progress{Step: "layer 2/2", Done: 3, Total: 4}, "layer 2/2 75 %")
	tell(200*time.Second, engine.Progress{Step: "layer 2/2", Done: 3, Total: 4}, "") // nothing new
}
