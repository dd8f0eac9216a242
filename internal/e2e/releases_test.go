package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"sealfleet/internal/bus"
	"sealfleet/internal/demo"
	"sealfleet/internal/phases"
)

// lastRelease is what runs in the field before this release is rolled out.
const lastRelease = "a159e58"

// last has the programs of the last release.
var last struct {
	sync.Once
	dir  string
	skip string
	err  error
}

// lastPrograms builds the last release from the history of this repository.
func lastPrograms(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds another release")
	}
	last.Do(func() {
		if err := exec.Command("git", "cat-file", "-e", lastRelease+"^{commit}").Run(); err != nil {
			last.skip = "the history does not have the last release, " + lastRelease + ": git fetch --unshallow"
			return
		}
		src := filepath.Join(bin, "last-src")
		last.dir = filepath.Join(bin, "last")
		top, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
		if err != nil {
			last.err = err
			return
		}
		script := fmt.Sprintf("mkdir -p %[1]q && git -C \"$1\" archive %[2]s | tar -x -C %[1]q && cd %[1]q && go build -o %[3]q/ ./cmd/dispatcher ./cmd/consumer && rm -rf %[1]q", src, lastRelease, last.dir)
		if out, err := exec.Command("sh", "-ec", script, "sh", string(top[:len(top)-1])).CombinedOutput(); err != nil {
			last.err = fmt.Errorf("build release %s: %w\n%s", lastRelease, err, out)
		}
	})
	switch {
	case last.skip != "":
		t.Skip(last.skip)
	case last.err != nil:
		t.Fatal(last.err)
	}
	return last.dir
}

// A farm is upgraded host by host, and its dispatchers at another time: whatever runs
// beside whatever, the sectors arrive.
func TestReleasesSideBySide(t *testing.T) {
	t.Parallel()
	old := lastPrograms(t)
	for _, c := range []struct {
		name        string
		dispatchers []string // in the order of their start; the first has the server inside
		hosts       []string
	}{
		{"old hosts at a new dispatcher", []string{bin}, []string{old, bin}},
		{"new hosts at an old dispatcher", []string{old}, []string{bin, old}},
		{"old and new dispatchers", []string{bin, old}, []string{bin, old}},
		{"the dispatcher with the server is upgraded last", []string{old, bin}, []string{bin}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newReleases(t, c.dispatchers)
			// Two hosts share the phases, so that each sector goes from one to the other.
			slots := []string{"4:p1;1:p3;1:p5", "1:p2;1:p4;2:p6"}
			if len(c.hosts) == 1 {
				slots = []string{allSlots}
			}
			for i, programs := range c.hosts {
				of := f.of(programs)
				_, err := of.Consumer(fmt.Sprintf("h%d", i+1), slots[i], "STORAGE_NODES=node1="+f.Node("node1"))
				f.must(err)
				// One after the other: the doctor of the last release takes another's trial file for a sector.
				f.waitReady(fmt.Sprintf("h%d", i+1))
			}
			const sectors = 6
			// Half by each release's verbs: whoever operates has either.
			for n := range sectors {
				of := f.of([]string{bin, old}[n%2])
				f.submit(of, n+1)
			}
			f.finished(sectors)
			for n := range uint64(sectors) {
				f.checkOrder(phases.SectorID(1000, n+1))
			}
		})
	}
}

// releases is a fleet whose programs are of more than one release.
type releases struct {
	*fleet
	others []*demo.Fleet
}

func newReleases(t *testing.T, dispatchers []string) *releases {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	f := &releases{fleet: &fleet{T: t, ctx: ctx, Fleet: &demo.Fleet{Dir: t.TempDir(), Bin: dispatchers[0], Env: []string{
		"DEV_CHAIN_EPOCH=50ms", "RETRY_DELAY=100ms", "TRANSIENT_DELAY=100ms", "SNARK=none", "DEV_CHAIN_REQUIRE_SNARK=false", "ORPHAN_LIMIT=5s", "DOCTOR_LIMIT=60s",
	}}}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(f.Tails(4000))
		}
		cancel()
		for _, o := range append(slices.Clone(f.others), f.Fleet) { // the one with the server last
			if err := o.Stop(patience); err != nil {
				t.Error(err)
			}
		}
	})
	f.must(f.Prepare("node1"))
	_, err := f.Dispatcher("d1")
	f.must(err)
	f.bus, err = bus.Connect(ctx, bus.Config{StateDir: f.State()}, "dispatcher-test", nil)
	f.must(err)
	t.Cleanup(f.bus.Close)
	for i, programs := range dispatchers[1:] {
		_, err := f.of(programs).Dispatcher(fmt.Sprintf("d%d", i+2), "NATS_URL="+f.serverURL(), "NATS_NKEY="+filepath.Join(f.State(), "nats", "dispatcher.nk"))
		f.must(err)
	}
	return f
}

// serverURL is where the first dispatcher's server listens.
func (f *releases) serverURL() string {
	f.Helper()
	data, err := os.ReadFile(filepath.Join(f.State(), "nats", "server.json"))
	f.must(err)
	var at struct{ URL string }
	f.must(json.Unmarshal(data, &at))
	return at.URL
}

// submit submits a sector as soon as the bus is ready for it.
func (f *releases) submit(of *demo.Fleet, number int) {
	f.Helper()
	for {
		_, err := of.Run(f.ctx, "dispatcher", "submit", "--miner", "1000", "--sector", fmt.Sprint(number), "--size", "2KiB", "--cc")
		if err == nil {
			return
		}
		if f.ctx.Err() != nil || !strings.Contains(err.Error(), "is unknown: the bus has no") {
			f.Fatal(err)
		}
	}
}

// of is the part of the fleet that has the programs of one release.
func (f *releases) of(programs string) *demo.Fleet {
	if programs == f.Bin {
		return f.Fleet
	}
	for _, o := range f.others {
		if o.Bin == programs {
			return o
		}
	}
	o := &demo.Fleet{Dir: f.Dir, Bin: programs, Env: f.Env}
	f.others = append(f.others, o)
	return o
}
