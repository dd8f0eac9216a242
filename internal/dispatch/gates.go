package dispatch

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/oklog/ulid/v2"

	"sealfleet/internal/chain"
	"sealfleet/internal/phases"
)

// Keys of inputs and outputs that the gates read and write.
const (
	keyTicket           = "ticket"
	keyTicketEpoch      = "ticket_epoch"
	keyCommR            = "comm_r"
	keyCommD            = "comm_d"
	keySeed             = "seed"
	keySeedEpoch        = "seed_epoch"
	keyProof            = "proof"
	keyPrecommitMessage = "precommit_message"
	keyPrecommitEpoch   = "precommit_epoch"
	keyPrecommitBy      = phases.InputPrecommitBy
	keyCommitBy         = phases.InputCommitBy
	keyCommitMessage    = "commit_message"
	keyCommitEpoch      = "commit_epoch"
	keyCommitNote       = "commit_note"
)

// codeBadInput is the failure of a gate whose phases gave it nothing usable.
const codeBadInput = "bad_input"

// gateWaits says when the open gates are to be asked about, and for which issue.
type gateWaits map[phases.Step]gateWait

type gateWait struct {
	issuedID string
	until    time.Time
}

// askGates asks the chain about the sector's open gates whose time has come. passed says
// that one of them ended, so that more may be due. A gate needs no claim: the chain's
// answers are the same for whoever asks, and the log takes the first.
func (d *Dispatcher) askGates(ctx context.Context, s *sector, state *phases.Sector) (passed bool, lost uint64, err error) {
	for _, step := range phases.Steps() {
		t := state.Step(step)
		if !step.IsGate() || t.Status != phases.StatusIssued {
			continue
		}
		task, ok := state.TaskFor(step)
		if !ok {
			continue
		}
		now := d.bus.Now()
		if until := d.gateTime(s, t); until.After(now) {
			d.lookAt(s, until)
			continue
		}
		out, err := d.ask(ctx, task, t)
		var commitBy time.Time
		if err == nil && out.State == chain.Landed && step == phases.Precommit {
			commitBy, err = d.Chain.CommitBy(ctx, out.Epoch)
		}
		if err != nil || out.State == chain.Pending {
			d.waitForGate(s, t, out, err, now)
			continue
		}
		// FAIL: here the chain has spoken and nobody wrote it down: it will say it again.
		if err := d.at("asked " + string(step)); err != nil {
			return false, 0, err
		}
		e := gateEvent(task, t, out)
		e.ID, e.Host, e.At = ulid.Make().String(), d.actor, d.bus.Now().UTC()
		if !commitBy.IsZero() {
			e.Result.Outputs[keyCommitBy] = commitBy.UTC().Format(time.RFC3339)
		}
		e.Result.Seconds = max(e.At.Sub(t.IssuedAt).Seconds(), 0)
		if lost, err := d.write(ctx, s, state, e, t.LastSeq); err != nil {
			return false, lost, err
		}
		passed = true
		d.bus.Tracer().Gate(task, t.IssuedAt, e.At, e.Result)
		if out.State == chain.Refused {
			d.Log.Warn("the chain refused a message", "group", task.Group, "sector", s.id, "phase", string(step), "code", out.Code, "reason", out.Reason)
		}
		if err := d.at("wrote " + string(step)); err != nil {
			return false, 0, err
		}
	}
	return passed, 0, nil
}

// gateTime is when to ask about an open gate: not before its time, and not before the
// chain said.
func (d *Dispatcher) gateTime(s *sector, t phases.StepState) time.Time {
	until := t.NotBefore
	if w := s.gate[t.Step]; w.issuedID == t.IssuedID && w.until.After(until) {
		until = w.until
	}
	return until
}

func (d *Dispatcher) waitForGate(s *sector, t phases.StepState, out chain.Outcome, err error, now time.Time) {
	until := out.Ready
	if err != nil || !until.After(now) {
		until = now.Add(d.GatePoll)
	}
	if err != nil {
		d.Metrics.gateErrors.WithLabelValues(string(t.Step)).Inc()
		d.Log.Warn("the chain could not be asked; trying again", "sector", s.id, "phase", string(t.Step), "error", err, "in", d.GatePoll)
	}
	if s.published[stepIndex(t.Step)] != t.IssuedID {
		until = until.Add(d.Grace + rand.N(d.Grace+1)) // whoever opened the gate goes first
	}
	if s.gate == nil {
		s.gate = gateWaits{}
	}
	s.gate[t.Step] = gateWait{t.IssuedID, until}
	d.lookAt(s, until)
}

// ask puts the question of a gate to the chain.
func (d *Dispatcher) ask(ctx context.Context, task phases.Task, t phases.StepState) (chain.Outcome, error) {
	const within = 20 * time.Second
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	in := reader{task: task}
	r := chain.PrecommitRequest{
		Sector: task.Sector, Issue: task.Issue, Since: t.IssuedAt,
		Miner: task.Spec.Miner, Number: task.Spec.Number, ProofType: task.Spec.ProofType,
		CommR: in.hash(keyCommR), CommD: in.hash(keyCommD),
		Ticket: chain.Ticket{Value: in.hash(keyTicket), Epoch: in.epoch(keyTicketEpoch)},
	}
	if t.NotBefore.After(r.Since) {
		r.Since = t.NotBefore
	}
	if task.Step == phases.Precommit {
		if in.err != nil {
			return in.refused(), nil
		}
		return d.Chain.Precommit(ctx, r)
	}
	c := chain.CommitRequest{PrecommitRequest: r, Seed: in.hash(keySeed), SeedEpoch: in.epoch(keySeedEpoch), Proof: in.bytes(keyProof)}
	if task.Inputs[keyPrecommitEpoch] != "" {
		c.Landed = in.epoch(keyPrecommitEpoch)
	}
	if in.err != nil {
		return in.refused(), nil
	}
	return d.Chain.Commit(ctx, c)
}

// gateEvent is the event that says how a gate ended.
func gateEvent(task phases.Task, t phases.StepState, out chain.Outcome) phases.Event {
	e := phases.Event{
		V: phases.Version, Type: phases.Done, Group: task.Group, Sector: task.Sector, Step: task.Step,
		Issue: task.Issue, Attempt: task.Attempt, PrevID: t.LastID,
	}
	if out.State == chain.Refused {
		e.Type = phases.Failed
		e.Result = &phases.Result{Code: out.Code, Class: out.Class, Message: out.Reason}
		if phases.FallsBack(e.Step, e.Result) {
			e.V = phases.VersionStops
		}
		return e
	}
	epoch := strconv.FormatInt(int64(out.Epoch), 10)
	e.Result = &phases.Result{Code: "ok", Message: out.Note}
	if task.Step == phases.Precommit {
		e.Result.Outputs = map[string]string{
			keyPrecommitMessage: out.Message, keyPrecommitEpoch: epoch,
			keySeed: hex.EncodeToString(out.Seed[:]), keySeedEpoch: strconv.FormatInt(int64(out.SeedEpoch), 10),
		}
		return e
	}
	e.Result.Outputs = map[string]string{keyCommitMessage: out.Message, keyCommitEpoch: epoch}
	if out.Note != "" {
		e.Result.Outputs[keyCommitNote] = out.Note
	}
	return e
}

// reader reads a task's inputs; the first fault stays.
type reader struct {
	task phases.Task
	err  error
}

func (r *reader) fail(key string, err error) {
	if r.err == nil {
		r.err = fmt.Errorf("input %s of %s is %q: %w", key, r.task.Step, r.task.Inputs[key], err)
	}
}

func (r *reader) bytes(key string) []byte {
	b, err := hex.DecodeString(r.task.Inputs[key])
	if err != nil {
		r.fail(key, err)
	}
	return b
}

func (r *reader) hash(key string) (h [32]byte) {
	b := r.bytes(key)
	if len(b) != len(h) {
		r.fail(key, errors.New("want 64 hex digits"))
		return h
	}
	return [32]byte(b)
}

func (r *reader) epoch(key string) chain.Epoch {
	n, err := strconv.ParseInt(r.task.Inputs[key], 10, 64)
	if err != nil {
		r.fail(key, errors.New("want an epoch"))
	}
	return chain.Epoch(n)
}

// refused is the outcome of a question that could not be put.
func (r *reader) refused() chain.Outcome {
	return chain.Outcome{
		State: chain.Refused, Code: codeBadInput, Class: phases.Permanent,
		Reason: r.err.Error() + " (mend: redo the phase that made it)",
	}
}
