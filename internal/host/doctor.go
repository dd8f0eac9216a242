package host

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sealfleet/internal/memory"
	"sealfleet/internal/phases"
)

// Settings are those of the doctor and of admission.
type Settings struct {
	Sector        SectorSize    `env:"SECTOR_SIZE" desc:"size of the sectors that this host is to seal: the doctor measures the host against it at start; empty: against each p1 as it comes" example:"32GiB"`
	ExpectMount   Expectations  `env:"EXPECT_MOUNT" desc:"what paths must be mounted from: /path=type:source,…; type or source may be left out" example:"/sealer=ext4:/dev/md1,/mnt/node1=nfs4:10.10.13.9:/store"`
	Interval      time.Duration `env:"DOCTOR_INTERVAL" envDefault:"5m" desc:"how often the doctor looks at this host" example:"5m"`
	Limit         time.Duration `env:"DOCTOR_LIMIT" envDefault:"10s" desc:"how long a file system may take to answer before it counts as hung" example:"10s"`
	Allow         Codes         `env:"DOCTOR_ALLOW" desc:"codes of findings that may not stop this host: they become warnings" example:"system_disk,p1_too_slow"`
	ReservedCores int           `env:"RESERVED_CORES" envDefault:"2" desc:"cores that phases leave to the system and ssh; none on machines with two or fewer" example:"2"`
}

// Check refuses what can't work; the text names the setting.
func (s Settings) Check() error {
	switch {
	case s.Interval < time.Second:
		return fmt.Errorf("DOCTOR_INTERVAL=%s is too short: use 1s or more (example: 5m)", s.Interval)
	case s.Limit < 100*time.Millisecond || s.Limit > 10*time.Minute:
		return fmt.Errorf("DOCTOR_LIMIT=%s: use 100ms to 10m (example: 10s)", s.Limit)
	case s.ReservedCores < 0:
		return fmt.Errorf("RESERVED_CORES=%d: must be 0 or more (example: 2)", s.ReservedCores)
	}
	return nil
}

// Codes is a list of findings' codes.
type Codes []string

// UnmarshalText reads codes with commas between them.
func (c *Codes) UnmarshalText(text []byte) error {
	*c = nil
	for code := range strings.SplitSeq(string(text), ",") {
		if code = strings.TrimSpace(code); code != "" {
			*c = append(*c, code)
		}
	}
	return nil
}

// Doctor looks at a host. Its fields are set before the first Run and not changed after.
type Doctor struct {
	Settings Settings
	Host     string
	Places   []Place // Sector, Slots, P1Seconds, Sample and Expect are filled in
	// Shares is the directory with the shares that p2 and p3 write (<local_dir>/nfs), empty if
	// they do not run here. OwnShare is the one among them that Places has already.
	Shares, OwnShare string
	Stores           []ObjectStore
	Slots            map[phases.Step]int
	Prober           *Prober
	Cores            *Cores
	Kernels          string // what the engine says that it makes use of

	// Clock tells how far this host's clock is before the server's, and how sure that is.
	// nil: nobody is asked.
	Clock func(ctx context.Context) (ahead, sure time.Duration, err error)
	// Parameters tells whether p4 could prove a sector of that size now (0: of any size).
	// nil: there is no prover, and nothing is asked.
	Parameters func(sector uint64) error

	// Tests put other machines here.
	root string         // where /proc is; empty: /
	rate func() float64 // SHA-256 bytes per second

	once     sync.Once
	measured float64
	ext      bool
	params   bounded
	listing  bounded
}

// Report is what the doctor found. Its JSON is a contract.
type Report struct {
	Host     string    `json:"host"`
	At       time.Time `json:"at"`
	Seconds  float64   `json:"seconds"`
	Sector   uint64    `json:"sector_size,omitempty"`
	Worst    Severity  `json:"worst"`
	Findings []Finding `json:"findings"`
}

// Refused returns the findings that forbid work, as one error; nil if none does.
func (r Report) Refused() error {
	list := Refusals(r.Findings)
	if len(list) == 0 {
		return nil
	}
	return &RefusedError{list}
}

// RefusedError is why a host must not work.
type RefusedError struct{ Findings []Finding }

func (e *RefusedError) Error() string {
	lines := make([]string, len(e.Findings))
	for i, f := range e.Findings {
		lines[i] = f.Error()
	}
	return strings.Join(lines, "\n")
}

// Run does all checks side by side. For quick the speed of the disks is not measured:
// that is for the look before each p1. sector is the size to measure the host against;
// 0 stands for that of the settings.
func (d *Doctor) Run(ctx context.Context, sector uint64, quick bool) Report {
	start := time.Now()
	if sector == 0 {
		sector = uint64(d.Settings.Sector)
	}
	d.once.Do(func() {
		if d.rate == nil {
			d.rate = shaRate
		}
		d.measured, d.ext = d.rate(), hasSHA(d.base())
	})
	var (
		mu   sync.Mutex
		list []Finding
		wg   sync.WaitGroup
	)
	add := func(more ...Finding) {
		mu.Lock()
		defer mu.Unlock()
		list = append(list, more...)
	}
	var visit func(p Place)
	visit = func(p Place) {
		p.Sector, p.Slots, p.Sample = sector, d.Slots[phases.P1], !quick
		if p.Scratch && sector > 0 {
			p.P1Seconds = p1Seconds(sector, d.measured, d.ext)
		}
		if x, given := d.Settings.ExpectMount.of(p.Path); given {
			p.Expect = &x
		}
		seen := d.Prober.Look(ctx, p, d.Settings.Limit)
		isHung := slices.ContainsFunc(seen, func(f Finding) bool { return f.Code == "path_hung" })
		for i := range seen {
			if p.Peer && seen[i].Severity == Refuse {
				seen[i].Severity = Warn // it may be another group's; its p2 would wait or fail, ours would not
			}
		}
		add(seen...)
		// Which shares there are is asked in this process, so only where a helper came back from.
		if !isHung && !p.Peer && d.Shares != "" && within(d.Shares, p.Path) {
			for _, peer := range d.peers() {
				wg.Go(func() { visit(peer) })
			}
		}
	}
	for _, p := range d.Places {
		wg.Go(func() { visit(p) })
	}
	for _, o := range d.Stores {
		wg.Go(func() { add(d.checkStore(ctx, o)) })
	}
	if d.Clock != nil {
		wg.Go(func() { add(d.checkClock(ctx)) })
	}
	if d.Parameters != nil && d.Slots[phases.P4] > 0 {
		wg.Go(func() { add(d.checkParameters(sector)) })
	}
	if d.Slots[phases.P1] > 0 {
		add(checkProcessor(sector, d.measured, d.ext))
	}
	add(checkVectors(d.Kernels), checkCores(d.Slots, sector, d.Cores), checkMemory(d.Slots, sector, memory.Total(d.base())), d.checkFiles())
	wg.Wait()
	for i, f := range list {
		if f.Severity == Refuse && slices.Contains(d.Settings.Allow, f.Code) {
			list[i].Severity = Warn
			list[i].Evidence += " (allowed by DOCTOR_ALLOW)"
		}
	}
	sortFindings(list)
	return Report{Host: d.Host, At: start.UTC(), Seconds: time.Since(start).Seconds(), Sector: sector, Worst: Worst(list), Findings: list}
}

// maxPeers is how many shares are looked at: a helper each.
const maxPeers = 16

// peers returns the shares of other hosts that p2 and p3 write here: each may be another
// mount, and hang on its own.
func (d *Doctor) peers() (list []Place) {
	var entries []os.DirEntry
	got := make(chan []os.DirEntry, 1)
	if d.listing.do(d.Settings.Limit, func() error {
		dirs, err := os.ReadDir(d.Shares)
		got <- dirs
		return err
	}) == nil {
		entries = <-got
	}
	for _, e := range entries {
		if !e.IsDir() || e.Name() == d.OwnShare || strings.HasPrefix(e.Name(), ".") || len(list) == maxPeers {
			continue
		}
		share := filepath.Join(d.Shares, e.Name())
		list = append(list, Place{Subject: "share " + e.Name(), Path: share, Peer: true, Share: share})
	}
	return list
}

func (d *Doctor) base() string {
	if d.root == "" {
		return "/"
	}
	return d.root
}

// Beyond these, times in events and logs mislead people, and deadlines are wrong by epochs.
const (
	clockWarn = time.Second
	epoch     = 30 * time.Second
)

func (d *Doctor) checkClock(ctx context.Context) Finding {
	const within = time.Second
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	ahead, sure, err := d.Clock(ctx)
	if err != nil {
		return found("clock_unknown", Info, "clock", "", "the server could not be asked for the time: %v", err)
	}
	evidence := fmt.Sprintf("%s against the NATS server, give or take %s", ahead.Round(time.Millisecond), sure.Round(time.Millisecond))
	if off := ahead.Abs() - sure; off > clockWarn {
		if off > epoch {
			evidence += ": more than an epoch of the chain"
		}
		return found("clock_offset", Warn, "clock", "start a time service (chrony or systemd-timesyncd) here and on the server; chronyc makestep", "%s", evidence)
	}
	return found("clock", OK, "clock", "", "%s", evidence)
}

func (d *Doctor) checkParameters(sector uint64) Finding {
	if err := d.params.do(d.Settings.Limit, func() error { return d.Parameters(sector) }); err != nil {
		s := Warn
		if sector > 0 {
			s = Refuse // p4 would fail a day after p1
		}
		return found("parameters_missing", s, "FIL_PROOFS_PARAMETER_CACHE", "put p4's parameters there, or take p4 out of WORKERS", "%v", err)
	}
	return found("parameters", OK, "FIL_PROOFS_PARAMETER_CACHE", "", "there for p4")
}

// A phase holds its layers, trees and pipes open: some dozens of files; the old note
// suspected the limit more than once, and lived well with 9 million.
const (
	filesOfSlot = 64
	filesOfHost = 256
	filesPlenty = 65536
)

func (d *Doctor) checkFiles() Finding {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return found("files", Info, "open files", "", "the limit cannot be read: %v", err)
	}
	return judgeFiles(limit.Cur, d.Slots)
}

func judgeFiles(limit uint64, slots map[phases.Step]int) Finding {
	n := 0
	for _, s := range slots {
		n += s
	}
	need := uint64(filesOfHost + filesOfSlot*n)
	const mend = "LimitNOFILE=1048576 in the service's unit, or ulimit -n 1048576 before it is started"
	evidence := fmt.Sprintf("at most %d open files, and %d slots may need %d", limit, n, need)
	switch {
	case limit < uint64(filesOfHost+filesOfSlot):
		return found("files_few", Refuse, "open files", mend, "%s", evidence)
	case limit < need, limit < filesPlenty && n > 64:
		return found("files_low", Warn, "open files", mend, "%s", evidence)
	}
	return found("files", OK, "open files", "", "%s", evidence)
}
