package bus

import (
	"context"
	"fmt"
	"strconv"

	"sealfleet/internal/phases"
	"sealfleet/internal/trace"
)

// ConflictError says that another event is where this one was to be.
type ConflictError struct {
	Event phases.Event  // the one that was not written
	Other *phases.Event // one that is on the chain instead, after the expected sequence
}

func (c *ConflictError) Error() string {
	text := fmt.Sprintf("%s of %s %s: the chain has moved on", c.Event.Type, c.Event.Sector, c.Event.Step)
	if o := c.Other; o != nil {
		text += fmt.Sprintf(": %s by %s at sequence %d", o.Type, o.Host, o.Seq)
	}
	return text
}

// Is makes errors.Is(err, ErrConflict) true.
func (c *ConflictError) Is(target error) bool { return target == ErrConflict }

// Append writes an event if the chain's last sequence is expectLast (0: the chain is
// empty; for Submitted: in every group, so that a sector number is used once). It returns
// the event's sequence; a lost race is a *ConflictError.
//
// It retries until ctx ends, and tells its own event from another's, so that appending
// the same event again (same id) is safe and gives the same answer. If ctx ends first the
// outcome is unknown and the error wraps ErrUnreachable.
func (b *Bus) Append(ctx context.Context, e phases.Event, expectLast uint64) (uint64, error) {
	m, err := encodeEvent(e)
	if err != nil {
		return 0, err
	}
	filter := chainFilter(e.Group, e.Sector, e.Step)
	if e.Type == phases.Submitted {
		filter = anyGroupFilter(e.Sector)
	}
	m.Header[expectSeqHeader] = []string{strconv.FormatUint(expectLast, 10)}
	m.Header[expectFilterHeader] = []string{filter}
	if parent := b.cfg.Tracer.OfEvent(e); parent != "" {
		m.Header[trace.Header] = []string{parent}
	}
	for try := 0; ; try++ {
		if err := b.Stopped(); err != nil {
			return 0, err
		}
		before := b.seen.highest()
		seq, err := b.publish(ctx, m)
		if err == nil {
			return seq, b.acknowledged(seq, before)
		}
		if isCode(err, codeWrongLastSeq, codeSeqInFlight) {
			// It may be our own that we lost to: its acknowledgement got lost.
			other, rerr := b.winner(ctx, e, filter, expectLast)
			switch {
			case rerr != nil:
				err = rerr
			case other != nil && other.ID == e.ID:
				return other.Seq, nil
			case other != nil:
				return 0, &ConflictError{Event: e, Other: other}
			}
		} else if final(err) {
			return 0, fmt.Errorf("%s of %s %s: %w", e.Type, e.Sector, e.Step, err)
		}
		if !pause(ctx, try) {
			return 0, fmt.Errorf("%s of %s %s may or may not be written: %w", e.Type, e.Sector, e.Step, unreachable(err))
		}
	}
}

// winner returns the event that is on the chain after the expected sequence, or nil if
// the server that was asked does not know it yet. For our own event it returns that.
func (b *Bus) winner(ctx context.Context, e phases.Event, filter string, expect uint64) (*phases.Event, error) {
	if b.cfg.Role != RoleHost {
		return b.read(ctx, getRequest{Seq: expect + 1, NextBySubj: filter})
	}
	// A host may only read the chain's last event. If that follows ours, ours landed.
	last, err := b.Last(ctx, e.Group, e.Sector, e.Step)
	if err != nil || last == nil || last.Seq <= expect {
		return nil, err
	}
	if last.PrevID == e.ID {
		own := e
		own.Seq = last.Seq - 1 // unknown, but before it
		return &own, nil
	}
	return last, nil
}
