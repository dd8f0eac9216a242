package dispatch

import (
	"context"
	"errors"
	"fmt"

	"github.com/oklog/ulid/v2"

	"sealfleet/internal/bus"
	"sealfleet/internal/phases"
)

// ErrUnknown says that no such sector was ever submitted.
var ErrUnknown = errors.New("no such sector")

// ErrRefused says that an operator's request makes no sense in the sector's state.
var ErrRefused = errors.New("refused")

// Load reads a sector's state from the log, with its events in order.
func Load(ctx context.Context, b *bus.Bus, id string) (*phases.Sector, []phases.Event, error) {
	events, err := b.History(ctx, id)
	if err != nil {
		return nil, nil, fmt.Errorf("read the history of %s: %w", id, err)
	}
	s := phases.NewSector()
	for _, e := range events {
		_ = s.Apply(e) // what is not believed is shown by the history, and changes nothing
	}
	if !s.Known() {
		return nil, nil, fmt.Errorf("%w: %s", ErrUnknown, id)
	}
	return s, events, nil
}

// Redo has a step of a sector done again: an event with who asked and why.
func Redo(ctx context.Context, b *bus.Bus, id string, step phases.Step, actor, why string) error {
	return onSectorChain(ctx, b, id, actor, func(s *phases.Sector, e *phases.Event) error {
		e.Type, e.Target, e.Reason = phases.Redo, step, why
		if outcome := s.GivenUp(); outcome != "" {
			// The host that does p6 reads the chain's last event, and that is now this one.
			e.Result = &phases.Result{Code: string(outcome)}
		}
		return phases.CheckRedo(s, step)
	})
}

// Cancel gives a sector up: what runs is stopped, and p6 cleans what is there.
func Cancel(ctx context.Context, b *bus.Bus, id, actor, why string) error {
	return onSectorChain(ctx, b, id, actor, func(s *phases.Sector, e *phases.Event) error {
		e.Type, e.Reason = phases.Cancelled, why
		return phases.CheckCancel(s)
	})
}

// Pause has nothing new begun for a sector; what runs goes on to its end. Resume lets it
// go on. Both are events with who asked and why.
func Pause(ctx context.Context, b *bus.Bus, id, actor, why string) error {
	return pauseOrResume(ctx, b, id, phases.Paused, actor, why)
}

// Resume see Pause.
func Resume(ctx context.Context, b *bus.Bus, id, actor, why string) error {
	return pauseOrResume(ctx, b, id, phases.Resumed, actor, why)
}

func pauseOrResume(ctx context.Context, b *bus.Bus, id string, kind phases.EventType, actor, why string) error {
	return onSectorChain(ctx, b, id, actor, func(s *phases.Sector, e *phases.Event) error {
		e.V, e.Type, e.Reason = phases.VersionStops, kind, why
		return phases.CheckPause(s, kind == phases.Paused)
	})
}

// onSectorChain appends an operator's event to the sector's own chain, if check, which
// also fills it in, finds that it makes sense in the state in which it is appended.
func onSectorChain(ctx context.Context, b *bus.Bus, id, actor string, check func(*phases.Sector, *phases.Event) error) error {
	const tries = 10
	for range tries {
		s, _, err := Load(ctx, b, id)
		if err != nil {
			return err
		}
		chain := s.Step(phases.SectorEnd)
		e := phases.Event{
			V: phases.Version, ID: ulid.Make().String(), Group: s.Group, Sector: id, Step: phases.SectorEnd,
			PrevID: chain.LastID, Host: phases.DispatcherName(actor), At: b.Now().UTC(),
		}
		if err := check(s, &e); err != nil {
			return fmt.Errorf("%w: %w", ErrRefused, err)
		}
		_, err = b.Append(ctx, e, chain.LastSeq)
		if errors.Is(err, bus.ErrConflict) {
			continue // the sector has moved on: see whether it still makes sense
		}
		if err != nil {
			return fmt.Errorf("append %s to %s: %w", e.Type, id, err)
		}
		return nil
	}
	return fmt.Errorf("%w: the sector %s changes too fast; try again", ErrRefused, id)
}
