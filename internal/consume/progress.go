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
	n.last = p
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
	if p.Total > 0 {
		fraction = min(float64(p.Done)/float64(p.Total), 1)
	}
	return fmt.Sprintf("%s %.0f %%", p.Step, 100*fraction), fraction, true
}
