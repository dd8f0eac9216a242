package api

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"sealfleet/internal/dispatch"
	"sealfleet/internal/phases"
)

// listed is how a page of a list of a moment looks.
type listed[T any] struct {
	Schema string    `json:"schema"`
	At     time.Time `json:"at"`
	Seq    uint64    `json:"sequence"`
	Total  int       `json:"total"`
	Next   string    `json:"next,omitempty"`
	Items  []T       `json:"items"`
}

func list[T any](r *http.Request, p *params, page dispatch.Page[T]) listed[T] {
	return listed[T]{Schema, page.At, page.Seq, page.Total, next(r, p, page.Next), page.Items}
}

func (a *API) sectors(r *http.Request) (any, error) {
	p := query(r)
	q := dispatch.Query{Filter: dispatch.Filter{Groups: p.groups(), States: p.list("state", dispatch.States()), Phases: p.steps()}, Hosts: p.list("host", nil), Text: p.text("q")}
	var sorts []string
	for _, s := range dispatch.Sorts() {
		sorts = append(sorts, s, "-"+s)
	}
	if s := p.list("sort", sorts); len(s) > 0 {
		q.Sort = s[0]
	}
	const longestText = 200
	if len(q.Text) > longestText {
		p.bad("q", "longer than %d characters", longestText)
	}
	q.Limit, q.After = p.page(r)
	if err := p.done(); err != nil {
		return nil, err
	}
	return list(r, p, a.Dispatcher.Sectors(q)), nil
}

func (a *API) jobs(r *http.Request) (any, error) {
	p := query(r)
	q := dispatch.Query{Filter: dispatch.Filter{Groups: p.groups(), States: p.list("state", []string{"running", "waiting", "delayed", "on-chain"}), Phases: p.steps()}, Hosts: p.list("host", nil)}
	q.Limit, q.After = p.page(r)
	if err := p.done(); err != nil {
		return nil, err
	}
	return list(r, p, a.Dispatcher.Jobs(q)), nil
}

func (a *API) failed(r *http.Request) (any, error) {
	p := query(r)
	q := dispatch.Query{
		Filter: dispatch.Filter{Groups: p.groups(), States: p.list("state", []string{dispatch.FailedParked, dispatch.FailedFailing}), Phases: p.steps()},
		Codes:  p.list("code", nil),
	}
	q.Limit, q.After = p.page(r)
	if err := p.done(); err != nil {
		return nil, err
	}
	return list(r, p, a.Dispatcher.Failures(q)), nil
}

func (a *API) legacy(r *http.Request) (any, error) {
	p := query(r)
	f := dispatch.LegacyFilter{Groups: p.groups(), Phases: p.steps(), Sector: p.text("sector"), ResultStatus: p.flag("result_status", 2), IsFinished: p.flag("is_finished", 1), IsTaken: p.flag("is_taken", 1)}
	limit, after := p.page(r)
	if err := p.done(); err != nil {
		return nil, err
	}
	return list(r, p, a.Dispatcher.Legacy(f, limit, after)), nil
}

func (a *API) sector(r *http.Request) (any, error) {
	id, err := a.sectorOf(r)
	if err != nil {
		return nil, err
	}
	s, events, err := a.Dispatcher.Load(r.Context(), id)
	if err != nil {
		return nil, err
	}
	d := dispatch.DetailOf(s, events, a.Dispatcher.Policy, a.Bus.Now())
	if row, known := a.Dispatcher.Row(id); known && len(d.Now) == 0 {
		d.Row = row // only the others of its group tell whether it is held back
	}
	return struct {
		Schema string `json:"schema"`
		*dispatch.Detail
	}{Schema, d}, nil
}

// event is an event of the log, as the API tells it.
type event struct {
	Seq         uint64            `json:"sequence"`
	V           int               `json:"v"`
	ID          string            `json:"id"`
	Type        phases.EventType  `json:"type"`
	Group       string            `json:"group"`
	Sector      string            `json:"sector"`
	Step        phases.Step       `json:"phase"`
	Issue       int               `json:"issue,omitempty"`
	Attempt     int               `json:"attempt,omitempty"`
	Host        string            `json:"host,omitempty"`
	At          time.Time         `json:"at"`
	Target      phases.Step       `json:"target,omitempty"`
	Reason      string            `json:"reason,omitempty"`
	NotBefore   time.Time         `json:"not_before,omitzero"`
	Note        string            `json:"note,omitempty"`
	Fraction    float64           `json:"fraction,omitempty"`
	Spec        *phases.Spec      `json:"spec,omitempty"`
	Inputs      map[string]string `json:"inputs,omitempty"`
	Result      *phases.Result    `json:"result,omitempty"`
	Disbelieved string            `json:"disbelieved,omitempty"`
}

func eventOf(e phases.Event) event {
	return event{
		Seq: e.Seq, V: e.V, ID: e.ID, Type: e.Type, Group: e.Group, Sector: e.Sector, Step: e.Step, Issue: e.Issue, Attempt: e.Attempt,
		Host: e.Host, At: e.At, Target: e.Target, Reason: e.Reason, NotBefore: e.NotBefore, Note: e.Note, Fraction: e.Fraction,
		Spec: e.Spec, Inputs: e.Inputs, Result: e.Result,
	}
}

func (a *API) sectorEvents(r *http.Request) (any, error) {
	id, err := a.sectorOf(r)
	if err != nil {
		return nil, err
	}
	_, events, err := a.Dispatcher.Load(r.Context(), id)
	if err != nil {
		return nil, err
	}
	items, s := []event{}, phases.NewSector()
	for _, e := range events {
		item := eventOf(e)
		if err := s.Apply(e); err != nil {
			item.Disbelieved = err.Error()
		}
		items = append(items, item)
	}
	return struct {
		Schema string  `json:"schema"`
		Items  []event `json:"items"`
	}{Schema, items}, nil
}

func (a *API) why(r *http.Request) (any, error) {
	id, err := a.sectorOf(r)
	if err != nil {
		return nil, err
	}
	reasons, err := a.Dispatcher.Why(r.Context(), id)
	if err != nil {
		return nil, err
	}
	return struct {
		Schema string `json:"schema"`
		*dispatch.Reasons
	}{Schema, reasons}, nil
}

// moment is how a list without pages looks.
type moment[T any] struct {
	Schema string    `json:"schema"`
	At     time.Time `json:"at"`
	Items  []T       `json:"items"`
}

func (a *API) backlog(r *http.Request) (any, error) {
	p := query(r)
	groups := p.groups()
	if err := p.done(); err != nil {
		return nil, err
	}
	advice := slices.DeleteFunc(a.Dispatcher.Backlog(), func(x dispatch.Advice) bool { return len(groups) > 0 && !slices.Contains(groups, x.Group) })
	return moment[dispatch.Advice]{Schema, a.Bus.Now().UTC(), advice}, nil
}

func (a *API) stats(r *http.Request) (any, error) {
	p := query(r)
	steps := p.steps()
	p.used["group"] = true // hosts serve several groups: their speed is theirs
	if err := p.done(); err != nil {
		return nil, err
	}
	return struct {
		Schema string                `json:"schema"`
		At     time.Time             `json:"at"`
		Phases []dispatch.PhaseStats `json:"phases"`
		Days   []dispatch.Day        `json:"days"`
	}{
		Schema, a.Bus.Now().UTC(),
		a.Dispatcher.Stats(func(s phases.Step) bool { return len(steps) == 0 || slices.Contains(steps, s) }),
		a.Dispatcher.Farm().Days,
	}, nil
}

// stream is a stream of the bus.
type stream struct {
	Name      string    `json:"name"`
	Subjects  []string  `json:"subjects,omitempty"`
	Messages  uint64    `json:"messages"`
	Bytes     uint64    `json:"bytes"`
	First     uint64    `json:"first_sequence"`
	Last      uint64    `json:"last_sequence"`
	LastAt    time.Time `json:"last_at,omitzero"`
	Consumers int       `json:"consumers"`
	Replicas  int       `json:"replicas,omitempty"`
	Leader    string    `json:"leader,omitempty"`
}

// durable is a consumer of the bus.
type durable struct {
	Stream      string `json:"stream"`
	Name        string `json:"name"`
	Group       string `json:"group,omitempty"`
	Phase       string `json:"phase,omitempty"`
	Pending     uint64 `json:"pending"`
	InFlight    int    `json:"in_flight"`
	Redelivered int    `json:"redelivered"`
	Waiting     int    `json:"waiting_pulls"`
	Lag         uint64 `json:"lag"`
}

func (a *API) busView(r *http.Request) (any, error) {
	if err := query(r).done(); err != nil {
		return nil, err
	}
	infos, consumers, at := a.BusMetrics.Streams()
	out := struct {
		Schema    string    `json:"schema"`
		At        time.Time `json:"at"`
		Connected bool      `json:"connected"`
		SetAside  uint64    `json:"set_aside"`
		Position  uint64    `json:"position"`
		Streams   []stream  `json:"streams"`
		Consumers []durable `json:"consumers"`
	}{Schema, at.UTC(), a.Bus.Connected() == nil, a.Bus.SetAside(), a.Dispatcher.Position(), []stream{}, []durable{}}
	if at.IsZero() {
		out.At = time.Now().UTC()
	}
	for _, s := range infos {
		v := stream{
			Name: s.Config.Name, Subjects: s.Config.Subjects, Messages: s.State.Msgs, Bytes: s.State.Bytes, First: s.State.FirstSeq, Last: s.State.LastSeq,
			LastAt: s.State.LastTime.UTC(), Consumers: s.State.Consumers, Replicas: s.Config.Replicas,
		}
		if s.State.LastTime.Year() < 2000 { // nothing was ever written
			v.LastAt = time.Time{}
		}
		if s.Cluster != nil {
			v.Leader = s.Cluster.Leader
		}
		out.Streams = append(out.Streams, v)
	}
	for _, c := range consumers {
		v := durable{
			Stream: c.Stream, Name: c.Name, Pending: c.NumPending, InFlight: c.NumAckPending, Redelivered: c.NumRedelivered, Waiting: c.NumWaiting,
			Lag: c.NumPending,
		}
		if i := strings.LastIndex(c.Name, "-"); i > 0 && phases.Step(c.Name[i+1:]).IsPhase() {
			v.Group, v.Phase = c.Name[:i], c.Name[i+1:]
		}
		out.Consumers = append(out.Consumers, v)
	}
	return out, nil
}
