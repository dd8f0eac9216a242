package host_test

import (
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"sealfleet/internal/engine"
	"sealfleet/internal/host"
	"sealfleet/internal/phases"
)

// The table against what real runs leave.
func TestNeedsAgainstRealRuns(t *testing.T) {
	for proofType, sector := range map[int]uint64{5: 2 << 10, 6: 8 << 20} {
		if proofType == 6 && (testing.Short() || raceDetector) { // nothing is shared here: it would only be slow
			continue
		}
		dir := t.TempDir()
		b := &engine.Bench{
			ProofType: proofType, ProverID: strings.Repeat("00", 32), Ticket: strings.Repeat("01", 32), Seed: strings.Repeat("01", 32),
			CC: true, Dir: dir, Engine: engine.Builtin{},
		}
		before := uint64(0)
		for _, p := range []phases.Step{phases.P1, phases.P2, phases.P3} {
			b.Phases = []phases.Step{p}
			if err := b.Check(); err != nil {
				t.Fatal(err)
			}
			if _, err := b.Run(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			after := sum(t, dir, func(string) bool { return true })
			grown := after - before
			before = after
			if p == phases.P2 {
				grown += sector // the replica has its old copy's place now; while it was written it had its own
			}
			check(t, host.SizeName(sector), p, grown, sector, p != phases.P3)
		}
		node := sum(t, dir, func(name string) bool {
			return name == "sealed" || strings.HasSuffix(name, "_aux") || strings.Contains(name, "tree-r")
		})
		n, _ := host.NeedOf(sector, phases.P5)
		if node > n.Node || node*2+1<<20 < n.Node {
			t.Errorf("p5 of %s copies %d bytes, the table has %d", host.SizeName(sector), node, n.Node)
		}
	}
}

func check(t *testing.T, size string, p phases.Step, grown, sector uint64, tight bool) {
	t.Helper()
	n, known := host.NeedOf(sector, p)
	if !known || grown > n.Scratch {
		t.Errorf("%s of %s wrote %d bytes, the table has %d", p, size, grown, n.Scratch)
	}
	// What is asked for in vain is a slot that stands still; the slack of small files aside.
	if tight && grown*11/10+(300<<10) < n.Scratch {
		t.Errorf("%s of %s wrote only %d bytes, the table has %d", p, size, grown, n.Scratch)
	}
	t.Logf("%s of %s: %d bytes, table %d", p, size, grown, n.Scratch)
}

func sum(t *testing.T, dir string, count func(name string) bool) (n uint64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !count(d.Name()) {
			return err
		}
		info, err := d.Info()
		if err == nil {
			n += uint64(info.Size())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestNeedsOfProduction(t *testing.T) {
	n, known := host.NeedOf(32<<30, phases.P1)
	if sectors := float64(n.Scratch) / (32 << 30); !known || sectors < 14.5 || sectors > 15.1 {
		t.Errorf("p1 of 32 GiB takes %.2f sectors", sectors) // the old note: 500 GB
	}
	if _, known := host.NeedOf(128<<30, phases.P1); known {
		t.Error("a size that does not exist is known")
	}
	for text, want := range map[string]uint64{"32GiB": 32 << 30, "512 mib": 512 << 20, "536870912": 512 << 20} {
		var s host.SectorSize
		if err := s.UnmarshalText([]byte(text)); err != nil || uint64(s) != want {
			t.Errorf("%q: %d %v", text, s, err)
		}
	}
	if err := new(host.SectorSize).UnmarshalText([]byte("33GiB")); err == nil || !strings.Contains(err.Error(), "32GiB") {
		t.Error(err)
	}
}
