package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"sealfleet/internal/phases"

	"github.com/nats-io/nats.go"
)

// claimsSubject is where a host is asked whether it still holds a claim: plain NATS, no
// stream keeps it.
func claimsSubject(host string) string { return presencePrefix + host + claimsSuffix }

const claimsSuffix = ".claims"

// claimAnswer is what it says.
type claimAnswer struct {
	Held bool `json:"held"`
}

// AnswerClaims tells others who ask whether this host still works under a claim, until
// the bus is closed. held may be called from any goroutine.
func (b *Bus) AnswerClaims(host string, held func(claim string) bool) error {
	_, err := b.nc.Subscribe(claimsSubject(host), func(m *nats.Msg) {
		data, err := json.Marshal(claimAnswer{Held: held(string(m.Data))})
		if err == nil {
			err = m.Respond(data)
		}
		if err != nil {
			b.log.Warn("could not answer who asked for a claim", "error", err)
		}
	})
	if err != nil {
		return unreachable(err)
	}
	return nil
}

// ErrSilent says that a host did not answer: it is dead, or cut off, or of a release that
// cannot be asked.
var ErrSilent = errors.New("no answer")

// HolderLives asks a host whether it still works under a claim. Why: after an outage of
// the server for longer than AckWait every task in flight is given out again at once,
// while its holders live and work. An error that wraps ErrSilent means that nobody
// answered before ctx was done.
func (b *Bus) HolderLives(ctx context.Context, host, claim string) (bool, error) {
	if !isToken(host) {
		return false, fmt.Errorf("%q is no host: %w", host, ErrSilent)
	}
	m, err := b.nc.RequestWithContext(ctx, claimsSubject(host), []byte(claim))
	switch {
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return false, fmt.Errorf("host %s: %w", host, ErrSilent)
	case err != nil:
		return false, unreachable(err)
	}
	var a claimAnswer
	if err := json.Unmarshal(m.Data, &a); err != nil {
		return false, fmt.Errorf("host %s: %w: it said %q", host, ErrSilent, clip(m.Data))
	}
	return a.Held, nil
}

// WatchChain calls fn at once when somebody else than this host writes on a chain, until
// stop is called: a cancellation then need not wait for the next heartbeat. It is a hint,
// and may be missed.
func (b *Bus) WatchChain(group, sector string, step phases.Step, fn func()) (stop func(), err error) {
	own := "." + phases.Actor(b.client)
	sub, err := b.nc.Subscribe(chainFilter(group, sector, step), func(m *nats.Msg) {
		if !strings.HasSuffix(m.Subject, own) {
			fn()
		}
	})
	if err != nil {
		return nil, unreachable(err)
	}
	return func() { _ = sub.Unsubscribe() }, nil // at the end of the connection it goes anyway
}
