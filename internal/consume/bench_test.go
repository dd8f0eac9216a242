package consume

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	"sealfleet/internal/bus"
	gates "sealfleet/internal/chain"
	"sealfleet/internal/dispatch"
	"sealfleet/internal/engine"
	"sealfleet/internal/phases"
)

// readyChain takes everything at once.
type readyChain struct{}

func (readyChain) Head(context.Context) (gates.Epoch, error) { return 1000, nil }
func (readyChain) Ticket(context.Context, uint64, uint64) (gates.Ticket, error) {
	return gates.Ticket{Value: [32]byte{1}, Epoch: 100}, nil
}
func (readyChain) PrecommitBy(context.Context, gates.Epoch) (time.Time, error) {
	return time.Time{}, nil
}
func (readyChain) CommitBy(context.Context, gates.Epoch) (time.Time, error) { return time.Time{}, nil }
func (readyChain) TicketUsable(context.Context, gates.Epoch) (bool, error)  { return true, nil }
func (readyChain) Precommit(context.Context, gates.PrecommitRequest) (gates.Outcome, error) {
	return gates.Outcome{State: gates.Landed, Message: "m1", Epoch: 1000, Seed: [32]byte{2}, SeedEpoch: 1000}, nil
}
func (readyChain) Commit(context.Context, gates.CommitRequest) (gates.Outcome, error) {
	return gates.Outcome{State: gates.Landed, Message: "m2", Epoch: 1000}, nil
}

// BenchmarkFleet is a dispatcher and a consumer of 20 slots whose engine does nothing, on
// an embedded server. An iteration is a whole sector of six phases.
func BenchmarkFleet(b *testing.B) {
	for _, test := range []struct {
		name     string
		sync     bool
		inFlight int
		workers  string
	}{
		{"synced/1-in-flight", true, 1, "20:p1,p2,p3,p4,p5,p6"},
		{"synced/20-in-flight", true, 20, "20:p1,p2,p3,p4,p5,p6"},
		{"synced/200-in-flight", true, 200, "20:p1,p2,p3,p4,p5,p6"},
		{"synced/200-in-flight-own-slots", true, 200, "3:p1;3:p2;3:p3;4:p4;4:p5;3:p6"},
		{"unsynced/200-in-flight", false, 200, "20:p1,p2,p3,p4,p5,p6"},
	} {
		b.Run(test.name, func(b *testing.B) { benchFleet(b, test.sync, test.inFlight, test.workers) })
	}
}

func benchFleet(b *testing.B, syncWrites bool, inFlight int, workers string) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	quiet := slog.New(slog.DiscardHandler)
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	dir := b.TempDir()
	server, err := bus.StartEmbedded(bus.ServerConfig{Listen: "127.0.0.1:0", StateDir: dir, Sync: syncWrites}, quiet)
	must(err)
	defer server.Close()
	cfg := bus.Config{StateDir: dir, AckWait: 2 * time.Minute}
	cfg.Server = server
	forDispatcher, err := bus.Connect(ctx, cfg, "dispatcher-bench", quiet)
	must(err)
	defer forDispatcher.Close()
	_, err = forDispatcher.Apply(ctx, []string{group})
	must(err)
	cfg.Server, cfg.Role = nil, bus.RoleHost
	forHost, err := bus.Connect(ctx, cfg, "h1", quiet)
	must(err)
	defer forHost.Close()

	c := Config{Groups: Groups{group}, HostName: "h1", IP: "127.0.0.1", FetchWait: time.Minute, DrainTimeout: time.Minute, Engine: EngineNoop}
	must(c.Workers.UnmarshalText([]byte(workers)))
	hand := handoffs{done: map[chain]time.Time{}}
	consumer := New(c, forHost, hand.engine(), prometheus.NewRegistry(), quiet)
	room := make(chan struct{}, inFlight)
	finished := make(chan struct{}, inFlight)
	consumer.hooks.reported = hand.reported
	var all sync.WaitGroup
	all.Go(func() {
		d := dispatch.New(forDispatcher, dispatch.Options{Name: "bench", Chain: readyChain{}, Policy: phases.DefaultPolicy(), Groups: []string{group}, Log: quiet, Metrics: dispatch.NewMetrics()})
		if err := d.Run(ctx); err != nil {
			b.Error(err)
		}
	})
	all.Go(func() {
		if err := consumer.Run(ctx); err != nil {
			b.Error(err)
		}
	})
	all.Go(func() {
		_ = forDispatcher.Follow(ctx, 1, func(e phases.Event) error {
			if e.Type == phases.Finished {
				<-room
				finished <- struct{}{}
			}
			return nil
		})
	})
	ended := 0
	cpu := cpuTime(b)
	b.ResetTimer()
	for n := range uint64(b.N) {
		select {
		case room <- struct{}{}:
		case <-time.After(time.Minute):
			b.Fatal("sectors do not end")
		}
		_, err := forDispatcher.Append(ctx, phases.Event{
			V: phases.Version, ID: ulid.Make().String(), Type: phases.Submitted, Group: group, Sector: phases.SectorID(1000, n), Step: phases.SectorEnd,
			Host: phases.DispatcherName("bench"), At: time.Now().UTC(), Spec: &phases.Spec{Miner: 1000, Number: n, ProofType: 5},
		}, 0)
		must(err)
		for len(finished) > 0 {
			<-finished
			ended++
		}
	}
	for ; ended < b.N; ended++ {
		<-finished
	}
	b.StopTimer()
	b.ReportMetric(float64(6*b.N)/b.Elapsed().Seconds(), "phases/s")
	b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/float64(6*b.N), "cpu-us/phase") // of fleet and server together
	hand.report(b)
	cancel()
	all.Wait()
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// handoffs measures from the written completion of a phase to the start of the next,
// where no gate lies between.
type handoffs struct {
	mu    sync.Mutex
	done  map[chain]time.Time
	times []float64 // milliseconds
}

var follows = map[phases.Step]phases.Step{phases.P2: phases.P1, phases.P4: phases.P3, phases.P5: phases.P3}

func (h *handoffs) reported(e phases.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.done[chain{e.Sector, e.Step}] = time.Now()
}

func (h *handoffs) engine() engine.Engine {
	return &ledger{do: func(ctx context.Context, r engine.Request) (engine.Result, error) {
		now := time.Now()
		h.mu.Lock()
		if done, ok := h.done[chain{r.Sector, follows[r.Phase]}]; ok {
			h.times = append(h.times, float64(now.Sub(done))/1e6)
		}
		h.mu.Unlock()
		return engine.Noop{}.Run(ctx, r, nil)
	}}
}

func (h *handoffs) report(b *testing.B) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.times) == 0 {
		return
	}
	slices.Sort(h.times)
	b.ReportMetric(h.times[len(h.times)/2], "p50-ms")
	b.ReportMetric(h.times[len(h.times)*99/100], "p99-ms")
}
