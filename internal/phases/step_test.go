package phases

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestOldNamesAndBits(t *testing.T) {
	for _, c := range []struct {
		step Step
		old  string
		bit  int
	}{
		{P1, "PreCommitPhase1", 1}, {P2, "PreCommitPhase2", 2}, {P3, "CommitPhase1", 4},
		{P4, "CommitPhase2", 8}, {P5, "CopyTask", 16}, {P6, "CleanTask", 32},
	} {
		if c.step.OldName() != c.old || c.step.Bit() != c.bit || !c.step.IsPhase() || c.step.IsGate() {
			t.Errorf("%s: %s, bit %d", c.step, c.step.OldName(), c.step.Bit())
		}
		for _, text := range []string{string(c.step), strings.ToUpper(string(c.step)), c.old, strings.ToLower(c.old)} {
			if got, err := ParsePhase(text); got != c.step || err != nil {
				t.Errorf("%q is read as %q, %v", text, got, err)
			}
		}
	}
	for _, gate := range []Step{Precommit, Commit} {
		if gate.Bit() != 0 || gate.IsPhase() || !gate.IsGate() {
			t.Errorf("%s passes for a phase", gate)
		}
	}
	for _, text := range []string{"", "p0", "p7", "3", "64", "precommit", "p1 ", "0"} {
		if got, err := ParsePhase(text); err == nil {
			t.Errorf("%q is read as %q", text, got)
		}
	}
	if got, _ := ParsePhase("pc"); got != P5 {
		t.Errorf("pc is read as %q", got)
	}
}

func TestSectorIDs(t *testing.T) {
	if got := SectorID(1000, 7); got != "s-t01000-7" {
		t.Errorf("got %s", got)
	}
	rapid.Check(t, func(t *rapid.T) {
		m, n := rapid.Uint64().Draw(t, "miner"), rapid.Uint64().Draw(t, "number")
		gm, gn, err := ParseSectorID(SectorID(m, n))
		if gm != m || gn != n || err != nil {
			t.Fatalf("%d %d came back as %d %d, %v", m, n, gm, gn, err)
		}
	})
	for _, bad := range []string{"", "s-t01000", "s-t0-7", "s-t001000-7", "s-t01000-07", "s-t01000--7", "s-t01000-7 ", "t01000-7", "s-t01000-7.1", "s-t0+1-1"} {
		if m, n, err := ParseSectorID(bad); err == nil {
			t.Errorf("%q is read as %d %d", bad, m, n)
		}
	}
}

func TestGroupsAndHosts(t *testing.T) {
	for text, want := range map[string]string{"1": "group1", "group1": "group1", "farm-a_2": "farm-a_2"} {
		if got, err := ParseGroup(text); got != want || err != nil {
			t.Errorf("%q is read as %q, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "a.b", "A", "*", "a b", strings.Repeat("a", 23), "-1 "} {
		if got, err := ParseGroup(bad); err == nil {
			t.Errorf("%q is read as %q", bad, got)
		}
	}
	if HostName("p1.farm.example") != "p1-farm-example" || len(HostName(strings.Repeat("x", 99))) != 64 {
		t.Error("host names are not made into tokens")
	}
	for name, want := range map[string]bool{DispatcherName("a"): true, DispatcherName(""): true, "dispatchers": false, "p1": false} {
		if IsDispatcher(name) != want {
			t.Errorf("%q: dispatcher %v", name, !want)
		}
	}
	if Actor(DispatcherName("a")) != "dispatcher" || Actor("p1") != "p1" {
		t.Error("actors")
	}
}
