package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// pulls makes pull requests for one message each. An inbox with its subscription is kept
// and used again, which saves a subscription for each request; it serves one request at a
// time, because a task arrives under its own subject and only the subscription tells
// which request it answers.
//
// A task that answers a request whose caller has gone is handed back at once, so that no
// slot ever holds two tasks, and no task waits out a lease in vain.
type pulls struct {
	b *Bus

	mu      sync.Mutex
	idle    []*pull
	busy    map[*pull]bool // asked, answered or not
	open    map[*pull]bool // whose subscriptions stand
	stopped bool
}

type pull struct {
	inbox   string
	sub     *nats.Subscription
	answer  chan *nats.Msg // takes one; nil: ask again
	state   pullState
	expires time.Time     // of the server's patience
	closed  chan struct{} // the subscription has ended, and all that it brought is dealt with
}

type pullState int

const (
	pullIdle    pullState = iota
	pullAsked             // somebody waits
	pullGivenUp           // nobody waits any more, the answer is still to come
	pullDead              // the server has forgotten it, or will; never used again
)

func newPulls(b *Bus) *pulls {
	return &pulls{b: b, busy: map[*pull]bool{}, open: map[*pull]bool{}}
}

var errFetchingStopped = errors.New("no more tasks are fetched: this program is stopping")

// begin takes an idle inbox, or makes one.
func (p *pulls) begin(patience time.Duration) (*pull, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return nil, errFetchingStopped
	}
	var q *pull
	if n := len(p.idle); n > 0 {
		q, p.idle = p.idle[n-1], p.idle[:n-1]
	} else {
		q = &pull{inbox: p.b.nc.NewInbox(), answer: make(chan *nats.Msg, 1), closed: make(chan struct{})}
		var err error
		if q.sub, err = p.b.nc.Subscribe(q.inbox, func(m *nats.Msg) { p.take(q, m) }); err != nil {
			return nil, unreachable(err)
		}
		q.sub.SetClosedHandler(func(string) { p.forget(q) })
		p.open[q] = true
	}
	q.state, q.expires = pullAsked, time.Now().Add(patience)
	p.busy[q] = true
	return q, nil
}

func (p *pulls) forget(q *pull) {
	p.mu.Lock()
	delete(p.open, q)
	if q.state == pullAsked && len(q.answer) == 0 {
		q.answer <- nil // it will not come
	}
	q.state = pullDead
	p.mu.Unlock()
	close(q.closed)
}

// stop has the server forget what was asked: it gives a task to no request whose inbox
// nobody listens to. What was on its way is dealt with when stop returns. Else a stopping
// host, which hands its tasks back, would be the first to get them again, and could not
// say that it did not want them once its connection is closed.
func (p *pulls) stop(ctx context.Context) error {
	p.mu.Lock()
	p.stopped = true
	open := slices.Collect(maps.Keys(p.open))
	p.mu.Unlock()
	if !p.b.nc.IsConnected() {
		return nil // the server forgot them with the connection
	}
	for _, q := range open {
		_ = q.sub.Drain() // it fails if the inbox or the connection is closed already
	}
	for _, q := range open {
		select {
		case <-q.closed:
		case <-ctx.Done():
			return unreachable(ctx.Err())
		}
	}
	return nil
}

// take is called for each answer to a request of q.
func (p *pulls) take(q *pull, m *nats.Msg) {
	p.mu.Lock()
	switch q.state {
	case pullAsked:
		if len(q.answer) == 0 {
			q.answer <- m // under the lock, so that end sees it
			m = nil
		}
	case pullGivenUp:
		p.release(q)
	case pullIdle, pullDead:
	}
	p.mu.Unlock()
	if m != nil {
		p.handBack(m)
	}
}

// end is called when the caller of a request goes, with an answer or without.
func (p *pulls) end(q *pull, answered bool) {
	p.mu.Lock()
	var late *nats.Msg
	if !answered {
		select {
		case late = <-q.answer:
			answered = true
		default:
		}
	}
	switch {
	case q.state == pullDead:
	case answered:
		p.release(q)
	default:
		q.state = pullGivenUp
	}
	p.mu.Unlock()
	if late != nil {
		p.handBack(late)
	}
}

// release makes an inbox free for the next request. The lock is held.
func (p *pulls) release(q *pull) {
	delete(p.busy, q)
	q.state = pullIdle
	p.idle = append(p.idle, q)
}

// renew has all requests end with nothing. After a reconnection the server may have
// forgotten them, or (in a cluster) may still answer them: their inboxes hand back what
// comes until the requests have expired.
func (p *pulls) renew() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for q := range p.busy {
		if q.state == pullAsked && len(q.answer) == 0 {
			q.answer <- nil
		}
		q.state = pullDead
		time.AfterFunc(time.Until(q.expires), func() { _ = q.sub.Unsubscribe() })
	}
	clear(p.busy)
}

func (p *pulls) handBack(m *nats.Msg) {
	if m.Reply == "" {
		return // the server's word that none came
	}
	if err := p.b.nc.Publish(m.Reply, []byte("-NAK")); err != nil {
		p.b.log.Warn("could not hand back a task that came too late; it waits out its lease", "subject", m.Subject, "error", err)
	}
}

// pullRequest is the body of a request for one message.
type pullRequest struct {
	Batch   int           `json:"batch"`
	Expires time.Duration `json:"expires,omitempty"`
	NoWait  bool          `json:"no_wait,omitempty"`
}

// one makes one request and waits for its answer; nil, nil: none came.
func (p *pulls) one(ctx context.Context, durable string, maxWait time.Duration) (m *nats.Msg, err error) {
	body, err := json.Marshal(pullRequest{Batch: 1, Expires: maxWait, NoWait: maxWait == 0})
	if err != nil {
		return nil, err
	}
	// The server ends a request itself; it is given a little longer to say so.
	patience := maxWait + attemptTimeout
	q, err := p.begin(patience)
	if err != nil {
		return nil, err
	}
	answered := false
	defer func() { p.end(q, answered) }()
	if err := p.b.nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+TasksStream+"."+durable, q.inbox, body); err != nil {
		answered = true // nothing was asked
		return nil, unreachable(err)
	}
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case m = <-q.answer:
		answered = true
		return explainPull(m, durable)
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-timeout.C:
		return nil, fmt.Errorf("%w: a pull on %s got no answer", ErrUnreachable, durable)
	}
}

// explainPull tells a task from the server's word that none came.
func explainPull(m *nats.Msg, durable string) (*nats.Msg, error) {
	if m == nil {
		return nil, nil
	}
	status := m.Header.Get("Status")
	if status == "" || m.Reply != "" {
		return m, nil
	}
	description := m.Header.Get("Description")
	switch {
	case status == "408", status == "404":
		return nil, nil
	case status == "503", status == "409" && strings.Contains(description, "Consumer Deleted"):
		return nil, fmt.Errorf("%s/%s: %w", TasksStream, durable, ErrNoConsumer)
	case status == "409" && (strings.Contains(description, "Shutdown") || strings.Contains(description, "Leadership")):
		return nil, nil
	}
	return nil, errors.New("pull on " + durable + ": " + status + " " + description)
}
