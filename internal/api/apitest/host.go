// Package apitest has what tests of the API and of the page need besides a dispatcher.
package apitest

import (
	"context"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"sealfleet/internal/bus"
	"sealfleet/internal/phases"
)

// Host does tasks at once, without an engine.
type Host struct {
	Bus   *bus.Bus
	Name  string
	Group string
	// Fail tells how a task ends; nil, or nil from it: well.
	Fail func(phases.Task) *phases.Result
}

// Work does all tasks of the steps until ctx ends.
func (h *Host) Work(ctx context.Context, steps ...phases.Step) {
	for _, step := range steps {
		go func() {
			for ctx.Err() == nil {
				if l, err := h.Bus.Fetch(ctx, h.Group, step, time.Second); l != nil && err == nil {
					h.do(ctx, l)
				}
			}
		}()
	}
}

func (h *Host) do(ctx context.Context, l *bus.Lease) {
	t := l.Task
	e := phases.Event{
		V: phases.Version, ID: ulid.Make().String(), Type: phases.Claimed, Group: t.Group, Sector: t.Sector, Step: t.Step,
		Issue: t.Issue, Attempt: t.Attempt, ClaimID: ulid.Make().String(), PrevID: t.IssuedID, Host: h.Name, At: time.Now().UTC(),
	}
	seq, err := h.Bus.Append(ctx, e, t.IssuedSeq)
	if err != nil {
		_ = l.Nak(0) // somebody else has it
		return
	}
	end := e
	end.ID, end.PrevID, end.At, end.Type = ulid.Make().String(), e.ID, time.Now().UTC(), phases.Done
	hash := strings.Repeat("00", 32)
	end.Result = &phases.Result{Code: "ok", Seconds: 1, Outputs: map[string]string{"comm_d": hash, "comm_r": hash, "proof": "", "snark": "none"}}
	if h.Fail != nil {
		if r := h.Fail(t); r != nil {
			end.Type, end.Result = phases.Failed, r
		}
	}
	if _, err := h.Bus.Append(ctx, end, seq); err == nil {
		_ = l.Ack(ctx)
	}
}
