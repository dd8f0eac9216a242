package chaos

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"sealfleet/internal/bus"
	"sealfleet/internal/chaos/ledger"
	"sealfleet/internal/dispatch"
	"sealfleet/internal/phases"
)

// Numbers are how soon the fleet recovers.
type Numbers struct {
	AckWait time.Duration `json:"ack_wait_ns"`
	// Consumer: from the kill -9 of a host's consumer with everything that it runs to the
	// claim of its tasks by another host, the slowest of several.
	Consumer []time.Duration `json:"consumer_killed_to_next_attempt_ns"`
	// Dispatcher: from the end of a phase to the issue of the next, the slowest within three
	// seconds after a kill -9 of one of two dispatchers; one for each kill.
	Dispatcher []time.Duration `json:"dispatcher_killed_to_next_issue_ns"`
	// Outage: jobs that were in flight when the server was killed, how long it stayed away,
	// and how often an engine began in all.
	Jobs   int           `json:"jobs_in_flight"`
	Outage time.Duration `json:"outage_ns"`
	Starts int           `json:"engines_started"`
	Claims int           `json:"claims"`
}

// Measure measures how soon a fleet recovers, below o.Dir.
func Measure(ctx context.Context, o Options, jobs int) (*Numbers, error) {
	if err := o.withDefaults(); err != nil {
		return nil, err
	}
	n := &Numbers{AckWait: o.AckWait}
	log := slog.New(slog.NewTextHandler(o.Log, nil))
	for _, part := range []struct {
		name string
		do   func(context.Context, Options, *slog.Logger, *Numbers) error
	}{
		{"consumer", measureConsumer},
		{"dispatcher", measureDispatcher},
		{"outage", func(ctx context.Context, o Options, log *slog.Logger, n *Numbers) error {
			return measureOutage(ctx, o, log, n, jobs)
		}},
	} {
		if len(o.Kinds) > 0 && !slices.Contains(o.Kinds, part.name) {
			continue
		}
		log.Info("measuring", "what", part.name)
		of := o
		of.Dir = filepath.Join(o.Dir, part.name)
		if err := part.do(ctx, of, log, n); err != nil {
			return n, fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return n, nil
}

// with runs a fleet, and a part of it while it is up.
func with(ctx context.Context, o Options, log *slog.Logger, consumers int, do func(f *fleet, b *bus.Bus, w *witness) error) error {
	f, err := newFleet(o, log)
	if err != nil {
		return err
	}
	b, err := f.start(ctx, consumers)
	if err != nil {
		return errors.Join(err, f.stop())
	}
	defer b.Close()
	following, stop := context.WithCancel(ctx)
	defer stop()
	w := newWitness()
	w.keep = true
	go func() { _ = b.Follow(following, 1, w.see) }() // what it does not see, nobody waits for in vain: ctx ends
	return errors.Join(do(f, b, w), f.stop())
}

func submitMany(ctx context.Context, b *bus.Bus, from, n int) error {
	specs := make([]phases.Spec, n)
	for i := range specs {
		specs[i] = phases.Spec{Miner: miner, Number: uint64(from + i), ProofType: 5}
	}
	_, err := dispatch.Submit(ctx, b, group, "chaos", specs, nil)
	return err
}

// measureConsumer: the first host takes some p1, and dies with them; a second one waits.
func measureConsumer(ctx context.Context, o Options, log *slog.Logger, n *Numbers) error {
	const tasks = 5
	o.Consumers, o.Workers, o.Env = 2, fmt.Sprintf("%d:p1", tasks), []string{ledger.WorkVariable + "=60s-p1"}
	return with(ctx, o, log, 1, func(f *fleet, b *bus.Bus, w *witness) error {
		if err := submitMany(ctx, b, 1, tasks); err != nil {
			return err
		}
		claims := func(host string) (list []phases.Event) {
			return w.events(func(e phases.Event) bool { return e.Type == phases.Claimed && e.Host == host })
		}
		if err := waitFor(ctx, func() bool { return len(claims("h1")) == tasks }); err != nil {
			return err
		}
		if err := f.consumers[1].start(); err != nil {
			return err
		}
		// Longer than a lease, so that the second host waits, and is not only just connected.
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * o.AckWait):
		}
		p := f.consumers[0]
		p.mu.Lock()
		p.over = true // the host is gone
		p.mu.Unlock()
		killed := time.Now()
		p.signal(syscall.SIGKILL)
		for _, pid := range processesOf("HOST_NAME=h1\x00", "\x00keep\x00") {
			_ = syscall.Kill(pid, syscall.SIGKILL) // ended already
		}
		if err := waitFor(ctx, func() bool { return len(claims("h2")) == tasks }); err != nil {
			return err
		}
		for _, e := range claims("h2") {
			n.Consumer = append(n.Consumer, e.At.Sub(killed))
		}
		slices.Sort(n.Consumer)
		return nil
	})
}

// measureDispatcher: sectors flow, and one of two dispatchers dies again and again.
func measureDispatcher(ctx context.Context, o Options, log *slog.Logger, n *Numbers) error {
	const kills = 8
	o.Servers, o.Dispatchers, o.Consumers, o.Work = 1, 2, 2, 300*time.Millisecond
	return with(ctx, o, log, o.Consumers, func(f *fleet, b *bus.Bus, w *witness) error {
		flowing, stop := context.WithCancel(ctx)
		defer stop()
		go func() {
			const inFlight = 40
			for from := 1; flowing.Err() == nil; {
				if room := inFlight - (from - 1 - w.count()); room > 0 {
					if submitMany(flowing, b, from, room) == nil {
						from += room
					}
				}
				_ = waitABit(flowing) // ended: the loop sees it
			}
		}()
		if err := waitFor(ctx, func() bool { return w.count() >= 5 }); err != nil {
			return err
		}
		for i := range kills {
			killed := time.Now()
			if err := f.dispatchers[i%2].crash(3 * time.Second); err != nil {
				return err
			}
			n.Dispatcher = append(n.Dispatcher, w.slowestHandOff(killed, killed.Add(3*time.Second)))
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(2 * time.Second): // until it has read the log
			}
		}
		slices.Sort(n.Dispatcher)
		return nil
	})
}

// measureOutage: many p1 in flight, and the server away for longer than their lease.
func measureOutage(ctx context.Context, o Options, log *slog.Logger, n *Numbers, jobs int) error {
	const hosts = 4
	n.Jobs, n.Outage = jobs, 2*o.AckWait
	// Until all have begun takes a while on few cores, and what it takes to end them too.
	work := time.Duration(jobs)*100*time.Millisecond + 5*o.AckWait
	o.FailPerMille = 0 // another attempt after a failure is no duplicate
	o.Consumers, o.Workers = hosts, fmt.Sprintf("%d:p1", (jobs+hosts-1)/hosts)
	o.Env = []string{fmt.Sprintf("%s=%v-p1", ledger.WorkVariable, work.Round(time.Second))}
	return with(ctx, o, log, hosts, func(f *fleet, b *bus.Bus, w *witness) error {
		if err := submitMany(ctx, b, 1, jobs); err != nil {
			return err
		}
		starts := func() (n int) {
			lines, _ := ledger.Read(f.ledgerPath()) // not there yet: none
			for _, l := range lines {
				if l.What == ledger.Start {
					n++
				}
			}
			return n
		}
		if err := waitFor(ctx, func() bool { return starts() >= jobs }); err != nil {
			return err
		}
		done := func(kind phases.EventType) []phases.Event {
			return w.events(func(e phases.Event) bool { return e.Type == kind && e.Step == phases.P1 })
		}
		if len(done(phases.Done)) > 0 {
			return fmt.Errorf("%d jobs had ended before the last had begun: this machine is too slow for %d", len(done(phases.Done)), jobs)
		}
		log.Info("all are in flight; the server goes away", "jobs", jobs, "for", n.Outage)
		if err := f.dispatchers[0].crash(n.Outage); err != nil {
			return err
		}
		if err := waitFor(ctx, func() bool { return len(done(phases.Done)) == jobs }); err != nil {
			return fmt.Errorf("%d of %d were done: %w", len(done(phases.Done)), jobs, err)
		}
		n.Starts, n.Claims = starts(), len(done(phases.Claimed))
		return nil
	})
}
