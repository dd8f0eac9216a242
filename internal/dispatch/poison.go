package dispatch

import (
	"context"
	"fmt"
	"slices"

	"sealfleet/internal/bus"
	"sealfleet/internal/phases"
)

// clearQueue sets aside what lies in the task stream and will never be given to anybody: no
// host is asked about it, so nobody but the sweeper meets it.
//
// A task of an open issue stays, even if its group has no durable: it is work to be done,
// and the sweeper would only make it again. That is told once for each group.
func (d *Dispatcher) clearQueue(ctx context.Context, there map[bus.TaskKey]bool, strangers []string) error {
	for _, subject := range strangers {
		if err := d.bus.SetAsideTask(ctx, subject, bus.AsideTask, "no task: its subject is not seal.<group>.<phase>.<sector>.<issue>"); err != nil {
			return err
		}
	}
	unserved, err := d.unservedTasks(ctx, there)
	if err != nil {
		return err
	}
	before := d.unserved
	d.unserved = map[bus.TaskKey]bool{}
	var groups []string
	for _, k := range unserved {
		subject := bus.TaskSubject(k.Group, k.Step, k.Sector, k.Issue)
		switch {
		case !k.Step.IsPhase():
			err = d.bus.SetAsideTask(ctx, subject, bus.AsidePhase, fmt.Sprintf("no host does %q: phases are p1 to p6", string(k.Step)))
		case d.isOpen(k):
			if !slices.Contains(groups, k.Group) {
				groups = append(groups, k.Group)
			}
		case before[k]:
			err = d.bus.SetAsideTask(ctx, subject, bus.AsidePhase,
				fmt.Sprintf("no durable gives %s of %s to anybody, and no open issue asks for it", k.Step, k.Group))
		default:
			d.unserved[k] = true // the follower may not have read its issue yet: at the next sweep
		}
		if err != nil {
			return err
		}
	}
	for _, g := range groups {
		if !slices.Contains(d.orphaned, g) {
			d.Log.Error("sectors of a group wait that no dispatcher serves: add it to GROUPS, or cancel them", "group", g)
		}
	}
	d.orphaned = groups
	return nil
}

// unservedTasks lists the tasks that no durable gives out.
func (d *Dispatcher) unservedTasks(ctx context.Context, there map[bus.TaskKey]bool) (list []bus.TaskKey, err error) {
	var durables map[string]bool // asked for only if there is something to ask about
	for k := range there {
		if slices.Contains(d.Groups, k.Group) && k.Step.IsPhase() {
			continue // heal sees to its durable
		}
		if durables == nil {
			if durables, err = d.bus.Durables(ctx); err != nil {
				return nil, err
			}
		}
		if !durables[bus.Durable(k.Group, k.Step)] {
			list = append(list, k)
		}
	}
	return list, nil
}

// isOpen tells whether a task stands for an issue that has not ended.
func (d *Dispatcher) isOpen(k bus.TaskKey) bool {
	s := d.board.get(k.Sector)
	if s == nil {
		return false
	}
	state, _, gone := s.view()
	t := state.Step(k.Step)
	return !gone && state.Group == k.Group && t.Issue == k.Issue && (t.Status == phases.StatusIssued || t.Status == phases.StatusRunning)
}
