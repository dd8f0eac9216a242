package bus

import (
	"context"
	"errors"
	"sync"
	"time"

	"sealfleet/internal/phases"

	"github.com/nats-io/nats.go/jetstream"
)

// workAhead is how many events a dispatcher takes at once. More would starve the other
// dispatchers, and come back late if this one dies.
const workAhead = 256

// Delivery is one event to be acted on by one dispatcher. Exactly one of Ack, Nak and
// SetAside ends it; without any it comes again after the dispatchers' ack wait.
type Delivery struct {
	Event phases.Event // Seq is set
	Raw   []byte
	Again bool // it was delivered before, to this dispatcher or another

	msg jetstream.Msg
	b   *Bus
}

// Ack says that everything that follows from the event is written.
func (d Delivery) Ack() error { return d.msg.Ack() }

// Nak has the event come again after the delay.
func (d Delivery) Nak(delay time.Duration) error {
	if delay <= 0 {
		return d.msg.Nak()
	}
	return d.msg.NakWithDelay(delay)
}

// SetAside ends an event that cannot be acted on. It stays in the log; a copy with the
// reason goes to SEAL_ASIDE. As long as that cannot be written the event comes again, a
// few times: the log has it in any case.
func (d Delivery) SetAside(kind AsideKind, reason string) error {
	ctx, cancel := context.WithTimeout(context.Background(), attemptTimeout)
	defer cancel()
	meta, err := d.msg.Metadata()
	if err != nil {
		return err
	}
	err = d.b.setAsideMessage(ctx, original{
		kind: kind, group: d.Event.Group, reason: reason, stream: EventsStream, seq: meta.Sequence.Stream, stored: meta.Timestamp,
		subject: d.msg.Subject(), header: d.msg.Headers(), data: d.Raw,
	})
	const tries = 5
	if err != nil && meta.NumDelivered < tries {
		return errors.Join(err, d.msg.NakWithDelay(asideAgain))
	}
	return errors.Join(err, d.msg.TermWithReason(clip([]byte(reason))))
}

// Work calls fn for the events that fall to this dispatcher: in parallel, but for each
// sector one after the other in the order of delivery. Events from which nothing follows
// (issued, claimed, progress) are acknowledged without a call. What cannot be parsed is set aside
// and never gets to fn. It returns when ctx ends and all calls have returned.
func (b *Bus) Work(ctx context.Context, fn func(context.Context, Delivery)) error {
	w := &workers{b: b, ctx: ctx, fn: fn, queues: map[string][]Delivery{}, room: make(chan struct{}, workAhead)}
	defer w.stop()
	for try := 0; ; try++ {
		began := time.Now()
		err := b.consumeWork(ctx, w)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(began) > time.Minute {
			try = 0
		}
		b.log.Warn("taking events was interrupted, trying again", "error", err)
		if !pause(ctx, try) {
			return ctx.Err()
		}
	}
}

func (b *Bus) consumeWork(ctx context.Context, w *workers) error {
	if err := b.Stopped(); err != nil {
		return err
	}
	c, err := b.js.Consumer(ctx, EventsStream, DispatcherDurable)
	if err != nil {
		return err
	}
	cc, err := c.Consume(w.take, jetstream.PullMaxMessages(workAhead), jetstream.ConsumeErrHandler(func(cc jetstream.ConsumeContext, err error) {
		if errors.Is(err, jetstream.ErrConsumerDeleted) || errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrNoHeartbeat) {
			cc.Stop() // look for it again
		}
		b.log.Debug("taking events", "error", err)
	}))
	if err != nil {
		return err
	}
	defer cc.Stop()
	select {
	case <-ctx.Done():
		// What was taken ahead goes back at once, for the other dispatchers.
		cc.Drain()
		select {
		case <-cc.Closed():
		case <-time.After(time.Second):
		}
		return ctx.Err()
	case <-cc.Closed():
		return errors.New("the subscription ended")
	}
}

// workers runs deliveries: one goroutine for each sector that has any.
type workers struct {
	b    *Bus
	ctx  context.Context
	fn   func(context.Context, Delivery)
	room chan struct{} // a token for each delivery that is not yet done

	running sync.WaitGroup
	mu      sync.Mutex
	stopped bool                  // nothing more is taken
	queues  map[string][]Delivery // of the sectors that have a goroutine
}

// stop waits for the deliveries that run. The subscription may still call take, for it is
// stopped without waiting: take must not add to what is being waited for.
func (w *workers) stop() {
	w.mu.Lock()
	w.stopped = true
	w.mu.Unlock()
	w.running.Wait()
}

func (w *workers) take(m jetstream.Msg) {
	if w.ctx.Err() != nil {
		_ = m.Nak() // lost: it comes again later
		return
	}
	if phases.QuietEvent(m.Data()) {
		_ = m.Ack() // lost: it comes again
		return
	}
	meta, err := m.Metadata()
	if err != nil {
		return
	}
	d := Delivery{Raw: m.Data(), Again: meta.NumDelivered > 1, msg: m, b: w.b}
	var unreadable error
	d.Event, unreadable = decodeEvent(m.Subject(), m.Data(), meta.Sequence.Stream)
	select {
	case w.room <- struct{}{}:
	case <-w.ctx.Done():
		_ = m.Nak() // lost: it comes again later
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		<-w.room
		_ = m.Nak() // lost: it comes again later
		return
	}
	if unreadable != nil {
		// It has no place among its sector's events, and must not hold up those behind it.
		w.running.Go(func() {
			defer func() { <-w.room }()
			if err := d.SetAside(AsideEvent, unreadable.Error()); err != nil {
				w.b.log.Warn("an event could not be set aside", "sequence", meta.Sequence.Stream, "error", err)
			}
		})
		return
	}
	queue, busy := w.queues[d.Event.Sector]
	w.queues[d.Event.Sector] = append(queue, d)
	if !busy {
		w.running.Add(1)
		go w.run(d.Event.Sector)
	}
}

func (w *workers) run(sector string) {
	defer w.running.Done()
	for {
		w.mu.Lock()
		queue := w.queues[sector]
		if len(queue) == 0 {
			delete(w.queues, sector)
			w.mu.Unlock()
			return
		}
		w.queues[sector] = queue[1:]
		w.mu.Unlock()
		if w.ctx.Err() == nil {
			w.fn(w.ctx, queue[0])
		} else {
			_ = queue[0].msg.Nak() // lost: it comes again later
		}
		<-w.room
	}
}
