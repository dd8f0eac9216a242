package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"sealfleet/internal/bus"
	"sealfleet/internal/chain"
	"sealfleet/internal/dispatch"
	"sealfleet/internal/phases"
)

const group = "group1"

// readyChain takes everything at once.
type readyChain struct{}

func (readyChain) Head(context.Context) (chain.Epoch, error) { return 1000, nil }
func (readyChain) Ticket(context.Context, uint64, uint64) (chain.Ticket, error) {
	return chain.Ticket{Value: [32]byte{1}, Epoch: 100}, nil
}
func (readyChain) PrecommitBy(context.Context, chain.Epoch) (time.Time, error) {
	return time.Time{}, nil
}
func (readyChain) CommitBy(context.Context, chain.Epoch) (time.Time, error) { return time.Time{}, nil }
func (readyChain) TicketUsable(context.Context, chain.Epoch) (bool, error)  { return true, nil }
func (readyChain) Precommit(context.Context, chain.PrecommitRequest) (chain.Outcome, error) {
	return chain.Outcome{State: chain.Landed, Message: "m1", Epoch: 1000, Seed: [32]byte{2}, SeedEpoch: 1000}, nil
}
func (readyChain) Commit(context.Context, chain.CommitRequest) (chain.Outcome, error) {
	return chain.Outcome{State: chain.Landed, Message: "m2", Epoch: 1000}, nil
}

// bench is one run.
type bench struct {
	options
	events *bus.Bus
	hosts  *bus.Bus
	next   atomic.Uint64 // sector numbers
	ended  atomic.Int64
	phases atomic.Int64
	free   chan struct{} // room for a sector

	mu       sync.Mutex
	done     map[stepOf]time.Time
	handoffs []time.Duration
}

type stepOf struct {
	sector string
	step   phases.Step
}

// follows are the phases that follow another one without a gate.
var follows = map[phases.Step]phases.Step{phases.P2: phases.P1, phases.P4: phases.P3, phases.P5: phases.P3}

func measure(ctx context.Context, o options) (report, error) {
	dir, err := os.MkdirTemp("", "sealfleet-bench-")
	if err != nil {
		return report{}, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory
	server, err := bus.StartEmbedded(bus.ServerConfig{Listen: "127.0.0.1:0", StateDir: dir, Sync: o.sync}, o.log)
	if err != nil {
		return report{}, err
	}
	defer server.Close()
	b := &bench{options: o, done: map[stepOf]time.Time{}, free: make(chan struct{}, o.inFlight)}
	config := bus.Config{StateDir: dir, AckWait: 2 * time.Minute, Server: server}
	if o.tcp {
		config.Server = nil
	}
	if b.events, err = bus.Connect(ctx, config, "bench-dispatcher", o.log); err != nil {
		return report{}, err
	}
	defer b.events.Close()
	if _, err := b.events.Apply(ctx, []string{group}); err != nil {
		return report{}, err
	}
	config.Server, config.Role = nil, bus.RoleHost
	if b.hosts, err = bus.Connect(ctx, config, "bench-host", o.log); err != nil {
		return report{}, err
	}
	defer b.hosts.Close()
	return b.run(ctx)
}

func (b *bench) run(ctx context.Context) (report, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	d := dispatch.New(b.events, dispatch.Options{Name: "bench", Chain: readyChain{}, Log: b.log})
	g.Go(func() error { return d.Run(ctx) })
	for i := range b.slots {
		step := phases.Phases()[i%6]
		g.Go(func() error { return b.slot(ctx, step) })
	}
	g.Go(func() error { return b.submit(ctx) })

	// The first second is for warming up.
	if err := sleep(ctx, time.Second); err != nil {
		return report{}, g.Wait()
	}
	before, cpu, start := b.phases.Load(), cpuTime(), time.Now()
	seq := b.lastSeq(ctx)
	b.mu.Lock()
	b.handoffs = nil
	b.mu.Unlock()
	if err := sleep(ctx, b.seconds); err != nil {
		return report{}, g.Wait()
	}
	took := time.Since(start)
	n := int(b.phases.Load() - before)
	cpu = cpuTime() - cpu
	written := float64(b.lastSeq(ctx) - seq)
	b.mu.Lock()
	handoffs := b.handoffs
	b.mu.Unlock()
	stop()
	if err := g.Wait(); err != nil && ctx.Err() == nil {
		return report{}, err
	}
	sortDurations(handoffs)
	return report{
		Sync: b.sync, Slots: b.slots, InFlight: b.inFlight, Seconds: took.Seconds(), Phases: n, PerSecond: float64(n) / took.Seconds(),
		Handoffs: len(handoffs), HandoffP50: percentile(handoffs, .5), HandoffP99: percentile(handoffs, .99),
		EventWrites: written / float64(max(n, 1)), CPUPerPhase: float64(cpu.Microseconds()) / float64(max(n, 1)),
		SectorsEnded: int(b.ended.Load()),
	}, nil
}

// lastSeq is a new event's sequence, which costs an event.
func (b *bench) lastSeq(ctx context.Context) uint64 {
	seq, err := b.events.Append(ctx, phases.Event{
		V: phases.Version, ID: ulid.Make().String(), Type: phases.Progress, Group: group, Sector: "bench-" + rand.Text(), Step: phases.P1,
		Host: "dispatcher-bench", At: time.Now().UTC(),
	}, 0)
	if err != nil {
		return 0
	}
	return seq
}

// submit keeps so many sectors in flight.
func (b *bench) submit(ctx context.Context) error {
	for {
		select {
		case b.free <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		n := b.next.Add(1)
		_, err := b.events.Append(ctx, phases.Event{
			V: phases.Version, ID: ulid.Make().String(), Type: phases.Submitted, Group: group, Sector: phases.SectorID(1000, n),
			Step: phases.SectorEnd, Host: phases.DispatcherName("bench"), At: time.Now().UTC(), Spec: &phases.Spec{Miner: 1000, Number: n, ProofType: 5},
		}, 0)
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("submit: %w", err)
		}
	}
}

// slot does the tasks of one phase, one after the other.
func (b *bench) slot(ctx context.Context, step phases.Step) error {
	for ctx.Err() == nil {
		l, err := b.hosts.Fetch(ctx, group, step, 30*time.Second)
		if err == nil && l != nil {
			err = b.do(ctx, l)
		}
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("slot of %s: %w", step, err)
		}
	}
	return nil
}

func (b *bench) do(ctx context.Context, l *bus.Lease) error {
	t := l.Task
	e := phases.Event{
		V: phases.Version, ID: ulid.Make().String(), Type: phases.Claimed, Group: t.Group, Sector: t.Sector, Step: t.Step,
		Issue: t.Issue, Attempt: t.Attempt, ClaimID: rand.Text(), PrevID: t.IssuedID, Host: "bench-host", At: time.Now().UTC(),
	}
	seq, err := b.hosts.Append(ctx, e, t.IssuedSeq)
	if err != nil {
		return err
	}
	b.started(t)
	e.PrevID, e.ID, e.Type, e.At = e.ID, ulid.Make().String(), phases.Done, time.Now().UTC()
	e.Result = &phases.Result{Code: "ok", Outputs: outputs[t.Step]}
	if _, err := b.hosts.Append(ctx, e, seq); err != nil {
		return err
	}
	b.completed(t)
	return l.Ack(ctx)
}

var hash = "00112233445566778899aabbccddeeff00112233445566778899aabbccddee0f"

// outputs are what real phases give, in size.
var outputs = map[phases.Step]map[string]string{
	phases.P1: {"ip": "10.0.0.1", "comm_d": hash, "replica_id": hash, "pieces": "[]"},
	phases.P2: {"comm_r": hash, "comm_c": hash, "comm_r_last": hash},
	phases.P3: {"c1_sha256": hash, "c1_bytes": "1000000"},
	phases.P4: {"proof": hash + hash + hash, "snark": "groth16", "proof_sha256": hash, "proof_bytes": "96"},
	phases.P5: {"storage_node": "node1", "receipt": "{}"},
	phases.P6: {"bytes_freed": "1"},
}

func (b *bench) started(t phases.Task) {
	before, ok := follows[t.Step]
	if !ok {
		return
	}
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if done, ok := b.done[stepOf{t.Sector, before}]; ok {
		b.handoffs = append(b.handoffs, now.Sub(done))
	}
}

func (b *bench) completed(t phases.Task) {
	b.phases.Add(1)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done[stepOf{t.Sector, t.Step}] = time.Now()
	if t.Step == phases.P6 {
		for _, step := range phases.Phases() {
			delete(b.done, stepOf{t.Sector, step})
		}
		b.ended.Add(1)
		<-b.free
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// cpuTime is what this process has used of all cores.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
