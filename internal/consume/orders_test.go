package consume

import (
	"testing"
	"time"

	"sealfleet/internal/bus"
	"sealfleet/internal/phases"
)

// What the chain would not take is not worked for.
func TestATaskWhoseTimeIsUpIsNotStarted(t *testing.T) {
	f := newFleet(t, time.Minute)
	work := &ledger{}
	f.consumer("h1", "1:p1,p2,p3,p4,p5", work, nil)
	past, future := time.Now().Add(-time.Minute).UTC().Format(time.RFC3339), time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	f.issue(group, phases.P2, 1, 1, map[string]string{phases.InputPrecommitBy: past})
	f.issue(group, phases.P4, 2, 1, map[string]string{phases.InputPrecommitBy: past, phases.InputCommitBy: past})
	f.issue(group, phases.P3, 3, 1, map[string]string{phases.InputPrecommitBy: past, phases.InputCommitBy: future})
	f.issue(group, phases.P5, 4, 1, map[string]string{phases.InputPrecommitBy: past, phases.InputCommitBy: past})
	ends := f.events(4, ofType(phases.Done, phases.Failed))
	for _, e := range ends {
		ran := work.count(e.Sector, e.Step)
		switch e.Step {
		case phases.P2:
			if e.Type != phases.Failed || e.Result.Code != phases.CodeTicketExpired || !phases.FallsBack(e.Step, e.Result) || e.V != phases.VersionStops || ran != 0 {
				t.Errorf("p2: ran %d times, %+v", ran, e.Result)
			}
		case phases.P4:
			if e.Type != phases.Failed || e.Result.Code != phases.CodeCommitExpired || e.Result.Class != phases.Permanent || ran != 0 {
				t.Errorf("p4: ran %d times, %+v", ran, e.Result)
			}
		default: // in time, or without a deadline
			if e.Type != phases.Done || ran != 1 {
				t.Errorf("%s: ran %d times, %+v", e.Step, ran, e.Result)
			}
		}
	}
}

// An operator's drain and pause hold from the moment they are set, also for a consumer that
// starts later; what runs goes on.
func TestDrainAndPauseOverTheBus(t *testing.T) {
	f := newFleet(t, time.Minute)
	set := func(key string, on bool) {
		t.Helper()
		if _, err := f.bus.SetControl(f.ctx, bus.Control{Key: key, On: on, By: "test", Reason: "disks"}); err != nil {
			t.Fatal(err)
		}
	}
	g := newGate()
	work := &ledger{do: g.do}
	c := f.consumer("h1", "2:p1;2:p2", work, nil)
	f.issue(group, phases.P1, 1, 1, nil)
	receive(t, g.entered, "the phase before the drain")
	set("drain.h1", true)
	f.eventually("the host drains", func() bool { return c.holdsBack(group, phases.P1) && c.board.draining.Load() })
	set("pause.group1.p2", true)
	f.issue(group, phases.P1, 2, 1, nil)
	f.issue(group, phases.P2, 3, 1, nil)
	f.issue(group, phases.P2, 4, 1, nil)
	g.leave <- nil
	f.events(1, ofType(phases.Done))

	other := f.consumer("h2", "2:p1;2:p2", work, nil) // not drained, but p2 is paused
	if r := receive(t, g.entered, "the other host's phase"); r.Phase != phases.P1 || r.Number != 2 {
		t.Fatalf("%s of %d was begun", r.Phase, r.Number)
	}
	g.leave <- nil
	f.events(2, ofType(phases.Done))
	if !other.holdsBack(group, phases.P2) || other.holdsBack(group, phases.P1) {
		t.Error("the pause did not reach a consumer that came later")
	}
	set("pause.group1.p2", false)
	for range 2 {
		if r := receive(t, g.entered, "a phase after the pause"); r.Phase != phases.P2 {
			t.Fatalf("%s of %d was begun", r.Phase, r.Number)
		}
		g.leave <- nil
	}
	f.events(4, ofType(phases.Done))
	if n := len(f.events(4, ofType(phases.Claimed))); n != 4 {
		t.Errorf("%d claims", n)
	}
	for _, e := range f.events(4, ofType(phases.Claimed))[1:] {
		if e.Host != "h2" {
			t.Errorf("%s of %s was claimed by %s, which drains", e.Step, e.Sector, e.Host)
		}
	}
	set("drain.h1", false)
	f.eventually("the host takes tasks again", func() bool { return !c.holdsBack(group, phases.P1) })
}
