package consume

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"sealfleet/internal/phases"
)

// The server wrote our progress and its answer was lost, as when it dies or comes back: the
// chain's last event is ours and not the one that we know. The phase goes on, and is done.
func TestALostAnswerIsNoLostClaim(t *testing.T) {
	for name, beats := range map[string]bool{"seen by a heartbeat": true, "seen by the outcome": false} {
		t.Run(name, func(t *testing.T) {
			ackWait := 600 * time.Millisecond
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
					if err := receive(t, beat, "a heartbeat"); err != nil {
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
