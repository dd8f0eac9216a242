package consume

import (
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"sealfleet/internal/engine"
	"sealfleet/internal/phases"
)

// The server wrote our progress and its answer was lost, as when it dies or comes back: the
// chain's last event is ours and not the one that we know. The phase goes on, and is done.
func TestALostAnswerIsNoLostClaim(t *testing.T) {
	for name, beats := range map[string]bool{"seen by a heartbeat": true, "seen by the outcome": false} {
		t.Run(name, func(t *testing.T) {
			ackWait := 3 * time.Second
			if !beats {
				ackWait = time.Hour
			}
			f := newFleet(t, ackWait)
			g := newGate()
			beat := make(chan error, 1000)
			c := f.consumer("h1", "1:p1", &ledger{do: g.do}, func(c *Consumer) {
				c.hooks.heartbeat = func(_ *job, err error) { beat <- err }
			})
			task := f.issue(group, phases.P1, 7, 1, nil)
			receive(t, g.entered, "the phase to start")
			claim := f.events(1, ofType(phases.Claimed))[0]
			f.append(phases.Event{Type: phases.Progress, Group: group, Sector: task.Sector, Step: phases.P1, Issue: 1, Attempt: 1, ClaimID: claim.ClaimID, Host: "h1", Note: "layer 1/2"})
			if beats {
				// One heartbeat may have read the chain before the progress was there.
				for range 2 {
					if err := receive(t, beat, "a heartbeat"); errors.Is(err, errLost) {
						t.Errorf("a heartbeat: %v", err)
					}
				}
			}
			g.leave <- nil
			f.events(1, ofType(phases.Done))
			c.stop()
			if n := f.tasksLeft(); n != 0 {
				t.Errorf("%d tasks are left", n)
			}
			if got := testutil.ToFloat64(c.metrics.heartbeats.WithLabelValues("lost")); got != 0 {
				t.Errorf("lost metric is %v", got)
			}
		})
	}
}

// The same with the outcome itself: while it is told again, a heartbeat that finds it at the
// chain's end keeps the lease, and neither gives up nor writes progress behind it.
func TestAnOutcomeThatIsWrittenIsNoLostClaim(t *testing.T) {
	f := newFleet(t, 3*time.Second)
	g := newGate()
	beat := make(chan error, 1000)
	var id string // used by the job's goroutine
	c := f.consumer("h1", "1:p1", &ledger{do: g.do}, func(c *Consumer) {
		c.hooks.heartbeat = func(j *job, err error) {
			if id == "" {
				e := j.event(phases.Done)
				e.Result = &phases.Result{Code: "ok"}
				if _, err := f.bus.Append(f.ctx, e, j.lastSeq); err != nil {
					t.Error(err)
				}
				id, j.telling = e.ID, e.ID
				j.note.mu.Lock()
				j.note.started = time.Now().Add(-time.Hour) // so that progress is due
				j.note.mu.Unlock()
				j.note.set(engine.Progress{Step: "layer 2/2", Done: 2, Total: 2})
			}
			beat <- err
		}
	})
	task := f.issue(group, phases.P1, 7, 1, nil)
	receive(t, g.entered, "the phase to start")
	for range 3 {
		if err := receive(t, beat, "a heartbeat"); errors.Is(err, errLost) {
			t.Errorf("a heartbeat: %v", err)
		}
	}
	if last := f.last(phases.Event{Group: group, Sector: task.Sector, Step: phases.P1}); last.Type != phases.Done {
		t.Errorf("behind the outcome: %+v", last)
	}
	if got := testutil.ToFloat64(c.metrics.heartbeats.WithLabelValues("lost")); got != 0 {
		t.Errorf("lost metric is %v", got)
	}
	g.leave <- nil
	c.stop()
}

// The server was so late to answer the first claim that it counted as lost. It landed all the
// same: it is ours, and neither a second claim is made nor somebody else's seen in it.
func TestAClaimThatLandedLateIsOurs(t *testing.T) {
	f := newFleet(t, time.Minute)
	host := f.hostBus("h1")
	task := f.issue(group, phases.P1, 7, 1, nil)
	lease, err := host.Fetch(f.ctx, group, phases.P1, patience)
	if err != nil || lease == nil {
		t.Fatal(lease, err)
	}
	c := New(Config{HostName: "h1", Engine: EngineNoop}, host, &ledger{}, prometheus.NewRegistry(), f.log())
	j := c.job(lease.Task, lease, "mine")
	claim := f.append(phases.Event{Type: phases.Claimed, Group: group, Sector: task.Sector, Step: phases.P1, Issue: 1, Attempt: 1, ClaimID: "mine", Host: "h1"})
	if !j.claim(f.ctx) || j.claimID != "mine" || j.lastID != claim.ID {
		t.Errorf("claim %s after %s, want mine after %s", j.claimID, j.lastID, claim.ID)
	}
	f.events(1, ofType(phases.Claimed))
	if last := f.last(claim); last.ID != claim.ID {
		t.Errorf("behind the claim: %+v", last)
	}
	// Another's is not.
	j = c.job(lease.Task, lease, "other")
	if j.adoptClaim(&claim) {
		t.Error("another claim was taken for ours")
	}
}
