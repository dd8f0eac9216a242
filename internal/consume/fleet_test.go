package consume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	"sealfleet/internal/bus"
	"sealfleet/internal/engine"
	"sealfleet/internal/phases"
	"sealfleet/internal/quietport"
)

const (
	group    = "group1"
	patience = 2 * time.Minute // for what must come; no test asserts time
)

// fleet is an embedded server and the part of a dispatcher that issues tasks.
type fleet struct {
	t      *testing.T
	ctx    context.Context
	dir    string
	server *bus.Server
	bus    *bus.Bus
	ack    time.Duration
}

func newFleet(t *testing.T, ackWait time.Duration, groups ...string) *fleet {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	t.Cleanup(cancel)
	f := &fleet{t: t, ctx: ctx, dir: t.TempDir(), ack: ackWait}
	address, err := quietport.Address() // it may stop, and come again
	if err != nil {
		t.Fatal(err)
	}
	f.start(address)
	f.bus = f.connect(bus.Config{Server: f.server}, "dispatcher-test")
	if _, err := f.bus.Apply(ctx, append(groups, group)); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fleet) start(listen string) {
	f.t.Helper()
	s, err := bus.StartEmbedded(bus.ServerConfig{Listen: listen, StateDir: f.dir}, f.log())
	if err != nil {
		f.t.Fatal(err)
	}
	f.server = s
	f.t.Cleanup(s.Close)
}

func (f *fleet) log() *slog.Logger {
	w := io.Discard
	if os.Getenv("TEST_LOG") != "" {
		w = os.Stderr
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (f *fleet) connect(c bus.Config, name string) *bus.Bus {
	f.t.Helper()
	c.StateDir, c.AckWait = f.dir, f.ack
	b, err := bus.Connect(f.ctx, c, name, f.log())
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(b.Close)
	return b
}

// hostBus connects as a host does: over the network, with a host's permissions.
func (f *fleet) hostBus(name string) *bus.Bus { return f.connect(bus.Config{Role: bus.RoleHost}, name) }

// issue appends issued and publishes the task, of a 2 KiB sector.
func (f *fleet) issue(g string, step phases.Step, number uint64, issue int, inputs map[string]string) phases.Task {
	f.t.Helper()
	return f.issueOf(g, step, number, issue, 5, inputs)
}

// issueOf does so of a proof type.
func (f *fleet) issueOf(g string, step phases.Step, number uint64, issue, proofType int, inputs map[string]string) phases.Task {
	f.t.Helper()
	e := phases.Event{
		V: phases.Version, ID: ulid.Make().String(), Type: phases.Issued, Group: g, Sector: phases.SectorID(1000, number), Step: step,
		Issue: issue, Attempt: 1, Host: "dispatcher-test", At: time.Now().UTC(), Inputs: inputs,
	}
	expect := uint64(0)
	if last := f.last(e); last != nil {
		e.PrevID, expect = last.ID, last.Seq
	}
	seq, err := f.bus.Append(f.ctx, e, expect)
	if err != nil {
		f.t.Fatal(err)
	}
	t := phases.Task{
		V: phases.Version, Group: g, Sector: e.Sector, Step: step, Issue: issue, Attempt: 1, IssuedID: e.ID, IssuedSeq: seq,
		Spec: phases.Spec{Miner: 1000, Number: number, ProofType: proofType}, Inputs: inputs,
	}
	f.publish(t)
	return t
}

func (f *fleet) publish(t phases.Task) {
	f.t.Helper()
	if err := f.bus.PublishTask(f.ctx, t); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fleet) last(e phases.Event) *phases.Event {
	f.t.Helper()
	last, err := f.bus.Last(f.ctx, e.Group, e.Sector, e.Step)
	if err != nil {
		f.t.Fatal(err)
	}
	return last
}

// append writes an event after the chain's last one.
func (f *fleet) append(e phases.Event) phases.Event {
	f.t.Helper()
	last := f.last(e)
	e.V, e.ID, e.At, e.PrevID = phases.Version, ulid.Make().String(), time.Now().UTC(), last.ID
	if e.Host == "" {
		e.Host = "dispatcher-test"
	}
	if _, err := f.bus.Append(f.ctx, e, last.Seq); err != nil {
		f.t.Fatal(err)
	}
	return e
}

// events follows the log until n events satisfy the filter, and returns them.
func (f *fleet) events(n int, keep func(phases.Event) bool) []phases.Event {
	f.t.Helper()
	var found []phases.Event
	enough := errors.New("enough")
	ctx, cancel := context.WithTimeout(f.ctx, patience)
	defer cancel()
	err := f.bus.Follow(ctx, 1, func(e phases.Event) error {
		if keep(e) {
			found = append(found, e)
		}
		if len(found) >= n {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		f.t.Fatalf("saw %d of %d events: %v", len(found), n, err)
	}
	return found
}

func ofType(kinds ...phases.EventType) func(phases.Event) bool {
	return func(e phases.Event) bool {
		for _, k := range kinds {
			if e.Type == k {
				return true
			}
		}
		return false
	}
}

// tasksLeft counts the messages in the task stream.
func (f *fleet) tasksLeft() int {
	f.t.Helper()
	tasks, strangers, err := f.bus.Tasks(f.ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	return len(tasks) + len(strangers)
}

// eventually waits for what has no signal of its own (a message that the server drops).
func (f *fleet) eventually(what string, is func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatal("never happened: ", what)
		}
	}
}

// consumer is one under test.
type consumer struct {
	*Consumer
	registry *prometheus.Registry
	logs     *syncBuffer
	stop     func() // drains, and waits
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if os.Getenv("TEST_LOG") != "" {
		os.Stderr.Write(p)
	}
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// consumer starts one whose phases e does. change may adjust it before it runs.
func (f *fleet) consumer(name, workers string, e engine.Engine, change func(*Consumer)) *consumer {
	f.t.Helper()
	var w Workers
	if err := w.UnmarshalText([]byte(workers)); err != nil {
		f.t.Fatal(err)
	}
	cfg := Config{
		Workers: w, Groups: Groups{group}, HostName: name, IP: "10.10.13.22", LocalDir: f.t.TempDir(),
		FetchWait: 5 * time.Second, DrainTimeout: patience, Engine: EngineNoop,
	}
	logs := &syncBuffer{}
	registry := prometheus.NewRegistry()
	c := New(cfg, f.hostBus(name), e, registry, slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug})).With("host", name))
	if change != nil {
		change(c)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				f.t.Errorf("consumer %s: %v", name, err)
			}
		case <-time.After(2 * patience):
			f.t.Errorf("consumer %s does not stop", name)
		}
	})
	f.t.Cleanup(stop)
	return &consumer{c, registry, logs, stop}
}

// ledger is an engine that writes down what it does and does as it is told.
type ledger struct {
	mu      sync.Mutex
	starts  map[string]int
	running int
	most    int
	do      func(ctx context.Context, r engine.Request) (engine.Result, error)
}

func (l *ledger) Run(ctx context.Context, r engine.Request, progress func(engine.Progress)) (engine.Result, error) {
	l.mu.Lock()
	if l.starts == nil {
		l.starts = map[string]int{}
	}
	l.starts[fmt.Sprintf("%s/%s", r.Sector, r.Phase)]++
	l.running++
	l.most = max(l.most, l.running)
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		l.running--
		l.mu.Unlock()
	}()
	if l.do == nil {
		return engine.Result{}, nil
	}
	return l.do(ctx, r)
}

func (l *ledger) count(sector string, p phases.Step) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.starts[sector+"/"+string(p)]
}

// gate is an engine's work that waits until the test says how it ends.
type gate struct {
	entered chan engine.Request
	leave   chan error // nil: done
	stopped chan error // the cause, of those that were cancelled
}

func newGate() *gate {
	return &gate{entered: make(chan engine.Request, 100), leave: make(chan error, 100), stopped: make(chan error, 100)}
}

func (g *gate) do(ctx context.Context, r engine.Request) (engine.Result, error) {
	g.entered <- r
	select {
	case err := <-g.leave:
		return engine.Result{Outputs: map[string]string{"by": r.Sector}}, err
	case <-ctx.Done():
		g.stopped <- context.Cause(ctx)
		return engine.Result{}, context.Cause(ctx)
	}
}

func receive[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}
