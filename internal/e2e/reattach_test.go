package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealfleet/internal/demo"
	"sealfleet/internal/phases"
)

// held is a fleet whose p1 is done by a program that writes its process down and waits at
// a gate before it does the real work.
type held struct {
	*fleet
	dir string
}

const oneSector = "s-t01000-1"

func newHeld(t *testing.T, env ...string) *held {
	t.Helper()
	h := &held{dir: t.TempDir()}
	if err := unix.Mkfifo(h.path("gate"), 0o600); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\necho $$ >> %s\n[ -e %s ] || read line < %s\nexec %s phase\n", h.path("ledger"), h.path("open"), h.path("gate"), filepath.Join(bin, "consumer"))
	if err := os.WriteFile(h.path("engine"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	h.fleet = newFleet(t, append([]string{"ENGINE=p1=exec:" + h.path("engine")}, env...)...)
	return h
}

func (h *held) path(name string) string { return filepath.Join(h.dir, name) }

// begin submits a sector, and returns when its p1 stands at the gate.
func (h *held) begin() (pid int) {
	h.Helper()
	h.run("dispatcher", "submit", "--miner", "1000", "--sector", "1", "--size", "2KiB", "--cc")
	h.wait("p1's claim", func(e phases.Event) bool { return e.Type == phases.Claimed && e.Step == phases.P1 })
	h.until("p1's program has begun", func() bool { return len(h.starts()) == 1 })
	return h.starts()[0]
}

// starts are the processes of p1's programs, in their order.
func (h *held) starts() (pids []int) {
	data, err := os.ReadFile(h.path("ledger"))
	if err != nil {
		return nil
	}
	for _, line := range bytes.Fields(data) {
		pid, err := strconv.Atoi(string(line))
		h.must(err)
		pids = append(pids, pid)
	}
	return pids
}

// until looks again and again at what has no signal of its own: other processes' files.
func (h *held) until(what string, is func() bool) {
	h.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-h.ctx.Done():
			h.Fatal("never happened: ", what)
		}
	}
}

// open lets p1 go on, now and from now on.
func (h *held) open() {
	h.Helper()
	h.must(os.WriteFile(h.path("open"), nil, 0o600))
	h.pass()
}

// pass lets one p1 go on that stands at the gate, or the next that comes to it.
func (h *held) pass() {
	h.Helper()
	f, err := os.OpenFile(h.path("gate"), os.O_RDWR|unix.O_NONBLOCK, 0)
	h.must(err)
	_, err = f.WriteString("\n") // one byte: two readers cannot share it
	h.must(err)
	h.Cleanup(func() { f.Close() }) // not before: the others would read its end
}

func (h *held) kill(p *demo.Process) {
	h.Helper()
	h.must(p.Signal(syscall.SIGKILL))
	<-p.Done()
	h.Forget(p)
}

func (h *held) alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// count returns how many events of p1 there are of a type.
func (h *held) count(kind phases.EventType) (n int) {
	h.Helper()
	events, err := h.bus.History(h.ctx, oneSector)
	h.must(err)
	for _, e := range events {
		if e.Step == phases.P1 && e.Type == kind {
			n++
		}
	}
	return n
}

func (h *held) ranOnce() {
	h.Helper()
	if n := len(h.starts()); n != 1 || h.count(phases.Claimed) != 1 || h.count(phases.Done) != 1 {
		h.Errorf("p1 was started %d times, claimed %d times, done %d times; want once each", n, h.count(phases.Claimed), h.count(phases.Done))
	}
	h.checkOrder(oneSector)
	h.until("the journal is empty", func() bool {
		left, err := filepath.Glob(filepath.Join(h.State(), "consumer-*", "jobs", "*"))
		return err == nil && len(left) == 0
	})
}

// restart starts a consumer of the same name and returns when it says that it took p1 up.
func (h *held) restart(name string) {
	h.Helper()
	h.consumer(name, allSlots)
	h.until("the journal is taken up", func() bool { return strings.Contains(h.Log(name), "going on with a phase of before the restart") })
}

func TestAConsumersPhaseOutlivesItAndIsRejoined(t *testing.T) {
	t.Parallel()
	h := newHeld(t)
	victim := h.consumer("h1", allSlots)
	pid := h.begin()
	h.kill(victim)
	if !h.alive(pid) {
		t.Fatal("p1 died with its consumer")
	}
	h.restart("h1")
	h.open()
	h.finished(1)
	h.ranOnce()
}

func TestAConsumersEndedPhaseIsReportedByTheNext(t *testing.T) {
	t.Parallel()
	h := newHeld(t)
	victim := h.consumer("h1", allSlots)
	pid := h.begin()
	h.kill(victim)
	h.open()
	h.until("p1 has ended, and its outcome lies in the journal", func() bool {
		left, err := filepath.Glob(filepath.Join(h.State(), "consumer-h1", "jobs", "*", "result.json"))
		return err == nil && len(left) == 1 && !h.alive(pid)
	})
	h.restart("h1")
	h.finished(1)
	h.ranOnce()
}

// The server is away for longer than AckWait, and then gives every task in flight out
// again: its holder lives, so nobody takes it over.
func TestAnOutageLongerThanTheLeaseStopsNoJob(t *testing.T) {
	t.Parallel()
	const ackWait = 4 * time.Second // half of it is the grace in which the holder must be back
	h := newHeld(t, "ACK_WAIT="+ackWait.String())
	h.consumer("h1", allSlots)
	h.begin()
	h.consumer("h2", allSlots)
	h.waitReady("h2")
	_, address, _ := strings.Cut(h.Log("d1"), "url=nats://")
	address, _, _ = strings.Cut(address, " ")
	h.kill(h.Process("d1"))
	outage := time.NewTimer(2 * ackWait) // the fault itself
	<-outage.C
	_, err := h.Dispatcher("d1", "SERVER_LISTEN="+address)
	h.must(err)
	h.until("both hosts are back", func() bool {
		return strings.Contains(h.Log("h1"), "NATS is back") && strings.Contains(h.Log("h2"), "NATS is back")
	})
	again := time.NewTimer(2 * ackWait) // what the server gives out again is dealt with meanwhile
	<-again.C
	h.open()
	h.finished(1)
	h.ranOnce()
}

// p6 deletes: it must not begin before the host of a cancelled phase says that it is dead.
func TestCancelKillsAndConfirmsBeforeCleaning(t *testing.T) {
	t.Parallel()
	h := newHeld(t)
	h.consumer("h1", allSlots)
	pid := h.begin()
	h.run("dispatcher", "cancel", oneSector, "--reason", "test", "--yes")
	h.finished(1)
	if h.alive(pid) {
		t.Error("p1 still runs")
	}
	events, err := h.bus.History(h.ctx, oneSector)
	h.must(err)
	var order []string
	for _, e := range events {
		if e.Step == phases.P1 && (e.Type == phases.Cancelled || e.Type == phases.Stopped) || e.Step == phases.P6 && e.Type == phases.Issued {
			order = append(order, fmt.Sprintf("%s %s by %s", e.Step, e.Type, phases.Actor(e.Host)))
		}
	}
	if got := strings.Join(order, ", "); got != "p1 cancelled by dispatcher, p1 stopped by h1, p6 issued by dispatcher" {
		t.Errorf("got: %s", got)
	}
	if l := h.layout(1); exists(l.Cache()) || exists(l.Sealed()) || exists(l.Unsealed()) {
		t.Errorf("left: cache %v, sealed %v, unsealed %v", exists(l.Cache()), exists(l.Sealed()), exists(l.Unsealed()))
	}
}

func TestAnOrphanStopsAfterItsLimitAndIsHandedBack(t *testing.T) {
	t.Parallel()
	h := newHeld(t, "ORPHAN_LIMIT=0s")
	victim := h.consumer("h1", allSlots)
	pid := h.begin()
	h.kill(victim)
	h.until("the orphan stops", func() bool { return !h.alive(pid) })
	h.restart("h1")
	h.open()
	h.finished(1)
	if h.count(phases.Released) != 1 || h.count(phases.Claimed) != 2 || h.count(phases.Failed) != 0 {
		t.Errorf("released %d, claimed %d, failed %d; want 1, 2, 0", h.count(phases.Released), h.count(phases.Claimed), h.count(phases.Failed))
	}
	h.checkOrder(oneSector)
}

// SIGTERM with no time to drain: the phase is stopped, and the chain says at once that
// anybody may have it.
func TestADrainHandsBackAndSpendsNothing(t *testing.T) {
	t.Parallel()
	h := newHeld(t, "DRAIN_TIMEOUT=0s")
	first := h.consumer("h1", allSlots)
	pid := h.begin()
	h.must(first.Stop(patience))
	if h.alive(pid) {
		t.Error("p1 outlived the drain")
	}
	if h.count(phases.Released) != 1 {
		t.Fatal("the chain was not told")
	}
	h.consumer("h2", allSlots)
	h.open()
	h.finished(1)
	if h.count(phases.Claimed) != 2 || h.count(phases.Failed) != 0 || h.count(phases.Issued) != 1 {
		t.Errorf("claimed %d, failed %d, issued %d; want 2, 0, 1", h.count(phases.Claimed), h.count(phases.Failed), h.count(phases.Issued))
	}
	h.checkOrder(oneSector)
}
