package consume

import (
	"context"
	"errors"
	"time"

	"sealfleet/internal/bus"
	"sealfleet/internal/phases"
)

// askPatience is how long a holder has to answer.
const askPatience = 2 * time.Second

// mayTakeOver tells whether a task that somebody claimed before may be claimed anew. The
// server gives a task out again whenever a lease has run out, which after an outage of
// its own is every task in flight, while their holders live. So the holder is asked.
//
//   - It works: its task is left alone, neither acknowledged nor given back. Its
//     heartbeats keep the message's lease from now on; if it dies the lease runs out.
//   - It does not hold that claim: it lost it in a crash; take over at once.
//   - Silence: it is dead or cut off. Shortly after our own connection came to stand it
//     may just not be back yet; then the task waits for a while.
//
// FAIL: a holder that is cut off from us and not from its disks goes on until it is back
// and reads the chain. See the package comment for what that costs.
func (j *job) mayTakeOver(ctx context.Context, last *phases.Event) bool {
	ask, cancel := context.WithTimeout(ctx, min(askPatience, j.c.bus.AckWait()/3))
	lives, err := j.c.bus.HolderLives(ask, last.Host, last.ClaimID)
	cancel()
	switch {
	case err == nil && lives:
		j.c.metrics.takeovers.WithLabelValues("holder_lives").Inc()
		j.log.Info("the task's holder lives and works: left alone", "holder", last.Host)
		return false
	case errors.Is(err, bus.ErrSilent) && time.Since(j.c.bus.UpSince()) < j.c.bus.AckWait()/2:
		j.c.metrics.takeovers.WithLabelValues("grace").Inc()
		j.log.Info("the task's holder does not answer, and we have only just connected: it gets time to come back", "holder", last.Host)
		j.nak(j.c.bus.AckWait() / 4)
		return false
	case err != nil && !errors.Is(err, bus.ErrSilent):
		j.log.Warn("cannot ask a task's holder", "holder", last.Host, "error", err)
		j.nak(time.Second)
		return false
	}
	j.c.metrics.takeovers.WithLabelValues("taken").Inc()
	return true
}

// holds tells whether this host works under a claim.
func (c *Consumer) holds(claim string) (held bool) {
	c.running.Range(func(_, v any) bool {
		held = v.(*job).claimID == claim
		return !held
	})
	return held
}
