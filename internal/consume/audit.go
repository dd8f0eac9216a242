package consume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sealfleet/internal/bus"
	"sealfleet/internal/engine"
	"sealfleet/internal/host"
	"sealfleet/internal/logs"
	"sealfleet/internal/phases"
	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/seal"
	"sealfleet/internal/storage"
)

// AuditConfig says how stored sectors are looked after.
type AuditConfig struct {
	Samples  int           `env:"AUDIT_SAMPLES" envDefault:"16" desc:"random challenges that a stored sector answers against its CommR after p5, before p6 and at each audit; 0: none" example:"16"`
	Interval time.Duration `env:"AUDIT_INTERVAL" envDefault:"1h" desc:"how often the sectors of this host's storage nodes are audited, some at a time; 0s: never" example:"1h"`
	Sectors  int           `env:"AUDIT_SECTORS" envDefault:"50" desc:"sectors per storage node that each scheduled audit takes, in turn" example:"50"`

	// CleanBeforeCommit must be what the dispatchers have: this host checks for itself.
	CleanBeforeCommit bool `env:"CLEAN_BEFORE_COMMIT" envDefault:"false" desc:"p6 deletes before the proof is on chain; must be as the dispatchers have it" example:"true"`
}

// Audited is what an audit found of one sector on one storage node.
type Audited struct {
	Node    string  `json:"node"`
	Sector  string  `json:"sector"`
	Result  string  `json:"result"` // ok, bad, unreadable, unknown
	Samples int     `json:"samples"`
	Message string  `json:"message,omitempty"`
	Seconds float64 `json:"seconds"`
}

// Results of an audit. Unknown: no chain says that this sector is there for good.
const (
	AuditOK         = bus.AuditOK
	AuditBad        = bus.AuditBad
	AuditUnreadable = bus.AuditUnreadable
	AuditUnknown    = "unknown"
)

// LastReader reads a chain's last event; *bus.Bus is one.
type LastReader interface {
	Last(ctx context.Context, group, sector string, step phases.Step) (*phases.Event, error)
}

// Auditor has stored sectors answer for their CommR.
type Auditor struct {
	Bus    LastReader
	Groups []string
}

// Sectors lists the sectors whose sealed file is on a node, by name.
func (a Auditor) Sectors(ctx context.Context, node Node) ([]string, error) {
	if node.IsS3() {
		store, err := storage.OpenStore(node.Dir, node.S3)
		if err != nil {
			return nil, fmt.Errorf("storage node %s: %w", node.Name, err)
		}
		list, err := store.Sealed(ctx)
		if err != nil {
			return nil, fmt.Errorf("storage node %s: %w", node.Name, err)
		}
		return list, nil
	}
	entries, err := os.ReadDir(filepath.Join(node.Dir, "sealed"))
	if errors.Is(err, fs.ErrNotExist) {
		if _, topErr := os.Stat(node.Dir); topErr == nil {
			return nil, nil // nothing was ever copied
		}
	}
	if err != nil {
		return nil, fmt.Errorf("storage node %s: %w", node.Name, err)
	}
	var list []string
	for _, e := range entries {
		if _, _, err := phases.ParseSectorID(e.Name()); err == nil && e.Type().IsRegular() {
			list = append(list, e.Name())
		}
	}
	return list, nil
}

// settled is what the chains say of a sector that p5 is through with.
type settled struct {
	commR    string
	seqs     [2]uint64 // of p2's and p5's last events
	complete bool
}

func (a Auditor) settled(ctx context.Context, sector string) (s settled, err error) {
	for _, group := range a.Groups {
		p5, err := a.Bus.Last(ctx, group, sector, phases.P5)
		if err != nil {
			return s, err
		}
		if p5 == nil {
			continue
		}
		p2, err := a.Bus.Last(ctx, group, sector, phases.P2)
		if err != nil {
			return s, err
		}
		if p2 == nil || p2.Type != phases.Done || p5.Type != phases.Done || p2.Result == nil {
			return s, nil // one of them is being done again
		}
		return settled{p2.Result.Outputs["comm_r"], [2]uint64{p2.Seq, p5.Seq}, true}, nil
	}
	return s, nil
}

// Audit audits one sector on one node.
func (a Auditor) Audit(ctx context.Context, node Node, sector string, samples int) (Audited, error) {
	out := Audited{Node: node.Name, Sector: sector, Samples: samples}
	before, err := a.settled(ctx, sector)
	if err != nil {
		return out, err
	}
	if !before.complete {
		out.Result, out.Message = AuditUnknown, "no chain of this host's groups says that p2 and p5 are done"
		return out, nil
	}
	start := time.Now()
	err = audit(ctx, node, sector, before.commR, samples)
	out.Seconds = time.Since(start).Seconds()
	if ctx.Err() != nil {
		return out, ctx.Err()
	}
	if err == nil {
		out.Result = AuditOK
		return out, nil
	}
	// p5 may have begun anew meanwhile, and be replacing the files.
	if after, afterErr := a.settled(ctx, sector); afterErr != nil || after != before {
		out.Result, out.Message = AuditUnknown, "the sector is being copied again"
		return out, afterErr
	}
	out.Result, out.Message = AuditUnreadable, err.Error()
	if errors.Is(err, seal.ErrAudit) || errors.Is(err, fs.ErrNotExist) {
		out.Result = AuditBad // p5 is done, so the files must be there
	}
	return out, nil
}

func audit(ctx context.Context, node Node, sector, commR string, samples int) error {
	info, err := sealedInfo(ctx, node, sector)
	if err != nil {
		return err
	}
	for t := 5; t <= 9; t++ { // of a sector's kind only its size matters here
		params, err := sealcore.ForProofType(t)
		if err == nil && params.SectorSize == uint64(info.Size()) {
			return engine.Audit(ctx, params, sector, commR, node.Dir, node.S3, samples)
		}
	}
	return fmt.Errorf("%w: %d bytes are no sector", seal.ErrAudit, info.Size())
}

func sealedInfo(ctx context.Context, node Node, sector string) (fs.FileInfo, error) {
	name := filepath.Join("sealed", sector)
	if !node.IsS3() {
		return os.Stat(filepath.Join(node.Dir, name))
	}
	store, err := storage.OpenStore(node.Dir, node.S3)
	if err != nil {
		return nil, err
	}
	object, err := store.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return object.Stat()
}

// auditLoop audits the sectors of this host's storage nodes, AUDIT_SECTORS of each node at
// each interval, in turn: so all of them are looked at again and again, and no node is
// kept busy by it.
func (c *Consumer) auditLoop(ctx context.Context) {
	if c.cfg.Audit.Interval <= 0 || c.cfg.Audit.Samples <= 0 || c.cfg.Engine == EngineNoop {
		return
	}
	after := map[string]string{} // by node: the sector that was audited last
	patience := host.NewPatience(auditPatience)
	tick := time.NewTicker(c.cfg.Audit.Interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		for _, node := range c.cfg.Nodes {
			after[node.Name] = c.auditNode(ctx, patience, node, after[node.Name])
		}
	}
}

// auditPatience is how long a node may take for one sector before it counts as hung.
const auditPatience = 5 * time.Minute

// patiently asks a node for something, and gives up if it hangs or ctx ends.
func patiently[T any](ctx context.Context, p *host.Patience, node Node, ask func() (T, error)) (got T, err error) {
	answer, done := make(chan T, 1), make(chan error, 1)
	go func() {
		done <- p.Do(node.Dir, func() error {
			v, err := ask()
			answer <- v
			return err
		})
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		return got, ctx.Err()
	}
	if !errors.Is(err, host.ErrHung) {
		got = <-answer
	}
	return got, err
}

// auditNode audits the next sectors of one node and returns the last of them.
func (c *Consumer) auditNode(ctx context.Context, patience *host.Patience, node Node, after string) string {
	a := Auditor{Bus: c.bus, Groups: c.cfg.Groups}
	list, err := patiently(ctx, patience, node, func() ([]string, error) { return a.Sectors(ctx, node) })
	if ctx.Err() != nil {
		return after
	}
	if err != nil {
		c.metrics.audits.WithLabelValues(AuditUnreadable).Inc()
		c.log.Error("a storage node cannot be audited", "node", node.Name, "error", err)
		return after
	}
	at, found := slices.BinarySearch(list, after)
	if found {
		at++
	}
	for range min(c.cfg.Audit.Sectors, len(list)) {
		sector := list[at%len(list)]
		at++
		got, err := patiently(ctx, patience, node, func() (Audited, error) { return a.Audit(ctx, node, sector, c.cfg.Audit.Samples) })
		if ctx.Err() != nil {
			return after
		}
		if errors.Is(err, host.ErrHung) {
			c.metrics.audits.WithLabelValues(AuditUnreadable).Inc()
			c.log.Error("a storage node hangs", "node", node.Name, logs.Sector, sector, "error", err)
			return after
		}
		if err != nil {
			c.log.Warn("an audit has to wait: the chain cannot be read", logs.Sector, sector, "error", err)
			return after
		}
		after = sector
		c.metrics.audits.WithLabelValues(got.Result).Inc()
		c.tellAudit(got)
		log := c.log.With("node", node.Name, logs.Sector, sector, "samples", got.Samples)
		switch got.Result {
		case AuditBad:
			log.Error("STORED SECTOR IS BAD: it cannot answer for its CommR, and would fail its proof of space; mend: look at the storage node, then redo p5 if the local files are still there", "error", got.Message)
		case AuditUnreadable:
			log.Error("a stored sector cannot be read", "error", got.Message)
		default:
			log.Debug("audited", "result", got.Result, "message", got.Message)
		}
	}
	return after
}

func (c *Consumer) tellAudit(a Audited) {
	if err := TellAudit(c.bus, &c.cfg, a); err != nil {
		c.log.Debug("could not tell of an audit", logs.Sector, a.Sector, "error", err)
	}
}

// TellAudit lets the dispatchers know what an audit found: they raise the alarm, and end
// it. If none listens the next audit tells it again.
func TellAudit(b *bus.Bus, cfg *Config, a Audited) error {
	if a.Result == AuditUnknown || len(cfg.Groups) == 0 {
		return nil
	}
	return b.Notice(cfg.Groups[0], cfg.HostName, bus.NoticeAudit, bus.StoredAudit{
		Node: a.Node, Sector: a.Sector, Result: a.Result, Message: a.Message, At: b.Now().UTC(),
	})
}

// mayClean tells whether the chains allow p6 of a sector that was not given up: p4, p5 and
// the commit must be done, and the receipt must be the one that p5 reported. The task's
// message is not asked: it deletes nothing.
func (c *Consumer) mayClean(ctx context.Context, t phases.Task) error {
	steps := []phases.Step{phases.P4, phases.P5}
	if !c.cfg.Audit.CleanBeforeCommit {
		steps = append(steps, phases.Commit)
	}
	for _, step := range steps {
		last, err := c.lastWord(ctx, t, step)
		if err != nil {
			return fail("chain_unreadable", phases.Transient, "cannot read whether %s is done: %v", step, err)
		}
		if last == nil || last.Type != phases.Done || last.Result == nil {
			state := "not begun"
			if last != nil {
				state = string(last.Type)
			}
			hint := ""
			if step == phases.Commit {
				hint = " (if the dispatchers clean before the commit, set CLEAN_BEFORE_COMMIT here too)"
			}
			return fail("not_yet", phases.Transient, "%s is %s, so nothing may be deleted yet%s", step, state, hint)
		}
		if got := t.Inputs["receipt"]; step == phases.P5 && got != last.Result.Outputs["receipt"] {
			return fail("receipt_forged", phases.Permanent, "the task's receipt is not the one that p5 left: nothing was deleted")
		}
	}
	return nil
}

// lastWord returns the event that tells how a step of p6's sector ended. A host reads single
// events and cannot fold a chain, so it looks for those of who may write them: the
// dispatchers (for a gate), or the host that the task names, unless a dispatcher wrote
// later, as for a redo. What anybody else wrote behind that is not believed by the
// dispatchers either, and must not hold p6 up for ever.
func (c *Consumer) lastWord(ctx context.Context, t phases.Task, step phases.Step) (*phases.Event, error) {
	dispatchers, err := c.bus.LastBy(ctx, t.Group, t.Sector, step, phases.DispatcherName(""))
	if err != nil || step.IsGate() {
		return dispatchers, err
	}
	by := t.Inputs[phases.InputDoneBy(step)]
	if by == "" {
		return c.bus.Last(ctx, t.Group, t.Sector, step) // the task is of an earlier release
	}
	hosts, err := c.bus.LastBy(ctx, t.Group, t.Sector, step, by)
	if err == nil && dispatchers != nil && (hosts == nil || dispatchers.Seq > hosts.Seq) {
		return dispatchers, nil
	}
	return hosts, err
}
