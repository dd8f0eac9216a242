package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sealfleet/internal/bus"
	"sealfleet/internal/phases"
)

// A task can be in its stream and never come again: the server reckons leases by its wall
// clock, and if that was set back by an hour, the tasks of a host that died wait for the
// hour. So who has been silent for long is asked, and a task that nobody has is exchanged
// for a new message. A holder that lives after all loses nothing by that: who gets the new
// message asks it too, and leaves it alone.

// askHolder is how long a holder may take to answer.
const askHolder = time.Second

// unstick exchanges the message of an open task that is stuck, at most once in the time of
// Options.Silence.
func (d *Dispatcher) unstick(ctx context.Context, o openTask) error {
	for key, at := range d.unstuck {
		if time.Since(at) > d.Silence {
			delete(d.unstuck, key)
		}
	}
	if _, lately := d.unstuck[o.key]; lately {
		return nil
	}
	stuck, err := d.stuck(ctx, o)
	if !stuck || err != nil {
		return err
	}
	d.unstuck[o.key] = time.Now()
	if err := d.bus.RemoveTask(ctx, o.key); err != nil {
		return fmt.Errorf("exchange a task that is stuck: %w", err)
	}
	// FAIL: here the task is missing, and the next sweep finds it so.
	return d.republish(ctx, o, "stuck", "a task was in its stream, but nobody had it and nobody got it: published anew")
}

func (d *Dispatcher) stuck(ctx context.Context, o openTask) (bool, error) {
	state, _, _ := o.s.view()
	t := state.Step(o.key.Step)
	if t.Status != phases.StatusRunning {
		// Hosts with free slots ask for tasks, and get none, although this one is there.
		left, asking, err := d.bus.Queue(ctx, o.key.Group, o.key.Step)
		return err == nil && left == 0 && asking > 0, err
	}
	asked, cancel := context.WithTimeout(ctx, askHolder)
	defer cancel()
	lives, err := d.bus.HolderLives(asked, t.Host, t.ClaimID)
	if errors.Is(err, bus.ErrSilent) {
		h := d.Metrics.hosts.told()[t.Host]
		return h == nil || h.Away(), nil // one that is heard, and cannot be asked, is left alone
	}
	return err == nil && !lives, err
}
