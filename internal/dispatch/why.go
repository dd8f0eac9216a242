package dispatch

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"sealfleet/internal/bus"
	"sealfleet/internal/phases"
)

// NowBlocked and NowDue are words of Wait.State beside those of Now.
const (
	NowBlocked = "blocked" // for other steps of the sector
	NowDue     = "due"     // a dispatcher must act

	NowPaused   = "paused"   // by an operator
	NowStopping = "stopping" // what was cancelled may still run
)

// Wait is one thing that a sector waits for.
type Wait struct {
	Phase phases.Step `json:"phase"`
	State string      `json:"state"` // waiting, delayed, running, on chain, parked, held, blocked, due, paused or stopping
	Since time.Time   `json:"since,omitzero"`
	Until time.Time   `json:"until,omitzero"` // at which it ends by itself; an estimate unless it is delayed
	Host  string      `json:"host,omitempty"`
	Why   string      `json:"why"`
	Mend  string      `json:"mend,omitempty"` // what an operator can do about it
}

// Reasons are all that a sector waits for.
type Reasons struct {
	Row
	Waits []Wait `json:"waits"` // empty: it has ended
}

// farm is what is to be known of all sectors to say why one waits.
type farm struct {
	policy phases.Policy
	all    iter.Seq[*phases.Sector] // each valid until the next
	board  *board
	now    time.Time
	held   *HeldBack // what holds back the sector that is asked about; nil: nothing
}

// Why says what exactly a sector waits for. holdP1 is what the dispatchers have for
// Options.HoldP1.
func Why(ctx context.Context, b *bus.Bus, p phases.Policy, holdP1 int, id string) (*Reasons, error) {
	f := &farm{policy: p, board: newBoard(p, holdP1, 0)}
	all, err := readAll(ctx, b, func(e phases.Event) { f.board.take(e) })
	if err != nil {
		return nil, err
	}
	f.all, f.now = slices.Values(all), b.Now()
	i := slices.IndexFunc(all, func(s *phases.Sector) bool { return s.ID == id })
	if i < 0 {
		return nil, fmt.Errorf("%w: %s", ErrUnknown, id)
	}
	if h, is := HeldSectors(all, p, holdP1)[id]; is {
		f.held = &h
	}
	return f.reasons(ctx, b, all[i])
}

func (f *farm) reasons(ctx context.Context, b *bus.Bus, s *phases.Sector) (*Reasons, error) {
	r := &Reasons{Row: RowOf(s, f.policy, f.now), Waits: f.waits(s)}
	if f.held != nil {
		r.Hold(*f.held)
	}
	for i := range r.Waits {
		w := &r.Waits[i]
		if w.State != NowWaiting {
			continue
		}
		there, err := b.TaskExists(ctx, s.Group, w.Phase, s.ID, s.Step(w.Phase).Issue)
		if err != nil {
			return nil, fmt.Errorf("look for the task of %s: %w", w.Phase, err)
		}
		if ahead := f.ahead(s, w.Phase); !there && ahead >= DefaultWindow/2 {
			w.Why = fmt.Sprintf("%d tasks with earlier deadlines go first; its own follows when it is among the most urgent (RELEASE_WINDOW)", ahead)
			w.Mend = "none if they get on; dispatcher backlog says how many more slots it takes"
		} else if !there {
			w.Why = "its task is missing in the stream " + bus.TasksStream
			w.Mend = "none is needed: a dispatcher publishes it again within SWEEP_EVERY; if it does not, look at a dispatcher's /readyz"
		}
	}
	return r, nil
}

// ahead counts the unclaimed tasks of a phase that are more urgent than a sector's.
func (f *farm) ahead(s *phases.Sector, step phases.Step) (n int) {
	mine := &issue{deadline: urgencyOf(s, step), seq: s.Step(step).IssuedSeq}
	for other := range f.all {
		t := other.Step(step)
		if other.Group == s.Group && t.Status == phases.StatusIssued && moreUrgent(&issue{deadline: urgencyOf(other, step), seq: t.IssuedSeq}, mine) {
			n++
		}
	}
	return n
}

// waits lists what a sector waits for, as far as the log tells.
func (f *farm) waits(s *phases.Sector) []Wait {
	waits := []Wait{}
	if !s.Ended().IsZero() {
		return waits
	}
	for _, step := range phases.Steps() {
		if n, ok := nowOf(s.Step(step), f.policy, f.now); ok {
			waits = append(waits, f.open(s, n))
		}
	}
	if w, ok := f.join(s); ok {
		waits = append(waits, w)
	}
	for _, step := range phases.Steps() {
		if t := s.Step(step); t.Stopping() != "" {
			waits = append(waits, Wait{
				Phase: step, State: NowStopping, Since: t.EndedAt, Host: t.Host, Why: fmt.Sprintf("%s was cancelled, and %s has not said that nothing of it runs any more", step, t.Host),
				Mend: "none: if that host is dead, a dispatcher gives it up after twice ACK_WAIT",
			})
		}
	}
	if s.Paused() {
		waits = append(waits, Wait{Phase: phases.SectorEnd, State: NowPaused, Why: "an operator paused the sector: " + s.PauseReason, Mend: "dispatcher resume " + s.ID + " --reason …"})
	}
	if h := f.held; h != nil {
		return append(waits, Wait{
			Phase: phases.P1, State: NowHeld, Since: s.Submitted(), Why: h.String(),
			Mend: fmt.Sprintf("none if %s gets on; dispatcher backlog says which phase needs more slots; a higher BACKLOG_P1_HOLD lets more in if there is disk for it", h.Behind),
		})
	}
	for _, a := range phases.Decide(s, f.policy) {
		waits = append(waits, due(s, a))
	}
	return waits
}

// open explains a step that is out, or parked.
func (f *farm) open(s *phases.Sector, n Now) Wait {
	t := s.Step(n.Phase)
	w := Wait{Phase: n.Phase, State: n.State, Since: n.Since, Host: n.Host}
	switch n.State {
	case NowRunning:
		w.Why = fmt.Sprintf("%s does attempt %d", n.Host, n.Attempt)
		if n.Percent > 0 || n.Note != "" {
			w.Why += fmt.Sprintf(": %s %.0f%%", n.Note, n.Percent)
		}
		took := f.took(s.Group, n.Phase)
		w.Until, w.Why = f.usual(n.Since, took, w.Why)
	case NowDelayed:
		w.Since, w.Until = t.IssuedAt, t.NotBefore
		w.Why = fmt.Sprintf("attempt %d may start at %s, after the failure of the one before (dispatcher sector %s has it)", n.Attempt, t.NotBefore.Local().Format(time.DateTime), s.ID)
	case NowOnChain:
		w.Why = fmt.Sprintf("the chain has the %s message, and has not answered", n.Phase)
		w.Until, w.Why = f.usual(n.Since, f.took(s.Group, n.Phase), w.Why)
	case NowParked:
		f.parked(s, t, &w)
	case NowWaiting:
		f.waiting(s, &w)
	}
	return w
}

func (f *farm) parked(s *phases.Sector, t phases.StepState, w *Wait) {
	w.Why = fmt.Sprintf("attempt %d on %s failed: %s (%s): %s", t.Attempt, t.Host, t.Result.Code, t.Result.Class, t.Result.Message)
	if err := phases.CheckRedo(s, t.Step); err != nil {
		w.Mend = err.Error()
		return
	}
	w.Mend = fmt.Sprintf(`mend what the message names, then: dispatcher redo %s --phase %s --reason "what was mended"`, s.ID, t.Step)
	if err := phases.CheckCancel(s); err == nil {
		w.Mend += fmt.Sprintf("; or give it up: dispatcher cancel %s --reason … --yes", s.ID)
	}
}

// waiting explains a task that no host has claimed.
func (f *farm) waiting(s *phases.Sector, w *Wait) {
	t := Traffic{Group: s.Group, Phase: w.Phase}
	f.board.meters.fill(&t, f.now)
	before, busy := 0, map[string]int{}
	for other := range f.all {
		if other.Group != s.Group || other.ID == s.ID {
			continue
		}
		n, ok := nowOf(other.Step(w.Phase), f.policy, f.now)
		switch {
		case !ok || !other.Ended().IsZero():
		case n.State == NowRunning:
			busy[n.Host]++
			t.Running++
		case n.State == NowWaiting && n.Since.Before(w.Since):
			before++
		}
	}
	switch {
	case t.Hosts == 0 && t.Running == 0:
		w.Why = fmt.Sprintf("no consumer of %s was seen to do %s", s.Group, w.Phase)
		w.Mend = fmt.Sprintf("start a consumer of %s with %s in its WORKERS; consumer doctor says why one that is there does not take it", s.Group, w.Phase)
	case t.Running >= t.Slots:
		w.Why = fmt.Sprintf("all %s seen in %s are busy (%s); %d wait longer", count(t.Slots, "slot", "slots"), s.Group, hostsOf(busy), before)
		w.Mend = "none if they get on; dispatcher backlog says how many more slots it takes"
	default:
		w.Why = fmt.Sprintf("%d of %s seen in %s are busy (%s), %d wait longer: no host with a free slot has asked",
			t.Running, count(t.Slots, "slot", "slots"), s.Group, cmp.Or(hostsOf(busy), "none"), before)
		w.Mend = fmt.Sprintf("see that the consumers of %s run, and what they say in /readyz and with consumer doctor (disk space, a draining host)", s.Group)
	}
}

// join explains p6, of which one of the two that it waits for is done.
func (f *farm) join(s *phases.Sector) (Wait, bool) {
	state := func(step phases.Step) phases.Status { return s.Step(step).Status }
	if s.Status(f.policy) == phases.StatusCancelled || s.Step(phases.P6).IssuedID != "" ||
		state(phases.P4) != phases.StatusDone && state(phases.P5) != phases.StatusDone {
		return Wait{}, false
	}
	var missing []string
	for _, step := range []phases.Step{phases.P4, phases.P5} {
		if state(step) != phases.StatusDone {
			missing = append(missing, fmt.Sprintf("%s is %s", step, state(step)))
		}
	}
	if !f.policy.CleanBeforeCommit && state(phases.Commit) != phases.StatusDone {
		missing = append(missing, "the proof is not on chain (with CLEAN_BEFORE_COMMIT it would not wait for that)")
	}
	return Wait{Phase: phases.P6, State: NowBlocked, Why: "p6 starts when nothing is missing: " + strings.Join(missing, ", ")}, len(missing) > 0
}

// due explains what a dispatcher should have done.
func due(s *phases.Sector, a phases.Action) Wait {
	since := s.Submitted()
	for _, step := range phases.Steps() {
		if t := s.Step(step).EndedAt; t.After(since) {
			since = t
		}
	}
	what := map[phases.ActionKind]string{
		phases.DoIssue: "issue " + string(a.Step), phases.DoRevoke: "revoke " + string(a.Step), phases.DoFinish: "end the sector",
	}[a.Kind]
	return Wait{
		Phase: a.Step, State: NowDue, Since: since, Why: "a dispatcher must " + what,
		Mend: "none within moments; else see that a dispatcher runs (dispatcher serve), and what its /readyz and its log say",
	}
}

// took lists how long a step of a group took in all sectors that are remembered, sorted.
func (f *farm) took(group string, step phases.Step) []time.Duration {
	var all []time.Duration
	for s := range f.all {
		t := s.Step(step)
		from := t.ClaimedAt
		if step.IsGate() {
			from = t.IssuedAt
		}
		if s.Group == group && t.Status == phases.StatusDone && !from.IsZero() {
			all = append(all, max(t.EndedAt.Sub(from), 0))
		}
	}
	slices.Sort(all)
	return all
}

// usual adds to a text how long a step takes as a rule, and says when it should end.
func (f *farm) usual(since time.Time, took []time.Duration, text string) (time.Time, string) {
	if len(took) == 0 {
		return time.Time{}, text
	}
	p50, p95 := quantile(took, .5), quantile(took, .95)
	text += fmt.Sprintf("; as a rule it takes %s", people(p50))
	if f.now.Sub(since) > p95 {
		return time.Time{}, text + fmt.Sprintf(", and 19 of 20 take less than this one already does (%s)", people(p95))
	}
	return since.Add(p50), text
}

// hostsOf lists hosts with how many each does: h1 2, h2 1.
func hostsOf(busy map[string]int) string {
	var parts []string
	for h, n := range busy {
		parts = append(parts, fmt.Sprint(h, " ", n))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
