package dispatch

import (
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"sealfleet/internal/phases"
)

// Detail is one sector with its history. Its JSON is a contract.
type Detail struct {
	Row
	Spec      phases.Spec       `json:"spec"`
	Steps     []StepView        `json:"steps"` // in the order in which a sector passes them
	Attempts  []phases.Attempt  `json:"attempts"`
	Gates     []GateView        `json:"gates"`
	Deadlines []DeadlineView    `json:"deadlines"`
	Outputs   map[string]string `json:"outputs"` // of the steps that are done, merged; without the proof's bytes and the receipt
	Proof     ProofView         `json:"proof"`
	Receipt   json.RawMessage   `json:"receipt"`  // p5's; null before it
	Freed     int64             `json:"freed"`    // bytes, by p6
	Operator  []Said            `json:"operator"` // what operators did
	Doubted   []string          `json:"doubted"`  // events that are not believed
}

// StepView is where a step stands.
type StepView struct {
	Phase    phases.Step   `json:"phase"`
	Status   phases.Status `json:"status"`
	Parked   bool          `json:"parked,omitempty"`
	Issue    int           `json:"issue,omitempty"`
	Attempt  int           `json:"attempt,omitempty"`
	Host     string        `json:"host,omitempty"`
	Stopping bool          `json:"stopping,omitempty"` // was cancelled and may still run
}

// GateView is a wait for the chain.
type GateView struct {
	Phase    phases.Step `json:"phase"`
	State    string      `json:"state"` // waiting, delayed, on chain, landed, refused or skipped
	OpenedAt time.Time   `json:"opened_at,omitzero"`
	EndedAt  time.Time   `json:"ended_at,omitzero"`
	Message  string      `json:"message_id,omitempty"`
	Epoch    string      `json:"epoch,omitempty"`
	Note     string      `json:"note,omitempty"`
}

// DeadlineView is a deadline of the chain.
type DeadlineView struct {
	Name string    `json:"name"` // precommit_by or commit_by
	At   time.Time `json:"at"`
	Met  bool      `json:"met"` // what it is for is on chain
}

// ProofView is what p4 made.
type ProofView struct {
	Snark   string  `json:"snark,omitempty"` // "groth16", "none: …", or empty before p4
	Bytes   int     `json:"bytes,omitempty"`
	SHA256  string  `json:"sha256,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
}

// Said is what an operator did to a sector.
type Said struct {
	At     time.Time        `json:"at"`
	Type   phases.EventType `json:"type"`
	By     string           `json:"by"`
	Target phases.Step      `json:"target,omitempty"`
	Reason string           `json:"reason,omitempty"`
}

// DetailOf makes a sector's detail from its events in the order of the log.
func DetailOf(s *phases.Sector, events []phases.Event, p phases.Policy, now time.Time) *Detail {
	attempts, rejected := phases.Attempts(events)
	d := &Detail{
		Row: RowOf(s, p, now), Spec: s.Spec, Steps: []StepView{}, Attempts: attempts, Gates: []GateView{}, Deadlines: []DeadlineView{},
		Outputs: map[string]string{}, Operator: []Said{}, Doubted: []string{},
	}
	if attempts == nil {
		d.Attempts = []phases.Attempt{}
	}
	for _, a := range attempts {
		if a.Status == phases.StatusDone && a.Result != nil {
			d.take(a)
		}
	}
	for _, step := range phases.Steps() {
		t := s.Step(step)
		d.Steps = append(d.Steps, StepView{
			Phase: step, Status: t.Status, Parked: s.Ended().IsZero() && t.Parked(p), Issue: t.Issue, Attempt: t.Attempt, Host: t.Host, Stopping: t.Stopping() != "",
		})
		if step.IsGate() {
			d.Gates = append(d.Gates, d.gate(t, attempts, now))
		}
	}
	d.deadlines(s, attempts)
	for _, e := range events {
		if e.Step == phases.SectorEnd && slices.Contains([]phases.EventType{phases.Submitted, phases.Redo, phases.Cancelled, phases.Paused, phases.Resumed}, e.Type) {
			d.Operator = append(d.Operator, Said{e.At, e.Type, e.Host, e.Target, e.Reason})
		}
	}
	for _, r := range rejected {
		d.Doubted = append(d.Doubted, r.Error())
	}
	return d
}

func (d *Detail) take(a phases.Attempt) {
	for k, v := range a.Result.Outputs {
		switch k {
		case "proof":
			d.Proof.Bytes = len(v) / 2
		case "receipt":
			if json.Valid([]byte(v)) {
				d.Receipt = json.RawMessage(v)
			}
		default:
			d.Outputs[k] = v
		}
	}
	switch a.Step {
	case phases.P4:
		d.Proof.Snark, d.Proof.SHA256, d.Proof.Seconds = d.Outputs["snark"], d.Outputs["proof_sha256"], a.Result.Seconds
	case phases.P6:
		d.Freed = a.Result.Bytes
	}
}

func (d *Detail) gate(t phases.StepState, attempts []phases.Attempt, now time.Time) GateView {
	g := GateView{Phase: t.Step, State: "waiting", Message: d.Outputs[string(t.Step)+"_message"], Epoch: d.Outputs[string(t.Step)+"_epoch"]}
	for _, a := range attempts {
		if a.Step == t.Step {
			g.OpenedAt, g.EndedAt = a.IssuedAt, a.EndedAt
			if a.Result != nil {
				g.Note = a.Result.Message
			}
		}
	}
	switch t.Status {
	case phases.StatusIssued:
		g.State = NowOnChain
		if t.NotBefore.After(now) {
			g.State = NowDelayed
		}
	case phases.StatusDone:
		g.State = "landed"
	case phases.StatusFailed:
		g.State = "refused"
	case phases.StatusSkipped:
		g.State = "skipped"
	}
	return g
}

// deadlines are those of the ticket that counts, and of the proof.
func (d *Detail) deadlines(s *phases.Sector, attempts []phases.Attempt) {
	landed := func(step phases.Step) bool {
		return slices.ContainsFunc(attempts, func(a phases.Attempt) bool { return a.Step == step && a.Status == phases.StatusDone })
	}
	if at := phases.DeadlineOf(phases.P1, s.Step(phases.P1).Inputs).At; !at.IsZero() {
		d.Deadlines = append(d.Deadlines, DeadlineView{phases.InputPrecommitBy, at, landed(phases.Precommit)})
	}
	if at := phases.DeadlineOf(phases.P4, d.Outputs).At; !at.IsZero() {
		d.Deadlines = append(d.Deadlines, DeadlineView{phases.InputCommitBy, at, landed(phases.Commit)})
	}
}

// Legacy is a phase of a sector as the old system's table of tasks had it: a row each, with
// is_finished and result_status, and setting result_status from 2 to 1 to have it done again.
type Legacy struct {
	Sector       string      `json:"sector"`
	Group        string      `json:"group"`
	Phase        phases.Step `json:"phase"`
	PhaseName    string      `json:"phase_name"` // PreCommitPhase1
	TaskType     int         `json:"task_type"`  // 1, 2, 4, 8, 16, 32
	IsTaken      int         `json:"is_taken"`
	IsFinished   int         `json:"is_finished"`
	ResultStatus int         `json:"result_status"` // 0 fine, 1 not ended, 2 failed; done is is_finished 1 with result_status 0
	Host         string      `json:"host,omitempty"`
	Reason       string      `json:"reason,omitempty"`
}

// LegacyFilter says which rows are wanted; nil fields let everything through.
type LegacyFilter struct {
	Groups                            []string
	Phases                            []phases.Step
	Sector                            string
	ResultStatus, IsFinished, IsTaken *int
}

// LegacyOf makes the rows of a sector.
func LegacyOf(s *phases.Sector, p phases.Policy) []Legacy {
	rows := []Legacy{}
	for _, step := range phases.Phases() {
		t := s.Step(step)
		l := Legacy{Sector: s.ID, Group: s.Group, Phase: step, PhaseName: step.OldName(), TaskType: step.Bit(), ResultStatus: 1, Host: t.Host}
		switch t.Status {
		case phases.StatusDone:
			l.IsTaken, l.IsFinished, l.ResultStatus = 1, 1, 0
		case phases.StatusRunning:
			l.IsTaken = 1
		case phases.StatusFailed:
			l.IsTaken, l.ResultStatus = 1, 2
			if t.Result != nil {
				l.Reason = t.Result.Message
			}
			if t.Parked(p) {
				l.IsFinished = 1
			}
		case phases.StatusSkipped:
			l.IsFinished = 1
		}
		rows = append(rows, l)
	}
	return rows
}

func (f LegacyFilter) has(l Legacy) bool {
	is := func(want *int, got int) bool { return want == nil || *want == got }
	return (len(f.Groups) == 0 || slices.Contains(f.Groups, l.Group)) && (len(f.Phases) == 0 || slices.Contains(f.Phases, l.Phase)) &&
		(f.Sector == "" || f.Sector == l.Sector) && is(f.ResultStatus, l.ResultStatus) && is(f.IsFinished, l.IsFinished) && is(f.IsTaken, l.IsTaken)
}

// Legacy lists the phases of the sectors that have not ended, as the old table did: what had
// ended was removed from it.
func (d *Dispatcher) Legacy(f LegacyFilter, limit int, after *Key) Page[Legacy] {
	now, seq := d.bus.Now(), d.board.position()
	p := newPager[Legacy](limit, after, false)
	for _, s := range d.board.all() {
		state, _, gone := s.view()
		if gone || f.Sector != "" && state.ID != f.Sector {
			continue
		}
		for _, l := range LegacyOf(&state, d.Policy) {
			if f.has(l) {
				p.show(Key{0, state.Spec.Miner, state.Spec.Number, stepIndex(l.Phase)}, l)
			}
		}
	}
	return page(p, now, seq)
}

// ParseFlag reads a 0 or 1 (or 2) of the old table, nil for an empty text.
func ParseFlag(text string, most int) (*int, bool) {
	if text == "" {
		return nil, true
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > most {
		return nil, false
	}
	return &n, true
}
