package main

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"sealfleet/internal/bus"
	"sealfleet/internal/engine"
	"sealfleet/internal/phases"
	"sealfleet/internal/storage"
)

// localBus is a real server whose credentials lie in a state directory, as on a
// dispatcher's machine, and a connection that may write events.
func localBus(t *testing.T) (b *bus.Bus, env []string) {
	t.Helper()
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	s, err := bus.StartEmbedded(bus.ServerConfig{Listen: "127.0.0.1:0", StateDir: dir}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	b, err = bus.Connect(t.Context(), bus.Config{StateDir: dir, AckWait: time.Minute, Server: s}, "dispatcher-test", log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	if _, err := b.Apply(t.Context(), []string{"group1"}); err != nil {
		t.Fatal(err)
	}
	return b, []string{"STATE_DIR=" + dir, "HOST_NAME=host1", "IP=10.10.13.22", "LOCAL_DIR=" + t.TempDir()}
}

func appendDone(t *testing.T, b *bus.Bus, sector string, step phases.Step, outputs map[string]string) {
	t.Helper()
	e := phases.Event{V: phases.Version, Group: "group1", Sector: sector, Step: step, Issue: 1, Attempt: 1, Host: "dispatcher-test", At: time.Now().UTC()}
	var seq uint64
	for _, kind := range []phases.EventType{phases.Issued, phases.Claimed, phases.Done} {
		e.PrevID, e.ID, e.Type = e.ID, ulid.Make().String(), kind
		if kind != phases.Issued {
			e.ClaimID = "x"
		}
		if kind == phases.Done {
			e.Result = &phases.Result{Code: "ok", Outputs: outputs}
		}
		var err error
		if seq, err = b.Append(t.Context(), e, seq); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAuditAndOrphansOnARealBus(t *testing.T) {
	b, env := localBus(t)
	local, node := strings.TrimPrefix(env[3], "LOCAL_DIR="), t.TempDir()
	env = append(env, "STORAGE_NODES=node1="+node)
	const sector = "s-t01000-7"

	if r := consumer(t, env, "audit", "--all"); r.code != exitNotFound {
		t.Errorf("nothing stored: %+v", r)
	}
	// A sector sealed by the binary's own bench, copied as p5 does.
	work := t.TempDir()
	if r := consumer(t, nil, "bench", "--proof-type", "5", "--cc", "--sector", "7", "--dir", work, "--phases", "p1,p2"); r.code != 0 {
		t.Fatal(r.stderr)
	} else {
		var report engine.Report
		if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
			t.Fatal(err)
		}
		appendDone(t, b, sector, phases.P2, map[string]string{"comm_r": report.CommR})
	}
	l := storage.Layout{LocalDir: local, IP: "10.10.13.22", Sector: sector}
	if err := l.Make(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(work, "cache"))
	if err != nil {
		t.Fatal(err)
	}
	move := func(from, to string) {
		t.Helper()
		data, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range entries {
		move(filepath.Join(work, "cache", e.Name()), filepath.Join(l.Cache(), e.Name()))
	}
	move(filepath.Join(work, "sealed"), l.Sealed())
	if _, err := (storage.Copy{From: l, Node: "node1", Dir: node}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	appendDone(t, b, sector, phases.P5, nil)

	audit := func(want int, result string) {
		t.Helper()
		r := consumer(t, env, "audit", "--sector", sector, "--samples", "200", "--output", "json")
		var list []struct{ Node, Sector, Result string }
		if err := json.Unmarshal([]byte(r.stdout), &list); err != nil || r.code != want || len(list) != 1 || list[0].Result != result {
			t.Errorf("want %s and %d, got %+v (%v)", result, want, r, err)
		}
	}
	audit(exitOK, "ok")
	stored := filepath.Join(node, "sealed", sector)
	data, err := os.ReadFile(stored)
	if err != nil {
		t.Fatal(err)
	}
	data[333] ^= 0x10
	if err := os.WriteFile(stored, data, 0o644); err != nil {
		t.Fatal(err)
	}
	audit(exitFailure, "bad")

	// p6 would take the cache and leave a stranger's file.
	if err := os.WriteFile(filepath.Join(l.Cache(), "notes.txt"), []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := consumer(t, env, "clean", "--dry-run", "--sector", sector, "--output", "json")
	var plan storage.Cleaned
	if err := json.Unmarshal([]byte(r.stdout), &plan); err != nil || r.code != 0 || plan.Freed == 0 || len(plan.Kept) != 1 || len(plan.Removed) != len(entries) {
		t.Errorf("dry run: %+v (%v)", r, err)
	}
	if _, err := os.Stat(filepath.Join(l.Cache(), "p_aux")); err != nil {
		t.Error("the dry run deleted:", err)
	}

	// No chain of the sector itself: it is nobody's, once it is old enough; but then the
	// bus knows none here, so nothing is removed.
	old := time.Now().Add(-2 * time.Hour)
	for _, dir := range []string{l.Cache(), l.Sealed(), l.Unsealed()} {
		_ = filepath.WalkDir(dir, func(path string, _ os.DirEntry, _ error) error { return os.Chtimes(path, old, old) })
	}
	r = consumer(t, env, "orphans")
	if r.code != 0 || !strings.Contains(r.stdout, l.Cache()) || !strings.Contains(r.stdout, "no event names this sector") {
		t.Errorf("orphans: %+v", r)
	}
	if r := consumer(t, env, "orphans", "--remove"); r.code != exitUsage {
		t.Errorf("--remove without --yes: %+v", r)
	}
	if r := consumer(t, env, "orphans", "--remove", "--yes"); r.code != exitFailure || !strings.Contains(r.stderr, "is it the right one") {
		t.Errorf("a bus that knows nothing: %+v", r)
	}
	e := phases.Event{V: phases.Version, ID: ulid.Make().String(), Type: phases.Finished, Group: "group1", Sector: sector, Step: phases.SectorEnd,
		Host: "dispatcher-test", At: time.Now().UTC(), Result: &phases.Result{Code: string(phases.StatusFinished)}}
	if _, err := b.Append(t.Context(), e, 0); err != nil {
		t.Fatal(err)
	}
	if r := consumer(t, env, "orphans", "--remove", "--yes"); r.code != 0 {
		t.Errorf("remove: %+v", r)
	}
	if left, err := os.ReadDir(l.Cache()); err != nil || len(left) != 1 {
		t.Errorf("left in the cache: %v, %v", left, err)
	}
	if _, err := os.Stat(l.Sealed()); err != nil {
		t.Error("the sealed file of a finished sector:", err)
	}
}

func TestStoredVerbsRefuseBadInput(t *testing.T) {
	env := []string{"STORAGE_NODES=node1=" + t.TempDir(), "LOCAL_DIR=" + t.TempDir(), "IP=10.10.13.22"}
	for _, a := range [][]string{
		{"clean", "--sector", "s-t01000-7"}, {"clean", "--dry-run", "--sector", "../x"}, {"clean", "--dry-run"}, {"audit"}, {"audit", "--all", "--sector", "s-t01000-7"},
		{"audit", "--sector", "7"}, {"audit", "--all", "--samples", "-1"}, {"audit", "--all", "--output", "xml"}, {"limit", "--node", "node9=3"}, {"limit", "--node", "node1"},
		{"limit", "--host", "-5"}, {"orphans", "here"},
	} {
		if r := consumer(t, env, a...); r.code != exitUsage {
			t.Errorf("%v: %+v", a, r)
		}
	}
}

func TestLimitIsKept(t *testing.T) {
	state := t.TempDir()
	env := []string{"STATE_DIR=" + state, "STORAGE_NODES=node1=/mnt/node1;limit=50,node2=/mnt/node2"}
	limit := func(a ...string) string {
		t.Helper()
		r := consumer(t, env, append([]string{"limit"}, a...)...)
		if r.code != 0 {
			t.Fatalf("%v: %+v", a, r)
		}
		return strings.Join(strings.Fields(r.stdout), " ")
	}
	for _, step := range []struct {
		args []string
		want string
	}{
		{nil, "host 500 MB/s COPY_LIMIT_MB_PER_SEC node1 50 MB/s STORAGE_NODES node2 unlimited STORAGE_NODES"},
		{[]string{"--host", "300", "--node", "node1=0"}, "host 300 MB/s set node1 unlimited set node2 unlimited STORAGE_NODES"},
		{nil, "host 300 MB/s set node1 unlimited set node2 unlimited STORAGE_NODES"},
		{[]string{"--reset"}, "host 500 MB/s COPY_LIMIT_MB_PER_SEC node1 50 MB/s STORAGE_NODES node2 unlimited STORAGE_NODES"},
	} {
		if got := limit(step.args...); got != step.want {
			t.Errorf("%v: %q, want %q", step.args, got, step.want)
		}
	}
}
