// Package consume is a host's side of the fleet: it pulls tasks for free slots, claims
// them, runs each in an engine, keeps the lease and reports the outcome.
//
// # Why a phase's effect happens once
//
// A task's message is only a hint that there may be work. The authority is the chain of
// events of its (sector, phase): whoever appends a claimed event to the chain's last
// event by compare-and-set holds the phase until somebody else's claim follows. done and
// failed are compare-and-set on one's own last event, so of two holders one reports.
// A holder reads the chain before each extension of its lease; if the last event is not
// its own, it kills its engine with the whole process group, discards the outcome and
// never acks, because acks carry no authority and would delete the new holder's task.
//
// What is not promised: between the loss of a claim and the next heartbeat (AckWait/6)
// two engines may work on one sector. Engines write whole files under temporary names
// and rename them, and the same phase gives the same bytes, so the overlap costs time
// and no data. p6's deletions are idempotent, and what follows them needs no cache.
//
// # What survives
//
// Phases run in keepers (package keep), which outlive their consumer; claims, leases and
// outcomes are on disk. A consumer that starts goes on with what it finds: it follows the
// keepers that run, reports the outcomes of those that ended, and kills what it lost. If
// the bus is away the work goes on and its outcome is delivered when the bus is back,
// whenever that is.
//
// A task that was claimed before is claimed anew only when its holder says that it does
// not hold it, or does not answer (mayTakeOver). What is cancelled is killed first, and
// then the chain is told (stopped): p6, which deletes, waits for that.
package consume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sealfleet/internal/bus"
	"sealfleet/internal/engine"
	"sealfleet/internal/host"
	"sealfleet/internal/keep"
	"sealfleet/internal/phases"
)

// placesPatience is how long a share or node may take to answer where no DOCTOR_LIMIT is set.
const placesPatience = 10 * time.Second

// Consumer works for the groups of its settings until its context ends.
type Consumer struct {
	cfg     Config
	bus     *bus.Bus
	engine  engine.Engine
	log     *slog.Logger
	metrics *metrics
	shares  *shares
	quotas  quotas
	board   *board
	told    atomic.Pointer[bus.HostStatus] // the last
	places  *host.Patience                 // touches shares and nodes from this process
	// admission decides whether a task may begin; nil: always.
	admission *admission

	store    *keep.Store // nil: phases run in this process
	program  keep.Program
	controls controls
	stopping atomic.Bool

	running sync.Map // chain → *job: what this host holds
	problem atomic.Pointer[string]

	hooks hooks
}

// hooks let tests see and hold what happens inside; all may be nil.
type hooks struct {
	delivered func(*bus.Lease)
	heartbeat func(*job, error)
	reported  func(phases.Event) // the last event is written
	outcome   func(*job, string)
}

// New prepares a consumer. The registry gets its metrics.
func New(cfg Config, b *bus.Bus, e engine.Engine, registry prometheus.Registerer, log *slog.Logger) *Consumer {
	c := &Consumer{cfg: cfg, bus: b, engine: e, log: log, metrics: newMetrics(registry), board: newBoard(), places: host.NewPatience(cmp.Or(cfg.Doctor.Limit, placesPatience))}
	c.shares = newShares(cfg.CopyLimit * 1e6)
	c.metrics.copyLimit.Set(float64(cfg.CopyLimit * 1e6))
	return c
}

// Ready returns nil, or why this consumer gets no tasks now.
func (c *Consumer) Ready() error {
	if err := c.bus.Connected(); err != nil {
		return err
	}
	if p := c.problem.Load(); p != nil {
		return errors.New(*p)
	}
	return nil
}

// ErrHandedBack is the cause with which running phases are stopped at the end of a drain.
var ErrHandedBack = errors.New("the consumer is stopping: the phase is handed back")

// Run pulls and works until ctx ends. It then pulls nothing more, gives running phases
// the drain timeout, stops those that are left and hands their tasks back.
func (c *Consumer) Run(ctx context.Context) error {
	work, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	resumed := c.resumeAll()
	if err := c.bus.AnswerClaims(c.cfg.HostName, c.holds); err != nil {
		return err
	}
	var loops sync.WaitGroup
	defer func() { stop(nil); loops.Wait() }()
	var all []*pool
	slots := 0
	for _, w := range c.cfg.Workers {
		all = append(all, newPool(c, w))
		slots += w.Num
	}
	for _, j := range resumed {
		at := slices.IndexFunc(all, func(p *pool) bool { return slices.Contains(p.worker.Phases, j.task.Step) })
		all[max(at, 0)].resumed = append(all[max(at, 0)].resumed, j) // WORKERS may have been changed
	}
	c.followControls(work, &loops, all)
	var pools sync.WaitGroup
	for _, p := range all {
		pools.Go(func() { p.run(ctx, work) })
	}
	loops.Go(func() { c.followLimits(work) })
	loops.Go(func() { c.shareGroupLimits(work) })
	loops.Go(func() { c.auditLoop(work) })
	if c.cfg.TidyEvery > 0 && c.cfg.Engine != EngineNoop {
		loops.Go(func() { c.tidyLoop(work) })
	}
	loops.Go(func() { c.tellStatus(work) })
	c.log.Info("consumer is up", "slots", slots, "workers", c.cfg.Workers.String(), "groups", c.cfg.Groups)
	<-ctx.Done()
	c.stopping.Store(true)
	c.board.drain(true)
	if err := c.bus.StopFetching(work); err != nil { // its connection ends with this program: then the server forgets them too
		c.log.Warn("the server may still hold requests for tasks", "error", err)
	}
	quiet := make(chan struct{})
	go func() { pools.Wait(); close(quiet) }()
	held := c.holding()
	if held > 0 {
		c.log.Info("draining: no new tasks, waiting for running phases", "running", held, "at_most", c.cfg.DrainTimeout)
	}
	timer := time.NewTimer(c.cfg.DrainTimeout)
	defer timer.Stop()
	select {
	case <-quiet:
	case <-timer.C:
		c.log.Warn("drain timeout: stopping what still runs and handing it back", "running", c.holding())
		stop(ErrHandedBack)
		<-quiet
	}
	c.log.Info("consumer is quiet")
	return nil
}

func (c *Consumer) holding() (n int) {
	c.running.Range(func(any, any) bool { n++; return true })
	return n
}

// chain names a chain of events: what can be held once.
type chain struct {
	sector string
	step   phases.Step
}

func (c chain) String() string { return fmt.Sprintf("%s of %s", c.step, c.sector) }
