package consume

import (
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"sealfleet/internal/bus"
	"sealfleet/internal/engine"
	"sealfleet/internal/host"
	"sealfleet/internal/phases"
)

// The test binary is also the doctor's helper.
func TestMain(m *testing.M) {
	if os.Getenv("SEALFLEET_TEST_PROBE") != "" {
		os.Exit(host.ServeProbe(os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

// admitting has a consumer admit tasks, with short rests and without a doctor.
func admitting(registry prometheus.Registerer, cores *host.Cores, k *Checkup) func(*Consumer) {
	return func(c *Consumer) {
		c.cfg.Doctor = host.Settings{Limit: patience, Interval: time.Hour}
		c.Admit(k, cores, registry)
		c.admission.rest = 50 * time.Millisecond
	}
}

// Another host of the group has promised all of the disk to its own phases: the task waits,
// says for what, spends no attempt, and goes on by itself.
func TestNoDiskDelaysAndSpendsNoAttempt(t *testing.T) {
	f := newFleet(t, time.Minute)
	registry := prometheus.NewRegistry()
	var c *Consumer
	var lease *host.Reservation
	start := f.consumer("h1", "2:p1", &ledger{}, func(inner *Consumer) {
		admitting(registry, host.NewCores(0), nil)(inner)
		c = inner
		share := inner.cfg.share(inner.cfg.IP)
		if err := os.MkdirAll(share, 0o755); err != nil {
			t.Fatal(err)
		}
		free, err := host.FreeBytes(share)
		if err != nil {
			t.Fatal(err)
		}
		// As much as there can ever be, less what this reservation itself may not exceed.
		full := host.NewLedger(share, "h2")
		if lease, err = full.Reserve("p1 of s-t01000-1", uint64(free)*9/10, []string{"cache/none"}, true); err != nil {
			t.Fatal(err)
		}
	})
	f.issueKind(phases.P1, 7, 9) // 64 GiB: 960 GiB of disk
	f.eventually("the consumer says what it waits for", func() bool {
		err := c.Waiting()
		return err != nil && strings.Contains(err.Error(), "p1 of s-t01000-7 waits for disk")
	})
	if text := c.Waiting().Error(); !strings.Contains(text, "p1 of s-t01000-1 on h2") {
		t.Errorf("it does not say who has the room: %s", text)
	}
	if n := testutil.ToFloat64(c.admission.delays.WithLabelValues("p1", "disk")); n < 1 {
		t.Errorf("%v delays counted", n)
	}
	if n, err := testutil.GatherAndCount(registry, "sealfleet_admission_waiting"); err != nil || n != 1 {
		t.Errorf("%d phases wait, by the metric: %v", n, err)
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v %v", problems, err)
	}
	// A small sector goes through meanwhile: admission is by need.
	f.issue(group, phases.P1, 8, 1, nil)
	done := f.events(1, ofType(phases.Done))[0]
	if done.Sector != phases.SectorID(1000, 8) {
		t.Errorf("done: %+v", done)
	}
	start.stop()
	chain, err := f.bus.History(f.ctx, phases.SectorID(1000, 7))
	if err != nil || len(chain) != 1 || chain[0].Type != phases.Issued {
		t.Errorf("an attempt was spent: %+v %v", chain, err)
	}
	if f.tasksLeft() != 1 {
		t.Errorf("%d tasks left, want the one that waits", f.tasksLeft())
	}
	lease.Release()
}

// issueKind issues a task of a proof type.
func (f *fleet) issueKind(step phases.Step, number uint64, proofType int) {
	f.t.Helper()
	e := phases.Event{
		V: phases.Version, ID: ulid.Make().String(), Type: phases.Issued, Group: group, Sector: phases.SectorID(1000, number), Step: step,
		Issue: 1, Attempt: 1, Host: "dispatcher-test", At: time.Now().UTC(),
	}
	seq, err := f.bus.Append(f.ctx, e, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	f.publish(phases.Task{
		V: phases.Version, Group: group, Sector: e.Sector, Step: step, Issue: 1, Attempt: 1, IssuedID: e.ID, IssuedSeq: seq,
		Spec: phases.Spec{Miner: 1000, Number: number, ProofType: proofType}, Inputs: map[string]string{"ip": "10.10.13.22"},
	})
}

// hear passes on what is published on a subject.
func (f *fleet) hear(subject string) <-chan string {
	f.t.Helper()
	seed, err := nats.NkeyOptionFromSeed(f.server.DispatcherSeed())
	if err != nil {
		f.t.Fatal(err)
	}
	nc, err := nats.Connect(f.server.ClientURL(), seed)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(nc.Close)
	heard := make(chan string, 10)
	if _, err := nc.Subscribe(subject, func(m *nats.Msg) { heard <- string(m.Data) }); err != nil {
		f.t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		f.t.Fatal(err)
	}
	return heard
}

func TestDiskIsGivenBackWhenAPhaseEnds(t *testing.T) {
	f := newFleet(t, time.Minute)
	g := newGate()
	var c *Consumer
	cons := f.consumer("h1", "3:p1", &ledger{do: g.do}, func(inner *Consumer) {
		admitting(prometheus.NewRegistry(), host.NewCores(0), nil)(inner)
		c = inner
	})
	for n := range uint64(3) {
		f.issue(group, phases.P1, n, 1, nil)
		receive(t, g.entered, "a phase to start")
	}
	dir := host.ReserveDir(c.cfg.share(c.cfg.IP))
	if held, err := os.ReadDir(dir); err != nil || len(held) != 3 {
		t.Errorf("%v %v", held, err)
	}
	g.leave <- nil
	g.leave <- &engine.Error{Code: "broken", Class: phases.Retryable, Message: "oh"}
	g.leave <- nil
	f.eventually("no room is promised to anybody", func() bool {
		held, err := os.ReadDir(dir)
		return err == nil && len(held) == 0
	})
	cons.stop()
}

// A task that needs more memory or cores than are left goes to another host, or waits.
func TestMemoryAndCoresDelay(t *testing.T) {
	f := newFleet(t, time.Minute)
	var c *Consumer
	f.consumer("h1", "2:p4", &ledger{}, func(inner *Consumer) {
		admitting(prometheus.NewRegistry(), host.NewCores(0), nil)(inner)
		inner.admission.memory = math.MaxUint64 / 4 // other phases of this host
		c = inner
	})
	f.issue(group, phases.P4, 7, 1, nil)
	f.eventually("it waits for memory", func() bool {
		err := c.Waiting()
		return err != nil && strings.Contains(err.Error(), "waits for memory")
	})
	c.admission.mu.Lock()
	c.admission.memory, c.admission.heavy = 0, 1000
	c.admission.mu.Unlock()
	f.issueKind(phases.P4, 8, 7) // 512 MiB
	f.eventually("it waits for a core", func() bool {
		err := c.Waiting()
		return err != nil && strings.Contains(err.Error(), "waits for a core")
	})
	c.admission.mu.Lock()
	c.admission.heavy = 0
	c.admission.mu.Unlock()
	f.events(2, ofType(phases.Done))
	f.eventually("nothing waits", func() bool { return c.Waiting() == nil })
}

// The doctor looks before each p1; a p1 that he refuses waits, other phases do not.
func TestDoctorRefusesP1UntilMended(t *testing.T) {
	f := newFleet(t, time.Minute)
	missing := filepath.Join(t.TempDir(), "array")
	var c *Consumer
	registry := prometheus.NewRegistry()
	var k *Checkup
	cons := f.consumer("h1", "1:p1;1:p3", &ledger{}, func(inner *Consumer) {
		cores := host.NewCores(0)
		inner.cfg.Doctor = host.Settings{Limit: patience, Interval: time.Hour}
		d := NewDoctor(&inner.cfg, cores, &host.Prober{Path: "/proc/self/exe", Env: []string{"SEALFLEET_TEST_PROBE=1"}})
		d.Places = []host.Place{{Subject: "LOCAL_DIR", Path: missing, Scratch: true}}
		k = NewCheckup(d, inner.cfg.Groups, registry, slog.New(slog.DiscardHandler))
		k.fresh = 0
		admitting(registry, cores, k)(inner)
		c = inner
	})
	if r := k.Look(f.ctx); r.Worst != host.Refuse || k.Ready() == nil {
		t.Errorf("%+v", r)
	}
	if n := testutil.ToFloat64(k.gauge.WithLabelValues("path_missing", "refuse")); n != 1 {
		t.Errorf("metric says %v", n)
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v %v", problems, err)
	}
	f.issue(group, phases.P1, 7, 1, nil)
	f.issue(group, phases.P3, 8, 1, nil)
	if done := f.events(1, ofType(phases.Done))[0]; done.Step != phases.P3 {
		t.Errorf("done: %+v", done)
	}
	f.eventually("the doctor's reason is told", func() bool {
		err := c.Waiting()
		return err != nil && strings.Contains(err.Error(), missing+" does not exist") && strings.Contains(err.Error(), "mend: ")
	})
	if err := os.Mkdir(missing, 0o755); err != nil { // the mend
		t.Fatal(err)
	}
	f.events(2, ofType(phases.Done))
	if r := k.Look(f.ctx); r.Worst == host.Refuse || k.Ready() != nil {
		t.Errorf("%+v", r)
	}
	cons.stop()
}

// What the doctor finds is told on the bus, where a host may write it.
func TestDoctorsReportIsANotice(t *testing.T) {
	f := newFleet(t, time.Minute)
	heard := f.hear(bus.NoticeSubject(group, "h1", bus.NoticeDoctor))
	b := f.hostBus("h1")
	cfg := Config{Groups: Groups{group}, HostName: "h1", Doctor: host.Settings{Limit: patience}}
	cores := host.NewCores(0)
	k := NewCheckup(NewDoctor(&cfg, cores, &host.Prober{Path: "/absent"}), cfg.Groups, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	k.OnBus(b, "h1", nil)
	k.Look(f.ctx)
	if text := receive(t, heard, "the notice"); !strings.Contains(text, `"findings":[`) || !strings.Contains(text, `"host":"h1"`) {
		t.Errorf("heard %s", text)
	}
	// The server's clock is this machine's.
	ahead, sure, err := b.Clock(f.ctx, group, phases.P1)
	if err != nil || (ahead.Abs() > sure+time.Second) {
		t.Errorf("%s ahead, give or take %s: %v", ahead, sure, err)
	}
}
