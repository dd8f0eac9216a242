package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"sealfleet/internal/bus"
	"sealfleet/internal/phases"
)

// Fault is one thing that goes wrong.
type Fault struct {
	After time.Duration // the one before began
	Kind  string
	Who   int // of those of its kind, modulo their number
	For   time.Duration
}

func (f Fault) String() string {
	return fmt.Sprintf("%s %d for %v", f.Kind, f.Who, f.For.Round(time.Millisecond))
}

// kind is a sort of fault.
type kind struct {
	name   string
	weight int
	// least and most tell how long it lasts, in leases (AckWait).
	least, most float64
	do          func(r *run, ctx context.Context, f Fault) error
}

// kinds are all sorts of faults.
func kinds() []kind {
	return []kind{
		{"kill-consumer", 14, 0, 2, func(r *run, _ context.Context, f Fault) error { return r.hold(r.consumers, f, crash) }},
		{"kill-child", 10, 0, 0, (*run).killChild},
		{"kill-dispatcher", 8, 0, 3, func(r *run, _ context.Context, f Fault) error { return r.hold(r.spareDispatchers(), f, crash) }},
		{"kill-server", 5, 0, 0.5, func(r *run, _ context.Context, f Fault) error { return r.hold(r.anyServer(), f, crash) }},
		{"outage", 2, 1.5, 3, (*run).outage},
		{"end-consumer", 4, 0, 1, func(r *run, _ context.Context, f Fault) error { return r.hold(r.consumers, f, gently) }},
		{"end-dispatcher", 3, 0, 1, func(r *run, _ context.Context, f Fault) error { return r.hold(r.spareDispatchers(), f, gently) }},
		{"freeze-consumer", 10, 1.2, 3, func(r *run, _ context.Context, f Fault) error { return r.hold(r.consumers, f, freeze) }},
		{"freeze-dispatcher", 4, 1, 5, func(r *run, _ context.Context, f Fault) error { return r.hold(r.spareDispatchers(), f, freeze) }},
		{"freeze-server", 3, 0.5, 2, func(r *run, _ context.Context, f Fault) error { return r.hold(r.anyServer(), f, freeze) }},
		{"blackhole", 6, 0.5, 4, cut(weather{loseUp: true, loseDown: true})},
		{"half-open-up", 5, 0.5, 4, cut(weather{loseUp: true})},
		{"half-open-down", 5, 0.5, 4, cut(weather{loseDown: true})},
		{"slow", 4, 1, 4, cut(weather{delay: 300 * time.Millisecond})},
		{"skew-clock", 8, 1, 6, (*run).skew},
		{"skew-server", 2, 1, 3, (*run).skewServer},
		{"purge-tasks", 3, 0, 0, (*run).purge},
		{"delete-tasks", 2, 0, 0, (*run).deleteStream},
		{"delete-durable", 4, 0, 0, (*run).deleteDurable},
		{"stray-ack", 4, 0, 0, (*run).strayAck},
		{"forge", 10, 0, 0, (*run).forge},
	}
}

// Plan draws faults. The same seed gives the same plan; what the machine makes of it
// depends on its scheduler.
func Plan(seed uint64, n int, every, ackWait time.Duration) []Fault {
	rnd := rand.New(rand.NewPCG(seed, 0))
	all := kinds()
	total := 0
	for _, k := range all {
		total += k.weight
	}
	plan := make([]Fault, n)
	for i := range plan {
		at := rnd.IntN(total)
		for _, k := range all {
			if at -= k.weight; at < 0 {
				leases := k.least + rnd.Float64()*(k.most-k.least)
				plan[i] = Fault{After: time.Duration(rnd.ExpFloat64() * float64(every)), Kind: k.name, Who: rnd.IntN(1 << 20), For: time.Duration(leases * float64(ackWait))}
				break
			}
		}
	}
	return plan
}

// hold has one process suffer, unless another fault has it already.
func (r *run) hold(all []*process, f Fault, suffer func(*process, time.Duration) error) error {
	p := all[f.Who%len(all)]
	if !p.fault.TryLock() {
		return errBusy
	}
	defer p.fault.Unlock()
	return suffer(p, f.For)
}

func crash(p *process, away time.Duration) error { return p.crash(away) }

func gently(p *process, away time.Duration) error { return p.end(syscall.SIGTERM, away) }

func freeze(p *process, d time.Duration) error {
	p.signal(syscall.SIGSTOP)
	time.Sleep(d) // what the fault is about
	p.signal(syscall.SIGCONT)
	return nil
}

// spareDispatchers are all, or those that have no server inside: that is kill-server's.
func (r *run) spareDispatchers() []*process {
	if r.Servers == 0 && len(r.dispatchers) > 1 {
		return r.dispatchers[1:]
	}
	return r.dispatchers
}

func (r *run) anyServer() []*process {
	if r.Servers == 0 {
		return r.dispatchers[:1]
	}
	return r.servers
}

// outage stops all servers for longer than a lease lasts.
func (r *run) outage(_ context.Context, f Fault) error {
	all := r.anyServer()
	for i, p := range all {
		if !p.fault.TryLock() {
			for _, q := range all[:i] {
				q.fault.Unlock()
			}
			return errBusy
		}
	}
	ends := make(chan error, len(all))
	for _, p := range all {
		go func() {
			defer p.fault.Unlock()
			ends <- p.crash(f.For)
		}()
	}
	var err error
	for range all {
		if e := <-ends; e != nil {
			err = e
		}
	}
	return err
}

// killChild kills one engine, with kill -9 and without its group.
func (r *run) killChild(_ context.Context, f Fault) error {
	children := processesOf("SEALFLEET_CHAOS_LEDGER="+r.ledgerPath(), "\x00keep\x00")
	if len(children) == 0 {
		return errBusy
	}
	return ignoreGone(syscall.Kill(children[f.Who%len(children)], syscall.SIGKILL))
}

func ignoreGone(err error) error {
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

// cut spoils one consumer's connections for a while, and then closes them.
func cut(w weather) func(r *run, ctx context.Context, f Fault) error {
	return func(r *run, _ context.Context, f Fault) error {
		i := f.Who % len(r.links)
		if !r.cutting[i].TryLock() {
			return errBusy
		}
		defer r.cutting[i].Unlock()
		for _, l := range r.links[i] {
			l.worsen(w)
		}
		time.Sleep(f.For) // what the fault is about
		for _, l := range r.links[i] {
			l.heal()
		}
		return nil
	}
}

// shortly limits what an operator's request may take while servers come and go.
func shortly(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, 3*time.Second)
}

func (r *run) purge(ctx context.Context, _ Fault) error {
	ctx, cancel := shortly(ctx)
	defer cancel()
	s, err := r.ops.Stream(ctx, bus.TasksStream)
	if err != nil {
		return busy(err)
	}
	return busy(s.Purge(ctx))
}

func (r *run) deleteStream(ctx context.Context, _ Fault) error {
	ctx, cancel := shortly(ctx)
	defer cancel()
	return busy(r.ops.DeleteStream(ctx, bus.TasksStream))
}

func (r *run) deleteDurable(ctx context.Context, f Fault) error {
	ctx, cancel := shortly(ctx)
	defer cancel()
	i := f.Who % (len(phases.Phases()) + 1)
	if i == len(phases.Phases()) {
		return busy(r.ops.DeleteConsumer(ctx, bus.EventsStream, bus.DispatcherDurable))
	}
	return busy(r.ops.DeleteConsumer(ctx, bus.TasksStream, bus.Durable(group, phases.Phases()[i])))
}

// strayAck is somebody who tries out the nats CLI: consumer next, with an ack or without.
func (r *run) strayAck(ctx context.Context, f Fault) error {
	ctx, cancel := shortly(ctx)
	defer cancel()
	c, err := r.ops.Consumer(ctx, bus.TasksStream, bus.Durable(group, phases.Phases()[f.Who%6]))
	if err != nil {
		return busy(err)
	}
	m, err := c.Next(jetstream.FetchMaxWait(2 * time.Second))
	if err != nil {
		return busy(err)
	}
	if f.Who/6%2 == 0 {
		return busy(m.Ack())
	}
	return nil
}

// busy tells that a request failed because the fleet was in trouble already.
func busy(err error) error {
	if err != nil {
		return fmt.Errorf("%w: %w", errBusy, err)
	}
	return nil
}
