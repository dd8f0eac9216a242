// Package chaos proves the fleet under faults: real dispatchers, consumers and NATS
// servers as processes, real 2 KiB sectors, an engine that writes down what it does, and a
// plan of faults that follows from a seed. Afterwards the log of events, the ledger of the
// engines, the streams, the file systems and the process table are held against what was
// promised: every sector ended, in order, with one effect of each phase, and nothing left.
package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"sealfleet/internal/bus"
	"sealfleet/internal/dispatch"
	"sealfleet/internal/phases"
)

// Options are a run's size and weather.
type Options struct {
	Dir string // of everything; must be empty or absent
	Bin string // of the programs, see Programs

	Seed        uint64
	Sectors     int
	Faults      int
	Every       time.Duration // mean time between faults
	Servers     int           // NATS servers: 0 is the dispatcher's embedded one, 1, or a cluster of 3
	Dispatchers int
	Consumers   int
	Workers     string
	AckWait     time.Duration
	Work        time.Duration // most that a phase takes longer than its own work
	// FailPerMille of the engines' runs fail for no reason.
	FailPerMille int
	// Patience is how long the fleet may bring no sector further once the faults are over.
	Patience time.Duration
	Env      []string // added to the consumers' environment
	Kinds    []string // of faults; none: all
	Log      io.Writer
}

func (o *Options) withDefaults() error {
	def := func(v *int, n int) {
		if *v == 0 {
			*v = n
		}
	}
	def(&o.Sectors, 40)
	def(&o.Dispatchers, 2)
	def(&o.Consumers, 3)
	if o.AckWait == 0 {
		o.AckWait = 1200 * time.Millisecond
	}
	if o.Every == 0 {
		o.Every = time.Second
	}
	if o.Work == 0 {
		o.Work = time.Second
	}
	if o.Patience == 0 {
		o.Patience = 2 * time.Minute
	}
	if o.Workers == "" {
		o.Workers = "3:p1;2:p2,p3;3:p4,p5;2:p6"
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	if o.Dir == "" || o.Bin == "" {
		return errors.New("chaos: a run needs a directory, and one with the programs")
	}
	return nil
}

// Report is what a run came to.
type Report struct {
	Seed     uint64         `json:"seed"`
	Servers  int            `json:"servers"`
	Sectors  int            `json:"sectors"`
	Faults   map[string]int `json:"faults"`  // that struck
	Skipped  int            `json:"skipped"` // that found their victim in trouble already
	Events   int            `json:"events"`
	Believed int            `json:"events_believed"`
	// Runs is how often an engine began; Needed is six for each sector.
	Runs     int           `json:"runs"`
	Needed   int           `json:"runs_needed"`
	Overlaps int           `json:"runs_that_overlapped"` // two of one phase of one sector at once
	Longest  time.Duration `json:"longest_overlap_ns"`
	Claims   int           `json:"claims"`
	Restarts int           `json:"restarts"`
	// Exits tells how often a program ended although nobody had ended it; its supervisor
	// started it again.
	Exits map[string]int `json:"exits_by_themselves"`
	Took  time.Duration  `json:"took_ns"`
}

// run is a fleet with its tormentor and its witness.
type run struct {
	*fleet
	witness *witness
	ops     jetstream.JetStream // an operator's
	forger  *nats.Conn          // a host's that lies
	cutting []sync.Mutex        // a consumer's connection has one fault at a time

	mu     sync.Mutex
	report Report
}

// errBusy says that a fault found its victim in trouble already.
var errBusy = errors.New("in trouble already")

// Run lets a fleet seal sectors while faults strike, and then checks what was promised.
// Every broken promise is in the error.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.withDefaults(); err != nil {
		return nil, err
	}
	log := slog.New(slog.NewTextHandler(o.Log, nil))
	log.Info("chaos", "seed", o.Seed, "sectors", o.Sectors, "faults", o.Faults, "servers", o.Servers, "dir", o.Dir)
	f, err := newFleet(o, log)
	if err != nil {
		return nil, err
	}
	r := &run{fleet: f, cutting: make([]sync.Mutex, o.Consumers)}
	r.report = Report{Seed: o.Seed, Servers: o.Servers, Sectors: o.Sectors, Faults: map[string]int{}, Exits: map[string]int{}, Needed: 6 * o.Sectors}
	began := time.Now()
	err = r.live(ctx)
	err = errors.Join(err, f.stop())
	for _, p := range f.processes() {
		r.report.Restarts += max(p.starts-1, 0)
		for _, how := range p.exits {
			r.report.Exits[p.kind+": "+how]++
		}
		err = errors.Join(err, p.panics())
	}
	err = errors.Join(err, r.checkLeft())
	r.report.Took = time.Since(began)
	return &r.report, err
}

// live is the run while the fleet is up.
func (r *run) live(ctx context.Context) error {
	b, err := r.start(ctx, r.Consumers)
	if err != nil {
		return err
	}
	defer b.Close()
	nc, err := r.raw(false)
	if err != nil {
		return err
	}
	defer nc.Close()
	if r.ops, err = jetstream.New(nc); err != nil {
		return err
	}
	if r.forger, err = r.raw(true); err != nil {
		return err
	}
	defer r.forger.Close()

	following, stop := context.WithCancel(ctx)
	defer stop()
	r.witness = newWitness()
	var followed error
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		followed = b.Follow(following, 1, r.witness.see)
	}()

	specs := make([]phases.Spec, r.Sectors)
	for i := range specs {
		specs[i] = phases.Spec{Miner: miner, Number: uint64(i + 1), ProofType: 5}
	}
	submitted := make(chan error, 1)
	go func() { submitted <- r.submit(ctx, b, specs) }()
	r.torment(ctx)
	if err := <-submitted; err != nil {
		return fmt.Errorf("submit among faults: %w", err)
	}
	r.log.Info("the faults are over", "ended", r.witness.count())
	if err := r.settle(ctx); err != nil {
		return err
	}
	err = errors.Join(r.checkLog(ctx, b), r.checkShares(ctx))
	stop()
	<-watching
	if followed != nil && !errors.Is(followed, context.Canceled) {
		err = errors.Join(err, followed)
	}
	return err
}

// submit submits the sectors as the fleet gets on, so that the last faults too find it at
// work: never more than a part of them are under way.
func (r *run) submit(ctx context.Context, b *bus.Bus, specs []phases.Spec) error {
	atOnce := max(r.Sectors/10, 20)
	for {
		// What was not acknowledged may be in the log all the same; then the witness sees it.
		specs = slices.DeleteFunc(specs, func(s phases.Spec) bool { return r.witness.knows(phases.SectorID(s.Miner, s.Number)) })
		if len(specs) == 0 {
			return nil
		}
		var err error
		if room := atOnce - (r.Sectors - len(specs) - r.witness.count()); room > 0 {
			var acked []dispatch.Submission
			acked, err = dispatch.Submit(ctx, b, group, "chaos", specs[:min(room, len(specs))], nil)
			r.witness.acknowledged(acked)
		}
		switch {
		case errors.Is(err, bus.ErrUnreachable), errors.Is(err, dispatch.ErrBadSpec), errors.Is(err, dispatch.ErrExists):
			// The servers are away, or a durable that was deleted is not there again.
			r.log.Info("could not submit, trying again", "error", err)
		case err != nil:
			return err
		}
		if err := waitABit(ctx); err != nil {
			return err
		}
	}
}

func waitABit(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(200 * time.Millisecond):
		return nil
	}
}

// torment carries the plan out.
func (r *run) torment(ctx context.Context) {
	all := map[string]kind{}
	for _, k := range kinds() {
		all[k.name] = k
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for i, f := range Plan(r.Seed, r.Faults, r.Every, r.AckWait) {
		if len(r.Kinds) > 0 {
			f.Kind = r.Kinds[i%len(r.Kinds)]
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(f.After):
		}
		r.log.Info("fault", "n", i+1, "what", f.String(), "ended", r.witness.count())
		wg.Go(func() {
			began := time.Now()
			err := all[f.Kind].do(r, ctx, f)
			r.log.Info("fault is over", "n", i+1, "took", time.Since(began).Round(time.Millisecond), "error", err)
			r.mu.Lock()
			defer r.mu.Unlock()
			switch {
			case err == nil:
				r.report.Faults[f.Kind]++
			case errors.Is(err, errBusy):
				r.report.Skipped++
			default:
				r.log.Error("a fault failed", "what", f.String(), "error", err)
			}
		})
	}
}

// settle waits until every sector has ended, as long as anything goes on.
func (r *run) settle(ctx context.Context) error {
	ended, since := r.witness.count(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; %s", ctx.Err(), r.witness.stuck())
		case <-time.After(50 * time.Millisecond):
		}
		now := r.witness.count()
		if now == r.Sectors {
			return nil
		}
		if now > ended {
			ended, since = now, time.Now()
		}
		if time.Since(since) > r.Patience {
			return fmt.Errorf("%d of %d sectors did not end, and none has for %v:\n%s", r.Sectors-now, r.Sectors, r.Patience, r.witness.stuck())
		}
	}
}
