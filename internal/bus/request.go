package bus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// request asks the server once. An error of the transport wraps ErrUnreachable, a
// refusal is an *apiError.
func (b *Bus) request(ctx context.Context, m *nats.Msg) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	r, err := b.nc.RequestMsgWithContext(ctx, m)
	switch {
	case err == nil:
		return r, nil
	case errors.Is(err, nats.ErrMaxPayload), errors.Is(err, nats.ErrBadSubject):
		return nil, err
	case errors.Is(err, nats.ErrNoResponders):
		return nil, fmt.Errorf("%w: nobody answers on %s: JetStream is off, or its stream does not exist (dispatcher bus plan)", ErrUnreachable, m.Subject)
	}
	return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// api asks JetStream's API, and decodes the answer into out.
func (b *Bus) api(ctx context.Context, subject string, in, out any) error {
	data, err := json.Marshal(in)
	if err != nil {
		return err
	}
	r, err := b.request(ctx, &nats.Msg{Subject: subject, Data: data})
	if err != nil {
		return err
	}
	var refusal struct {
		Error *apiError `json:"error"`
	}
	if err := json.Unmarshal(r.Data, &refusal); err != nil {
		return fmt.Errorf("%s: strange answer: %w", subject, err)
	}
	if refusal.Error != nil {
		return refusal.Error
	}
	return json.Unmarshal(r.Data, out)
}

// publish writes a message to its stream once, and returns its sequence.
func (b *Bus) publish(ctx context.Context, m *nats.Msg) (uint64, error) {
	r, err := b.request(ctx, m)
	if err != nil {
		return 0, err
	}
	if seq, ok := plainAck(r.Data); ok {
		return seq, nil
	}
	var ack struct {
		Seq   uint64    `json:"seq"`
		Error *apiError `json:"error"`
	}
	if err := json.Unmarshal(r.Data, &ack); err != nil {
		return 0, fmt.Errorf("%s: strange answer: %w", m.Subject, err)
	}
	if ack.Error != nil {
		return 0, ack.Error
	}
	if ack.Seq == 0 {
		return 0, fmt.Errorf("%s: strange answer: %s", m.Subject, r.Data)
	}
	return ack.Seq, nil
}

// plainAck reads the usual answer to a publish, {"stream":"…", "seq":N}, without the
// help of encoding/json: there is one for every write.
func plainAck(data []byte) (uint64, bool) {
	const name = `"seq":`
	i := bytes.Index(data, []byte(name))
	if i < 0 || len(data) < 2 || data[len(data)-1] != '}' || bytes.Contains(data, []byte(`"error"`)) {
		return 0, false
	}
	n, err := strconv.ParseUint(string(bytes.TrimSpace(data[i+len(name):len(data)-1])), 10, 64)
	return n, err == nil && n > 0 // not a number: more members follow
}

// pause waits before the next try, longer each time; false when ctx ended.
func pause(ctx context.Context, try int) bool {
	wait := min(10*time.Millisecond<<min(try, 10), 2*time.Second)
	t := time.NewTimer(wait + rand.N(wait/2))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
