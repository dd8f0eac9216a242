package dispatch

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"sealfleet/internal/bus"
	"sealfleet/internal/chain"
	"sealfleet/internal/phases"
)

var errKilled = errors.New("killed")

// Where a crash may strike, see the FAIL comments.
var points = []string{
	"append issue", "appended issue", "published", "asked precommit", "wrote precommit", "asked commit", "wrote commit",
	"append finish", "appended finish", "archived", "ack",
}

// A dispatcher is killed at the first, second, third … time that it comes to a point,
// until a sector passes without coming there so often. Each time another dispatcher
// finishes the sector, with each phase done once.
func TestKilledAtEveryPoint(t *testing.T) {
	f := newFleet(t)
	cfg := instant()
	cfg.Epoch, cfg.PrecommitEpochs, cfg.SeedEpochs, cfg.CommitEpochs = time.Millisecond, 1, 2, 1
	k := &killing{f: f, js: f.admin(), chain: chain.NewDev(cfg, nil, nil), struck: map[string]int{}}
	f.hosts("h1")
	for _, point := range points {
		for nth := 1; k.kill(point, nth); nth++ {
			k.struck[point] = nth
		}
		if k.struck[point] == 0 {
			t.Errorf("never killed at %q", point)
		}
	}
	t.Logf("killed: %v", k.struck)
	f.onceEach(f.ended(k.sectors))
}

type killing struct {
	f       *fleet
	js      jetstream.JetStream
	chain   chain.Chain
	struck  map[string]int
	sectors int
}

// kill has a dispatcher killed when it comes to a point for the nth time, and tells
// whether it came there before the sector was archived.
func (k *killing) kill(point string, nth int) bool {
	k.f.t.Helper()
	id := phases.SectorID(1000, uint64(k.sectors))
	killed := make(chan struct{})
	o := impatient("victim", k.chain)
	var mu sync.Mutex
	count := 0
	o.hook = func(p string) error {
		mu.Lock()
		defer mu.Unlock()
		if p != point {
			return nil
		}
		if count++; count != nth {
			return nil
		}
		close(killed)
		return errKilled
	}
	_, stop := k.f.dispatch(o)
	k.f.submit(uint64(k.sectors), 1)
	k.sectors++
	buried := make(chan struct{})
	go func() {
		defer close(buried)
		k.f.archived(id)
	}()
	select {
	case <-killed:
		stop()
		heir := impatient("heir", k.chain)
		heir.Grace = 10 * time.Millisecond
		_, stopHeir := k.f.dispatch(heir)
		<-buried
		stopHeir()
		return true
	case <-buried:
	}
	defer stop()
	// The last points come after the tombstone. When every event is acknowledged, all were
	// passed: the hook is called before the acknowledgement. What those killed before left
	// takes longer to be acknowledged than to wait for.
	ctx, cancel := context.WithTimeout(k.f.ctx, 500*time.Millisecond)
	defer cancel()
	for over := false; ; {
		select {
		case <-killed:
			return true
		default:
		}
		if over {
			return false
		}
		idle, err := k.idle(ctx)
		over = idle || err != nil || !pause(ctx, time.Millisecond)
	}
}

// idle tells whether every event was acknowledged.
func (k *killing) idle(ctx context.Context) (bool, error) {
	c, err := k.js.Consumer(ctx, bus.EventsStream, bus.DispatcherDurable)
	if err != nil {
		return false, err
	}
	i := c.CachedInfo()
	return i.NumPending == 0 && i.NumAckPending == 0, nil
}

// admin is a plain connection with the dispatchers' key, as the nats CLI has it.
func (f *fleet) admin() jetstream.JetStream {
	f.t.Helper()
	seed, err := nats.NkeyOptionFromSeed(f.srv.DispatcherSeed())
	if err != nil {
		f.t.Fatal(err)
	}
	nc, err := nats.Connect(f.srv.ClientURL(), seed)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		f.t.Fatal(err)
	}
	return js
}

// published waits until n tasks are in the stream.
func (f *fleet) published(n int) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.ctx, patience)
	defer cancel()
	for {
		tasks, _, err := f.bus.Tasks(ctx)
		if err != nil {
			f.t.Fatalf("waiting for %d tasks, there are %d: %v", n, len(tasks), err)
		}
		if len(tasks) == n {
			return
		}
		pause(ctx, time.Millisecond)
	}
}

func TestPurgedTasksComeBack(t *testing.T) {
	f := newFleet(t)
	d, _ := f.dispatch(impatient("d", chain.NewDev(instant(), nil, nil)))
	const n = 20
	f.submit(0, n)
	f.published(n)
	js := f.admin()
	s, err := js.Stream(f.ctx, bus.TasksStream)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(f.ctx); err != nil {
		t.Fatal(err)
	}
	f.published(n)
	f.hosts("h1", "h2")
	f.onceEach(f.ended(n))
	// The sweeper counts after it has published, and on a slow machine it may publish what
	// was only late; the duplicate is refused, but counted.
	ctx, cancel := context.WithTimeout(f.ctx, patience)
	defer cancel()
	for testutil.ToFloat64(d.Metrics.repairs.WithLabelValues("task")) < n {
		if !pause(ctx, time.Millisecond) {
			t.Fatalf("%v tasks were counted as repaired, want %d", testutil.ToFloat64(d.Metrics.repairs.WithLabelValues("task")), n)
		}
	}
}

func TestDeletedStreamAndConsumersComeBack(t *testing.T) {
	f := newFleet(t)
	o := impatient("d", chain.NewDev(instant(), nil, nil))
	o.Groups = []string{group}
	f.dispatch(o)
	f.submit(0, 5)
	f.published(5)
	js := f.admin()
	if err := js.DeleteStream(f.ctx, bus.TasksStream); err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteConsumer(f.ctx, bus.EventsStream, bus.DispatcherDurable); err != nil {
		t.Fatal(err)
	}
	// Hosts find the consumers again when the sweeper has made them.
	f.hosts("h1")
	f.onceEach(f.ended(5))
}

// A task whose host took it and then fell silent is published again when it is gone.
func TestTaskGoneUnderASilentHost(t *testing.T) {
	f := newFleet(t)
	o := impatient("d", chain.NewDev(instant(), nil, nil))
	o.Silence = 100 * time.Millisecond
	f.dispatch(o)
	f.submit(7, 1)
	b := f.connect("silent")
	lease, err := b.Fetch(f.ctx, group, phases.P1, patience)
	if err != nil || lease == nil {
		t.Fatalf("%v, %v", lease, err)
	}
	task := lease.Task
	if _, err := b.Append(f.ctx, phases.Event{
		V: phases.Version, ID: ulid.Make().String(), Type: phases.Claimed, Group: group, Sector: task.Sector, Step: task.Step,
		Issue: task.Issue, Attempt: task.Attempt, ClaimID: "c1", PrevID: task.IssuedID, Host: "silent", At: time.Now().UTC(),
	}, task.IssuedSeq); err != nil {
		t.Fatal(err)
	}
	if err := lease.Ack(f.ctx); err != nil { // a stray acknowledgement, and no done
		t.Fatal(err)
	}
	again, err := f.connect("heir").Fetch(f.ctx, group, phases.P1, patience)
	if err != nil || again == nil || again.Task.IssuedID != task.IssuedID {
		t.Fatalf("the task did not come again: %+v, %v", again, err)
	}
}

// Events that are forged or stale start nothing, and stop nothing.
func TestForgedEvents(t *testing.T) {
	f := newFleet(t)
	d, _ := f.dispatch(impatient("d", chain.NewDev(instant(), nil, nil)))
	f.submit(7, 1)
	f.published(1)
	const id = "s-t01000-7"
	last, err := f.bus.Last(f.ctx, group, id, phases.P1)
	if err != nil || last == nil {
		t.Fatal(last, err)
	}
	forge := func(e phases.Event, after uint64) {
		e.V, e.ID, e.Group, e.Sector, e.At = phases.Version, ulid.Make().String(), group, id, time.Now().UTC()
		if _, err := f.bus.Append(f.ctx, e, after); err != nil {
			t.Fatal(err)
		}
	}
	ok := &phases.Result{Code: "ok"}
	// A host says that it did p1, which it never claimed; another that it did p6.
	forge(phases.Event{Type: phases.Done, Step: phases.P1, Issue: 1, Attempt: 1, ClaimID: "mine", PrevID: last.ID, Host: "evil", Result: ok}, last.Seq)
	forge(phases.Event{Type: phases.Done, Step: phases.P6, Issue: 1, Attempt: 1, ClaimID: "mine", Host: "evil", Result: ok}, 0)
	forge(phases.Event{Type: phases.Claimed, Step: phases.P2, Issue: 1, Attempt: 1, ClaimID: "mine", Host: "evil"}, 0)
	f.hosts("h1")
	f.onceEach(f.ended(1))
	if n := testutil.CollectAndCount(d.Metrics.rejected); n == 0 {
		t.Error("no event was counted as rejected")
	}
}

func TestRetries(t *testing.T) {
	f := newFleet(t)
	f.dispatch(impatient("d", chain.NewDev(instant(), nil, nil)))
	var mu sync.Mutex
	tries := map[phases.Step]int{}
	f.host = func(task phases.Task) *phases.Result {
		mu.Lock()
		defer mu.Unlock()
		tries[task.Step]++
		switch {
		case task.Step == phases.P2 && tries[phases.P2] <= 2:
			return &phases.Result{Code: "crashed", Class: phases.Retryable, Message: "the child died"}
		case task.Step == phases.P5 && tries[phases.P5] <= 5: // more often than there are attempts
			return &phases.Result{Code: "no_space", Class: phases.Transient, Message: "the storage node is full"}
		}
		return nil
	}
	f.hosts("h1")
	f.submit(7, 1)
	s := f.ended(1)["s-t01000-7"]
	if s.Status(phases.DefaultPolicy()) != phases.StatusFinished {
		t.Fatalf("ended as %s", s.Status(phases.DefaultPolicy()))
	}
	if p2 := s.Step(phases.P2); p2.Issue != 3 || p2.Attempt != 3 {
		t.Errorf("p2: issue %d, attempt %d; want 3 and 3", p2.Issue, p2.Attempt)
	}
	if p5 := s.Step(phases.P5); p5.Issue != 6 || p5.Attempt != 1 {
		t.Errorf("p5: issue %d, attempt %d; want 6 and 1", p5.Issue, p5.Attempt)
	}
	f.onceEach(map[string]*phases.Sector{"s-t01000-7": s})
}

func TestCancelStopsAndCleans(t *testing.T) {
	f := newFleet(t)
	f.dispatch(impatient("d", chain.NewDev(instant(), nil, nil)))
	const id = "s-t01000-7"
	f.submit(7, 1)
	f.published(1) // p1 waits for a host
	if err := Cancel(f.ctx, f.bus, id, "test", "wrong data"); err != nil {
		t.Fatal(err)
	}
	f.until("the revocation", func(m map[string]*phases.Sector) bool {
		p1 := m[id].Step(phases.P1)
		return p1.Issue == 1 && p1.Status == phases.StatusWaiting
	})
	f.hosts("h1")
	s := f.ended(1)[id]
	if s.Status(phases.DefaultPolicy()) != phases.StatusCancelled {
		t.Errorf("%s", s.Status(phases.DefaultPolicy()))
	}
	f.did(id, phases.P6, 1)
	f.did(id, phases.P1, 0)
	if err := Cancel(f.ctx, f.bus, id, "test", "again"); !errors.Is(err, ErrRefused) {
		t.Errorf("a second time: %v", err)
	}
}

// The chain is away for a while, and p1's inputs come when it is back.
func TestChainAway(t *testing.T) {
	f := newFleet(t)
	c := &away{Chain: chain.NewDev(instant(), nil, nil), fails: 3}
	d, _ := f.dispatch(impatient("d", c))
	f.hosts("h1")
	f.submit(7, 1)
	f.onceEach(f.ended(1))
	if n := testutil.ToFloat64(d.Metrics.gateErrors.WithLabelValues("precommit")); n != 3 {
		t.Errorf("%v errors of the precommit gate were counted, want 3", n)
	}
}

type away struct {
	chain.Chain
	mu    sync.Mutex
	fails int
}

func (a *away) Precommit(ctx context.Context, r chain.PrecommitRequest) (chain.Outcome, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fails > 0 {
		a.fails--
		return chain.Outcome{}, errors.New("connection refused")
	}
	return a.Chain.Precommit(ctx, r)
}

// A gate that was waiting when its dispatcher stopped is passed by the next one.
func TestGateOverARestart(t *testing.T) {
	f := newFleet(t)
	cfg := instant()
	cfg.Epoch, cfg.SeedEpochs = 50*time.Millisecond, 10
	c := chain.NewDev(cfg, nil, nil)
	_, stop := f.dispatch(impatient("d1", c))
	f.hosts("h1")
	f.submit(7, 1)
	const id = "s-t01000-7"
	f.until("the open gate", func(m map[string]*phases.Sector) bool {
		return m[id] != nil && m[id].Step(phases.Precommit).Status == phases.StatusIssued
	})
	stop()
	f.dispatch(impatient("d2", c))
	s := f.ended(1)[id]
	if gate := s.Step(phases.Precommit); gate.Issue != 1 || gate.Result.Code != "ok" {
		t.Errorf("gate %+v", gate)
	}
}
