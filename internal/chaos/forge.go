package chaos

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/oklog/ulid/v2"

	"sealfleet/internal/bus"
	"sealfleet/internal/phases"
)

// forge writes what is not true where a host may write: on the chains of phases, without
// compare-and-set, in its own name. It holds no claim, so nothing of it may count.
func (r *run) forge(_ context.Context, f Fault) error {
	const forger = "forger"
	last, ok := r.witness.some(f.Who)
	if !ok {
		return errBusy
	}
	e := phases.Event{
		V: phases.Version, ID: ulid.Make().String(), Group: group, Sector: last.Sector, Step: last.Step, Host: forger, At: time.Now().UTC(),
		Issue: last.Issue, Attempt: last.Attempt, PrevID: last.ID, ClaimID: "forged",
	}
	if !e.Step.IsPhase() {
		e.Step = phases.Phases()[f.Who%6]
	}
	m := &nats.Msg{}
	switch f.Who / 64 % 7 {
	case 0:
		m.Subject, m.Data = bus.EventSubject(e), []byte("\x00 this is no event")
	case 1:
		e.Type, e.Result = phases.Done, &phases.Result{Code: "ok", Outputs: map[string]string{"comm_r": "forged"}}
	case 2:
		e.Type, e.Result = phases.Failed, &phases.Result{Code: "forged", Class: phases.Permanent, Message: "forged"}
	case 3:
		e.Type, e.Issue = phases.Issued, e.Issue+1
	case 4:
		e.Type = phases.Cancelled
	case 5: // somebody else's words again, in the forger's place
		old := last
		old.Host = forger
		e = old
	case 6: // a release to come, of a sector that there is not: nobody may stumble over it
		e.V, e.Type, e.Sector = phases.Newest+97, "reconsidered", phases.SectorID(miner+1, uint64(f.Who))
	}
	if m.Data == nil {
		data, err := e.AppendJSON(nil)
		if err != nil {
			return err
		}
		m.Subject, m.Data = bus.EventSubject(e), data
	}
	return busy(r.forger.PublishMsg(m))
}
