package dispatch

import (
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"sealfleet/internal/bus"
	"sealfleet/internal/chain"
	"sealfleet/internal/phases"
)

// stuckTask has a host take a task, claim it if asked to, and the server hold it back for an
// hour, as when its clock was set back by that after the host had died.
func (f *fleet) stuckTask(holder *bus.Bus, claim bool) phases.Task {
	f.t.Helper()
	lease, err := holder.Fetch(f.ctx, group, phases.P1, patience)
	if err != nil || lease == nil {
		f.t.Fatalf("%v, %v", lease, err)
	}
	task := lease.Task
	if claim {
		if _, err := holder.Append(f.ctx, phases.Event{
			V: phases.Version, ID: ulid.Make().String(), Type: phases.Claimed, Group: group, Sector: task.Sector, Step: task.Step,
			Issue: task.Issue, Attempt: task.Attempt, ClaimID: "c1", PrevID: task.IssuedID, Host: "holder", At: time.Now().UTC(),
		}, task.IssuedSeq); err != nil {
			f.t.Fatal(err)
		}
	}
	if err := lease.Nak(time.Hour); err != nil {
		f.t.Fatal(err)
	}
	return task
}

func TestATaskThatNobodyGetsIsExchanged(t *testing.T) {
	for name, claimed := range map[string]bool{"its host died before the claim": false, "its host died after the claim": true} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			o := impatient("d", chain.NewDev(instant(), nil, nil))
			o.Silence = 100 * time.Millisecond
			d, _ := f.dispatch(o)
			f.submit(7, 1)
			task := f.stuckTask(f.connect("holder"), claimed)
			again, err := f.connect("heir").Fetch(f.ctx, group, phases.P1, patience)
			if err != nil || again == nil || again.Task.IssuedID != task.IssuedID {
				t.Fatalf("the task did not come again: %+v, %v", again, err)
			}
			for testutil.ToFloat64(d.Metrics.repairs.WithLabelValues("stuck")) < 1 { // counted once it is published
				if !pause(f.ctx, time.Millisecond) {
					t.Fatal("the repair was not counted")
				}
			}
		})
	}
}

func TestATaskWhoseHolderLivesIsLeftAlone(t *testing.T) {
	f := newFleet(t)
	o := impatient("d", chain.NewDev(instant(), nil, nil))
	o.Silence, o.SweepEvery = time.Second, 50*time.Millisecond // the holder has a second to claim
	d, _ := f.dispatch(o)
	f.submit(7, 1)
	holder := f.connect("holder")
	asked := make(chan string, 1000)
	if err := holder.AnswerClaims("holder", func(claim string) bool { asked <- claim; return true }); err != nil {
		t.Fatal(err)
	}
	f.stuckTask(holder, true)
	for range 3 { // by three sweeps
		select {
		case claim := <-asked:
			if claim != "c1" {
				t.Errorf("asked for %s", claim)
			}
		case <-f.ctx.Done():
			t.Fatal("nobody asked the holder")
		}
	}
	if n := testutil.ToFloat64(d.Metrics.repairs.WithLabelValues("stuck")); n != 0 {
		t.Errorf("%v repairs", n)
	}
}
