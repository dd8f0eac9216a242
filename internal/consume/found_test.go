package consume

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealfleet/internal/engine"
	"sealfleet/internal/host"
	"sealfleet/internal/phases"
	"sealfleet/internal/sealcore"
	"sealfleet/internal/storage"
)

const firstIP, secondIP = "10.10.13.22", "10.10.13.23"

// p1Request is p1 of an 8 MiB sector of committed capacity: a smaller one has its second
// layer before anybody could stop it.
func p1Request(l storage.Layout, ticket string) engine.Request {
	prover := sealcore.ProverID(1000)
	return engine.Request{
		V: engine.Version, Phase: phases.P1, Sector: l.Sector, Attempt: 1, ProofType: 6, ProverID: hex.EncodeToString(prover[:]), Number: 7,
		Inputs: map[string]string{"ticket": ticket}, Paths: engine.LayoutPaths(l),
	}
}

// diesInLayer2 does p1 until its first layer is recorded, as a host does it that then dies.
func diesInLayer2(t *testing.T, l storage.Layout, ticket string) {
	t.Helper()
	if err := errors.Join(l.Make(), host.RecordOrigin(filepath.Dir(filepath.Dir(l.Cache())), l.Cache(), "h1"), l.NoteTicket(ticket)); err != nil {
		t.Fatal(err)
	}
	ctx, die := context.WithCancel(t.Context())
	defer die()
	_, err := engine.Builtin{}.Run(ctx, p1Request(l, ticket), func(p engine.Progress) {
		if strings.HasPrefix(p.Step, "layer 2") {
			die()
		}
	})
	if err == nil {
		t.Fatal("p1 was not stopped")
	}
	if n, err := l.UnfinishedP1(ticket); n != 1 || err != nil {
		t.Fatalf("%d layers are recorded, %v: want 1", n, err)
	}
}

func sumOfFile(t *testing.T, path string) [32]byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(data)
}

// resuming is the builtin engine, and notes which steps there were.
type resuming struct {
	mu    sync.Mutex
	steps []string
}

func (r *resuming) Run(ctx context.Context, q engine.Request, tell func(engine.Progress)) (engine.Result, error) {
	return engine.Builtin{}.Run(ctx, q, func(p engine.Progress) {
		r.mu.Lock()
		r.steps = append(r.steps, p.Step)
		r.mu.Unlock()
		tell(p)
	})
}

func (r *resuming) saw(step string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.steps {
		if strings.HasPrefix(s, step) {
			return true
		}
	}
	return false
}

func TestP1TakenOverGoesOnOnTheFirstHostsShare(t *testing.T) {
	f := newFleet(t, time.Second)
	local := t.TempDir()
	ticket := strings.Repeat("07", 32)
	l := storage.Layout{LocalDir: local, IP: firstIP, Sector: phases.SectorID(1000, 7)}
	dead := f.hostBus("h1")
	task := f.issueOf(group, phases.P1, 7, 1, 6, map[string]string{"ticket": ticket})
	if lease, err := dead.Fetch(f.ctx, group, phases.P1, patience); err != nil || lease == nil {
		t.Fatal(lease, err)
	}
	f.append(phases.Event{Type: phases.Claimed, Group: group, Sector: task.Sector, Step: phases.P1, Issue: 1, Attempt: 1, ClaimID: "dead", Host: "h1"})
	diesInLayer2(t, l, ticket)
	first := sumOfFile(t, filepath.Join(l.Cache(), "sc-02-data-layer-1.dat"))
	info, err := os.Stat(filepath.Join(l.Cache(), "sc-02-data-layer-1.dat"))
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()

	work := &resuming{}
	f.consumer("h2", "1:p1", work, func(c *Consumer) {
		c.cfg.Engine, c.cfg.LocalDir, c.cfg.IP = EngineBuiltin, local, secondIP
	})
	done := f.events(1, ofType(phases.Done))[0]
	claim := f.events(2, ofType(phases.Claimed))[1]
	if claim.Host != "h2" || claim.Inputs["ip"] != firstIP || done.Host != "h2" || done.Result.Outputs["ip"] != firstIP {
		t.Errorf("claimed %+v, done %+v", claim, done.Result)
	}
	if !work.saw("resumed at layer 2/2") || work.saw("layer 1/2") {
		t.Errorf("it did not go on from the first layer: %q", work.steps)
	}
	if now, err := os.Stat(filepath.Join(l.Cache(), "sc-02-data-layer-1.dat")); err != nil || !os.SameFile(info, now) || sumOfFile(t, filepath.Join(l.Cache(), "sc-02-data-layer-1.dat")) != first {
		t.Errorf("the first layer is another one: %v", err)
	}
	// The same bytes as without a death.
	whole := storage.Layout{LocalDir: t.TempDir(), IP: firstIP, Sector: l.Sector}
	if err := whole.Make(); err != nil {
		t.Fatal(err)
	}
	out, err := engine.Builtin{}.Run(t.Context(), p1Request(whole, ticket), nil)
	if err != nil || out.Outputs["replica_id"] != done.Result.Outputs["replica_id"] {
		t.Fatal(err, out.Outputs, done.Result.Outputs)
	}
	for _, name := range []string{"sc-02-data-layer-1.dat", "sc-02-data-layer-2.dat", "sc-02-data-tree-d.dat"} {
		if sumOfFile(t, filepath.Join(l.Cache(), name)) != sumOfFile(t, filepath.Join(whole.Cache(), name)) {
			t.Errorf("%s differs", name)
		}
	}
	if _, err := os.Stat(filepath.Join(local, "nfs", secondIP, "cache", l.Sector)); err == nil {
		t.Error("it began on its own share as well")
	}
}

func TestWhereP1Works(t *testing.T) {
	local := t.TempDir()
	ticket := strings.Repeat("07", 32)
	theirs := storage.Layout{LocalDir: local, IP: firstIP, Sector: phases.SectorID(1000, 7)}
	diesInLayer2(t, theirs, ticket)
	c := &Consumer{cfg: Config{LocalDir: local, IP: secondIP, Engine: EngineBuiltin}, log: slog.New(slog.DiscardHandler), places: host.NewPatience(time.Minute)}
	task := phases.Task{Sector: theirs.Sector, Group: group, Step: phases.P1, Issue: 1, Attempt: 1, Inputs: map[string]string{"ticket": ticket}}
	where := func(what, want string, deliveries int) {
		t.Helper()
		if ip := c.whereP1(task, deliveries); ip != want {
			t.Errorf("%s: p1 works on %s, want %s", what, ip, want)
		}
	}
	where("never given out before", secondIP, 1)
	where("taken over", firstIP, 2)
	task.Attempt = 2
	where("a second attempt", firstIP, 1)
	task.Step = phases.P2
	where("only p1 chooses", secondIP, 2)
	task.Step, task.Inputs = phases.P1, map[string]string{"ticket": strings.Repeat("08", 32)}
	where("labels of another ticket", secondIP, 2)
	task.Inputs["ticket"] = ticket
	own := storage.Layout{LocalDir: local, IP: secondIP, Sector: theirs.Sector}
	diesInLayer2(t, own, ticket)
	where("as much at home", secondIP, 2)
	if err := os.RemoveAll(own.Cache()); err != nil {
		t.Fatal(err)
	}
	// The share can be read and not written: here because its place for sealed files is none.
	sealed := filepath.Dir(theirs.Sealed())
	if err := errors.Join(os.RemoveAll(sealed), os.WriteFile(sealed, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	where("a share that cannot be written", secondIP, 2)
	if err := errors.Join(os.Remove(sealed), os.Mkdir(sealed, 0o755)); err != nil {
		t.Fatal(err)
	}
	where("mended", firstIP, 2)
	// The record is damaged: p1 would begin anew there, so it does so at home.
	if err := os.WriteFile(filepath.Join(theirs.Cache(), ".sealfleet-p1.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	where("a damaged record", secondIP, 2)
}

// wellWithin is how long a share that is well may take to sync a file beside all that a machine
// of the tests writes. A test with a hung one lasts so long for each look.
const wellWithin = 10 * time.Second

// The export of the host that died hangs: whoever takes over must not hang with it.
func TestWhereP1WorksBesideAHungShare(t *testing.T) {
	t.Parallel() // it waits, most of its time
	local := t.TempDir()
	ticket := strings.Repeat("07", 32)
	good := storage.Layout{LocalDir: local, IP: firstIP, Sector: phases.SectorID(1000, 7)}
	diesInLayer2(t, good, ticket)
	hangAt(t, filepath.Join(local, "nfs", "10.10.13.99"))
	c := &Consumer{cfg: Config{LocalDir: local, IP: secondIP, Engine: EngineBuiltin}, log: slog.New(slog.DiscardHandler), places: host.NewPatience(wellWithin)}
	task := phases.Task{Sector: good.Sector, Group: group, Step: phases.P1, Issue: 1, Attempt: 2, Inputs: map[string]string{"ticket": ticket}}
	for range 2 { // the second time somebody already waits there
		if ip := c.whereP1(task, 2); ip != firstIP {
			t.Errorf("p1 works on %s, want %s", ip, firstIP)
		}
	}
}

// What a host does itself on shares and nodes must not hang with them: the task waits, or
// goes elsewhere.
func TestHungMountsHangNoTask(t *testing.T) {
	t.Parallel()
	local, hung, node := t.TempDir(), t.TempDir(), t.TempDir()
	places := host.NewPatience(3 * time.Second)
	t.Cleanup(func() {
		// What hung goes on once the mounts are gone, and may still make a directory.
		for errors.Is(places.Do(filepath.Join(local, "nfs", firstIP), func() error { return nil }), host.ErrHung) {
		}
	})
	hangAt(t, hung)
	hangAt(t, filepath.Join(local, "nfs", firstIP))
	c := &Consumer{
		cfg: Config{LocalDir: local, IP: secondIP, Engine: EngineBuiltin, Nodes: nodesOf(t, "hung="+hung+";weight=1000,good="+node)},
		log: slog.New(slog.DiscardHandler), places: places, shares: newShares(0),
	}
	task := phases.Task{
		Sector: phases.SectorID(1000, 7), Group: group, Step: phases.P5, Issue: 1, Attempt: 1,
		Spec: phases.Spec{Miner: 1000, Number: 7, ProofType: 5}, Inputs: map[string]string{"ip": firstIP},
	}
	for range 2 {
		r, leave, err := c.request(t.Context(), task, secondIP)
		if err != nil || r.Copy.Node != "good" {
			t.Fatalf("p5: %+v, %v", r.Copy, err)
		}
		leave()
	}
	task.Spec.StorageNode = "hung"
	_, _, err := c.request(t.Context(), task, secondIP)
	wantFailure(t, "p5 to the node that hangs", err, "storage_away")
	task.Step = phases.P2
	_, _, err = c.request(t.Context(), task, secondIP)
	wantFailure(t, "p2", err, "storage_away")
	task.Step = phases.P1
	_, _, err = c.request(t.Context(), task, firstIP)
	wantFailure(t, "p1", err, "storage_away")
	c.places = host.NewPatience(patience) // what is well may be slow on a busy machine
	if _, _, err = c.request(t.Context(), task, secondIP); err != nil {
		t.Errorf("p1 on the share that is well: %v", err)
	}
	got, err := patiently(t.Context(), host.NewPatience(300*time.Millisecond), Node{Name: "hung", Dir: hung}, func() ([]string, error) {
		return Auditor{}.Sectors(t.Context(), Node{Name: "hung", Dir: hung})
	})
	if !errors.Is(err, host.ErrHung) || got != nil {
		t.Errorf("an audit of a node that hangs: %v, %v", got, err)
	}
}

func wantFailure(t *testing.T, what string, err error, code string) {
	t.Helper()
	var e *engine.Error
	if !errors.As(err, &e) || e.Code != code || e.Class != phases.Transient || !strings.Contains(e.Message, "hung mount or stale handle") {
		t.Errorf("%s: %v, want a transient %s", what, err, code)
	}
}

// hangAt mounts a FUSE file system whose server never answers.
func hangAt(t *testing.T, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may mount")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	fuse, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	if err := unix.Mount("dead-server", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fuse.Fd())); err != nil {
		fuse.Close()
		t.Skipf("mounting FUSE is not allowed here: %v", err)
	}
	t.Cleanup(func() {
		fuse.Close() // whoever hangs gets an error
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}
