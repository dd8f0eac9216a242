package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"sealfleet/internal/phases"

	"github.com/nats-io/nats.go"
)

// NoticeCopying is the kind of what hosts of a group tell each other of their copies, so
// that they can share the group's limit: a Copying.
const NoticeCopying = "copying"

// Copying is what a host copies for a group now. It is told when it changes, when
// somebody asks, and again and again while copies run. It holds until another one of the
// host comes, or for as long as a lease of the host's tasks would (AckWait).
type Copying struct {
	V      int       `json:"v"`
	Host   string    `json:"host"`
	At     time.Time `json:"at"`
	Copies int       `json:"copies"` // that run; 0: it takes no part
	// Most is what the host's own limits would let its copies of the group move, in bytes
	// per second; 0: anything. It asks for no more.
	Most int64 `json:"most_bytes_per_second,omitempty"`
	// Share is what it takes itself to be given of the group's limit; 0: there is none.
	Share int64 `json:"share_bytes_per_second,omitempty"`
	// Question asks the others to tell theirs at once.
	Question bool `json:"question,omitempty"`
}

// CopyLimit reads the number of bytes per second of a group's limit (ControlLimit); 0: none
// is in force.
func (c Control) CopyLimit(now time.Time) (int64, error) {
	if !c.InForce(now) {
		return 0, nil
	}
	var n int64
	if err := json.Unmarshal(c.Value, &n); err != nil || n < 1 {
		return 0, fmt.Errorf("control %s has the value %s: want a number of bytes per second from 1", c.Key, c.Value)
	}
	return n, nil
}

// TellCopying tells the hosts of a group.
func (b *Bus) TellCopying(group string, c Copying) error {
	c.V = phases.Version
	return b.Notice(group, c.Host, NoticeCopying, c)
}

// WatchCopying calls fn for what the hosts of a group tell of their copies, this one's
// own included, until stop is called. Calls come one after the other.
func (b *Bus) WatchCopying(group string, fn func(Copying)) (stop func(), err error) {
	sub, err := b.nc.Subscribe(NoticeSubject(group, "*", NoticeCopying), func(m *nats.Msg) {
		var c Copying
		t := strings.Split(m.Subject, ".")
		if err := json.Unmarshal(m.Data, &c); err != nil || len(t) != 4 || c.Host != t[2] {
			b.log.Warn("what a host says of its copies cannot be read", "subject", m.Subject, "error", err)
			return
		}
		fn(c)
	})
	if err != nil {
		return nil, fmt.Errorf("listen to copies: %w", unreachable(err))
	}
	return func() { _ = sub.Unsubscribe() }, nil // at the end of the connection it goes anyway
}

// AskCopying asks who copies for a group now, and gathers answers for as long as wait.
func (b *Bus) AskCopying(ctx context.Context, group, asker string, wait time.Duration) ([]Copying, error) {
	answers := make(chan Copying, 1000)
	stop, err := b.WatchCopying(group, func(c Copying) {
		select {
		case answers <- c:
		default: // nobody reads: the wait is over
		}
	})
	if err != nil {
		return nil, err
	}
	defer stop()
	if err := b.TellCopying(group, Copying{Host: asker, At: time.Now().UTC(), Question: true}); err != nil {
		return nil, err
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	last := map[string]Copying{}
	for {
		select {
		case c := <-answers:
			if !c.Question {
				last[c.Host] = c
			}
		case <-timer.C:
			list := []Copying{}
			for _, c := range last {
				if c.Copies > 0 {
					list = append(list, c)
				}
			}
			return list, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
