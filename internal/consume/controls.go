package consume

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"sealfleet/internal/bus"
	"sealfleet/internal/phases"
)

// controls are what operators have set for this host and its groups, by the bus.
type controls struct {
	mu     sync.Mutex
	drain  *bus.Control            // nil: the host takes what comes
	paused map[string]*bus.Control // by group.phase, or group.all
}

// followControls keeps to what operators set, until ctx ends. The pools do not ask for
// tasks before it is known for the first time, unless the bus does not answer soon.
func (c *Consumer) followControls(ctx context.Context, loops *sync.WaitGroup, pools []*pool) {
	known := make(chan struct{})
	first := sync.OnceFunc(func() { close(known) })
	loops.Go(func() {
		err := c.bus.WatchControls(ctx, func(list []bus.Control) {
			if c.setControls(list, c.bus.Now()) {
				for _, p := range pools {
					select {
					case p.changed <- struct{}{}:
					default:
					}
				}
			}
			first()
		}, bus.ControlDrain, bus.ControlPause)
		if err != nil && ctx.Err() == nil {
			c.log.Error("cannot follow what operators set for this host", "error", err)
		}
	})
	timer := time.NewTimer(askPatience)
	defer timer.Stop()
	select {
	case <-known:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// setControls tells whether something that concerns this host is another thing now. A
// control that ends by itself is seen to have ended within a minute (WatchControls reads
// all of them now and then).
func (c *Consumer) setControls(list []bus.Control, now time.Time) (changed bool) {
	var drain *bus.Control
	paused := map[string]*bus.Control{}
	for _, ctl := range list {
		if !ctl.InForce(now) {
			continue
		}
		switch ctl.Kind() {
		case bus.ControlDrain:
			if ctl.Name() == c.cfg.HostName {
				drain = &ctl
			}
		case bus.ControlPause:
			if group, _, _ := strings.Cut(ctl.Name(), "."); slices.Contains(c.cfg.Groups, group) {
				paused[ctl.Name()] = &ctl
			}
		}
	}
	k := &c.controls
	k.mu.Lock()
	defer k.mu.Unlock()
	if (drain == nil) != (k.drain == nil) {
		changed = true
		if drain != nil {
			c.log.Warn("drained by an operator: nothing new is taken, what runs goes on", "by", drain.By, "reason", drain.Reason, "running", c.holding())
		} else {
			c.log.Info("no longer drained: taking tasks again")
		}
	}
	for name, ctl := range paused {
		if k.paused[name] == nil {
			changed = true
			c.log.Warn("paused by an operator: nothing new of it is taken", "what", name, "by", ctl.By, "reason", ctl.Reason)
		}
	}
	for name := range k.paused {
		if paused[name] == nil {
			changed = true
			c.log.Info("no longer paused", "what", name)
		}
	}
	k.drain, k.paused = drain, paused
	c.board.drain(drain != nil || c.stopping.Load())
	return changed
}

// holdsBack tells whether nothing of a queue is to be taken now.
func (c *Consumer) holdsBack(group string, step phases.Step) bool {
	k := &c.controls
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.drain != nil || k.paused[group+"."+string(step)] != nil || k.paused[group+".all"] != nil
}
