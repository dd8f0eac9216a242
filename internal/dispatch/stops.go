package dispatch

import (
	"context"
	"time"

	"github.com/oklog/ulid/v2"

	"sealfleet/internal/phases"
)

// What was cancelled while it ran may go on running until its host has read that. p6,
// which deletes, and the step's next issue wait until the host says that nothing is left
// of it (phases.Stopped). A host that is away cannot say so: after Options.StopWait, in
// which a host that lives would have had its heartbeat many times over, a dispatcher says
// it in the host's place.
//
// Gap. A host that is cut off for longer than that, and works on meanwhile, may write
// into directories that p6 has emptied. It finds out when it is back, and kills; what it
// wrote shows in `consumer orphans`.

// giveUpWaiting writes stopped for holders that were silent for too long. given says that
// there was one.
func (d *Dispatcher) giveUpWaiting(ctx context.Context, s *sector, state *phases.Sector) (given bool, lost uint64, err error) {
	for i, step := range phases.Steps() {
		t := state.Step(step)
		if t.Stopping() == "" {
			continue
		}
		_, touched, _ := s.view()
		if touched[i].IsZero() { // our own event, which the follower has not seen yet
			touched[i] = time.Now()
		}
		if until := touched[i].Add(d.StopWait); time.Now().Before(until) {
			d.agenda.add(s, until)
			continue
		}
		e := phases.Event{
			V: phases.VersionStops, ID: ulid.Make().String(), Type: phases.Stopped, Group: state.Group, Sector: state.ID, Step: step,
			Issue: t.Issue, Attempt: t.Attempt, ClaimID: t.Stopping(), PrevID: t.LastID, Host: d.actor, At: d.bus.Now().UTC(),
			Note: "its host was silent for " + d.StopWait.String(),
		}
		if lost, err = d.write(ctx, s, state, e, t.LastSeq); err != nil {
			return given, lost, err
		}
		d.Log.Warn("a cancelled phase's host has not said that it stopped; going on without", "group", state.Group, "sector", state.ID,
			"phase", string(step), "host", t.Host, "waited", d.StopWait)
		given = true
	}
	return given, 0, nil
}
