package phases

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"
)

// DecodeEvent reads an event's JSON. The usual form is read by hand; whatever else is
// JSON (members of a newer release, escaped characters) by encoding/json.
func DecodeEvent(data []byte) (Event, error) {
	var e Event
	r := reader{b: data}
	r.object(func(name []byte) { r.eventMember(&e, name) })
	if r.whole() {
		return e, nil
	}
	e = Event{}
	err := json.Unmarshal(data, &e)
	return e, err
}

// DecodeTask reads a task's JSON.
func DecodeTask(data []byte) (Task, error) {
	var t Task
	r := reader{b: data}
	r.object(func(name []byte) { r.taskMember(&t, name) })
	if r.whole() {
		return t, nil
	}
	t = Task{}
	err := json.Unmarshal(data, &t)
	return t, err
}

// QuietEvent tells of a message, without reading all of it, that it says to be an event
// from which nothing follows for a dispatcher: issued, claimed or progress.
func QuietEvent(data []byte) bool {
	rest, ok := bytes.CutPrefix(data, []byte(`{"v":1,"id":"`))
	const longestID = 64
	end := bytes.IndexByte(rest[:min(len(rest), longestID)], '"')
	if !ok || end < 0 {
		return false
	}
	rest, ok = bytes.CutPrefix(rest[end:], []byte(`","type":"`))
	return ok && (bytes.HasPrefix(rest, []byte(`issued"`)) || bytes.HasPrefix(rest, []byte(`claimed"`)) || bytes.HasPrefix(rest, []byte(`progress"`)))
}

func (r *reader) eventMember(e *Event, name []byte) {
	switch string(name) {
	case "v":
		e.V = int(r.integer())
	case "id":
		e.ID = r.text()
	case "type":
		e.Type = eventType(r.raw())
	case "group":
		e.Group = r.text()
	case "sector":
		e.Sector = r.text()
	case "phase":
		e.Step = stepOf(r.raw())
	case "issue":
		e.Issue = int(r.integer())
	case "attempt":
		e.Attempt = int(r.integer())
	case "claim_id":
		e.ClaimID = r.text()
	case "prev_id":
		e.PrevID = r.text()
	case "host":
		e.Host = r.text()
	case "at":
		e.At = r.time()
	case "input_digest":
		e.InputDigest = r.text()
	case "spec":
		r.strange = r.strange || e.Spec != nil // twice
		e.Spec = new(Spec)
		r.object(func(name []byte) { r.specMember(e.Spec, name) })
	case "inputs":
		r.strange = r.strange || e.Inputs != nil
		e.Inputs = r.texts()
	case "target":
		e.Target = stepOf(r.raw())
	case "reason":
		e.Reason = r.text()
	case "not_before":
		e.NotBefore = r.time()
	case "note":
		e.Note = r.text()
	case "fraction":
		e.Fraction = r.float()
	case "result":
		r.strange = r.strange || e.Result != nil
		e.Result = new(Result)
		r.object(func(name []byte) { r.resultMember(e.Result, name) })
	default:
		r.strange = true
	}
}

func (r *reader) resultMember(v *Result, name []byte) {
	switch string(name) {
	case "code":
		v.Code = r.text()
	case "class":
		v.Class = Class(r.text())
	case "message":
		v.Message = r.text()
	case "digest":
		v.Digest = r.text()
	case "outputs":
		r.strange = r.strange || v.Outputs != nil
		v.Outputs = r.texts()
	case "seconds":
		v.Seconds = r.float()
	case "bytes":
		v.Bytes = r.integer()
	default:
		r.strange = true
	}
}

func (r *reader) specMember(v *Spec, name []byte) {
	switch string(name) {
	case "miner":
		v.Miner = r.unsigned()
	case "number":
		v.Number = r.unsigned()
	case "proof_type":
		v.ProofType = int(r.integer())
	case "storage_node":
		v.StorageNode = r.text()
	case "submitted_by":
		v.SubmittedBy = r.text()
	default: // pieces are rare enough
		r.strange = true
	}
}

func (r *reader) taskMember(t *Task, name []byte) {
	switch string(name) {
	case "v":
		t.V = int(r.integer())
	case "group":
		t.Group = r.text()
	case "sector":
		t.Sector = r.text()
	case "phase":
		t.Step = stepOf(r.raw())
	case "issue":
		t.Issue = int(r.integer())
	case "attempt":
		t.Attempt = int(r.integer())
	case "issued_id":
		t.IssuedID = r.text()
	case "spec":
		r.object(func(name []byte) { r.specMember(&t.Spec, name) })
	case "inputs":
		r.strange = r.strange || t.Inputs != nil
		t.Inputs = r.texts()
	case "issued_seq":
		t.IssuedSeq = r.unsigned()
	case "not_before":
		t.NotBefore = r.time()
	default:
		r.strange = true
	}
}

// stepOf and eventType spare an allocation for each of the few words there are.
func stepOf(b []byte) Step {
	switch string(b) {
	case string(P1):
		return P1
	case string(P2):
		return P2
	case string(Precommit):
		return Precommit
	case string(P3):
		return P3
	case string(P4):
		return P4
	case string(P5):
		return P5
	case string(Commit):
		return Commit
	case string(P6):
		return P6
	case string(SectorEnd):
		return SectorEnd
	}
	return Step(b)
}

func eventType(b []byte) EventType {
	switch string(b) {
	case string(Issued):
		return Issued
	case string(Claimed):
		return Claimed
	case string(Progress):
		return Progress
	case string(Done):
		return Done
	}
	return EventType(b)
}

// reader reads JSON without white space, escapes or members that it doesn't know. At the
// first of these it becomes strange, and encoding/json has to read the message.
type reader struct {
	b       []byte
	at      int
	strange bool
}

// whole tells whether everything was read.
func (r *reader) whole() bool { return !r.strange && r.at == len(r.b) }

func (r *reader) peek() byte {
	if r.strange || r.at >= len(r.b) {
		r.strange = true
		return 0
	}
	return r.b[r.at]
}

func (r *reader) take(c byte) {
	if r.peek() != c {
		r.strange = true
		return
	}
	r.at++
}

func (r *reader) object(member func(name []byte)) {
	r.take('{')
	if r.peek() == '}' {
		r.at++
		return
	}
	for !r.strange {
		name := r.raw()
		r.take(':')
		if r.strange {
			return
		}
		member(name)
		if r.peek() == '}' {
			r.at++
			return
		}
		r.take(',')
	}
}

// raw reads a string of plain characters.
func (r *reader) raw() []byte {
	r.take('"')
	if r.strange {
		return nil
	}
	for i := r.at; i < len(r.b); i++ {
		switch c := r.b[i]; {
		case c == '"':
			s := r.b[r.at:i]
			r.at = i + 1
			return s
		case c == '\\' || c < ' ' || c > '~':
			r.strange = true
			return nil
		}
	}
	r.strange = true
	return nil
}

func (r *reader) text() string { return string(r.raw()) }

// number reads the characters of a number.
func (r *reader) number() string {
	from := r.at
	for r.at < len(r.b) {
		switch c := r.b[r.at]; {
		case c >= '0' && c <= '9', c == '-', c == '+', c == '.', c == 'e', c == 'E':
			r.at++
			continue
		}
		break
	}
	s := r.b[from:r.at]
	if len(s) == 0 || s[0] == '+' || s[0] == '.' || len(s) > 1 && s[0] == '0' && s[1] != '.' || s[0] == '-' {
		r.strange = true // what is odd, or no JSON at all
	}
	return string(s)
}

func (r *reader) integer() int64 {
	n, err := strconv.ParseInt(r.number(), 10, 64)
	r.strange = r.strange || err != nil
	return n
}

func (r *reader) unsigned() uint64 {
	n, err := strconv.ParseUint(r.number(), 10, 64)
	r.strange = r.strange || err != nil
	return n
}

func (r *reader) float() float64 {
	s := r.number()
	if s != "" && s[len(s)-1] == '.' {
		r.strange = true
	}
	f, err := strconv.ParseFloat(s, 64)
	r.strange = r.strange || err != nil
	return f
}

func (r *reader) time() time.Time {
	var t time.Time
	if s := r.raw(); !r.strange {
		r.strange = t.UnmarshalText(s) != nil
	}
	return t
}

func (r *reader) texts() map[string]string {
	m := map[string]string{}
	r.object(func(name []byte) { m[string(name)] = r.text() })
	return m
}
