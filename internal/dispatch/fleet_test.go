package dispatch

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"sealfleet/internal/bus"
	"sealfleet/internal/chain"
	"sealfleet/internal/phases"
)

const (
	group    = "group1"
	patience = 2 * time.Minute // for what must come; no test asserts time
)

// fleet is a bus with an embedded server, dispatchers, and hosts that do nothing but
// report that they did it.
type fleet struct {
	t   testing.TB
	ctx context.Context
	srv *bus.Server
	bus *bus.Bus // an operator's
	log *slog.Logger

	mu   sync.Mutex
	runs map[string]int // effects by sector/phase: done events that the log took
	host func(task phases.Task) *phases.Result
	wg   sync.WaitGroup
}

func newFleet(t testing.TB) *fleet {
	return newFleetOn(t, t.TempDir(), false)
}

func newFleetOn(t testing.TB, dir string, syncWrites bool) *fleet {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	srv, err := bus.StartEmbedded(bus.ServerConfig{Listen: "127.0.0.1:0", StateDir: dir, Sync: syncWrites}, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := &fleet{t: t, ctx: ctx, srv: srv, log: log, runs: map[string]int{}}
	f.bus = f.connect("operator")
	t.Cleanup(func() {
		cancel()
		f.wg.Wait()
		srv.Close()
	})
	if _, err := f.bus.Apply(ctx, []string{group}); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fleet) connect(name string) *bus.Bus {
	f.t.Helper()
	b, err := bus.Connect(f.ctx, bus.Config{Server: f.srv, AckWait: 2 * time.Second}, name, f.log)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(b.Close)
	return b
}

// instant is a chain whose messages land at once.
func instant() chain.DevConfig { return chain.DevConfig{Seed: "test"} }

// impatient makes everything that waits wait for little, so that tests don't.
func impatient(name string, c chain.Chain) Options {
	return Options{
		Name: name, Chain: c, Grace: 50 * time.Millisecond, SweepEvery: 200 * time.Millisecond, GatePoll: 20 * time.Millisecond,
		Policy: phases.Policy{MaxAttempts: 3, RetryDelay: time.Millisecond, TransientDelay: time.Millisecond, MaxDelay: 10 * time.Millisecond},
	}
}

// dispatch starts a dispatcher; stop ends it as a crash does, and waits for it.
func (f *fleet) dispatch(o Options) (d *Dispatcher, stop func()) {
	o.Log = f.log
	b := f.connect(o.Name)
	ctx, cancel := context.WithCancel(f.ctx)
	if o.hook != nil {
		inner := o.hook
		o.hook = func(point string) error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			err := inner(point)
			if err != nil {
				cancel()
			}
			return err
		}
	}
	d = New(b, o)
	done := make(chan struct{})
	f.wg.Add(1)
	go func() {
		defer f.wg.Done()
		defer close(done)
		if err := d.Run(ctx); err != nil {
			f.t.Errorf("dispatcher %s: %v", o.Name, err)
		}
	}()
	return d, func() { cancel(); <-done }
}

// hosts starts n hosts of the group, each with a slot for every phase.
func (f *fleet) hosts(names ...string) {
	for _, name := range names {
		b := f.connect(name)
		for _, step := range phases.Phases() {
			f.wg.Add(1)
			go func() {
				defer f.wg.Done()
				for f.ctx.Err() == nil {
					lease, err := b.Fetch(f.ctx, group, step, time.Second)
					if lease == nil || err != nil {
						continue
					}
					f.work(b, name, lease)
				}
			}()
		}
	}
}

// work does a task as a consumer does, with nothing in place of the work.
func (f *fleet) work(b *bus.Bus, name string, l *bus.Lease) {
	t := l.Task
	last := &phases.Event{Type: phases.Issued, Issue: t.Issue, ID: t.IssuedID, Seq: t.IssuedSeq}
	if l.Deliveries != 1 {
		var err error
		if last, err = b.Last(f.ctx, t.Group, t.Sector, t.Step); err != nil || last == nil {
			return
		}
	}
	over := last.Issue != t.Issue || last.Type != phases.Issued && last.Type != phases.Claimed
	if over {
		_ = l.Ack(f.ctx)
		return
	}
	claim := phases.Event{
		V: phases.Version, ID: ulid.Make().String(), Type: phases.Claimed, Group: t.Group, Sector: t.Sector, Step: t.Step,
		Issue: t.Issue, Attempt: t.Attempt, ClaimID: ulid.Make().String(), PrevID: last.ID, Host: name, At: time.Now().UTC(),
	}
	seq, err := b.Append(f.ctx, claim, last.Seq)
	if err != nil {
		_ = l.Nak(0)
		return
	}
	end := claim
	end.ID, end.Type, end.PrevID, end.At = ulid.Make().String(), phases.Done, claim.ID, time.Now().UTC()
	end.Result = f.result(t)
	if end.Result.Class != "" {
		end.Type = phases.Failed
	}
	if _, err = b.Append(f.ctx, end, seq); err == nil {
		f.mu.Lock()
		if end.Type == phases.Done {
			f.runs[t.Sector+"/"+string(t.Step)]++
		}
		f.mu.Unlock()
		_ = l.Ack(f.ctx)
	}
}

func (f *fleet) result(t phases.Task) *phases.Result {
	f.mu.Lock()
	host := f.host
	f.mu.Unlock()
	if host != nil {
		if r := host(t); r != nil {
			return r
		}
	}
	return &phases.Result{Code: "ok", Seconds: 0.001, Outputs: outputs(t)}
}

// outputs are those of a host, with values of the right form.
func outputs(t phases.Task) map[string]string {
	hash := func(b byte) string { return strings.Repeat(hex.EncodeToString([]byte{b}), 32) }
	switch t.Step {
	case phases.P1:
		return map[string]string{"comm_d": hash(1)}
	case phases.P2:
		return map[string]string{"comm_r": hash(2)}
	case phases.P4:
		return map[string]string{"proof": "", "snark": "none"}
	case phases.P6:
		return map[string]string{"bytes_freed": "0"}
	}
	return nil
}

func specs(from, n uint64) []phases.Spec {
	all := make([]phases.Spec, n)
	for i := range all {
		all[i] = phases.Spec{Miner: 1000, Number: from + uint64(i), ProofType: 5}
	}
	return all
}

func (f *fleet) submit(from, n uint64) []Submission {
	f.t.Helper()
	got, err := Submit(f.ctx, f.bus, group, "test", specs(from, n), nil)
	if err != nil {
		f.t.Fatal(err)
	}
	return got
}

// until follows the log from its beginning until done says so, and returns the states.
func (f *fleet) until(what string, done func(map[string]*phases.Sector) bool) map[string]*phases.Sector {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.ctx, patience)
	defer cancel()
	states := map[string]*phases.Sector{}
	enough := errors.New("enough")
	err := f.bus.Follow(ctx, 1, func(e phases.Event) error {
		s := states[e.Sector]
		if s == nil {
			s = phases.NewSector()
			states[e.Sector] = s
		}
		if err := s.Apply(e); err != nil && os.Getenv("TEST_LOG") != "" {
			f.log.Warn("rejected", "error", err)
		}
		if done(states) {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		for _, s := range states {
			f.t.Logf("%s: %+v", s.ID, RowOf(s, phases.DefaultPolicy(), time.Now()))
		}
		f.t.Fatalf("waiting for %s: %v", what, err)
	}
	return states
}

// ended waits until n sectors have ended.
func (f *fleet) ended(n int) map[string]*phases.Sector {
	f.t.Helper()
	return f.until("the sectors' ends", func(states map[string]*phases.Sector) bool {
		over := 0
		for _, s := range states {
			if !s.Ended().IsZero() {
				over++
			}
		}
		return over == n
	})
}

// onceEach checks that the log took each phase of each sector once, and in order.
func (f *fleet) onceEach(states map[string]*phases.Sector) {
	f.t.Helper()
	for id := range states {
		for _, p := range phases.Phases() {
			f.did(id, p, 1)
		}
		f.inOrder(id)
	}
}

// did checks how often the log took a phase as done. The host counts when its append has
// returned; by then the sector may have ended.
func (f *fleet) did(id string, step phases.Step, want int) {
	f.t.Helper()
	runs := func() int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.runs[id+"/"+string(step)]
	}
	ctx, cancel := context.WithTimeout(f.ctx, patience)
	defer cancel()
	for runs() < want && pause(ctx, time.Millisecond) {
	}
	if n := runs(); n != want {
		f.t.Errorf("%s of %s was done %d times, want %d", step, id, n, want)
	}
}

func (f *fleet) inOrder(id string) {
	f.t.Helper()
	events, err := f.bus.History(f.ctx, id)
	if err != nil {
		f.t.Fatal(err)
	}
	seen := map[phases.Step]bool{}
	after := map[phases.Step][]phases.Step{
		phases.P2: {phases.P1}, phases.Precommit: {phases.P2}, phases.P3: {phases.Precommit}, phases.P4: {phases.P3},
		phases.P5: {phases.P3}, phases.Commit: {phases.P4}, phases.P6: {phases.P4, phases.P5, phases.Commit},
	}
	for _, e := range events {
		if e.Type == phases.Issued {
			for _, b := range after[e.Step] {
				if !seen[b] {
					f.t.Errorf("%s of %s was issued before %s was done", e.Step, id, b)
				}
			}
		}
		if e.Type == phases.Done {
			seen[e.Step] = true
		}
	}
}

// archived waits for a sector's tombstone.
func (f *fleet) archived(id string) *bus.Tombstone {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.ctx, patience)
	defer cancel()
	for {
		stone, err := f.bus.Archived(ctx, id)
		if err != nil {
			f.t.Fatalf("waiting for the tombstone of %s: %v", id, err)
		}
		if stone != nil {
			return stone
		}
		pause(ctx, time.Duration(rand.N(5)+1)*time.Millisecond)
	}
}
