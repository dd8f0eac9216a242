package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"sealfleet/internal/phases"

	"github.com/nats-io/nats.go"
	"github.com/oklog/ulid/v2"
)

// ControlStream holds what operators set for hosts and groups: the last message of a
// subject is in force, those before it are its audit.
const (
	ControlStream   = "SEAL_CONTROL"
	controlSubjects = controlPrefix + ">"
	controlPrefix   = "ctl."
)

// keptControls is how many messages of one control are kept: who changed what, and when.
const keptControls = 64

// The kinds of controls: the first token of a key.
const (
	ControlDrain = "drain" // drain.<host>: the host takes nothing new
	ControlPause = "pause" // pause.<group>.<phase, or all>: nobody takes tasks of it
	ControlLimit = "limit" // limit.<group>: bytes per second of all the group's copies, in Value
	ControlMute  = "mute"  // mute.<alert>.<group, or all>
	ControlAside = "aside" // aside.<sequence>: what an operator did with a message that was set aside, in Value; a record only
)

// Control is one thing that an operator set.
type Control struct {
	V      int       `json:"v"`
	ID     string    `json:"id"`
	Key    string    `json:"key"` // tokens with dots between: drain.p1-host-3
	On     bool      `json:"on"`  // false: back to normal
	By     string    `json:"by"`  // user@host
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"`
	Until  time.Time `json:"until,omitzero"` // by itself back to normal; zero: never
	// Value is the kind's own: a number of bytes per second for a limit.
	Value json.RawMessage `json:"value,omitempty"`

	// Seq is the sequence in the stream, set by who read it there.
	Seq uint64 `json:"-"`
}

// InForce tells whether the control counts at a time.
func (c Control) InForce(now time.Time) bool {
	return c.On && (c.Until.IsZero() || now.Before(c.Until))
}

// Kind is the first token of the key; Name is the rest.
func (c Control) Kind() string { kind, _, _ := strings.Cut(c.Key, "."); return kind }

// Name is the key without its kind.
func (c Control) Name() string { _, name, _ := strings.Cut(c.Key, "."); return name }

// SetControl writes a control. Id, version and time are filled in if they are missing;
// writing the same control again (same id) is harmless.
func (b *Bus) SetControl(ctx context.Context, c Control) (Control, error) {
	if err := checkKey(c.Key); err != nil {
		return c, err
	}
	if c.ID == "" {
		c.ID = ulid.Make().String()
	}
	if c.At.IsZero() {
		c.At = b.Now().UTC()
	}
	c.V = phases.Version
	data, err := json.Marshal(c)
	if err != nil {
		return c, err
	}
	m := &nats.Msg{Subject: controlPrefix + c.Key, Data: data, Header: nats.Header{"Nats-Msg-Id": []string{c.ID}}}
	for try := 0; ; try++ {
		if c.Seq, err = b.publish(ctx, m); err == nil || final(err) {
			return c, err
		}
		if !pause(ctx, try) {
			return c, fmt.Errorf("control %s may or may not be set: %w", c.Key, unreachable(err))
		}
	}
}

func checkKey(key string) error {
	for t := range strings.SplitSeq(key, ".") {
		if !isToken(t) {
			return fmt.Errorf("control %q: %q cannot be part of a subject: use letters, digits, - and _", key, t)
		}
	}
	return nil
}

// Controls reads the last message of every control of the kinds (none: of all kinds). Hosts
// may ask too. Ask for what is needed: alarms and records are controls as well, there may be
// many of them, and the server answers for no more than 1,024 at once.
func (b *Bus) Controls(ctx context.Context, kinds ...string) ([]Control, error) {
	filters := controlFilters(kinds)
	for try := 0; ; try++ {
		list, err := b.controlsOnce(ctx, filters)
		if err == nil || final(err) || errors.Is(err, ErrNoStream) {
			return list, err
		}
		if !pause(ctx, try) {
			return nil, unreachable(err)
		}
	}
}

func controlFilters(kinds []string) []string {
	if len(kinds) == 0 {
		return []string{controlSubjects}
	}
	filters := make([]string, len(kinds))
	for i, kind := range kinds {
		filters[i] = controlPrefix + kind + ".>"
	}
	return filters
}

// ControlHistory reads what was set under a key, oldest first, as far as it is kept. Hosts
// may not ask.
func (b *Bus) ControlHistory(ctx context.Context, key string) ([]Control, error) {
	for t := range strings.SplitSeq(key, ".") {
		if !isToken(t) {
			return nil, nil // nothing can have been set under it
		}
	}
	var list []Control
	for seq := uint64(1); ; {
		m, err := b.get(ctx, ControlStream, getRequest{Seq: seq, NextBySubj: controlPrefix + key})
		if err != nil || m == nil {
			return list, err
		}
		if c, err := decodeControl(m.Subject, m.Data); err == nil {
			c.Seq = m.Seq
			list = append(list, c)
		}
		seq = m.Seq + 1
	}
}

// controlsOnce asks for the last message of each subject in one request, which is
// answered by a message for each and an empty one at the end.
func (b *Bus) controlsOnce(ctx context.Context, filters []string) (list []Control, err error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	body, err := json.Marshal(struct {
		MultiLast []string `json:"multi_last"`
	}{filters})
	if err != nil {
		return nil, err
	}
	inbox := b.nc.NewInbox()
	sub, err := b.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, unreachable(err)
	}
	defer sub.Unsubscribe() //nolint:errcheck // it has served
	if err := b.nc.PublishRequest("$JS.API.DIRECT.GET."+ControlStream, inbox, body); err != nil {
		return nil, unreachable(err)
	}
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return nil, unreachable(err)
		}
		switch status := m.Header.Get("Status"); status {
		case "":
			if c, err := decodeControl(m.Header.Get("Nats-Subject"), m.Data); err == nil {
				c.Seq, _ = strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64) // 0: whoever compares finds that it does not match
				list = append(list, c)
			} else {
				b.log.Error("a control that cannot be read is passed over", "error", err)
			}
		case "204", "404":
			return list, nil
		case "503":
			return nil, fmt.Errorf("%s: %w", ControlStream, ErrNoStream)
		default:
			return nil, fmt.Errorf("reading controls: %s %s", status, m.Header.Get("Description"))
		}
	}
}

func decodeControl(subject string, data []byte) (c Control, err error) {
	key, ok := strings.CutPrefix(subject, controlPrefix)
	if !ok {
		return c, fmt.Errorf("subject %q is no control's", subject)
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("message on %s is no control: %w", subject, err)
	}
	if c.Key != key {
		return c, fmt.Errorf("message on %s says that it is control %q", subject, c.Key)
	}
	return c, nil
}

// controlsAgain is how often a watcher reads all controls anew, in case it missed one.
// A change is read once more after controlsSettle: the watcher hears of it when it is
// published, and the stream may have it a moment later.
const (
	controlsAgain  = time.Minute
	controlsSettle = 500 * time.Millisecond
)

// WatchControls calls fn with all controls of the kinds (none: of all kinds) as they stand, at
// once, whenever one changes, and now and then, until ctx ends. Calls come one after the
// other. As long as the bus is away what was last said stays in force.
func (b *Bus) WatchControls(ctx context.Context, fn func([]Control), kinds ...string) error {
	changed := make(chan struct{}, 1)
	for _, filter := range controlFilters(kinds) {
		sub, err := b.nc.Subscribe(filter, func(*nats.Msg) {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
		if err != nil {
			return unreachable(err)
		}
		defer sub.Unsubscribe() //nolint:errcheck // it has served
	}
	again := time.NewTicker(controlsAgain)
	defer again.Stop()
	var settled <-chan time.Time
	for {
		list, err := b.Controls(ctx, kinds...)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			fn(list)
		case errors.Is(err, ErrNoStream):
			fn(nil) // an older dispatcher made the bus: nothing was ever set
		default:
			b.log.Warn("controls cannot be read; what was set before stays in force", "error", err)
		}
		select {
		case <-changed:
			settled = time.After(controlsSettle)
		case <-settled:
			settled = nil
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
