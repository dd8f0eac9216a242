package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"sealfleet/internal/phases"
)

// What other sealing managers test, under the names that they gave it (lotus: RestartManager,
// RestartWorker, RedoPC1, pc1-batching; curio: OldestFirstAcrossTypes, NoLocalDoubleClaim).

// A manager that dies in the middle of a task and finds exactly one p1 done.
func TestRestartManager(t *testing.T) {
	t.Parallel()
	h := newHeld(t)
	h.consumer("h1", allSlots)
	h.begin()
	_, address, _ := strings.Cut(h.Log("d1"), "url=nats://")
	address, _, _ = strings.Cut(address, " ")
	h.kill(h.Process("d1"))
	h.open() // p1 ends while there is no manager
	h.until("p1 has ended, and its outcome lies in the journal", func() bool {
		left, err := filepath.Glob(filepath.Join(h.State(), "consumer-h1", "jobs", "*", "result.json"))
		return err == nil && len(left) == 1
	})
	_, err := h.Dispatcher("d1", "SERVER_LISTEN="+address)
	h.must(err)
	h.finished(1)
	h.ranOnce()
}

// A worker that restarts, with all that it had running dead, fails its task once; the next
// attempt does it, and nothing is left.
func TestRestartWorker(t *testing.T) {
	t.Parallel()
	h := newHeld(t)
	victim := h.consumer("h1", allSlots)
	pid := h.begin()
	h.kill(victim)
	for _, keeper := range h.keepers() {
		h.must(syscall.Kill(keeper, syscall.SIGKILL))
	}
	_ = syscall.Kill(-pid, syscall.SIGKILL) // it may have followed its keeper
	h.until("p1 is dead", func() bool { return !h.alive(pid) && len(h.keepers()) == 0 })
	h.restart("h1")
	h.open()
	h.finished(1)
	if h.count(phases.Failed) != 1 || h.count(phases.Done) != 1 || h.count(phases.Issued) != 2 || len(h.starts()) != 2 {
		t.Errorf("failed %d, done %d, issued %d, started %d; want 1, 1, 2, 2", h.count(phases.Failed), h.count(phases.Done), h.count(phases.Issued), len(h.starts()))
	}
	h.checkOrder(oneSector)
	h.until("the journal is empty", func() bool {
		left, err := filepath.Glob(filepath.Join(h.State(), "consumer-*", "jobs", "*"))
		return err == nil && len(left) == 0
	})
}

// keepers are the processes of this fleet that do phases.
func (h *held) keepers() (pids []int) {
	procs, err := filepath.Glob("/proc/[0-9]*/environ")
	h.must(err)
	for _, path := range procs {
		env, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(env), "STATE_DIR="+h.State()) {
			continue
		}
		line, err := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if err != nil || !strings.Contains(string(line), "\x00keep\x00") {
			continue
		}
		var pid int
		if _, err := fmt.Sscan(filepath.Base(filepath.Dir(path)), &pid); err == nil && h.alive(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Forced redo runs p1 exactly twice.
func TestRedoPC1(t *testing.T) {
	t.Parallel()
	h := newHeld(t)
	first := h.consumer("h1", "1:p1") // nobody does p2 yet
	h.begin()
	h.open()
	h.wait("p1's first end", func(e phases.Event) bool { return e.Type == phases.Done && e.Step == phases.P1 })
	h.run("dispatcher", "redo", oneSector, "--phase", "p1", "--reason", "the layers look strange")
	n := 0
	h.wait("p1's second end", func(e phases.Event) bool {
		if e.Type == phases.Done && e.Step == phases.P1 {
			n++
		}
		return n == 2
	})
	h.must(first.Stop(patience))
	h.consumer("h2", allSlots)
	h.finished(1)
	if len(h.starts()) != 2 || h.count(phases.Done) != 2 {
		t.Errorf("p1 was started %d times and done %d times; want twice", len(h.starts()), h.count(phases.Done))
	}
	events, err := h.bus.History(h.ctx, oneSector)
	h.must(err)
	done := map[phases.Step]int{}
	audited := false
	for _, e := range events {
		if e.Type == phases.Done {
			done[e.Step]++
		}
		audited = audited || e.Type == phases.Redo && e.Target == phases.P1 && e.Reason == "the layers look strange" && e.Host != ""
	}
	for _, step := range phases.Steps() {
		if step != phases.P1 && done[step] != 1 {
			t.Errorf("%s was done %d times, want once", step, done[step])
		}
	}
	if !audited {
		t.Error("who asked for the redo, and why, is not in the log")
	}
}

// Four queued, two slots: two run, and two wait, from the first to the last. The oldest
// goes first.
func TestFourQueuedTwoSlotsOldestFirst(t *testing.T) {
	t.Parallel()
	h := newHeld(t)
	for n := range 4 {
		h.run("dispatcher", "submit", "--miner", "1000", "--sector", fmt.Sprint(n+1), "--size", "2KiB", "--cc")
		h.wait("its task", func(e phases.Event) bool {
			return e.Type == phases.Issued && e.Step == phases.P1 && e.Sector == phases.SectorID(1000, uint64(n+1))
		})
	}
	h.until("all four are queued", func() bool {
		tasks, _, err := h.bus.Tasks(h.ctx)
		return err == nil && len(tasks) == 4
	})
	h.consumer("h1", "2:p1")
	h.until("two have begun", func() bool { return len(h.starts()) == 2 })
	h.pass() // one alone: were both slots free at once, the next two could begin in either order
	h.until("the third has begun", func() bool { return len(h.starts()) == 3 })
	h.open()
	h.pass() // open lets one through, and who comes later
	h.consumer("h2", "1:p2,p3;2:p4,p5;2:p6")
	h.finished(4)
	var order []string
	running, most := 0, 0
	enough := 0
	h.wait("the last event", func(e phases.Event) bool {
		switch {
		case e.Type == phases.Finished:
			enough++
		case e.Step != phases.P1:
		case e.Type == phases.Claimed:
			order = append(order, e.Sector)
			running++
		case e.Type == phases.Done:
			running--
		}
		most = max(most, running)
		return enough == 4
	})
	if most != 2 {
		t.Errorf("%d p1 ran at once, want 2", most)
	}
	// The two that began together may have come in either order.
	slices.Sort(order[:2])
	if got := strings.Join(order, " "); got != "s-t01000-1 s-t01000-2 s-t01000-3 s-t01000-4" {
		t.Errorf("p1 went to %s", got)
	}
}

// No double claim: many hosts with more slots than there is work, and each phase of each
// sector is claimed by one of them, once.
func TestNoDoubleClaim(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	for n := range 3 {
		f.consumer(fmt.Sprintf("h%d", n+1), allSlots)
	}
	const sectors = 8
	f.run("dispatcher", "submit", "--miner", "1000", "--sector", "1", "--count", fmt.Sprint(sectors), "--size", "2KiB", "--cc")
	f.finished(sectors)
	for n := range uint64(sectors) {
		events, err := f.bus.History(f.ctx, phases.SectorID(1000, n+1))
		f.must(err)
		claims := map[phases.Step]int{}
		for _, e := range events {
			if e.Type == phases.Claimed {
				claims[e.Step]++
			}
		}
		for _, step := range phases.Phases() {
			if claims[step] != 1 {
				t.Errorf("%s of sector %d was claimed %d times", step, n+1, claims[step])
			}
		}
		f.checkOrder(phases.SectorID(1000, n+1))
	}
}
