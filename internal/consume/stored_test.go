package consume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"sealfleet/internal/engine"
	"sealfleet/internal/phases"
	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/merkle"
	"sealfleet/internal/sealcore/seal"
	"sealfleet/internal/sealcore/sealtest"
	"sealfleet/internal/storage"
)

func nodesOf(t *testing.T, text string) Nodes {
	t.Helper()
	var n Nodes
	if err := n.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestNodesSyntax(t *testing.T) {
	got := nodesOf(t, "node1=/mnt/node1;weight=2.5;groups=group1|2;limit=200;keep=1GiB, old=/mnt/old;readonly,"+
		"far=s3://sectors/f01000;endpoint=https://s3.example.org:9000;region=eu-1;credentials=/etc/keys;deny=group3;quota=2TiB;")
	want := Nodes{
		{Name: "node1", Dir: "/mnt/node1", Weight: 2.5, Allow: []string{"group1", "group2"}, Limit: 200e6, Keep: 1 << 30},
		{Name: "old", Dir: "/mnt/old", Weight: 1, ReadOnly: true},
		{Name: "far", Dir: "s3://sectors/f01000", Weight: 1, Deny: []string{"group3"}, Quota: 2 << 40,
			S3: storage.S3Options{Endpoint: "https://s3.example.org:9000", Region: "eu-1", Credentials: "/etc/keys"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, bad := range []string{
		"", "x", "x=", "x=rel", "=/mnt", "a=/x,a=/y", "a=/x;weight=0", "a=/x;weight=-1", "a=/x;weight=NaN", "a=/x;weight=Inf", "a=/x;weight=2;weight=3", "a=/x;groups=",
		"a=/x;groups=Bad Group", "a=/x;readonly=no", "a=/x;limit=0", "a=/x;limit=fast", "a=/x;keep=much", "a=/x;endpoint=https://h", "a=/x;colour=red",
		"a=s3://", "a=/x;quota=1TiB", "a=s3://bucket;quota=0", "a=s3://bucket;quota=much", "a=s3://B/x", "a=s3://bucket;endpoint=h:9000", "a=s3://bucket;endpoint=https://key:secret@h", "a=s3://bucket;credentials=rel", "a=s3://bucket;region=",
	} {
		var n Nodes
		if err := n.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q was taken: %+v", bad, n)
		}
	}
}

func TestNodeIsChosenByPolicy(t *testing.T) {
	const sector, need = "s-t01000-7", int64(100)
	type space map[string][2]int64 // free, begun
	rooms := func(s space) room {
		return func(n Node, _ string) (int64, int64, error) {
			r, ok := s[n.Name]
			if !ok {
				return 0, 0, errors.New("stale file handle")
			}
			return r[0], r[1], nil
		}
	}
	all := nodesOf(t, "a=/a,b=/b;groups=group1,c=/c;deny=group1,d=/d;readonly,e=/e;keep=1000B")
	for name, test := range map[string]struct {
		group string
		space space
		want  string // a node, or an error's code
	}{
		"only the one that may":     {"group1", space{"b": {1000, 0}, "c": {1e9, 0}, "d": {1e9, 0}}, "b"},
		"not for this group":        {"group2", space{"b": {1e9, 0}, "c": {200, 0}}, "c"},
		"what is kept is not room":  {"group2", space{"a": {150, 0}, "e": {1050, 0}}, "a"},
		"what was begun is gone on": {"group1", space{"a": {1e9, 0}, "b": {60, 50}}, "b"},
		"begun, but no room for it": {"group1", space{"a": {1e9, 0}, "b": {40, 50}}, "a"},
		"all full":                  {"group1", space{"a": {99, 0}, "b": {99, 0}, "e": {1099, 0}}, "no_space"},
		"all away":                  {"group1", nil, "storage_away"},
		"full or away":              {"group1", space{"a": {99, 0}}, "no_space"},
	} {
		got, err := all.choose(test.group, sector, need, rooms(test.space))
		var e *engine.Error
		switch {
		case err == nil && got.Name != test.want:
			t.Errorf("%s: chose %q, want %s", name, got.Name, test.want)
		case err != nil && (!errors.As(err, &e) || e.Code != test.want || e.Class != phases.Transient):
			t.Errorf("%s: %v, want %s", name, err, test.want)
		}
	}

	// Sectors spread as weight × free space, and always alike.
	two := nodesOf(t, "a=/a;weight=3,b=/b")
	count := map[string]int{}
	const sectors = 4000
	for i := range sectors {
		id := phases.SectorID(1000, uint64(i))
		first, err1 := two.choose("group1", id, need, rooms(space{"a": {1000, 0}, "b": {2000, 0}}))
		again, err2 := two.choose("group1", id, need, rooms(space{"a": {1000, 0}, "b": {2000, 0}}))
		if err := errors.Join(err1, err2); err != nil || first.Name != again.Name {
			t.Fatal(first, again, err)
		}
		count[first.Name]++
	}
	if share := float64(count["a"]) / sectors; math.Abs(share-0.6) > 0.03 { // 3×1000 against 1×2000; 4 sigma are 0.031
		t.Errorf("a got %.3f, want 0.6", share)
	}
}

func TestSharesAreMaxMinFair(t *testing.T) {
	s := newShares(900)
	s.set(900, map[string]int64{"slow": 100})
	slow1, slowCh, leaveSlow := s.join("slow", group)
	fast1, fast1Ch, _ := s.join("fast", group)
	fast2, _, leaveFast2 := s.join("fast", group)
	if slow1 != 100 || fast1 != 800 || fast2 != 400 || <-fast1Ch != 400 {
		t.Error(slow1, fast1, fast2)
	}
	_, _, leaveSlow2 := s.join("slow", group)
	if got := <-slowCh; got != 50 {
		t.Error("two copies to the slow node:", got)
	}
	leaveSlow2()
	if got := <-slowCh; got != 100 {
		t.Error("one again:", got)
	}
	leaveFast2()
	leaveSlow()
	if got := <-fast1Ch; got != 900 {
		t.Error("alone:", got)
	}
	s.set(0, nil)
	if got := <-fast1Ch; got != 0 {
		t.Error("unlimited:", got)
	}
	s.set(0, map[string]int64{"fast": 70})
	if got := <-fast1Ch; got != 70 {
		t.Error("node's own limit:", got)
	}
}

func TestCopyLimitsOfARunningHost(t *testing.T) {
	f := newFleet(t, time.Minute, group)
	dir := t.TempDir()
	var got <-chan int64
	joined := make(chan struct{})
	c := f.consumer("host1", "1:p5", &ledger{}, func(c *Consumer) {
		c.cfg.Bus.StateDir, c.cfg.CopyLimit = dir, 500
		c.cfg.Nodes = nodesOf(t, "node1=/mnt/node1;limit=300")
		_, got, _ = c.shares.join("node1", group)
		close(joined)
	})
	<-joined
	if first := receive(t, got, "the settings' limit"); first != 300e6 {
		t.Error("from the settings:", first)
	}
	limit := int64(40)
	if err := (CopyLimits{Host: &limit}).Write(dir); err != nil {
		t.Fatal(err)
	}
	if now := receive(t, got, "the new limit"); now != 40e6 {
		t.Error("after consumer limit:", now)
	}
	limit = -1
	if err := (CopyLimits{Host: &limit}).Write(dir); err == nil {
		t.Error("a negative limit was kept")
	}
	if err := os.WriteFile(limitsPath(dir), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	f.eventually("the damaged file is told", func() bool { return strings.Contains(c.logs.String(), "copy limits stay as they are") })
}

func TestCopyProgressTellsRateAndRest(t *testing.T) {
	var n progressNote
	n.set(engine.Progress{Step: "copy", Done: 100e6, Total: 1100e6}) // an earlier attempt left 100 MB
	start := time.Now().Add(-time.Minute)
	n.started, n.began = start, start
	n.set(engine.Progress{Step: "copy", Done: 600e6, Total: 1100e6})
	note, fraction, due := n.due(start.Add(20 * time.Second))
	if !due || note != "copy 55 %, 25 MB/s, 20s left" || math.Abs(fraction-6.0/11) > 1e-9 {
		t.Errorf("%q, %v, %v", note, fraction, due)
	}
}

// chains answers with what a test says.
type chains map[string]*phases.Event

func (c chains) Last(_ context.Context, group, sector string, step phases.Step) (*phases.Event, error) {
	e := c[group+"/"+sector+"/"+string(step)]
	if e != nil && e.Type == "unreachable" {
		return nil, errors.New("no server")
	}
	return e, nil
}

func (c chains) done(sector string, step phases.Step, outputs map[string]string) {
	c[group+"/"+sector+"/"+string(step)] = &phases.Event{Type: phases.Done, Seq: uint64(len(c) + 1), Result: &phases.Result{Outputs: outputs}}
}

// storedSector seals a 2 KiB sector and copies it to a directory, and returns its CommR.
func storedSector(t *testing.T, dir, sector string) string {
	t.Helper()
	return storedSectorOn(t, Node{Name: "node1", Dir: dir}, sector)
}

// storedSectorOn does so with a storage node.
func storedSectorOn(t *testing.T, node Node, sector string) string {
	t.Helper()
	v := sealtest.LoadVector(t, "2k")
	dir := t.TempDir()
	var list []seal.Piece
	for i, path := range v.WritePieces(t, dir) {
		list = append(list, seal.Piece{Path: path, UnpaddedSize: v.Pieces[i].UnpaddedSize})
	}
	s := seal.Sector{Params: v.Params(t), ProverID: sealcore.Domain(v.ProverID), Number: v.SectorNumber, Ticket: sealcore.Domain(v.Ticket)}
	l := storage.Layout{LocalDir: dir, IP: "10.10.13.22", Sector: sector}
	if err := l.Make(); err != nil {
		t.Fatal(err)
	}
	paths := seal.Paths{Unsealed: l.Unsealed(), Sealed: l.Sealed(), Cache: l.Cache()}
	p1, err := seal.P1(t.Context(), s, list, paths, seal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p2, err := seal.P2(t.Context(), p1, paths, seal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (storage.Copy{From: l, Node: node.Name, Dir: node.Dir, S3: node.S3}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", p2.CommR)
}

func TestAuditFindsAFlippedBit(t *testing.T) {
	node := Node{Name: "node1", Dir: t.TempDir()}
	const good, bad, strange = "s-t01000-1", "s-t01000-2", "s-t01000-3"
	events := chains{}
	for _, sector := range []string{good, bad, strange} {
		commR := storedSector(t, node.Dir, sector)
		if sector != strange {
			events.done(sector, phases.P2, map[string]string{"comm_r": commR})
			events.done(sector, phases.P5, nil)
		}
	}
	path := filepath.Join(node.Dir, "sealed", bad)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[1000] ^= 4
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	a := Auditor{Bus: events, Groups: []string{"other", group}}
	list, err := a.Sectors(t.Context(), node)
	if err != nil || !slices.Equal(list, []string{good, bad, strange}) {
		t.Fatalf("sectors %v: %v", list, err)
	}
	check := func(sector, want string) {
		t.Helper()
		// 64 leaves, eight to a part of the file that is hashed as one: 200 samples miss none.
		if got, err := a.Audit(t.Context(), node, sector, 200); err != nil || got.Result != want {
			t.Errorf("%s: %+v, %v; want %s", sector, got, err, want)
		}
	}
	check(good, AuditOK)
	check(bad, AuditBad)
	check(strange, AuditUnknown)
	events[group+"/"+good+"/p5"].Type = phases.Issued
	check(good, AuditUnknown) // it is being copied again
	events[group+"/"+good+"/p5"].Type = phases.Done
	if err := os.Remove(filepath.Join(node.Dir, "cache", good, merkle.FileName(merkle.TreeRID))); err != nil {
		t.Fatal(err)
	}
	check(good, AuditBad)
	events[group+"/"+good+"/p5"].Type = "unreachable"
	if _, err := a.Audit(t.Context(), node, good, 1); err == nil {
		t.Error("an audit without a chain gave a result")
	}
	if _, err := a.Sectors(t.Context(), Node{Name: "gone", Dir: filepath.Join(node.Dir, "gone")}); err == nil {
		t.Error("a node that is away has sectors")
	}
}

// finish writes a step's chain from its issue to its end; claimed is called in between.
func finish(f *fleet, step phases.Step, number uint64, outputs map[string]string, claimed func()) {
	f.t.Helper()
	e := phases.Event{
		V: phases.Version, ID: ulid.Make().String(), Type: phases.Issued, Group: group, Sector: phases.SectorID(1000, number), Step: step,
		Issue: 1, Attempt: 1, Host: "dispatcher-test", At: time.Now().UTC(),
	}
	if _, err := f.bus.Append(f.ctx, e, 0); err != nil {
		f.t.Fatal(err)
	}
	e.Type, e.ClaimID = phases.Claimed, "x"
	if step.IsPhase() {
		e.Host = "host1"
	}
	f.append(e)
	claimed()
	e.Type, e.Result = phases.Done, &phases.Result{Code: "ok", Outputs: outputs}
	f.append(e)
}

func TestScheduledAuditIsLoud(t *testing.T) {
	f := newFleet(t, time.Minute, group)
	node := t.TempDir()
	commR := storedSector(t, node, "s-t01000-9")
	path := filepath.Join(node, "sealed", "s-t01000-9")
	for _, step := range []phases.Step{phases.P2, phases.P5} {
		finish(f, step, 9, map[string]string{"comm_r": commR}, func() {})
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c := f.consumer("host1", "1:p6", &ledger{}, func(c *Consumer) {
		c.cfg.Engine = EngineBuiltin
		c.cfg.Nodes = nodesOf(t, "node1="+node)
		c.cfg.Audit = AuditConfig{Samples: 200, Interval: 100 * time.Millisecond, Sectors: 5}
	})
	f.eventually("a good sector is counted", func() bool { return testutil.ToFloat64(c.metrics.audits.WithLabelValues(AuditOK)) > 0 })
	data[77] ^= 1
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	f.eventually("the flipped bit is counted", func() bool { return testutil.ToFloat64(c.metrics.audits.WithLabelValues(AuditBad)) > 0 })
	f.eventually("the log says so", func() bool { return strings.Contains(c.logs.String(), "STORED SECTOR IS BAD") })
}

func TestP6AsksTheChains(t *testing.T) {
	f := newFleet(t, time.Minute, group)
	c := f.consumer("host1", "1:p6", &ledger{}, nil)
	const number = 4
	receipt := `{"node":"node1","files":[]}`
	task := phases.Task{Group: group, Sector: phases.SectorID(1000, number), Step: phases.P6, Inputs: map[string]string{"receipt": receipt, "commit_message": "m"}}
	may := func(want string) {
		t.Helper()
		err := c.mayClean(t.Context(), task)
		var e *engine.Error
		if want == "" && err != nil || want != "" && (!errors.As(err, &e) || e.Code != want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	finish := func(step phases.Step, outputs map[string]string) {
		t.Helper()
		finish(f, step, number, outputs, func() { may("not_yet") })
	}
	may("not_yet")
	finish(phases.P4, nil)
	may("not_yet")
	finish(phases.P5, map[string]string{"receipt": receipt})
	may("not_yet") // the proof has not landed
	c.cfg.Audit.CleanBeforeCommit = true
	may("")
	c.cfg.Audit.CleanBeforeCommit = false
	finish(phases.Commit, map[string]string{"commit_message": "m"})
	may("")
	// Somebody who may not writes behind p5 and the commit: that holds nothing up, if the
	// task says who did it.
	for _, step := range []phases.Step{phases.P5, phases.Commit} {
		forged := phases.Event{Type: phases.Issued, Group: group, Sector: task.Sector, Step: step, Issue: 2, Attempt: 1, Host: "forger"}
		f.append(forged)
	}
	may("not_yet")
	task.Inputs = maps.Clone(task.Inputs)
	for _, step := range []phases.Step{phases.P4, phases.P5} {
		task.Inputs[phases.InputDoneBy(step)] = "host1"
	}
	may("")
	// A dispatcher's redo does.
	f.append(phases.Event{Type: phases.Issued, Group: group, Sector: task.Sector, Step: phases.P5, Issue: 2, Attempt: 1})
	may("not_yet")
	f.append(phases.Event{Type: phases.Claimed, Group: group, Sector: task.Sector, Step: phases.P5, Issue: 2, Attempt: 1, Host: "host1", ClaimID: "y"})
	may("not_yet")
	f.append(phases.Event{Type: phases.Done, Group: group, Sector: task.Sector, Step: phases.P5, Issue: 2, Attempt: 1, Host: "host1", ClaimID: "y", Result: &phases.Result{Code: "ok", Outputs: map[string]string{"receipt": receipt}}})
	may("")
	task.Inputs["receipt"] = `{"node":"elsewhere","files":[]}`
	may("receipt_forged")
}

// p6 of a sector that was given up removes everything, on the word of the sector's own chain
// and no other, also after an operator had it done again.
func TestP6OfASectorThatWasGivenUp(t *testing.T) {
	f := newFleet(t, time.Minute, group)
	c := f.consumer("host1", "1:p6", &ledger{}, nil)
	task := phases.Task{Group: group, Sector: phases.SectorID(1000, 4), Step: phases.P6}
	is := func(want bool) {
		t.Helper()
		if got, err := c.givenUp(t.Context(), task); err != nil || got != want {
			t.Errorf("given up: %v, %v; want %v", got, err, want)
		}
	}
	write := func(e phases.Event) {
		t.Helper()
		e.V, e.ID, e.Group, e.Sector, e.Step, e.Host, e.At = phases.Version, ulid.Make().String(), group, task.Sector, phases.SectorEnd, "dispatcher-test", time.Now().UTC()
		expect := uint64(0)
		if last := f.last(e); last != nil {
			e.PrevID, expect = last.ID, last.Seq
		}
		if _, err := f.bus.Append(f.ctx, e, expect); err != nil {
			t.Fatal(err)
		}
	}
	is(false)
	write(phases.Event{Type: phases.Submitted, Spec: &phases.Spec{Miner: 1000, Number: 4, ProofType: 5}})
	write(phases.Event{Type: phases.Redo, Target: phases.P1})
	is(false)
	write(phases.Event{Type: phases.Cancelled})
	is(true)
	write(phases.Event{Type: phases.Redo, Target: phases.P6, Result: &phases.Result{Code: "cancelled"}})
	is(true)
}

type states map[string]phases.Status

func (s states) State(_ context.Context, sector string) (phases.Status, bool, error) {
	status, known := s[sector]
	return status, known, nil
}

func TestOrphans(t *testing.T) {
	cfg := &Config{LocalDir: t.TempDir(), IP: "10.10.13.22", Groups: Groups{group}}
	known := states{"s-t01000-1": phases.StatusSealing, "s-t01000-2": phases.StatusFinished, "s-t01000-3": phases.StatusCancelled, "s-t01000-4": phases.StatusParked}
	for n := range uint64(6) {
		l := storage.Layout{LocalDir: cfg.LocalDir, IP: cfg.IP, Sector: phases.SectorID(1000, n)}
		if err := l.Make(); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{l.Sealed(), l.Unsealed(), filepath.Join(l.Cache(), "p_aux"), filepath.Join(l.Cache(), "notes.txt")} {
			if err := os.WriteFile(path, make([]byte, 100), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	left := filepath.Join(cfg.LocalDir, "nfs", cfg.IP, "sealed", ".s-t01000-5.tmp")
	if err := os.WriteFile(left, make([]byte, 7), 0o644); err != nil {
		t.Fatal(err)
	}
	find := func(now time.Time) (names []string, list []Orphan) {
		t.Helper()
		list, err := FindOrphans(t.Context(), cfg, known, now)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range list {
			rel, _ := filepath.Rel(filepath.Join(cfg.LocalDir, "nfs", cfg.IP), o.Path)
			names = append(names, rel)
		}
		return names, list
	}
	ended := []string{"cache/s-t01000-2", "cache/s-t01000-3", "sealed/s-t01000-3", "unsealed/s-t01000-2", "unsealed/s-t01000-3"}
	if names, _ := find(time.Now()); !slices.Equal(slices.Sorted(slices.Values(names)), ended) {
		t.Errorf("now: %v", names) // sectors that nobody knows are too young
	}
	names, list := find(time.Now().Add(2 * time.Hour))
	want := append(slices.Clone(ended), "cache/s-t01000-0", "sealed/s-t01000-0", "unsealed/s-t01000-0",
		"cache/s-t01000-5", "sealed/s-t01000-5", "sealed/.s-t01000-5.tmp", "unsealed/s-t01000-5")
	slices.Sort(want)
	if slices.Sort(names); !slices.Equal(names, want) {
		t.Errorf("later: %v", names)
	}
	for _, o := range list {
		if _, err := o.Remove(t.Context(), cfg, false); err != nil {
			t.Errorf("%s: %v", o.Path, err)
		}
	}
	names, _ = find(time.Now().Add(2 * time.Hour))
	slices.Sort(names)
	// What somebody else put there stays.
	if want := []string{"cache/s-t01000-0", "cache/s-t01000-2", "cache/s-t01000-3", "cache/s-t01000-5"}; !slices.Equal(names, want) {
		t.Errorf("left %v", names)
	}
	for _, n := range []uint64{1, 2, 4} { // live ones, and the sealed file of a finished one
		if _, err := os.Stat((storage.Layout{LocalDir: cfg.LocalDir, IP: cfg.IP, Sector: phases.SectorID(1000, n)}).Sealed()); err != nil {
			t.Error(err)
		}
	}
}
