package dispatch

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"sealfleet/internal/bus"
	"sealfleet/internal/chain"
	"sealfleet/internal/phases"
)

// reason tells the metrics why a sector was looked at.
type reason string

const (
	byEvent reason = "event"     // a delivery: the normal way
	byCare  reason = "aftercare" // what is due now was left by somebody
)

// nakAfter is how soon an event comes again that could not be acted on.
const nakAfter = time.Second

// handle acts on one delivery of the durable that the dispatchers share. It acknowledges
// when everything that follows from the event is in the log and in the task stream.
func (d *Dispatcher) handle(ctx context.Context, m bus.Delivery) {
	e := m.Event
	if m.Again {
		d.Metrics.again.Inc()
	}
	if e.V < 1 || e.V > phases.Newest {
		why := fmt.Sprintf("event version %d, this release knows %d", e.V, phases.Newest)
		if err := m.SetAside(bus.AsideNewer, why); err != nil {
			d.Log.Warn("could not set an event aside", "sequence", e.Seq, "error", err)
		}
		return
	}
	switch e.Type {
	case phases.Issued, phases.Claimed, phases.Progress:
		// Nothing follows from them. If one is not believed, aftercare sees to it.
		d.ack(m)
		return
	}
	began := time.Now()
	err := d.advance(ctx, e.Sector, e.Seq, byEvent)
	if err == nil && e.Type == phases.Finished {
		err = d.archive(ctx, e.Sector)
	}
	if err == nil && (e.Step == phases.P6 || e.Step == phases.SectorEnd) {
		d.startHeld(ctx, e.Group)
		err = ctx.Err()
	}
	if err == nil {
		err = d.at("ack")
	}
	if err != nil {
		if ctx.Err() == nil {
			d.Log.Warn("an event could not be acted on; it comes again", "sector", e.Sector, "phase", string(e.Step), "error", err)
			_ = m.Nak(nakAfter) // if that is lost too, it comes again by itself
		}
		return
	}
	d.ack(m)
	d.Metrics.acted.Observe(time.Since(began).Seconds())
}

func (d *Dispatcher) ack(m bus.Delivery) {
	if err := m.Ack(); err != nil {
		d.Log.Debug("an acknowledgement was lost; the event comes again", "sequence", m.Event.Seq, "error", err)
	}
}

// startHeld starts the sectors of a group for which there is a place now.
func (d *Dispatcher) startHeld(ctx context.Context, group string) {
	for _, s := range d.board.flows.next(group) {
		// FAIL: here a place is free and nobody takes it: every follower has seen that, and
		// looks after the sector.
		if d.at("start held") != nil {
			return
		}
		if err := d.advance(ctx, s.id, 0, byEvent); err != nil && ctx.Err() == nil {
			// The event that made the place is not to blame.
			d.Log.Warn("a sector that was held back could not be started; trying again", "group", group, "sector", s.id, "error", err, "in", d.GatePoll)
			d.lookLater(s, d.GatePoll)
		}
	}
}

// archive lays down the tombstone of a sector that has ended. The log may have it end
// long ago (a deleted durable begins anew): the first tombstone stays.
func (d *Dispatcher) archive(ctx context.Context, sector string) error {
	stone := d.board.justEnded(sector)
	if stone == nil {
		events, err := d.bus.History(ctx, sector)
		if err != nil {
			return fmt.Errorf("archive: %w", err)
		}
		if stone = tombstoneFrom(events, d.Policy); stone == nil {
			return nil // a forgery: the sector goes on
		}
	}
	if err := d.bus.Archive(ctx, sector, *stone); err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	return d.at("archived")
}

// errLost says that another dispatcher wrote first; the state must be read again.
var errLost = errors.New("another dispatcher was first")

// advance does whatever is due for a sector, as of the event upTo at least. Of several
// calls for one sector, one works at a time.
func (d *Dispatcher) advance(ctx context.Context, id string, upTo uint64, why reason) error {
	if err := d.board.await(ctx, upTo); err != nil {
		return err
	}
	s := d.board.get(id)
	if s == nil {
		return nil // it has ended
	}
	s.work.Lock()
	defer s.work.Unlock()
	for try := 0; ; try++ {
		// One's own events too must have come back, or Decide would ask for them again.
		if err := d.board.await(ctx, max(upTo, s.ahead)); err != nil {
			return err
		}
		lost, err := d.carryOut(ctx, s, why)
		if !errors.Is(err, errLost) {
			return err
		}
		d.Metrics.lost.Inc()
		upTo = max(upTo, lost)
		if lost == 0 && !pause(ctx, time.Duration(try+1)*time.Millisecond) {
			return ctx.Err()
		}
		const tries = 10
		if try == tries {
			return fmt.Errorf("sector %s: %w, %d times", id, errLost, tries)
		}
	}
}

// carryOut decides on the sector's present state and does it, until nothing is due.
// errLost comes with the sequence of the event that was first, 0 if it is not known.
func (d *Dispatcher) carryOut(ctx context.Context, s *sector, why reason) (lost uint64, err error) {
	state, _, gone := s.view()
	if gone {
		return 0, nil
	}
	const rounds = 20 // a sector passes eight steps; more rounds would mean that Decide does not settle
	for range rounds {
		if lost, err := d.perform(ctx, s, &state, d.due(s, &state), why); err != nil {
			return lost, err
		}
		if err := d.publishOpen(ctx, s, &state, why); err != nil {
			return 0, err
		}
		passed, lost, err := d.askGates(ctx, s, &state)
		if err != nil {
			return lost, err
		}
		given, lost, err := d.giveUpWaiting(ctx, s, &state)
		if err != nil {
			return lost, err
		}
		if !passed && !given {
			return 0, nil
		}
		why = byEvent // what follows from a gate that has just ended was nobody else's to do
	}
	return 0, fmt.Errorf("sector %s does not settle: %+v", s.id, phases.Decide(&state, d.Policy))
}

// due is what phases.Decide asks for, without a start that is held back.
func (d *Dispatcher) due(s *sector, state *phases.Sector) []phases.Action {
	return slices.DeleteFunc(phases.Decide(state, d.Policy), func(a phases.Action) bool {
		return isStart(a) && state.Step(phases.P1).IssuedID == "" && !d.board.flows.may(s, state.Group)
	})
}

// performed is what became of an action.
type performed struct {
	event     phases.Event // Seq is set once it is in the log
	published bool         // with its task
	lost      uint64       // with errLost
	err       error
}

// perform carries out actions side by side (p4 and p5 need not wait for each other), and
// applies their events to state.
func (d *Dispatcher) perform(ctx context.Context, s *sector, state *phases.Sector, actions []phases.Action, why reason) (lost uint64, err error) {
	all := make([]performed, len(actions))
	var wg sync.WaitGroup
	for i, a := range actions[min(1, len(actions)):] {
		wg.Go(func() { all[i+1] = d.performOne(ctx, s, *state, a, why) })
	}
	if len(actions) > 0 {
		all[0] = d.performOne(ctx, s, *state, actions[0], why)
	}
	wg.Wait()
	slices.SortFunc(all, func(a, b performed) int { return cmp.Compare(a.event.Seq, b.event.Seq) }) // the fold wants the order of the log
	for _, p := range all {
		if p.event.Seq != 0 {
			s.ahead = max(s.ahead, p.event.Seq)
			if state.Apply(p.event) != nil && p.err == nil {
				// Another event came between, such as a cancellation: look again with it.
				p.lost, p.err = p.event.Seq, errLost
			}
		}
		if p.published || p.event.Step.IsGate() && p.err == nil {
			s.published[stepIndex(p.event.Step)] = p.event.ID
		}
		if p.err != nil && (err == nil || errors.Is(err, errLost)) {
			lost, err = max(lost, p.lost), p.err
		}
	}
	return lost, err
}

// performOne appends the event of an action and, if that issues a phase, publishes its
// task. state is a copy.
func (d *Dispatcher) performOne(ctx context.Context, s *sector, state phases.Sector, a phases.Action, why reason) (p performed) {
	now := d.bus.Now()
	// The failure was dated by a host, whose clock may be wrong.
	if latest := now.Add(d.Policy.MaxDelay + d.Policy.MaxDelay/4); a.NotBefore.After(latest) {
		a.NotBefore = latest
	}
	e := a.Event(ulid.Make().String(), d.actor, now.UTC())
	if a.Kind == phases.DoIssue && a.Step == phases.P1 {
		if e.Inputs, p.err = d.ticket(ctx, &state); p.err != nil {
			d.board.flows.back(s, state.Group)
			for _, other := range d.board.flows.next(state.Group) {
				d.lookLater(other, d.GatePoll)
			}
			return p
		}
	}
	// FAIL: here nothing has happened: the event is still due.
	if p.err = d.at("append " + string(a.Kind)); p.err != nil {
		return p
	}
	if e.Seq, p.lost, p.err = d.send(ctx, e, a.ExpectSeq); p.err != nil {
		return p
	}
	p.event = e
	if a.Kind == phases.DoFinish {
		d.bus.Tracer().Ended(state.Group, state.ID, state.Submitted(), e.At, a.Outcome, a.Reason)
	}
	if why == byCare {
		d.Metrics.repairs.WithLabelValues(string(a.Kind)).Inc()
		d.Log.Info("did what another dispatcher left", "sector", e.Sector, "phase", string(a.Step), "what", string(a.Kind))
	}
	// FAIL: here an issue has no task yet: whoever gets the delivery again, or looks
	// after the sector, finds the issue open and publishes its task.
	if p.err = d.at("appended " + string(a.Kind)); p.err != nil || a.Kind != phases.DoIssue || !a.Step.IsPhase() {
		return p
	}
	if a.Step == phases.P6 {
		// p6 deletes. A redo that was written between the decision and the append voids
		// this issue, and only the log's own order can tell: wait until it has come back.
		if p.err = d.board.await(ctx, e.Seq); p.err != nil {
			return p
		}
		var gone bool
		if state, _, gone = s.view(); gone {
			return p
		}
	} else if state.Apply(e) != nil {
		return p // perform finds the same
	}
	if may, _ := d.board.lines.may(s, &state, a.Step); !may {
		return p // there are more urgent ones; the sector is looked at again when its turn comes
	}
	if task, ok := state.TaskFor(a.Step); ok && task.IssuedID == e.ID {
		p.err = d.publish(ctx, task)
		p.published = p.err == nil
	}
	return p
}

// send appends an event. errLost comes with the sequence of the event that was first.
func (d *Dispatcher) send(ctx context.Context, e phases.Event, expect uint64) (seq, lost uint64, err error) {
	seq, err = d.bus.Append(ctx, e, expect)
	var conflict *bus.ConflictError
	if errors.As(err, &conflict) {
		if conflict.Other != nil {
			lost = conflict.Other.Seq
		}
		return 0, lost, errLost
	}
	if err != nil {
		return 0, 0, fmt.Errorf("append %s of %s: %w", e.Type, e.Step, err)
	}
	return seq, 0, nil
}

// write appends an event and applies it to state.
func (d *Dispatcher) write(ctx context.Context, s *sector, state *phases.Sector, e phases.Event, expect uint64) (lost uint64, err error) {
	if e.Seq, lost, err = d.send(ctx, e, expect); err != nil {
		return lost, err
	}
	s.ahead = max(s.ahead, e.Seq)
	if state.Apply(e) != nil {
		return e.Seq, errLost
	}
	return 0, nil
}

// publishOpen publishes the tasks of the open issues that this dispatcher has not
// published yet; that another one did is no harm.
func (d *Dispatcher) publishOpen(ctx context.Context, s *sector, state *phases.Sector, why reason) error {
	for i, step := range phases.Steps() {
		t := state.Step(step)
		if !step.IsPhase() || t.Status != phases.StatusIssued || s.published[i] == t.IssuedID {
			continue
		}
		task, ok := state.TaskFor(step)
		may, waited := d.board.lines.may(s, state, step)
		if !ok || !may {
			continue // revoked, or not yet its turn
		}
		if why == byCare {
			there, err := d.bus.TaskExists(ctx, task.Group, task.Step, task.Sector, task.Issue)
			if err != nil {
				return fmt.Errorf("look for the task of %s: %w", step, err)
			}
			if there {
				s.published[i] = t.IssuedID
				continue
			}
		}
		if err := d.publish(ctx, task); err != nil {
			return err
		}
		s.published[i] = t.IssuedID
		if why == byCare && !waited {
			d.Metrics.repairs.WithLabelValues("task").Inc()
		}
	}
	return nil
}

func (d *Dispatcher) publish(ctx context.Context, task phases.Task) error {
	if err := d.bus.PublishTask(ctx, task); err != nil {
		return fmt.Errorf("publish the task of %s: %w", task.Step, err)
	}
	d.Metrics.issued.WithLabelValues(task.Group, string(task.Step)).Inc()
	d.bus.Tracer().Issued(task, d.bus.Now())
	// FAIL: here the delivery is not acknowledged: it comes again, and finds all done.
	return d.at("published")
}

// ticket returns the inputs of p1's next issue: those of the last one as long as the
// chain would take them, because p1's finished layers hang on its ticket; else new ones.
func (d *Dispatcher) ticket(ctx context.Context, state *phases.Sector) (map[string]string, error) {
	last := state.Step(phases.P1).Inputs
	if epoch, err := strconv.ParseInt(last[keyTicketEpoch], 10, 64); err == nil && last[keyTicket] != "" {
		usable, err := d.Chain.TicketUsable(ctx, chain.Epoch(epoch))
		if err != nil {
			return nil, fmt.Errorf("ask the chain about a ticket: %w", err)
		}
		if usable {
			return last, nil
		}
	}
	t, err := d.Chain.Ticket(ctx, state.Spec.Miner, state.Spec.Number)
	if err != nil {
		return nil, fmt.Errorf("draw a ticket: %w", err)
	}
	inputs := map[string]string{
		keyTicket:      hex.EncodeToString(t.Value[:]),
		keyTicketEpoch: strconv.FormatInt(int64(t.Epoch), 10),
	}
	by, err := d.Chain.PrecommitBy(ctx, t.Epoch)
	if err != nil {
		return nil, fmt.Errorf("ask the chain how long a ticket is good: %w", err)
	}
	if !by.IsZero() {
		inputs[keyPrecommitBy] = by.UTC().Format(time.RFC3339)
	}
	return inputs, nil
}
