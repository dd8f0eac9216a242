package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"sealfleet/internal/phases"
)

// What nobody can act on is set aside: copied as it is to SEAL_ASIDE, with the reason,
// under aside.<kind>.<group> (so that "nats sub 'aside.>'" hears of it), and only then taken
// out of its queue. It blocks nothing behind it, and an operator sees all of it.

// AsideKind says why a message was set aside.
type AsideKind string

// The kinds.
const (
	AsideEvent AsideKind = "event" // a message under ev.> that is no event
	AsideTask  AsideKind = "task"  // a message under seal.> that is no task
	AsideNewer AsideKind = "newer" // an event or task of a release newer than the one that read it
	AsidePhase AsideKind = "phase" // a task that no durable consumer gives to anybody
)

const (
	// keptAside is how many messages are kept; the oldest go first.
	keptAside = 100_000
	// asideWindow is for how long the same message is set aside once, however often and
	// by however many it is met.
	asideWindow = time.Hour
	// asideAgain is how soon a message comes again that could not be set aside.
	asideAgain = 5 * time.Second
	// asideMost is how much of a message's data is kept, in bytes.
	asideMost = 512 << 10
	// newerTaskDelay is how long a task that only a newer release understands waits for one.
	newerTaskDelay = 30 * time.Second
	// newerShown is the delivery at which such a task is shown to operators: hosts were
	// asked for five minutes.
	newerShown = 10
	// asideTries is after how many deliveries a message leaves its queue though it could
	// not be set aside (this user may lack the permission): the log has its text.
	asideTries = 10
)

// The headers of what was set aside. The message's own stay beside them; those that the
// server would obey (Nats-…) get originalPrefix.
const (
	asideReason    = "Sealfleet-Aside-Reason"
	asideBy        = "Sealfleet-Aside-By"
	asideFrom      = "Sealfleet-Aside-Stream"
	asideSeq       = "Sealfleet-Aside-Sequence"
	asideSubject   = "Sealfleet-Aside-Subject"
	asideStored    = "Sealfleet-Aside-Stored"
	asideSize      = "Sealfleet-Aside-Size"
	asideHeaders   = "Sealfleet-Aside-"
	originalPrefix = "Sealfleet-Original-"
)

// Aside is a message that was set aside.
type Aside struct {
	Seq      uint64              `json:"seq"` // in SEAL_ASIDE: its name for operators
	Kind     AsideKind           `json:"kind"`
	Group    string              `json:"group,omitempty"` // empty: its subject names none
	Reason   string              `json:"reason"`
	By       string              `json:"by"` // the client that met it
	At       time.Time           `json:"at"`
	Stream   string              `json:"stream"`
	Subject  string              `json:"subject"`
	Original uint64              `json:"original_seq"`
	Stored   time.Time           `json:"stored"` // when its writer wrote it
	Size     int                 `json:"size"`   // bytes of its data
	Headers  map[string][]string `json:"headers,omitempty"`
	Data     []byte              `json:"data,omitempty"` // base64 in JSON; at most the first 512 KiB
}

// original is a message that is to be set aside.
type original struct {
	kind    AsideKind
	group   string
	reason  string
	stream  string
	seq     uint64
	stored  time.Time
	subject string
	header  nats.Header
	data    []byte
}

const noGroup = "none"

func (o original) message(by string) *nats.Msg {
	group := o.group
	if !isToken(group) {
		group = noGroup
	}
	h := nats.Header{}
	for k, v := range o.header {
		if strings.HasPrefix(textproto.CanonicalMIMEHeaderKey(k), "Nats-") {
			k = originalPrefix + k
		}
		h[k] = v
	}
	for k, v := range map[string]string{
		asideReason: printable(o.reason), asideBy: by, asideFrom: o.stream, asideSeq: strconv.FormatUint(o.seq, 10),
		asideSubject: o.subject, asideStored: o.stored.UTC().Format(time.RFC3339Nano), asideSize: strconv.Itoa(len(o.data)),
		// The same message of the same stream, whoever meets it; a stream that was made
		// again counts anew, at another time.
		nats.MsgIdHdr: fmt.Sprintf("%s-%d-%d", o.stream, o.seq, o.stored.UnixNano()),
	} {
		h[k] = []string{v}
	}
	return &nats.Msg{Subject: asidePrefix + string(o.kind) + "." + group, Header: h, Data: o.data[:min(len(o.data), asideMost)]}
}

// printable makes one line of a text that may come from anybody.
func printable(s string) string {
	const longest = 500
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(s, "?"))
	return s[:min(len(s), longest)]
}

// setAsideMessage writes a message to SEAL_ASIDE: nil says that it is there.
func (b *Bus) setAsideMessage(ctx context.Context, o original) error {
	b.log.Error("set aside a message", "kind", string(o.kind), "reason", printable(o.reason), "subject", o.subject,
		"stream", o.stream, "seq", o.seq, "data", printable(clip(o.data)))
	_, err := b.publish(ctx, o.message(b.client))
	if errors.Is(err, nats.ErrMaxPayload) {
		o.header = nil // headers of half a megabyte are part of what is wrong with it
		_, err = b.publish(ctx, o.message(b.client))
	}
	if err != nil {
		return fmt.Errorf("set aside message %d of %s: %w", o.seq, o.stream, err)
	}
	b.setAside.Add(1)
	return nil
}

// setAsideTask sets aside a message that a host was given and that is no task. Removing it
// is safe: if it stands for a task, that is made again from its chain.
func (b *Bus) setAsideTask(ctx context.Context, l *Lease, m *nats.Msg, group string, why error) {
	err := b.setAsideLease(ctx, m, AsideTask, group, why.Error())
	if err != nil && l.Deliveries < asideTries {
		b.log.Warn("a message that is no task could not be set aside; it comes again", "error", err, "in", newerTaskDelay)
		_ = l.Nak(newerTaskDelay) // lost: it comes again after AckWait
		return
	}
	_ = l.Term("no task: " + clip([]byte(why.Error()))) // lost: it comes again after AckWait
}

// leaveToNewer hands back a task that only a newer release understands. It stays in its
// queue; when nobody took it for a while, operators are shown a copy.
func (b *Bus) leaveToNewer(ctx context.Context, l *Lease, m *nats.Msg) {
	b.log.Warn("left a task to a host with a newer release", "subject", m.Subject, "version", l.Task.V)
	if l.Deliveries == newerShown {
		why := fmt.Sprintf("task version %d, the hosts that were given it know %d: it waits in its stream for a host with a newer release", l.Task.V, phases.Newest)
		if err := b.setAsideLease(ctx, m, AsideNewer, l.Task.Group, why); err != nil {
			b.log.Warn("a task of a newer release could not be shown", "error", err)
		}
	}
	_ = l.Nak(newerTaskDelay) // lost: it comes again after AckWait
}

func (b *Bus) setAsideLease(ctx context.Context, m *nats.Msg, kind AsideKind, group, why string) error {
	meta, err := m.Metadata()
	if err != nil {
		return err
	}
	return b.setAsideMessage(ctx, original{
		kind: kind, group: group, reason: why, stream: TasksStream, seq: meta.Sequence.Stream, stored: meta.Timestamp,
		subject: m.Subject, header: m.Header, data: m.Data,
	})
}

// SetAsideTask takes a message out of SEAL_TASKS by its subject, after a copy of it was set
// aside. That it is gone meanwhile is success.
func (b *Bus) SetAsideTask(ctx context.Context, subject string, kind AsideKind, reason string) error {
	m, err := b.get(ctx, TasksStream, getRequest{LastBySubj: subject})
	if m == nil || err != nil {
		return err
	}
	header, err := m.headers()
	if err != nil {
		b.log.Warn("a message's headers cannot be read", "subject", subject, "error", err)
	}
	group := ""
	if t := strings.Split(subject, "."); len(t) > 1 {
		group = t[1]
	}
	if err := b.setAsideMessage(ctx, original{
		kind: kind, group: group, reason: reason, stream: TasksStream, seq: m.Seq, stored: m.Time, subject: subject, header: header, data: m.Data,
	}); err != nil {
		return err
	}
	return b.deleteMessage(ctx, TasksStream, m.Seq)
}

func (b *Bus) deleteMessage(ctx context.Context, stream string, seq uint64) error {
	s, err := b.js.Stream(ctx, stream)
	if err != nil {
		return unreachable(err)
	}
	if err := s.DeleteMsg(ctx, seq); err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		return fmt.Errorf("remove message %d of %s: %w", seq, stream, err)
	}
	return nil
}

// Durables names the durable consumers of SEAL_TASKS.
func (b *Bus) Durables(ctx context.Context) (map[string]bool, error) {
	s, err := b.js.Stream(ctx, TasksStream)
	if err != nil {
		return nil, unreachable(err)
	}
	names := map[string]bool{}
	list := s.ConsumerNames(ctx)
	for name := range list.Name() {
		names[name] = true
	}
	if err := list.Err(); err != nil {
		return nil, unreachable(err)
	}
	return names, nil
}

func (m *storedMsg) headers() (nats.Header, error) {
	if len(m.Header) == 0 {
		return nil, nil
	}
	return nats.DecodeHeadersMsg(m.Header)
}

// ErrNoAside says that no message of this number is set aside.
var ErrNoAside = errors.New("nothing is set aside under this number (dispatcher aside)")

// Asides lists what is set aside, oldest first: the last most ones, 0: all.
func (b *Bus) Asides(ctx context.Context, most uint64) (list []Aside, err error) {
	s, err := b.js.Stream(ctx, AsideStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("%s: %w", AsideStream, ErrNoStream)
	}
	if err != nil {
		return nil, unreachable(err)
	}
	next := uint64(1)
	if last := s.CachedInfo().State.LastSeq; most > 0 && last > most {
		next = last - most + 1
	}
	for {
		m, err := b.get(ctx, AsideStream, getRequest{Seq: next, NextBySubj: asideSubjects})
		if m == nil || err != nil {
			return list, err
		}
		list = append(list, readAside(m))
		next = m.Seq + 1
	}
}

// Aside reads one.
func (b *Bus) Aside(ctx context.Context, seq uint64) (Aside, error) {
	m, err := b.get(ctx, AsideStream, getRequest{Seq: seq})
	if err == nil && m == nil {
		err = fmt.Errorf("%d: %w", seq, ErrNoAside)
	}
	if err != nil {
		return Aside{}, err
	}
	return readAside(m), nil
}

// readAside takes whatever lies in the stream: what somebody else put there shows too.
func readAside(m *storedMsg) Aside {
	a := Aside{Seq: m.Seq, At: m.Time, Data: m.Data, Size: len(m.Data)}
	if t := strings.Split(m.Subject, "."); len(t) == 3 {
		a.Kind, a.Group = AsideKind(t[1]), t[2]
		if a.Group == noGroup {
			a.Group = ""
		}
	}
	h, err := m.headers()
	if err != nil {
		a.Reason = "its headers cannot be read: " + err.Error()
		return a
	}
	a.Reason, a.By, a.Stream, a.Subject = h.Get(asideReason), h.Get(asideBy), h.Get(asideFrom), h.Get(asideSubject)
	a.Original, _ = strconv.ParseUint(h.Get(asideSeq), 10, 64)     // 0: not known
	a.Stored, _ = time.Parse(time.RFC3339Nano, h.Get(asideStored)) // zero: not known
	if n, err := strconv.Atoi(h.Get(asideSize)); err == nil {      // else it is what is there
		a.Size = n
	}
	for _, k := range slices.Sorted(maps.Keys(h)) {
		if strings.HasPrefix(k, asideHeaders) || k == nats.MsgIdHdr {
			continue
		}
		if a.Headers == nil {
			a.Headers = map[string][]string{}
		}
		a.Headers[strings.TrimPrefix(k, originalPrefix)] = h[k]
	}
	return a
}

// ErrNoRetry says that a message that was set aside cannot be given out again.
var ErrNoRetry = errors.New("it cannot be given out again")

// RetryAside publishes a task that was set aside once more, if this release can read it,
// and takes it out of view. An event is never written again: it is in the log, and
// dispatchers of a release that can read it act on it when they start.
func (b *Bus) RetryAside(ctx context.Context, seq uint64, by, reason string) (Aside, error) {
	a, err := b.Aside(ctx, seq)
	if err != nil {
		return a, err
	}
	if a.Stream != TasksStream {
		return a, fmt.Errorf("%d: %w: it is in %s for good, and dispatchers of a release that can read it act on it when they start", seq, ErrNoRetry, a.Stream)
	}
	if _, err := decodeTask(a.Subject, a.Data); err != nil {
		return a, fmt.Errorf("%d: %w: %w; if it stands for a task, the dispatchers make that again by themselves", seq, ErrNoRetry, err)
	}
	if err := b.recordAside(ctx, a, "retry", by, reason); err != nil {
		return a, err
	}
	if err := b.publishOnce(ctx, &nats.Msg{Subject: a.Subject, Data: a.Data}); err != nil {
		return a, err
	}
	return a, b.deleteMessage(ctx, AsideStream, seq)
}

// DropAside takes a message out of view.
func (b *Bus) DropAside(ctx context.Context, seq uint64, by, reason string) (Aside, error) {
	a, err := b.Aside(ctx, seq)
	if err != nil {
		return a, err
	}
	if err := b.recordAside(ctx, a, "drop", by, reason); err != nil {
		return a, err
	}
	return a, b.deleteMessage(ctx, AsideStream, seq)
}

// recordAside writes down what an operator does with a message, before it is done.
func (b *Bus) recordAside(ctx context.Context, a Aside, what, by, reason string) error {
	value, err := json.Marshal(struct {
		What   string    `json:"what"`
		Kind   AsideKind `json:"kind"`
		Stream string    `json:"stream"`
		Seq    uint64    `json:"seq"`
		Object string    `json:"subject"`
	}{what, a.Kind, a.Stream, a.Original, a.Subject})
	if err != nil {
		return err
	}
	_, err = b.SetControl(ctx, Control{Key: ControlAside + "." + strconv.FormatUint(a.Seq, 10), By: by, Reason: reason, Value: value})
	return err
}
