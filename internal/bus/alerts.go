package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/oklog/ulid/v2"

	"sealfleet/internal/phases"
)

// ControlAlert is the kind of control that keeps an alarm: alert.<name>.<labels>. On says
// that it stands; dispatchers write it, not operators.
const ControlAlert = "alert"

// AlertSubject is where an alarm is told as it happens, plain NATS: alert.<group>.<name>.
// What is of no group is told as the fleet's.
func AlertSubject(group, name string) string {
	if group == "" {
		group = "fleet"
	}
	return "alert." + group + "." + name
}

// TellAlert tells an alarm to whoever listens now.
func (b *Bus) TellAlert(group, name string, v any) error {
	if group != "" && !isToken(group) || !isToken(name) {
		return fmt.Errorf("alert %q of %q cannot be part of a subject", name, group)
	}
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("alert: %w", err)
	}
	if err := b.nc.Publish(AlertSubject(group, name), data); err != nil {
		return unreachable(err)
	}
	return nil
}

// SetControlAfter writes a control if the last one of its key has the sequence that its
// writer saw, 0: there is none. ErrConflict says that somebody was first.
func (b *Bus) SetControlAfter(ctx context.Context, c Control, last uint64) (Control, error) {
	if err := checkKey(c.Key); err != nil {
		return c, err
	}
	c.ID, c.At, c.V = ulid.Make().String(), b.Now().UTC(), phases.Version
	data, err := json.Marshal(c)
	if err != nil {
		return c, err
	}
	m := &nats.Msg{Subject: controlPrefix + c.Key, Data: data, Header: nats.Header{
		"Nats-Msg-Id":   []string{c.ID},
		expectSeqHeader: []string{strconv.FormatUint(last, 10)},
	}}
	if c.Seq, err = b.publish(ctx, m); isCode(err, codeWrongLastSeq, codeSeqInFlight) {
		return c, fmt.Errorf("control %s: %w", c.Key, ErrConflict)
	}
	var refused *apiError
	if err != nil && !errors.As(err, &refused) {
		err = unreachable(err)
	}
	return c, err
}
