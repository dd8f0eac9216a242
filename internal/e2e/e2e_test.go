// Package e2e tests the programs as they are shipped: real dispatcher and consumer
// processes, real sectors, real files.
package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sealfleet/internal/bus"
	"sealfleet/internal/demo"
	"sealfleet/internal/engine"
	"sealfleet/internal/phases"
	"sealfleet/internal/quietport"
	"sealfleet/internal/sealcore/sealtest"
	"sealfleet/internal/storage"
)

const (
	patience = 4 * time.Minute // for what must come; no test asserts time
	allSlots = "4:p1;1:p2,p3;2:p4,p5;2:p6"
)

// bin has the programs.
var bin string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "sealfleet-e2e-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	bin = dir
	args := []string{"build", "-o", dir + "/"}
	if raceEnabled {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "sealfleet/cmd/dispatcher", "sealfleet/cmd/consumer", "sealfleet/cmd/demo")...)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

type fleet struct {
	*testing.T
	*demo.Fleet
	ctx context.Context
	bus *bus.Bus
}

// newFleet starts a dispatcher; consumers are the test's.
func newFleet(t *testing.T, env ...string) *fleet {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	f := &fleet{T: t, Fleet: &demo.Fleet{Dir: t.TempDir(), Bin: bin, Env: append([]string{"DOCTOR_LIMIT=60s", "DEV_CHAIN_EPOCH=50ms", "RETRY_DELAY=100ms", "TRANSIENT_DELAY=100ms", "SNARK=none", "DEV_CHAIN_REQUIRE_SNARK=false"}, env...)}, ctx: ctx}
	t.Cleanup(func() {
		cancel()
		if err := f.Stop(patience); err != nil {
			t.Error(err)
		}
		if t.Failed() { // also of what only the end showed
			t.Log(f.Tails(4000))
		}
	})
	f.must(f.Prepare("node1"))
	_, err := f.Dispatcher("d1", "SERVER_LISTEN="+freeAddress(t)) // some stop it, and have it come again
	f.must(err)
	f.bus, err = f.Connect(ctx)
	f.must(err)
	t.Cleanup(f.bus.Close)
	return f
}

func (f *fleet) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func (f *fleet) consumer(name, workers string, env ...string) *demo.Process {
	f.Helper()
	p, err := f.Fleet.Consumer(name, workers, append([]string{"STORAGE_NODES=node1=" + f.Node("node1")}, env...)...)
	f.must(err)
	return p
}

func (f *fleet) run(program string, args ...string) string {
	f.Helper()
	out, err := f.Fleet.Run(f.ctx, program, args...)
	f.must(err)
	return out
}

// wait follows the log until an event satisfies the test's condition.
func (f *fleet) wait(what string, is func(phases.Event) bool) phases.Event {
	f.Helper()
	var found phases.Event
	enough := errors.New("enough")
	err := f.bus.Follow(f.ctx, 1, func(e phases.Event) error {
		if is(e) {
			found = e
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		f.Fatalf("waited in vain for %s: %v", what, err)
	}
	return found
}

func (f *fleet) finished(n int) {
	f.Helper()
	count := 0
	f.wait(fmt.Sprint(n, " ended sectors"), func(e phases.Event) bool {
		if e.Type == phases.Finished {
			count++
		}
		return count == n
	})
}

// outputs merges what a sector's steps gave.
func (f *fleet) outputs(sector string) map[string]string {
	f.Helper()
	events, err := f.bus.History(f.ctx, sector)
	f.must(err)
	out := map[string]string{}
	for _, e := range events {
		for k, v := range e.Inputs {
			out[k] = v
		}
		if e.Type == phases.Done && e.Result != nil {
			for k, v := range e.Result.Outputs {
				out[k] = v
			}
		}
	}
	return out
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

func (f *fleet) layout(number uint64) storage.Layout {
	return storage.Layout{LocalDir: f.Sealer(), IP: "127.0.0.1", Sector: phases.SectorID(1000, number)}
}

// The main job: sectors with pieces and without go from p1 to p6, and what lies on the
// storage node is what the engine makes of the same data alone.
func TestSectorsGoFromP1ToP6(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	host := f.consumer("h1", allSlots)
	v := sealtest.LoadVector(t, "2k-pieces")
	pieces := v.WritePieces(t, t.TempDir())
	args := []string{"submit", "--miner", "1000", "--sector", "7", "--proof-type", "5", "--wait", "-o", "json"}
	for _, p := range pieces {
		args = append(args, "--piece", p)
	}
	f.run("dispatcher", args...)
	f.run("dispatcher", "submit", "--miner", "f01000", "--sector", "8", "--size", "2KiB", "--cc", "--wait")

	for _, number := range []uint64{7, 8} {
		sector := phases.SectorID(1000, number)
		out := f.outputs(sector)
		// The same sector by the engine alone, from the ticket and seed that it got.
		b := engine.Bench{
			ProofType: 5, ProverID: fmt.Sprintf("%x", v.ProverID), Number: number, Ticket: out["ticket"], Seed: out["seed"],
			Pieces: pieces, Dir: t.TempDir(), Phases: []phases.Step{phases.P1, phases.P2, phases.P3}, Engine: engine.Builtin{},
		}
		if number == 8 {
			b.Pieces, b.CC = nil, true
		}
		f.must(b.Check())
		want, err := b.Run(f.ctx, nil)
		f.must(err)
		if out["comm_d"] != want.CommD || out["comm_r"] != want.CommR || out["c1_sha256"] != want.C1JSONSHA256 {
			t.Errorf("%s: the fleet and the bench differ: %v, %+v", sector, out, want)
		}
		var receipt storage.Receipt
		f.must(json.Unmarshal([]byte(out["receipt"]), &receipt))
		f.must(storage.CheckReceipt(f.Node("node1"), receipt, sector))
		for _, file := range receipt.Files {
			name := filepath.Base(file.Name)
			if name == sector {
				name = "sealed"
			}
			if w := want.Files[name]; name != "t_aux" && (w.SHA256 != file.SHA256 || w.Size != file.Size) { // t_aux holds a path
				t.Errorf("%s: %+v, want %+v", sector, file, w)
			}
		}
		l := f.layout(number)
		if exists(l.Cache()) || exists(l.Unsealed()) || !exists(l.Sealed()) {
			t.Errorf("%s: cache %v, unsealed %v, sealed %v", sector, exists(l.Cache()), exists(l.Unsealed()), exists(l.Sealed()))
		}
		f.checkOrder(sector)
		if text := f.run("dispatcher", "sector", sector); !strings.Contains(text, "no SNARK was made") && out["proof"] == "" {
			t.Errorf("it is not said that no SNARK was made:\n%s", text)
		}
	}
	if _, err := f.Fleet.Run(f.ctx, "dispatcher", "submit", "--miner", "1000", "--sector", "7", "--size", "2KiB", "--cc"); err == nil {
		t.Error("a sector number was accepted twice")
	}
	f.must(host.Stop(patience))
	f.noOrphans()
}

// checkOrder reads a sector's history: each step done once, and after what it needs.
func (f *fleet) checkOrder(sector string) {
	f.Helper()
	events, err := f.bus.History(f.ctx, sector)
	f.must(err)
	issued, done := map[phases.Step]uint64{}, map[phases.Step]uint64{}
	for _, e := range events {
		switch e.Type {
		case phases.Issued:
			issued[e.Step] = e.Seq
		case phases.Done:
			if done[e.Step] != 0 {
				f.Errorf("%s: %s was done twice", sector, e.Step)
			}
			done[e.Step] = e.Seq
		}
	}
	for step, before := range map[phases.Step][]phases.Step{
		phases.P2: {phases.P1}, phases.Precommit: {phases.P2}, phases.P3: {phases.Precommit}, phases.P4: {phases.P3}, phases.P5: {phases.P3},
		phases.Commit: {phases.P4}, phases.P6: {phases.P4, phases.P5, phases.Commit},
	} {
		for _, b := range before {
			if done[b] == 0 || issued[step] < done[b] {
				f.Errorf("%s: %s was issued at %d, %s done at %d", sector, step, issued[step], b, done[b])
			}
		}
	}
}

// noOrphans tells whether a process of the fleet's consumers is left: a child that
// outlived its parent.
func (f *fleet) noOrphans() {
	f.Helper()
	mine := "STATE_DIR=" + f.State()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		var left []string
		procs, err := filepath.Glob("/proc/[0-9]*/environ")
		f.must(err)
		for _, path := range procs {
			env, err := os.ReadFile(path)
			if err != nil || !strings.Contains(string(env), mine) {
				continue
			}
			cmd, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
			if strings.Contains(string(cmd), "\x00keep\x00") {
				left = append(left, path)
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			f.Fatalf("orphans: %v", left)
		}
	}
}

// The old note: sectors with precommitfailed go straight to 32 and never pass 4, 8 or 16.
func TestFailedPrecommitGoesStraightToP6(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "DEV_CHAIN_FAIL_PRECOMMIT=9")
	f.consumer("h1", allSlots)
	f.run("dispatcher", "submit", "--miner", "1000", "--sector", "9", "--size", "2KiB", "--cc")
	f.finished(1)
	events, err := f.bus.History(f.ctx, phases.SectorID(1000, 9))
	f.must(err)
	cleaned := false
	for _, e := range events {
		switch e.Step {
		case phases.P3, phases.P4, phases.P5, phases.Commit:
			t.Errorf("%s of %s", e.Type, e.Step)
		case phases.P6:
			cleaned = cleaned || e.Type == phases.Done
		}
	}
	l := f.layout(9)
	if !cleaned || exists(l.Cache()) || exists(l.Sealed()) || exists(l.Unsealed()) {
		t.Errorf("cleaned %v; cache %v, sealed %v, unsealed %v", cleaned, exists(l.Cache()), exists(l.Sealed()), exists(l.Unsealed()))
	}
	if last := events[len(events)-1]; last.Type != phases.Finished || last.Result.Code != string(phases.StatusFailed) {
		t.Errorf("ended as %+v", last.Result)
	}
}

func TestCancelledSectorIsCleaned(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.consumer("h1", "1:p1,p2;1:p6") // p3 waits for a host that does it
	f.run("dispatcher", "submit", "--miner", "1000", "--sector", "5", "--size", "2KiB", "--cc")
	f.wait("p3 to be issued", func(e phases.Event) bool { return e.Step == phases.P3 && e.Type == phases.Issued })
	if l := f.layout(5); !exists(l.Cache()) || !exists(l.Sealed()) {
		t.Fatal("p1 and p2 left nothing")
	}
	f.run("dispatcher", "cancel", "s-t01000-5", "--reason", "test", "--yes")
	f.finished(1)
	if l := f.layout(5); exists(l.Cache()) || exists(l.Sealed()) || exists(l.Unsealed()) {
		t.Errorf("cache %v, sealed %v, unsealed %v", exists(l.Cache()), exists(l.Sealed()), exists(l.Unsealed()))
	}
	// What p3's task left behind is acknowledged away by the next host that gets it.
	f.consumer("h2", "1:p3")
	f.waitTasks(0)
}

func (f *fleet) waitTasks(n int) {
	f.Helper()
	for {
		tasks, _, err := f.bus.Tasks(f.ctx)
		f.must(err)
		if len(tasks) == n {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// A consumer that is killed loses nothing: others take over when its leases end.
func TestKilledConsumersWorkIsTakenOver(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "ACK_WAIT=1s")
	const sectors = 8
	victim := f.consumer("h1", "8:p1,p2,p3,p4,p5,p6")
	f.run("dispatcher", "submit", "--miner", "1000", "--sector", "100", "--count", fmt.Sprint(sectors), "--size", "2KiB", "--cc")
	f.wait("a claim", func(e phases.Event) bool { return e.Type == phases.Claimed })
	f.must(victim.Signal(syscall.SIGKILL))
	<-victim.Done()
	f.consumer("h2", allSlots)
	f.finished(sectors)
	for i := range uint64(sectors) {
		f.checkOrder(phases.SectorID(1000, 100+i))
	}
	f.Forget(victim)
	f.noOrphansOf("h1")
}

func (f *fleet) noOrphansOf(host string) {
	f.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*/environ")
	f.must(err)
	for _, path := range procs {
		env, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(env), "STATE_DIR="+f.State()) && strings.Contains(string(env), "HOST_NAME="+host+"\x00") {
			f.Errorf("%s outlived its consumer", path)
		}
	}
}

func TestSecondConsumerOfOneNameIsRefused(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.consumer("h1", "1:p6", "HTTP_LISTEN="+freeAddress(t))
	f.waitReady("h1")
	second := f.consumer("h1", "1:p6")
	select {
	case <-second.Done():
	case <-f.ctx.Done():
		t.Fatal("the second consumer runs")
	}
	if code := second.ExitCode(); code != 4 {
		t.Errorf("exit code %d, want 4", code)
	}
	if logs := f.Tails(4000); !strings.Contains(logs, "another consumer") {
		t.Error("the log doesn't say why")
	}
	f.Forget(second)
}

// waitReady waits until a consumer's own log says that it works.
func (f *fleet) waitReady(name string) {
	f.Helper()
	for !strings.Contains(f.Log(name), "consumer is up") {
		f.must(f.Ended())
		f.must(f.ctx.Err())
		time.Sleep(10 * time.Millisecond)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := quietport.Address()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// A consumer without a bus keeps trying and says so.
func TestConsumerWithoutBusSaysSo(t *testing.T) {
	t.Parallel()
	f := &fleet{T: t, Fleet: &demo.Fleet{Dir: t.TempDir(), Bin: bin, Env: []string{"DOCTOR_LIMIT=60s"}}}
	var cancel func()
	f.ctx, cancel = context.WithTimeout(context.Background(), patience)
	defer cancel()
	f.must(f.Prepare("node1"))
	address := freeAddress(t)
	p := f.consumer("h1", "1:p1", "HTTP_LISTEN="+address)
	t.Cleanup(func() { p.Stop(patience) })
	var ready string
	for !strings.Contains(ready, "connecting to NATS") {
		f.must(f.ctx.Err())
		r, err := http.Get("http://" + address + "/readyz")
		if err != nil {
			f.must(f.Ended())
			time.Sleep(10 * time.Millisecond)
			continue
		}
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		f.must(err)
		if r.StatusCode != http.StatusServiceUnavailable {
			t.Fatalf("/readyz: %s %s", r.Status, body)
		}
		ready = string(body)
	}
	live, err := http.Get("http://" + address + "/livez")
	f.must(err)
	live.Body.Close()
	if live.StatusCode != http.StatusOK {
		t.Errorf("/livez: %s", live.Status)
	}
	// Now a dispatcher comes, and the consumer goes to work without being touched.
	_, err = f.Dispatcher("d1")
	f.must(err)
	f.waitReady("h1")
	if err := f.Stop(patience); err != nil {
		t.Error(err)
	}
}

func TestDemo(t *testing.T) {
	t.Parallel()
	temp := t.TempDir()
	cmd := exec.Command(filepath.Join(bin, "demo"))
	cmd.Env = append(os.Environ(), "TMPDIR="+temp)
	if dir := os.Getenv("SEALFLEET_PARAMS_DIR"); dir != "" { // made already
		cmd.Env = append(cmd.Env, "FIL_PROOFS_PARAMETER_CACHE="+dir)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"8/8", "CommR", "receipt", "NATS_URL=", "NATS_NKEY=", "cache       gone"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the demo doesn't show %q:\n%s", want, out)
		}
	}
	if left, _ := os.ReadDir(temp); len(left) > 0 {
		t.Errorf("the demo left %v", left)
	}
}
