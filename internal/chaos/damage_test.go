package chaos

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sealfleet/internal/phases"
)

// A flipped byte, or a lost end, in the store of the log is no matter for sweepers: what
// the lost events had started would be started again. The fleet must stop, and say so.
func TestADamagedLogStopsTheFleet(t *testing.T) {
	t.Parallel()
	bin := programs(t)
	for name, damage := range map[string]func(t *testing.T, block string){
		"a byte in the middle": func(t *testing.T, block string) { flip(t, block, 0.5) },
		"a byte near the end":  func(t *testing.T, block string) { flip(t, block, 0.97) },
		"the end is lost": func(t *testing.T, block string) {
			info, err := os.Stat(block)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(block, info.Size()*9/10); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := Options{Dir: filepath.Join(t.TempDir(), "run"), Bin: bin, Dispatchers: 1, Consumers: 1, Work: 50 * time.Millisecond}
			if err := o.withDefaults(); err != nil {
				t.Fatal(err)
			}
			f, err := newFleet(o, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.stop() }() // the test is about something else
			b, err := f.start(t.Context(), 1)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			w := newWitness()
			w.keep = true
			go func() { _ = b.Follow(t.Context(), 1, w.see) }()
			if err := submitMany(t.Context(), b, 1, 4); err != nil {
				t.Fatal(err)
			}
			if err := waitFor(t.Context(), func() bool { return w.count() == 4 }); err != nil {
				t.Fatal(err)
			}
			d := f.dispatchers[0]
			if err := d.stop(); err != nil {
				t.Fatal(err)
			}
			blocks, err := filepath.Glob(filepath.Join(f.dir, "d1", "nats", "store", "jetstream", "*", "streams", "SEAL_EVENTS", "msgs", "*.blk"))
			if err != nil || len(blocks) == 0 {
				t.Fatal("no block of the log: ", err)
			}
			damage(t, blocks[len(blocks)-1])
			before := len(w.events(func(phases.Event) bool { return true }))
			d.mu.Lock()
			d.over = false
			d.mu.Unlock()
			if err := d.start(); err != nil {
				t.Fatal(err)
			}
			if err := waitFor(t.Context(), func() bool {
				d.mu.Lock()
				defer d.mu.Unlock()
				return len(d.exits) > 0
			}); err != nil {
				t.Fatal(err)
			}
			log, err := os.ReadFile(d.logPath())
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(log), "the event log went backwards") {
				t.Errorf("the dispatcher does not say what is wrong:\n%s", log[max(0, len(log)-2000):])
			}
			if after := len(w.events(func(phases.Event) bool { return true })); after != before {
				t.Errorf("%d events were written on a damaged log", after-before)
			}
		})
	}
}

func flip(t *testing.T, path string, at float64) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[int(float64(len(data))*at)] ^= 0x20
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
