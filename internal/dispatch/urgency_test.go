package dispatch

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"sealfleet/internal/chain"
	"sealfleet/internal/phases"
)

// hurry is a chain on which a sector's number says when its precommit is due.
type hurry struct{ chain.Chain }

var hurryBase = time.Now().Add(time.Hour)

func (h hurry) Ticket(ctx context.Context, miner, number uint64) (chain.Ticket, error) {
	t, err := h.Chain.Ticket(ctx, miner, number)
	t.Epoch = chain.Epoch(number)
	return t, err
}

func (hurry) PrecommitBy(_ context.Context, ticket chain.Epoch) (time.Time, error) {
	return hurryBase.Add(time.Duration(ticket) * time.Minute), nil
}

// Of many tasks that wait, one that comes last and is due first is taken among the first;
// nothing is forgotten beyond the window, whichever dispatcher dies.
func TestEarliestDeadlineFirst(t *testing.T) {
	f := newFleet(t)
	const window, patient = 3, 20
	o := impatient("d", hurry{chain.NewDev(instant(), nil, nil)})
	o.Window = window
	_, stop := f.dispatch(o)
	issue := func(number uint64) (id string) {
		id = phases.SectorID(1000, number)
		f.submit(number, 1)
		f.until("p1 of "+id, func(states map[string]*phases.Sector) bool {
			return states[id] != nil && states[id].Step(phases.P1).Status == phases.StatusIssued
		})
		return id
	}
	// One after the other: each that comes is less urgent than those before. If they came in
	// any order, each that is more urgent than the window's last would rightly be published.
	for n := range uint64(patient) {
		issue(100 + n)
	}
	urgent := issue(7) // due before all
	var there int
	for there == 0 || !f.taskThere(urgent) { // published when its issue is in the log
		tasks, _, err := f.bus.Tasks(f.ctx)
		if err != nil {
			t.Fatal(err)
		}
		there = len(tasks)
	}
	if there >= patient/2 {
		t.Errorf("%d tasks are in the stream, want about %d", there, window)
	}
	stop()
	o.Name = "d2"
	f.dispatch(o) // another one goes on
	f.hosts("h1")
	states := f.ended(patient + 1)
	f.onceEach(states)
	var order []*phases.Sector
	for _, s := range states {
		order = append(order, s)
	}
	slices.SortFunc(order, func(a, b *phases.Sector) int {
		return a.Step(phases.P1).ClaimedAt.Compare(b.Step(phases.P1).ClaimedAt)
	})
	at := slices.IndexFunc(order, func(s *phases.Sector) bool { return s.ID == urgent })
	if at >= patient/2 {
		t.Errorf("the most urgent sector's p1 was the %dth that was claimed", at+1)
	}
}

func (f *fleet) taskThere(sector string) bool {
	f.t.Helper()
	there, err := f.bus.TaskExists(f.ctx, group, phases.P1, sector, 1)
	if err != nil {
		f.t.Fatal(err)
	}
	return there
}

// Whatever comes and goes: what is within the window of the true order may be published,
// and whoever enters it is told of.
func TestLinesKeepTheirOrder(t *testing.T) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	const window = 5
	l := newLines(window)
	states, published := map[*sector]*phases.Sector{}, map[*sector]bool{}
	base, seq := time.Unix(1_800_000_000, 0), uint64(0)
	event := func(s *sector, e phases.Event) *phases.Sector {
		seq++
		e.V, e.Seq, e.Group, e.Sector, e.At = 1, seq, group, s.id, base
		if e.Step != phases.SectorEnd {
			e.PrevID, e.Issue, e.Attempt = states[s].Step(e.Step).LastID, 1, 1
		}
		e.ID = phases.SectorID(9, seq)
		if err := states[s].Apply(e); err != nil {
			t.Fatal(err)
		}
		return states[s]
	}
	take := func(s *sector) {
		if entered := l.take(s, states[s], phases.P1, seq); entered != nil {
			published[entered] = true
		}
	}
	for range 2000 {
		if len(states) == 0 || rnd.IntN(100) < 52 {
			s := &sector{id: phases.SectorID(1000, seq)}
			states[s] = phases.NewSector()
			event(s, phases.Event{Type: phases.Submitted, Step: phases.SectorEnd, Host: phases.DispatcherName("d"), Spec: &phases.Spec{Miner: 1000, Number: seq}})
			event(s, phases.Event{Type: phases.Issued, Step: phases.P1, Host: phases.DispatcherName("d"), Inputs: map[string]string{
				phases.InputPrecommitBy: base.Add(time.Duration(rnd.IntN(50)) * time.Minute).UTC().Format(time.RFC3339),
			}})
			if rnd.IntN(2) == 0 { // the follower comes before or after who issued it
				take(s)
			}
			if may, waited := l.may(s, states[s], phases.P1); may {
				published[s] = true
				if waited {
					t.Fatal("it may be published, and had to wait")
				}
			}
			take(s)
			continue
		}
		// A host takes one that is published, any.
		for s := range published {
			event(s, phases.Event{Type: phases.Claimed, Step: phases.P1, Host: "h1", ClaimID: "c"})
			delete(published, s)
			take(s)
			delete(states, s)
			break
		}
		var order []*sector
		for s := range states {
			order = append(order, s)
		}
		slices.SortFunc(order, func(a, b *sector) int {
			pa, pb := states[a].Step(phases.P1), states[b].Step(phases.P1)
			if c := states[a].Deadline().At.Compare(states[b].Deadline().At); c != 0 {
				return c
			}
			return int(pa.IssuedSeq) - int(pb.IssuedSeq)
		})
		for i, s := range order[:min(window, len(order))] {
			if !published[s] {
				t.Fatalf("the %dth of %d is not published", i+1, len(order))
			}
		}
	}
}
