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
// If the bus is away the work goes on and its outcome is delivered when the bus is back;
// the outcome is held in memory (a journal on disk is still to come), so a consumer that
// dies meanwhile has its tasks done again by whoever gets them after AckWait.
package consume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sealfleet/internal/bus"
	"sealfleet/internal/engine"
	"sealfleet/internal/phases"
)

// Consumer works for the groups of its settings until its context ends.
type Consumer struct {
	cfg     Config
	bus     *bus.Bus
	engine  engine.Engine
	log     *slog.Logger
	metrics *metrics
	shares  *shares
	board   *board
	// admission decides whether a task may begin; nil: always.
	admission *admission

	running sync.Map // chain → *job: what this process holds
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
	c := &Consumer{cfg: cfg, bus: b, engine: e, log: log, metrics: newMetrics(registry), board: newBoard()}
	c.shares = newShares(cfg.CopyLimit * 1e6)
	c.metrics.copyLimit.Set(float64(cfg.CopyLimit * 1e6))
	return c
}

// Killed counts a child that had to be killed; the engine calls it.
func (c *Consumer) Killed(why string) { c.metrics.kills.WithLabelValues(why).Inc() }

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
	var pools sync.WaitGroup
	slots := 0
	for _, w := range c.cfg.Workers {
		p := newPool(c, w)
		slots += w.Num
		pools.Go(func() { p.run(ctx, work) })
	}
	var loops sync.WaitGroup
	defer func() { stop(nil); loops.Wait() }()
	loops.Go(func() { c.followLimits(work) })
	loops.Go(func() { c.shareGroupLimits(work) })
	loops.Go(func() { c.auditLoop(work) })
	loops.Go(func() { c.tellStatus(work) })
	c.log.Info("consumer is up", "slots", slots, "workers", c.cfg.Workers.String(), "groups", c.cfg.Groups)
	<-ctx.Done()
	c.board.drain(true)
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
