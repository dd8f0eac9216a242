package bus

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"sealfleet/internal/phases"

	"github.com/nats-io/nats.go"
)

// Headers of a published message that the server reads.
const (
	expectSeqHeader    = "Nats-Expected-Last-Subject-Sequence"
	expectFilterHeader = "Nats-Expected-Last-Subject-Sequence-Subject"
)

// The server's error codes that mean something to us.
const (
	codeWrongLastSeq = 10071 // compare-and-set lost, on one server
	codeSeqInFlight  = 10164 // the same on a cluster, while the winner is still being agreed on
	codeStoreFailed  = 10077 // among others: the subject has its one message already
	codeNoMessage    = 10037
	codeNoStream     = 10059
	codeNoConsumer   = 10014
)

// apiError is the server's refusal of a request.
type apiError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *apiError) Error() string {
	return fmt.Sprintf("%s (NATS error %d)", e.Description, e.ErrCode)
}

func isCode(err error, codes ...int) bool {
	var a *apiError
	if !errors.As(err, &a) {
		return false
	}
	for _, c := range codes {
		if a.ErrCode == c {
			return true
		}
	}
	return false
}

// final tells whether trying again gives the same: the request itself is refused.
func final(err error) bool {
	var a *apiError
	return errors.As(err, &a) && a.Code == 400 || errors.Is(err, nats.ErrMaxPayload) || errors.Is(err, nats.ErrBadSubject)
}

// maxEvent is the largest event or task in bytes, well below the server's limit of 1 MiB.
const maxEvent = 512 << 10

// isToken tells whether a text may be one token of a subject.
func isToken(s string) bool {
	const longest = 80
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return len(s) > 0 && len(s) <= longest
}

func checkTokens(group, sector string, step phases.Step, host string) error {
	for _, t := range [...]struct{ what, value string }{
		{"group", group}, {"sector", sector}, {"step", string(step)}, {"host", host},
	} {
		if !isToken(t.value) {
			return fmt.Errorf("%s %q cannot be part of a subject: use letters, digits, - and _", t.what, t.value)
		}
	}
	return nil
}

// encodeEvent gives the message that an event is published as, without its expectation.
func encodeEvent(e phases.Event) (*nats.Msg, error) {
	if err := checkTokens(e.Group, e.Sector, e.Step, e.Host); err != nil {
		return nil, err
	}
	if e.ID == "" || e.V == 0 {
		return nil, fmt.Errorf("event %s of %s has no id or no version", e.Type, e.Sector)
	}
	data, err := e.AppendJSON(make([]byte, 0, 512))
	if err != nil {
		return nil, fmt.Errorf("event %s: %w", e.ID, err)
	}
	if len(data) > maxEvent {
		return nil, fmt.Errorf("event %s (%s %s of %s) has %d bytes, at most %d are allowed: outputs are for names and hashes, files belong on disk",
			e.ID, e.Type, e.Step, e.Sector, len(data), maxEvent)
	}
	return &nats.Msg{Subject: EventSubject(e), Data: data, Header: nats.Header{}}, nil
}

// decodeEvent reads an event from its message. What is no event, or claims to be another
// than its subject says, gives an error and an event with V 0 and the subject's tokens,
// which the fold rejects but whose place in the chain it must know.
func decodeEvent(subject string, data []byte, seq uint64) (phases.Event, error) {
	group, sector, step, actor, err := parseEventSubject(subject)
	if err != nil {
		return phases.Event{Seq: seq, Note: err.Error()}, err
	}
	e, err := phases.DecodeEvent(data)
	if err == nil && (e.Group != group || e.Sector != sector || e.Step != step || phases.Actor(e.Host) != actor) {
		err = fmt.Errorf("it says %s %s %s by %q", e.Group, e.Sector, e.Step, e.Host)
	}
	if err == nil && (e.V < 1 || e.ID == "") {
		err = errors.New("it has no version or no id")
	}
	if err != nil {
		err = fmt.Errorf("message %d on %s is no event: %w", seq, subject, err)
		return phases.Event{Group: group, Sector: sector, Step: step, Host: actor, Seq: seq, Note: err.Error()}, err
	}
	e.Seq = seq
	return e, nil
}

// TaskKey names one task: its subject's tokens.
type TaskKey struct {
	Group  string
	Step   phases.Step
	Sector string
	Issue  int
}

// parseTaskSubject reads a task's subject.
func parseTaskSubject(subject string) (TaskKey, error) {
	t := strings.Split(subject, ".")
	if len(t) == 5 && t[0] == "seal" {
		if issue, err := strconv.Atoi(t[4]); err == nil && issue > 0 {
			return TaskKey{Group: t[1], Step: phases.Step(t[2]), Sector: t[3], Issue: issue}, nil
		}
	}
	return TaskKey{}, fmt.Errorf("subject %q is not seal.<group>.<phase>.<sector>.<issue>", subject)
}

// decodeTask reads a task and checks that it is what its subject says.
func decodeTask(subject string, data []byte) (phases.Task, error) {
	k, err := parseTaskSubject(subject)
	if err != nil {
		return phases.Task{}, err
	}
	t, err := phases.DecodeTask(data)
	if err != nil {
		return t, fmt.Errorf("message on %s is no task: %w", subject, err)
	}
	if (TaskKey{t.Group, t.Step, t.Sector, t.Issue}) != k || t.V < 1 || t.IssuedID == "" {
		return t, fmt.Errorf("message on %s is no task: it says %s %s %s issue %d", subject, t.Group, t.Step, t.Sector, t.Issue)
	}
	return t, nil
}
