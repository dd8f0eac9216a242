package consume

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"sealfleet/internal/phases"
	"sealfleet/internal/storage"
)

// A host that began p1 and lost it to another keeps half a sector. It removes that when
// the chain says that p1 was done elsewhere, and nothing before.
func TestTidyRemovesOnlyWhatWasDoneElsewhere(t *testing.T) {
	f := newFleet(t, time.Minute, group)
	c := f.consumer("host1", "1:p6", &ledger{}, nil)
	c.cfg.LocalDir, c.cfg.IP = t.TempDir(), "10.10.13.22"
	layout := func(number uint64) storage.Layout {
		return storage.Layout{LocalDir: c.cfg.LocalDir, IP: c.cfg.IP, Sector: phases.SectorID(1000, number)}
	}
	for n := uint64(1); n <= 5; n++ {
		l := layout(n)
		if err := l.Make(); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{l.Sealed(), l.Unsealed(), filepath.Join(l.Cache(), "sc-02-data-layer-1.dat")} {
			if err := os.WriteFile(path, make([]byte, 100), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	done := func(number uint64, ip string) {
		finish(f, phases.P1, number, map[string]string{"ip": ip}, func() {})
	}
	done(1, "10.10.13.23")               // elsewhere
	done(2, c.cfg.IP)                    // here: the next phases need it
	f.issue(group, phases.P1, 3, 1, nil) // not yet done anywhere
	done(4, "10.10.13.23")               // elsewhere, but this host works on it
	held := chain{phases.SectorID(1000, 4), phases.P1}
	c.running.Store(held, &job{c: c.Consumer, key: held})
	if err := c.tidy(f.ctx); err != nil { // of the fifth no event is known
		t.Fatal(err)
	}
	for n, want := range map[uint64]bool{1: false, 2: true, 3: true, 4: true, 5: true} {
		l := layout(n)
		for _, path := range []string{l.Sealed(), l.Unsealed(), l.Cache()} {
			if _, err := os.Stat(path); (err == nil) != want {
				t.Errorf("%s: %v, want it there: %v", path, err, want)
			}
		}
	}
	if _, left := c.running.Load(chain{phases.SectorID(1000, 1), phases.P1}); left {
		t.Error("this host takes no p1 of the sector any more")
	}
}
