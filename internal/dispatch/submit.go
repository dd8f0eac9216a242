package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"sealfleet/internal/bus"
	"sealfleet/internal/phases"
)

// ErrExists says that a sector was submitted already, or has been sealed.
var ErrExists = errors.New("the sector exists already")

// ErrBadSpec says that a submission asks for something that cannot be.
var ErrBadSpec = errors.New("bad submission")

// Checker tells what is wrong with a submission before anything is done: its proof type,
// the files of its pieces, their sizes. It may fill in what it finds out (piece sizes).
type Checker func(ctx context.Context, s *phases.Spec) error

// Submission is one sector that was submitted.
type Submission struct {
	Sector string `json:"sector"`
	Group  string `json:"group"`
	Seq    uint64 `json:"sequence"`
}

// Submit submits sectors to a group. Everything is checked before the first one is
// written: if one is wrong, none is submitted. If one turns out to be there already
// while they are written (somebody else was quicker), the others are submitted all the
// same, and the error, which wraps ErrExists, names it.
func Submit(ctx context.Context, b *bus.Bus, group, actor string, specs []phases.Spec, check Checker) ([]Submission, error) {
	if err := checkSpecs(ctx, specs, check); err != nil {
		return nil, err
	}
	if err := checkGroup(ctx, b, group); err != nil {
		return nil, err
	}
	if err := checkNew(ctx, b, specs); err != nil {
		return nil, err
	}
	out := make([]Submission, len(specs))
	faults := make([]error, len(specs))
	each(specs, func(i int) {
		out[i], faults[i] = submitOne(ctx, b, group, actor, specs[i])
	})
	done := out[:0]
	for i, s := range out {
		if faults[i] == nil {
			done = append(done, s)
		}
	}
	return done, errors.Join(faults...)
}

// each runs f for every spec, some at a time.
func each(specs []phases.Spec, f func(i int)) {
	const atOnce = 16
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i := range specs {
		g.Go(func() error {
			f(i)
			return nil
		})
	}
	_ = g.Wait() // they return nil
}

func checkSpecs(ctx context.Context, specs []phases.Spec, check Checker) error {
	if len(specs) == 0 {
		return fmt.Errorf("%w: no sector", ErrBadSpec)
	}
	seen := map[string]bool{}
	var faults []error
	for i := range specs {
		id := phases.SectorID(specs[i].Miner, specs[i].Number)
		if seen[id] {
			faults = append(faults, fmt.Errorf("sector %s is there twice", id))
		}
		seen[id] = true
		if check == nil {
			continue
		}
		if err := check(ctx, &specs[i]); err != nil {
			faults = append(faults, fmt.Errorf("sector %s: %w", id, err))
		}
	}
	if len(faults) > 0 {
		return fmt.Errorf("%w: %w", ErrBadSpec, errors.Join(faults...))
	}
	return nil
}

// checkGroup asks the bus: a group is what has its durables there.
func checkGroup(ctx context.Context, b *bus.Bus, group string) error {
	if _, err := phases.ParseGroup(group); err != nil {
		return fmt.Errorf("%w: %w", ErrBadSpec, err)
	}
	plan, err := b.Plan(ctx, []string{group})
	if err != nil {
		return fmt.Errorf("look for group %s: %w", group, err)
	}
	var missing []string
	for _, c := range plan {
		// Of streams that only later releases have the group needs none: a dispatcher of the
		// one before may still run.
		if c.Action == bus.ActionCreate && (c.Kind == "consumer" || c.Name == bus.TasksStream || c.Name == bus.EventsStream) {
			missing = append(missing, c.Name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: group %q is unknown: the bus has no %s (mend: add it to the dispatcher's SEAL_GROUPS, or dispatcher bus apply --group %s)",
			ErrBadSpec, group, strings.Join(missing, ", "), group)
	}
	return nil
}

// checkNew looks for sectors that exist, in every group and in the archive.
func checkNew(ctx context.Context, b *bus.Bus, specs []phases.Spec) error {
	faults := make([]error, len(specs))
	each(specs, func(i int) { faults[i] = checkNewOne(ctx, b, phases.SectorID(specs[i].Miner, specs[i].Number)) })
	return errors.Join(faults...)
}

func checkNewOne(ctx context.Context, b *bus.Bus, id string) error {
	stone, err := b.Archived(ctx, id)
	if err != nil {
		return fmt.Errorf("look for sector %s in the archive: %w", id, err)
	}
	if stone != nil {
		return fmt.Errorf("%w: %s was archived as %s on %s; a sector number is used once (mend: take another)",
			ErrExists, id, stone.Outcome, stone.At.Format(time.DateTime))
	}
	events, err := b.History(ctx, id)
	if err != nil {
		return fmt.Errorf("look for sector %s: %w", id, err)
	}
	for _, e := range events {
		if e.Type == phases.Submitted {
			return fmt.Errorf("%w: %s was submitted to %s on %s (see: dispatcher sector %s)",
				ErrExists, id, e.Group, e.At.Format(time.DateTime), id)
		}
	}
	return nil
}

func submitOne(ctx context.Context, b *bus.Bus, group, actor string, spec phases.Spec) (Submission, error) {
	id := phases.SectorID(spec.Miner, spec.Number)
	seq, err := b.Append(ctx, phases.Event{
		V: phases.Version, ID: ulid.Make().String(), Type: phases.Submitted, Group: group, Sector: id,
		Step: phases.SectorEnd, Host: phases.DispatcherName(actor), At: b.Now().UTC(), Spec: &spec,
	}, 0)
	if errors.Is(err, bus.ErrConflict) {
		return Submission{}, fmt.Errorf("%w: %s was submitted a moment ago by somebody else", ErrExists, id)
	}
	if err != nil {
		return Submission{}, fmt.Errorf("submit %s: %w", id, err)
	}
	return Submission{Sector: id, Group: group, Seq: seq}, nil
}
