package consume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sealfleet/internal/bus"
	"sealfleet/internal/host"
	"sealfleet/internal/phases"
	"sealfleet/internal/settings"
	"sealfleet/internal/storage"
)

// Places returns the directories that the doctor has to look at for these settings.
func (c *Config) Places() []host.Place {
	if c.Engine == EngineNoop {
		return nil
	}
	local := host.Place{Subject: "LOCAL_DIR", Path: c.LocalDir}
	if c.Supports(phases.P1) {
		// p1's own directories: the fault that the old system met only at p2.
		share := c.share(c.IP)
		local.Scratch, local.Share = true, share
		for _, kind := range []string{"cache", "sealed", "unsealed"} {
			local.Make = append(local.Make, filepath.Join(share, kind))
		}
		local.Make = append(local.Make, host.ReserveDir(share))
	}
	places := []host.Place{local}
	if c.Supports(phases.P5) {
		for _, n := range c.Nodes {
			if n.IsS3() || n.ReadOnly {
				continue // no file system to look at, or nothing that would be written
			}
			places = append(places, host.Place{Subject: "STORAGE_NODES " + n.Name, Path: n.Dir, Node: true})
		}
	}
	return places
}

// stores returns the storage nodes that are no directories and get copies from here.
func (c *Config) stores() (list []host.ObjectStore) {
	if c.Engine == EngineNoop || !c.Supports(phases.P5) {
		return nil
	}
	for _, n := range c.Nodes {
		if n.IsS3() && !n.ReadOnly {
			list = append(list, host.ObjectStore{
				Subject: "STORAGE_NODES " + n.Name, Address: n.Dir,
				Try: func(ctx context.Context) error {
					store, err := storage.OpenStore(n.Dir, n.S3)
					if err != nil {
						return err
					}
					return store.Try(ctx, c.HostName)
				},
			})
		}
	}
	return list
}

// CheckNodes refuses slots for p5 without anywhere to copy to.
func (c *Config) CheckNodes() error {
	if c.Engine != EngineNoop && c.Supports(phases.P5) && len(c.Nodes) == 0 {
		return &settings.Fault{Name: "STORAGE_NODES", Example: "node1=/mnt/node1",
			Err: errors.New("empty, but WORKERS has slots for p5: name at least one storage node")}
	}
	return nil
}

// share is the directory of what the P1 host of an address wrote.
func (c *Config) share(ip string) string { return filepath.Join(c.LocalDir, "nfs", ip) }

// slots counts the slots that a phase may have.
func (c *Config) slots() map[phases.Step]int {
	n := map[phases.Step]int{}
	for _, w := range c.Workers {
		for _, p := range w.Phases {
			n[p] += w.Num
		}
	}
	return n
}

// NewDoctor makes the doctor of these settings. The prober sends the helpers that look at
// file systems. Its Clock, Parameters and Kernels are the caller's to set.
func NewDoctor(c *Config, cores *host.Cores, p *host.Prober) *host.Doctor {
	d := &host.Doctor{Settings: c.Doctor, Host: c.HostName, Places: c.Places(), Slots: c.slots(), Prober: p, Cores: cores}
	d.Stores = c.stores()
	if c.Engine != EngineNoop && (c.Supports(phases.P2) || c.Supports(phases.P3)) {
		d.Shares = filepath.Join(c.LocalDir, "nfs")
		if c.Supports(phases.P1) {
			d.OwnShare = c.IP
		}
	}
	return d
}

// Checkup has the doctor look at this host again and again, and keeps what he found.
type Checkup struct {
	doctor *host.Doctor
	groups []string
	log    *slog.Logger
	fresh  time.Duration                           // how old a look may be when a p1 is to begin
	tell   func(group string, r host.Report) error // may be nil
	gauge  *prometheus.GaugeVec
	took   prometheus.Gauge

	mu    sync.Mutex // one look at a time
	last  atomic.Pointer[host.Report]
	quick map[uint64]looked // by size of the sector
}

type looked struct {
	at  time.Time
	err error
}

// NewCheckup prepares a doctor's rounds. The registry gets his findings.
func NewCheckup(d *host.Doctor, groups []string, registry prometheus.Registerer, log *slog.Logger) *Checkup {
	k := &Checkup{
		doctor: d, groups: groups, log: log, fresh: freshEnough, quick: map[uint64]looked{},
		gauge: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sealfleet_doctor_findings", Help: "What the doctor found at his last look at this host: findings by code and severity (ok, info, warn, refuse).",
		}, []string{"code", "severity"}),
		took: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sealfleet_doctor_last_run_timestamp_seconds", Help: "When the doctor last looked at this host.",
		}),
	}
	registry.MustRegister(k.gauge, k.took)
	return k
}

// OnBus has reports published from now on, and clocks compared.
func (k *Checkup) OnBus(b *bus.Bus, hostName string, clock func(context.Context) (ahead, sure time.Duration, err error)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.doctor.Clock = clock
	k.tell = func(group string, r host.Report) error { return b.Notice(group, hostName, bus.NoticeDoctor, r) }
}

// Look has the doctor do everything once, and makes what he found known.
func (k *Checkup) Look(ctx context.Context) host.Report {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.doctor.Run(ctx, 0, false)
	if ctx.Err() != nil {
		return r // stopped in the middle: nothing was found out
	}
	k.logChanges(r)
	k.last.Store(&r)
	clear(k.quick)
	k.gauge.Reset()
	for _, f := range r.Findings {
		k.gauge.WithLabelValues(f.Code, string(f.Severity)).Inc()
	}
	k.took.Set(float64(r.At.UnixMilli()) / 1000)
	if k.tell != nil {
		for _, g := range k.groups {
			if err := k.tell(g, r); err != nil {
				k.log.Debug("could not tell what the doctor found", "group", g, "error", err)
			}
		}
	}
	return r
}

// logChanges logs what was not there at the last look, and what is gone since.
func (k *Checkup) logChanges(r host.Report) {
	key := func(f host.Finding) string { return f.Code + "\x00" + f.Subject + "\x00" + string(f.Severity) }
	bad := func(r host.Report) map[string]host.Finding {
		m := map[string]host.Finding{}
		for _, f := range r.Findings {
			if f.Severity == host.Warn || f.Severity == host.Refuse {
				m[key(f)] = f
			}
		}
		return m
	}
	before, now := map[string]host.Finding{}, bad(r)
	if last := k.last.Load(); last != nil {
		before = bad(*last)
	}
	for _, f := range r.Findings {
		if _, known := before[key(f)]; known || now[key(f)].Code == "" {
			continue
		}
		level := slog.LevelWarn
		if f.Severity == host.Refuse {
			level = slog.LevelError
		}
		k.log.Log(context.Background(), level, "doctor: "+f.Evidence, "code", f.Code, "subject", f.Subject, "mend", f.Mend)
	}
	for id, f := range before {
		if _, still := now[id]; !still {
			k.log.Info("doctor: mended", "code", f.Code, "subject", f.Subject)
		}
	}
}

// refusedInterval is how soon the doctor comes again while something must be mended.
const refusedInterval = 30 * time.Second

// Run looks again at each interval until ctx ends.
func (k *Checkup) Run(ctx context.Context) {
	for {
		wait := k.doctor.Settings.Interval
		if k.Ready() != nil {
			wait = min(wait, refusedInterval)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
			k.Look(ctx)
		}
	}
}

// Ready returns nil, or what must be mended before this host may work.
func (k *Checkup) Ready() error {
	if last := k.last.Load(); last != nil {
		return last.Refused()
	}
	return nil
}

// freshEnough is how old the last look may be when a p1 is to begin.
const freshEnough = time.Minute

// beforeP1 looks at the host for a sector of a size, unless somebody did a moment ago.
// The speed of disks is not measured for it.
func (k *Checkup) beforeP1(ctx context.Context, sector uint64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if seen, ok := k.quick[sector]; ok && time.Since(seen.at) < k.fresh {
		return seen.err
	}
	err := k.doctor.Run(ctx, sector, true).Refused()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		err = fmt.Errorf("the doctor refuses p1 of %s: %w", host.SizeName(sector), err)
	}
	k.quick[sector] = looked{time.Now(), err}
	return err
}
