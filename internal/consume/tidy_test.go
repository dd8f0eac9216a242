package consume

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"sealfleet/internal/phases"
	"sealfleet/internal/storage"
)

// A host that began p1 and lost it to another keeps half a sector. It removes that when
// the chain says that p1 was done elsewhere, and nothing before.
func TestTidyRemovesOnlyWhatWasDoneElsewhere(t *testing.T) {
	f := newFleet(t, time.Minute, group)
	c := f.consumer("host1", "1:p6", &ledger{}, nil)
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
	submit := func(number uint64) {
		e := phases.Event{
			V: phases.Version, ID: ulid.Make().String(), Type: phases.Submitted, Group: group, Sector: phases.SectorID(1000, number),
			Step: phases.SectorEnd, Host: "dispatcher-test", At: time.Now().UTC(), Spec: &phases.Spec{Miner: 1000, Number: number, ProofType: 5},
		}
		if _, err := f.bus.Append(f.ctx, e, 0); err != nil {
			t.Fatal(err)
		}
	}
	// p1 is claimed by this host, and then by another, or not.
	begin := func(number uint64) phases.Event {
		submit(number)
		task := f.issue(group, phases.P1, number, 1, nil)
		e := phases.Event{Type: phases.Claimed, Group: group, Sector: task.Sector, Step: phases.P1, Issue: 1, Attempt: 1, Host: "host1", ClaimID: "one"}
		return f.append(e)
	}
	done := func(e phases.Event, host, ip string) {
		if host != e.Host {
			e.Host, e.ClaimID = host, "two"
			f.append(e)
		}
		e.Type, e.Result = phases.Done, &phases.Result{Code: "ok", Outputs: map[string]string{"ip": ip}}
		f.append(e)
	}
	const elsewhere = "10.10.13.23"
	done(begin(1), "host2", elsewhere)
	own := begin(2)
	done(own, "host1", c.cfg.IP) // here: the next phases need it
	own.Host = "forger"          // and whoever says otherwise lies
	done(own, "forger", elsewhere)
	begin(3)                           // not yet done anywhere
	done(begin(4), "host2", elsewhere) // but this host works on it
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
