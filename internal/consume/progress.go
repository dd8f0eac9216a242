package consume

import (
	"fmt"
	"sync"
	"time"

	"sealfleet/internal/engine"
)

// progressNote holds the engine's last progress and decides when the chain should hear of
// it: when a step begins, and once a minute; never in a phase's first seconds, so that
// short phases cost no events.
type progressNote struct {
	mu      sync.Mutex
	last    engine.Progress
	started time.Time
	told    engine.Progress
	toldAt  time.Time

	// Of the running step, to tell its rate: bytes of copies only.
	began     time.Time
	beganDone uint64
	steps     map[string]uint64 // of a copy: how far each of its steps is

	moved func(step string, bytes uint64) // counts what a copy moves; nil: nobody does
}

const (
	progressFirst = 10 * time.Second
	progressEvery = time.Minute
)

func (n *progressNote) set(p engine.Progress) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.started.IsZero() {
		n.started = time.Now()
	}
	if p.Step != n.last.Step || n.began.IsZero() {
		n.began, n.beganDone = time.Now(), p.Done
	} else if n.moved != nil && p.Done > n.last.Done {
		n.moved(p.Step, p.Done-n.last.Done)
	}
	n.last = p
	if isCopy(p.Step) {
		if n.steps == nil {
			n.steps = map[string]uint64{}
		}
		n.steps[p.Step] = p.Done
	}
}

// isCopy tells whether a step's unit is bytes that are moved.
func isCopy(step string) bool { return step == "copy" || step == "verify" }

// pace tells how fast a copy is and when its step will be over; empty for other steps,
// whose units mean nothing to people. Its own part of the step counts, not what an earlier
// attempt left.
func (n *progressNote) pace(now time.Time) string {
	p := n.last
	took := now.Sub(n.began).Seconds()
	if !isCopy(p.Step) || took < 1 || p.Done <= n.beganDone {
		return ""
	}
	rate := float64(p.Done-n.beganDone) / took
	left := time.Duration(float64(p.Total-min(p.Done, p.Total)) / rate * float64(time.Second)).Round(time.Second)
	return fmt.Sprintf(", %.0f MB/s, %v left", rate/1e6, left)
}

// due returns what is to be told now, if anything is.
func (n *progressNote) due(now time.Time) (note string, fraction float64, due bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.last
	if p == n.told || now.Sub(n.started) < progressFirst {
		return "", 0, false
	}
	if p.Step == n.told.Step && now.Sub(n.toldAt) < progressEvery {
		return "", 0, false
	}
	n.told, n.toldAt = p, now
	note, fraction = n.say(now)
	return note, fraction, true
}

// say writes how far the running step is. The caller holds the lock.
func (n *progressNote) say(now time.Time) (note string, fraction float64) {
	if p := n.last; p.Total > 0 {
		fraction = min(float64(p.Done)/float64(p.Total), 1)
	}
	return fmt.Sprintf("%s %.0f %%%s", n.last.Step, 100*fraction, n.pace(now)), fraction
}
