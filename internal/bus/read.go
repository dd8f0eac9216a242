package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"sealfleet/internal/phases"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// getRequest asks a stream's leader for one message.
type getRequest struct {
	Seq        uint64 `json:"seq,omitempty"`
	LastBySubj string `json:"last_by_subj,omitempty"`
	NextBySubj string `json:"next_by_subj,omitempty"`
}

type storedMsg struct {
	Subject string    `json:"subject"`
	Seq     uint64    `json:"seq"`
	Header  []byte    `json:"hdrs"` // as on the wire
	Data    []byte    `json:"data"`
	Time    time.Time `json:"time"`
}

// get reads one message from a stream's leader, nil if there is none. A follower could
// be stale, and two dispatchers would then each miss the other's half of a join.
func (b *Bus) get(ctx context.Context, stream string, r getRequest) (*storedMsg, error) {
	var answer struct {
		Message *storedMsg `json:"message"`
	}
	for try := 0; ; try++ {
		err := b.api(ctx, "$JS.API.STREAM.MSG.GET."+stream, r, &answer)
		switch {
		case err == nil:
			return answer.Message, nil
		case isCode(err, codeNoMessage):
			return nil, nil
		case isCode(err, codeNoStream):
			return nil, fmt.Errorf("%s: %w", stream, ErrNoStream)
		case final(err):
			return nil, err
		}
		if !pause(ctx, try) {
			return nil, unreachable(err)
		}
	}
}

func unreachable(err error) error {
	if errors.Is(err, ErrUnreachable) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// read reads one event from the leader; one that cannot be parsed has V 0.
func (b *Bus) read(ctx context.Context, r getRequest) (*phases.Event, error) {
	m, err := b.get(ctx, EventsStream, r)
	if m == nil || err != nil {
		return nil, err
	}
	e, _ := decodeEvent(m.Subject, m.Data, m.Seq) // V 0 tells
	return &e, nil
}

// Last reads a chain's last event, nil if there is none; Seq is set, and V is 0 if it
// cannot be parsed. Dispatchers read from the stream's leader, hosts from any copy: they
// have no other permission, and what they then write is compare-and-set.
func (b *Bus) Last(ctx context.Context, group, sector string, step phases.Step) (*phases.Event, error) {
	return b.last(ctx, chainFilter(group, sector, step))
}

// LastOf reads a sector's last event, in whatever group, nil if there is none. Hosts may not.
func (b *Bus) LastOf(ctx context.Context, sector string) (*phases.Event, error) {
	if !isToken(sector) {
		return nil, fmt.Errorf("%q is not a sector", sector)
	}
	return b.last(ctx, sectorFilter(sector))
}

// LastBy reads the last event that one actor wrote on a chain, nil if there is none. It
// serves a reader that cannot fold the whole chain: what somebody else wrote behind it, who
// had no right to, does not come between. host may be any dispatcher's name for all of
// them: nobody but dispatchers may write as one.
func (b *Bus) LastBy(ctx context.Context, group, sector string, step phases.Step, host string) (*phases.Event, error) {
	if err := checkTokens(group, sector, step, host); err != nil {
		return nil, err
	}
	return b.last(ctx, EventSubject(phases.Event{Group: group, Sector: sector, Step: step, Host: host}))
}

func (b *Bus) last(ctx context.Context, filter string) (*phases.Event, error) {
	if b.cfg.Role != RoleHost {
		return b.read(ctx, getRequest{LastBySubj: filter})
	}
	for try := 0; ; try++ {
		r, err := b.request(ctx, &nats.Msg{Subject: "$JS.API.DIRECT.GET." + EventsStream + "." + filter})
		if err == nil {
			return decodeDirect(r)
		}
		if !pause(ctx, try) {
			return nil, err
		}
	}
}

func decodeDirect(r *nats.Msg) (*phases.Event, error) {
	switch status := r.Header.Get("Status"); status {
	case "":
	case "404":
		return nil, nil
	default:
		return nil, fmt.Errorf("reading a chain: %s %s", status, r.Header.Get("Description"))
	}
	seq, err := strconv.ParseUint(r.Header.Get("Nats-Sequence"), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("reading a chain: strange answer: %w", err)
	}
	e, _ := decodeEvent(r.Header.Get("Nats-Subject"), r.Data, seq) // V 0 tells
	return &e, nil
}

// History reads all events of a sector, in whatever group, in stream order. Messages that
// cannot be parsed are among them, with V 0.
func (b *Bus) History(ctx context.Context, sector string) ([]phases.Event, error) {
	if !isToken(sector) {
		return nil, fmt.Errorf("%q is not a sector", sector)
	}
	var events []phases.Event
	next := uint64(1)
	for {
		e, err := b.read(ctx, getRequest{Seq: next, NextBySubj: sectorFilter(sector)})
		if err != nil {
			return nil, err
		}
		if e == nil {
			return events, nil
		}
		events = append(events, *e)
		next = e.Seq + 1
	}
}

// Replay calls fn for every event up to now, in stream order, and returns the last
// sequence that it covers, from which Follow can go on.
func (b *Bus) Replay(ctx context.Context, fn func(phases.Event) error) (uint64, error) {
	state, err := b.streamState(ctx)
	if err != nil {
		return 0, err
	}
	last := state.State.LastSeq
	if state.State.Msgs == 0 {
		return last, nil
	}
	err = b.follow(ctx, 1, last, fn)
	return last, err
}

// Follow calls fn for every event from sequence from on, in order and one after the
// other, until ctx ends (its error is returned) or fn fails. Messages that cannot be
// parsed come with V 0 and the tokens of their subject.
func (b *Bus) Follow(ctx context.Context, from uint64, fn func(phases.Event) error) error {
	return b.follow(ctx, max(from, 1), 0, fn)
}

// follow reads events from one sequence to another, 0: for ever. Nothing is ever deleted
// from the log, so its sequences have no gap: where one is, the server's store is damaged,
// and the server skips what it cannot read without a word.
func (b *Bus) follow(ctx context.Context, from, to uint64, fn func(phases.Event) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Uint64
	next.Store(from)
	handle := func(m jetstream.Msg) {
		if ctx.Err() != nil {
			return
		}
		meta, err := m.Metadata()
		if err != nil || meta.Sequence.Stream < next.Load() {
			return // not from the stream, or had already before a reset
		}
		if seq := meta.Sequence.Stream; seq > next.Load() {
			cancel(b.stop(fmt.Errorf("%w: events %d to %d cannot be read", ErrWentBack, next.Load(), seq-1)))
			return
		}
		next.Store(meta.Sequence.Stream + 1)
		e, _ := decodeEvent(m.Subject(), m.Data(), meta.Sequence.Stream) // V 0 tells
		b.seen.note(e.Seq)
		if err := fn(e); err != nil {
			cancel(err)
		} else if to != 0 && next.Load() > to {
			cancel(errReached)
		}
	}
	if to != 0 {
		go b.watchEnd(ctx, &next, to, cancel)
	}
	for try := 0; ; try++ {
		err := b.consumeOrdered(ctx, next.Load(), handle)
		switch cause := context.Cause(ctx); {
		case errors.Is(cause, errReached):
			return nil
		case cause != nil:
			return cause
		}
		b.log.Warn("reading events was interrupted, trying again", "error", err)
		pause(ctx, try)
	}
}

// stallLook is how long a replay may bring nothing before it is asked why.
const stallLook = 3 * time.Second

// watchEnd finds out whether the last events of a replay cannot be read: the server never
// sends them, and nothing comes after them that would show the gap.
func (b *Bus) watchEnd(ctx context.Context, next *atomic.Uint64, to uint64, cancel context.CancelCauseFunc) {
	for before := uint64(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(stallLook):
		}
		at := next.Load()
		if at > to || at != before {
			before = at
			continue
		}
		m, err := b.get(ctx, EventsStream, getRequest{Seq: at, NextBySubj: eventSubjects})
		if err == nil && (m == nil || m.Seq > at) && next.Load() == at {
			cancel(b.stop(fmt.Errorf("%w: events %d to %d cannot be read", ErrWentBack, at, to)))
			return
		}
	}
}

var errReached = errors.New("reached the last event")

// consumeOrdered feeds handle until ctx ends or the subscription fails for good.
func (b *Bus) consumeOrdered(ctx context.Context, from uint64, handle func(jetstream.Msg)) error {
	oc, err := b.js.OrderedConsumer(ctx, EventsStream, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{eventSubjects}, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from,
		InactiveThreshold: time.Minute,
		Metadata:          managed(nil),
	})
	if err != nil {
		return err
	}
	cc, err := oc.Consume(handle, jetstream.PullMaxMessages(1000), jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
		b.log.Debug("reading events", "error", err)
	}))
	if err != nil {
		return err
	}
	defer cc.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-cc.Closed():
		return errors.New("the subscription ended")
	}
}
