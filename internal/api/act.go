package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"sealfleet/internal/bus"
	"sealfleet/internal/dispatch"
	"sealfleet/internal/phases"
)

// asked is who asks and why.
type asked struct {
	By     string    `json:"by"`
	Reason string    `json:"reason"`
	Until  time.Time `json:"until,omitzero"`
}

const (
	longestBy     = 100
	longestReason = 500
)

func (b asked) check(reason bool) error {
	switch {
	case strings.TrimSpace(b.By) == "" || len(b.By) > longestBy:
		return failf(http.StatusBadRequest, "bad_request", "by is missing or longer than %d characters: say who asks", longestBy).mended(`"by": "name@host"`)
	case reason && strings.TrimSpace(b.Reason) == "" || len(b.Reason) > longestReason:
		return failf(http.StatusBadRequest, "bad_request", "reason is missing or longer than %d characters: it is kept with what is done", longestReason).mended(`"reason": "disk of host3 replaced"`)
	case !b.Until.IsZero() && b.Until.Before(time.Now()):
		return failf(http.StatusBadRequest, "bad_request", "until %s is over", b.Until.Format(time.RFC3339))
	}
	return nil
}

// Done is the answer to a request that was carried out.
type Done struct {
	Schema  string      `json:"schema"`
	Action  string      `json:"action"`
	Message string      `json:"message"`
	Sector  string      `json:"sector,omitempty"`
	Phase   phases.Step `json:"phase,omitempty"`
	Host    string      `json:"host,omitempty"`
	Group   string      `json:"group,omitempty"`
	By      string      `json:"by,omitempty"`
	Reason  string      `json:"reason,omitempty"`
	At      time.Time   `json:"at,omitzero"`
	Until   time.Time   `json:"until,omitzero"`
	QuietIn *float64    `json:"quiet_in_seconds,omitempty"`
	Running *int        `json:"running,omitempty"`
}

func (b asked) done(action, format string, args ...any) *Done {
	return &Done{Schema: Schema, Action: action, Message: fmt.Sprintf(format, args...), By: b.By, Reason: b.Reason, At: time.Now().UTC(), Until: b.Until}
}

func (a *API) submit(r *http.Request, body []byte) (any, error) {
	var b struct {
		asked
		Group   string        `json:"group"`
		Sectors []phases.Spec `json:"sectors"`
	}
	if err := errors.Join(decode(body, &b)); err != nil {
		return nil, err
	}
	if err := b.check(false); err != nil {
		return nil, err
	}
	group, err := phases.ParseGroup(b.Group)
	if err != nil {
		return nil, failf(http.StatusBadRequest, "bad_group", "%v", err)
	}
	const most = 10_000
	if len(b.Sectors) == 0 || len(b.Sectors) > most {
		return nil, failf(http.StatusUnprocessableEntity, "bad_spec", "submit 1 to %d sectors at once", most)
	}
	for i := range b.Sectors {
		if b.Sectors[i].SubmittedBy == "" {
			b.Sectors[i].SubmittedBy = b.By
		}
	}
	items, err := dispatch.Submit(r.Context(), a.Bus, group, b.By, b.Sectors, a.Check)
	if err != nil {
		return nil, err
	}
	last := uint64(0)
	for _, item := range items {
		last = max(last, item.Seq)
	}
	a.seen(r, last)
	return struct {
		Schema string                `json:"schema"`
		Items  []dispatch.Submission `json:"items"`
	}{Schema, items}, nil
}

// seenWithin is how long an answer waits for this dispatcher to read what was written.
const seenWithin = 3 * time.Second

// seen waits until this dispatcher has read the log up to a sequence, so that who asks next
// is not told the state of before. What was asked for is done, whatever comes of that.
func (a *API) seen(r *http.Request, seq uint64) {
	ctx, cancel := context.WithTimeout(r.Context(), seenWithin)
	defer cancel()
	_ = a.Dispatcher.Await(ctx, seq)
}

// seenSector waits until this dispatcher has read what was last written on a sector's chain.
func (a *API) seenSector(r *http.Request, id string) {
	row, known := a.Dispatcher.Row(id)
	if !known {
		return
	}
	if last, err := a.Bus.Last(r.Context(), row.Group, id, phases.SectorEnd); err == nil && last != nil {
		a.seen(r, last.Seq)
	}
}

type redo struct {
	asked
	Phase phases.Step `json:"phase"`
}

func (b redo) check() error {
	if b.Phase != "" && !slices.Contains(phases.Steps(), b.Phase) {
		return failf(http.StatusBadRequest, "bad_request", "phase %q is unknown: use p1 to p6, precommit or commit", b.Phase)
	}
	return b.asked.check(true)
}

func (a *API) redoOne(r *http.Request, body []byte) (any, error) {
	var b redo
	if err := decode(body, &b); err != nil {
		return nil, err
	}
	if err := b.check(); err != nil {
		return nil, err
	}
	id, err := a.sectorOf(r)
	if err != nil {
		return nil, err
	}
	step, err := a.redoSector(r, id, b)
	if err != nil {
		return nil, err
	}
	d := b.done("redo", "%s of %s is done again", step, id)
	d.Sector, d.Phase = id, step
	return d, nil
}

// redoSector has a step of a sector done again: the one that was asked for, or the one at
// which it is parked.
func (a *API) redoSector(r *http.Request, id string, b redo) (phases.Step, error) {
	step := b.Phase
	if step == "" {
		s, _, err := a.Dispatcher.Load(r.Context(), id)
		if err != nil {
			return "", err
		}
		for _, candidate := range s.Parked(a.Dispatcher.Policy) {
			step = candidate.Step
		}
		if step == "" {
			return "", failf(http.StatusConflict, "not_parked", "%s is not parked (it is %s)", id, s.Status(a.Dispatcher.Policy)).mended("say with phase what to do again")
		}
	}
	if err := dispatch.Redo(r.Context(), a.Bus, id, step, b.By, b.Reason); err != nil {
		return step, err
	}
	a.seenSector(r, id)
	return step, nil
}

// redone is what became of one of many.
type redone struct {
	Sector  string      `json:"sector"`
	Phase   phases.Step `json:"phase,omitempty"`
	OK      bool        `json:"ok"`
	Code    string      `json:"code,omitempty"`
	Message string      `json:"message,omitempty"`
}

func (a *API) redoMany(r *http.Request, body []byte) (any, error) {
	var b struct {
		redo
		Sectors []string `json:"sectors"`
	}
	if err := decode(body, &b); err != nil {
		return nil, err
	}
	if err := b.redo.check(); err != nil {
		return nil, err
	}
	const most, atOnce = 1000, 16
	if len(b.Sectors) == 0 || len(b.Sectors) > most {
		return nil, failf(http.StatusBadRequest, "bad_request", "name 1 to %d sectors", most)
	}
	out := struct {
		Schema  string   `json:"schema"`
		Redone  int      `json:"redone"`
		Refused int      `json:"refused"`
		Items   []redone `json:"items"`
	}{Schema: Schema, Items: make([]redone, len(b.Sectors))}
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for i, id := range b.Sectors {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			item := redone{Sector: id}
			var err error
			if !a.Dispatcher.Known(id) {
				err = fmt.Errorf("%w: %s", dispatch.ErrUnknown, id)
			} else {
				item.Phase, err = a.redoSector(r, id, b.redo)
			}
			if item.OK = err == nil; err != nil {
				f := faultOf(err)
				item.Code, item.Message = f.Code, f.Message
			}
			out.Items[i] = item
		})
	}
	wg.Wait()
	for _, item := range out.Items {
		if item.OK {
			out.Redone++
		} else {
			out.Refused++
		}
	}
	return out, nil
}

// onSector carries out a request about one sector.
func (a *API) onSector(r *http.Request, body []byte, action, message string, f func(id, actor, why string) error) (any, error) {
	var b asked
	if err := decode(body, &b); err != nil {
		return nil, err
	}
	if err := b.check(true); err != nil {
		return nil, err
	}
	if !b.Until.IsZero() {
		return nil, failf(http.StatusBadRequest, "bad_request", "until is for hosts and groups: a sector stays as it is until somebody changes it")
	}
	id, err := a.sectorOf(r)
	if err != nil {
		return nil, err
	}
	if err := f(id, b.By, b.Reason); err != nil {
		return nil, err
	}
	a.seenSector(r, id)
	d := b.done(action, message, id)
	d.Sector = id
	return d, nil
}

func (a *API) cancel(r *http.Request, body []byte) (any, error) {
	return a.onSector(r, body, "cancel", "%s is cancelled; its phases are being stopped, and then its files are removed", func(id, actor, why string) error {
		return dispatch.Cancel(r.Context(), a.Bus, id, actor, why)
	})
}

func (a *API) pauseSector(r *http.Request, body []byte) (any, error) {
	return a.onSector(r, body, "pause", "nothing new begins for %s; what runs goes on to its end", func(id, actor, why string) error {
		return dispatch.Pause(r.Context(), a.Bus, id, actor, why)
	})
}

func (a *API) resumeSector(r *http.Request, body []byte) (any, error) {
	return a.onSector(r, body, "resume", "%s goes on", func(id, actor, why string) error {
		return dispatch.Resume(r.Context(), a.Bus, id, actor, why)
	})
}

// set writes a control.
func (a *API) set(r *http.Request, body []byte, key string, on bool) (asked, error) {
	var b asked
	if err := decode(body, &b); err != nil {
		return b, err
	}
	if err := b.check(true); err != nil {
		return b, err
	}
	if on == (a.controls.inForce(key, a.Bus.Now()) != nil) && !on {
		return b, failf(http.StatusConflict, "refused", "%s is not set", key)
	}
	_, err := a.Bus.SetControl(r.Context(), bus.Control{Key: key, On: on, By: b.By, Reason: b.Reason, Until: b.Until})
	return b, err
}

func (a *API) drain(r *http.Request, body []byte) (any, error) {
	h, err := a.hostNamed(r.PathValue("host"))
	if err != nil {
		return nil, err
	}
	b, err := a.set(r, body, bus.ControlDrain+"."+h.Host, true)
	if err != nil {
		return nil, err
	}
	d := b.done("drain", "%s takes nothing new; %d phases still run there", h.Host, h.Running)
	d.Host, d.Running = h.Host, &h.Running
	quiet := -1.0
	if h.Running == 0 {
		quiet = 0
	} else if h.Status != nil {
		quiet = quietIn(h.Status, a.Bus.Now())
	}
	d.QuietIn = &quiet
	return d, nil
}

// quietIn estimates how many seconds what runs on a host still takes, from how far it has
// come in its time; negative if something has not said how far it is.
func quietIn(s *bus.HostStatus, now time.Time) float64 {
	left := 0.0
	for _, j := range s.Jobs {
		if j.Fraction <= 0 {
			return -1
		}
		left = max(left, now.Sub(j.Since).Seconds()*(1-j.Fraction)/j.Fraction)
	}
	return left
}

func (a *API) undrain(r *http.Request, body []byte) (any, error) {
	name := r.PathValue("host")
	if a.controls.inForce(bus.ControlDrain+"."+name, a.Bus.Now()) == nil {
		if _, err := a.hostNamed(name); err != nil {
			return nil, err
		}
	}
	b, err := a.set(r, body, bus.ControlDrain+"."+name, false)
	if err != nil {
		return nil, err
	}
	d := b.done("undrain", "%s takes work again", name)
	d.Host = name
	return d, nil
}

// pauseKey is the control of a group's pause, or of one of its phases'.
func (a *API) pauseKey(r *http.Request) (key, group string, step phases.Step, err error) {
	group, err = phases.ParseGroup(r.PathValue("group"))
	if err != nil {
		return "", "", "", failf(http.StatusBadRequest, "bad_group", "%v", err)
	}
	known := slices.Contains(a.Groups, group) || slices.ContainsFunc(a.Dispatcher.Farm().Groups, func(g dispatch.GroupView) bool { return g.Group == group })
	if !known {
		return "", "", "", failf(http.StatusNotFound, "unknown_group", "no group %s is known", group).mended("GET /v1/groups lists them")
	}
	if step = phases.Step(r.PathValue("phase")); step == "" {
		return bus.ControlPause + "." + group + ".all", group, "", nil
	}
	if !step.IsPhase() {
		return "", "", "", failf(http.StatusBadRequest, "bad_request", "%q cannot be paused: only p1 to p6, which hosts do", step)
	}
	return bus.ControlPause + "." + group + "." + string(step), group, step, nil
}

func (a *API) pauseGroup(r *http.Request, body []byte) (any, error) {
	return a.onGroup(r, body, true, "pause", "nobody takes tasks of %s; what runs goes on to its end")
}

func (a *API) resumeGroup(r *http.Request, body []byte) (any, error) {
	return a.onGroup(r, body, false, "resume", "tasks of %s are taken again")
}

func (a *API) onGroup(r *http.Request, body []byte, on bool, action, message string) (any, error) {
	key, group, step, err := a.pauseKey(r)
	if err != nil {
		return nil, err
	}
	b, err := a.set(r, body, key, on)
	if err != nil {
		return nil, err
	}
	d := b.done(action, message, strings.TrimSpace(string(step)+" "+group))
	d.Group, d.Phase = group, step
	return d, nil
}

func (a *API) legacySet(r *http.Request, body []byte) (any, error) {
	var b struct {
		asked
		ResultStatus *int `json:"result_status"`
	}
	if err := decode(body, &b); err != nil {
		return nil, err
	}
	if err := b.check(true); err != nil {
		return nil, err
	}
	if b.ResultStatus == nil || *b.ResultStatus != 1 {
		return nil, failf(http.StatusBadRequest, "bad_request", "only result_status 1 can be set: it has the phase done again")
	}
	id, err := a.sectorOf(r)
	if err != nil {
		return nil, err
	}
	step, err := a.redoSector(r, id, redo{b.asked, phases.Step(r.PathValue("phase"))})
	if err != nil {
		return nil, err
	}
	d := b.done("redo", "%s of %s is done again", step, id)
	d.Sector, d.Phase = id, step
	return d, nil
}
