package engine

import (
	"encoding/hex"
	"path/filepath"
	"testing"

	"sealfleet/internal/phases"
	"sealfleet/internal/sealcore/sealtest"
)

// A sector in the midst of others comes out as it does alone, and phases add up.
func TestBenchOfCopies(t *testing.T) {
	v := sealtest.LoadVector(t, "2k")
	b := benchOf(t, v, t.TempDir())
	b.Number--
	b.Phases = []phases.Step{phases.P1, phases.P2}
	copies, err := b.Copies(3)
	if err != nil {
		t.Fatal(err)
	}
	report, err := RunCopies(t.Context(), copies, nil)
	if err != nil {
		t.Fatal(err)
	}
	if report.Copies != 3 || len(report.Sectors) != 3 || report.Seconds[phases.P1] <= 0 || report.Seconds[phases.P2] <= 0 {
		t.Fatalf("report %+v", report)
	}
	for i, r := range report.Sectors {
		if same := r.ReplicaID == hex.EncodeToString(v.ReplicaID[:]); same != (i == 1) {
			t.Errorf("copy %d has replica id %s", i+1, r.ReplicaID)
		}
	}
	r := report.Sectors[1]
	if want := hex.EncodeToString(v.CommR[:]); r.CommR != want {
		t.Errorf("CommR %s, want %s", r.CommR, want)
	}
	for name, want := range v.CacheAfterP1 {
		sealtest.CheckFile(t, filepath.Join(b.Dir, "copy-2", "cache", name), want)
	}

	// Of p1 alone, too.
	b.Dir, b.Phases = t.TempDir(), b.Phases[:1]
	if copies, err = b.Copies(2); err != nil {
		t.Fatal(err)
	}
	if report, err = RunCopies(t.Context(), copies, nil); err != nil {
		t.Fatal(err)
	}
	if got := report.Sectors[1].ReplicaID; got != hex.EncodeToString(v.ReplicaID[:]) {
		t.Errorf("replica id %s", got)
	}
}
