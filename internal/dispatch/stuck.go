package dispatch

import (
	"context"
	"errors"
	"fmt"
	"maps"
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

// stuckLook is one sweep's look at tasks that may be stuck.
type stuckLook struct {
	*Dispatcher
	idle map[station]bool // hosts ask for what is in the queue, and all of it was given out
}

func (d *Dispatcher) lookForStuck() *stuckLook {
	maps.DeleteFunc(d.unstuck, func(_ bus.TaskKey, at time.Time) bool { return time.Since(at) > d.Silence })
	return &stuckLook{d, map[station]bool{}}
}

// unstick exchanges the message of an open task that is stuck, at most once in the time of
// Options.Silence.
func (l *stuckLook) unstick(ctx context.Context, o openTask) error {
	if _, lately := l.unstuck[o.key]; lately {
		return nil
	}
	stuck, err := l.stuck(ctx, o)
	if !stuck || err != nil {
		return err
	}
	l.unstuck[o.key] = time.Now()
	if err := l.bus.RemoveTask(ctx, o.key); err != nil {
		return fmt.Errorf("exchange a task that is stuck: %w", err)
	}
	// FAIL: here the task is missing, and the next sweep finds it so.
	return l.republish(ctx, o, "stuck", "a task was in its stream, but nobody had it and nobody got it: published anew")
}

func (l *stuckLook) stuck(ctx context.Context, o openTask) (bool, error) {
	state, _, _ := o.s.view()
	t := state.Step(o.key.Step)
	if t.Status != phases.StatusRunning {
		return l.idles(ctx, station{o.key.Group, o.key.Step})
	}
	asked, cancel := context.WithTimeout(ctx, askHolder)
	defer cancel()
	lives, err := l.bus.HolderLives(asked, t.Host, t.ClaimID)
	if errors.Is(err, bus.ErrSilent) {
		h := l.Metrics.hosts.told()[t.Host]
		return h == nil || h.Away(), nil // one that is heard, and cannot be asked, is left alone
	}
	return err == nil && !lives, err
}

// idles tells whether hosts with free slots ask for tasks of a queue and get none, so that one
// that is there comes to nobody.
func (l *stuckLook) idles(ctx context.Context, q station) (bool, error) {
	if idle, known := l.idle[q]; known {
		return idle, nil
	}
	left, asking, err := l.bus.Queue(ctx, q.group, q.step)
	if err != nil {
		return false, err
	}
	l.idle[q] = left == 0 && asking > 0
	return l.idle[q], nil
}
