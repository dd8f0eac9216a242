package bus

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// ErrNameTaken says that another living program has this host's name.
var ErrNameTaken = errors.New("another consumer with this name is running")

// presenceSubject is where the programs of one host name hear of each other: plain NATS,
// no stream keeps it.
func presenceSubject(host string) string { return presencePrefix + host }

const presencePrefix = "host."

// presence is what a program says on its name's subject.
type presence struct {
	Instance string    `json:"instance"`
	Since    time.Time `json:"since"`
	Machine  string    `json:"machine"`
	Question bool      `json:"question"` // is anybody there?
	Settled  bool      `json:"settled"`  // it asked before, and nobody was
}

// Announce makes sure that no other program runs under a host's name, and from then on
// tells others who ask that this one does, until the bus is closed. Two consumers with one
// name would take each other's tasks for their own. It asks for patience long: if another
// answers, the error wraps ErrNameTaken. Of two that ask at once, the one that is a
// moment older stays.
//
// FAIL: across a partition of the network two may each find nobody. Claims still keep
// them apart: what is lost is work, and never data.
func (b *Bus) Announce(ctx context.Context, host, machine string, patience time.Duration) error {
	me := presence{Instance: rand.Text(), Since: time.Now().UTC(), Machine: machine}
	taken := make(chan presence, 1)
	var settled atomic.Bool
	sub, err := b.nc.Subscribe(presenceSubject(host), func(m *nats.Msg) {
		var p presence
		if json.Unmarshal(m.Data, &p) != nil || p.Instance == me.Instance {
			return
		}
		// Clocks differ, so age only decides between two that both still ask.
		if !settled.Load() && (p.Settled || p.older(me)) {
			select {
			case taken <- p:
			default:
			}
			return
		}
		if p.Question {
			answer := me
			answer.Settled = settled.Load()
			if err := b.say(host, answer); err != nil {
				b.log.Warn("could not tell another consumer that its name is taken", "error", err)
			}
		}
	})
	if err != nil {
		return unreachable(err)
	}
	ask := me
	ask.Question = true
	if err := b.say(host, ask); err != nil {
		return errors.Join(unreachable(err), sub.Unsubscribe())
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	isTaken := func(p presence) error {
		return errors.Join(fmt.Errorf("%w: %s on %s, since %s; give each consumer its own HOST_NAME, or stop the other",
			ErrNameTaken, host, p.Machine, p.Since.Local().Format(time.DateTime)), sub.Unsubscribe())
	}
	select {
	case p := <-taken:
		return isTaken(p)
	case <-ctx.Done():
		return errors.Join(ctx.Err(), sub.Unsubscribe())
	case <-timer.C:
	}
	select {
	case p := <-taken: // both were ready
		return isTaken(p)
	default:
		settled.Store(true)
		return nil
	}
}

func (p presence) older(q presence) bool {
	if !p.Since.Equal(q.Since) {
		return p.Since.Before(q.Since)
	}
	return p.Instance < q.Instance
}

func (b *Bus) say(host string, p presence) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return b.nc.Publish(presenceSubject(host), data)
}
