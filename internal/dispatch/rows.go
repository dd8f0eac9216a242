package dispatch

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"sealfleet/internal/bus"
	"sealfleet/internal/phases"
)

// Words for where an open step stands, as people see them: waiting is told apart from
// running.
const (
	NowWaiting = "waiting"  // for a host with a free slot
	NowDelayed = "delayed"  // for the time of its next attempt
	NowRunning = "running"  // on Host
	NowOnChain = "on chain" // a gate: the chain has the message
	NowParked  = "parked"   // for an operator
	NowHeld    = "held"     // not started, until others of its group are cleaned
)

// Now is a step that a sector is at.
type Now struct {
	Phase   phases.Step `json:"phase"`
	State   string      `json:"state"`
	Host    string      `json:"host,omitempty"`
	Attempt int         `json:"attempt,omitempty"`
	Since   time.Time   `json:"since,omitzero"`
	Note    string      `json:"note,omitempty"` // how far it is, or why it is parked
	Percent float64     `json:"percent,omitempty"`
}

// Row is one sector as lists show it.
type Row struct {
	Sector      string        `json:"sector"`
	Group       string        `json:"group"`
	Miner       uint64        `json:"miner"`
	Number      uint64        `json:"number"`
	ProofType   int           `json:"proof_type"`
	Size        string        `json:"size"`
	State       phases.Status `json:"state"`
	Now         []Now         `json:"now"`
	Reason      string        `json:"reason,omitempty"`
	SubmittedAt time.Time     `json:"submitted_at"`
	EndedAt     time.Time     `json:"ended_at,omitzero"`
	Paused      bool          `json:"paused,omitempty"`
	DeadlineAt  time.Time     `json:"deadline_at,omitzero"` // the chain's next one
}

// RowOf makes the row of a sector as of a time. Lists, the history and the metrics all
// take it from the same fold.
func RowOf(s *phases.Sector, p phases.Policy, at time.Time) Row {
	r := Row{
		Sector: s.ID, Group: s.Group, Miner: s.Spec.Miner, Number: s.Spec.Number, ProofType: s.Spec.ProofType, Size: phases.SizeName(s.Spec.ProofType),
		State: s.Status(p), Reason: s.Reason, SubmittedAt: s.Submitted(), EndedAt: s.Ended(), Now: []Now{},
	}
	if !s.Ended().IsZero() {
		return r
	}
	r.Paused, r.DeadlineAt = s.Paused(), s.Deadline().At
	if r.Paused {
		r.Reason = "paused: " + s.PauseReason
	}
	for _, step := range phases.Steps() {
		if n, ok := nowOf(s.Step(step), p, at); ok {
			r.Now = append(r.Now, n)
			if n.State == NowParked && r.Reason == "" {
				r.Reason = fmt.Sprintf("%s: %s", n.Phase, n.Note)
			}
		}
	}
	return r
}

// Hold marks the row of a sector that is held back.
func (r *Row) Hold(h HeldBack) { r.hold(h.String()) }

func (r *Row) hold(why string) {
	r.Now = append(r.Now, Now{Phase: phases.P1, State: NowHeld, Since: r.SubmittedAt, Note: why})
	if r.Reason == "" {
		r.Reason = why
	}
}

func (r *Row) clone() *Row {
	c := *r
	c.Now = slices.Clone(r.Now)
	return &c
}

func nowOf(t phases.StepState, p phases.Policy, at time.Time) (Now, bool) {
	n := Now{Phase: t.Step, Attempt: t.Attempt, Since: t.IssuedAt}
	switch {
	case t.Status == phases.StatusRunning:
		n.State, n.Host, n.Since, n.Note, n.Percent = NowRunning, t.Host, t.ClaimedAt, t.Note, 100*t.Fraction
	case t.Status == phases.StatusIssued && t.NotBefore.After(at):
		n.State = NowDelayed
	case t.Status == phases.StatusIssued && t.Step.IsGate():
		n.State = NowOnChain
	case t.Status == phases.StatusIssued:
		n.State = NowWaiting
		if t.NotBefore.After(n.Since) {
			n.Since = t.NotBefore
		}
	case t.Parked(p):
		n.State, n.Host, n.Since, n.Note = NowParked, t.Host, t.EndedAt, t.Result.Message
	default:
		return n, false
	}
	return n, true
}

// Filter says which sectors a list shows; empty fields let everything through.
type Filter struct {
	Groups []string
	States []string // of the sector (sealing, parked, …) or of where it is now (waiting, running, …)
	Phases []phases.Step
}

// Has tells whether a row passes the filter.
func (f *Filter) Has(r *Row) bool {
	if len(f.Groups) > 0 && !slices.Contains(f.Groups, r.Group) {
		return false
	}
	if len(f.States) > 0 && !slices.ContainsFunc(f.States, func(want string) bool {
		return want == string(r.State) || want == NowPaused && r.Paused || slices.ContainsFunc(r.Now, func(n Now) bool {
			return want == strings.ReplaceAll(n.State, " ", "-") || want == n.State
		})
	}) {
		return false
	}
	return len(f.Phases) == 0 || slices.ContainsFunc(r.Now, func(n Now) bool { return slices.Contains(f.Phases, n.Phase) })
}

// States lists the words that Filter.States takes.
func States() []string {
	return []string{
		string(phases.StatusSealing), string(phases.StatusParked), string(phases.StatusFailed),
		string(phases.StatusCancelled), string(phases.StatusFinished),
		NowWaiting, NowDelayed, NowRunning, "on-chain", NowHeld, NowPaused,
	}
}

// List reads all sectors from the log, in the order of miner and number. holdP1 is what
// the dispatchers have for Options.HoldP1.
func List(ctx context.Context, b *bus.Bus, p phases.Policy, holdP1 int, f Filter) ([]Row, error) {
	all, err := readAll(ctx, b, nil)
	if err != nil {
		return nil, err
	}
	held, now := HeldSectors(all, p, holdP1), b.Now()
	rows := []Row{}
	for _, s := range all {
		r := RowOf(s, p, now)
		if h, is := held[s.ID]; is {
			r.Hold(h)
		}
		if f.Has(&r) {
			rows = append(rows, r)
		}
	}
	slices.SortFunc(rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.Miner, b.Miner), cmp.Compare(a.Number, b.Number))
	})
	return rows, nil
}

// readAll reads the state of all sectors from the log, in the order of their submission.
// also, if it is not nil, is called with every event.
func readAll(ctx context.Context, b *bus.Bus, also func(phases.Event)) ([]*phases.Sector, error) {
	sectors := map[string]*phases.Sector{}
	var all []*phases.Sector
	_, err := b.Replay(ctx, func(e phases.Event) error {
		if also != nil {
			also(e)
		}
		s := sectors[e.Sector]
		if s == nil {
			s = phases.NewSector()
			sectors[e.Sector] = s
		}
		known := s.Known()
		_ = s.Apply(e) // what is not believed changes nothing
		if !known && s.Known() {
			all = append(all, s)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the event log: %w", err)
	}
	return all, nil
}
