package phases

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"
)

// The wire form of events and tasks is plain JSON, as encoding/json writes it for their
// structs; the tests hold every field to that. It is written and read by hand because
// each phase writes four events that each dispatcher reads twice, and reflection was a
// quarter of the fleet's processor time.

// AppendJSON appends the event's JSON to b.
func (e *Event) AppendJSON(b []byte) ([]byte, error) {
	w := writer{b: append(b, '{')}
	w.integer("v", int64(e.V), true)
	w.text("id", e.ID, true)
	w.text("type", string(e.Type), true)
	w.text("group", e.Group, true)
	w.text("sector", e.Sector, true)
	w.text("phase", string(e.Step), true)
	w.integer("issue", int64(e.Issue), false)
	w.integer("attempt", int64(e.Attempt), false)
	w.text("claim_id", e.ClaimID, false)
	w.text("prev_id", e.PrevID, false)
	w.text("host", e.Host, false)
	w.time("at", e.At, true)
	w.text("input_digest", e.InputDigest, false)
	if e.Spec != nil {
		w.spec(e.Spec)
	}
	w.texts("inputs", e.Inputs)
	w.text("target", string(e.Target), false)
	w.text("reason", e.Reason, false)
	w.time("not_before", e.NotBefore, false)
	w.text("note", e.Note, false)
	w.float("fraction", e.Fraction)
	if r := e.Result; r != nil {
		w.key("result")
		w.b = append(w.b, '{')
		w.text("code", r.Code, false)
		w.text("class", string(r.Class), false)
		w.text("message", r.Message, false)
		w.text("digest", r.Digest, false)
		w.texts("outputs", r.Outputs)
		w.float("seconds", r.Seconds)
		w.integer("bytes", r.Bytes, false)
		w.b = append(w.b, '}')
	}
	return append(w.b, '}'), w.err
}

// AppendJSON appends the task's JSON to b.
func (t *Task) AppendJSON(b []byte) ([]byte, error) {
	w := writer{b: append(b, '{')}
	w.integer("v", int64(t.V), true)
	w.text("group", t.Group, true)
	w.text("sector", t.Sector, true)
	w.text("phase", string(t.Step), true)
	w.integer("issue", int64(t.Issue), true)
	w.integer("attempt", int64(t.Attempt), true)
	w.text("issued_id", t.IssuedID, true)
	w.spec(&t.Spec)
	w.texts("inputs", t.Inputs)
	if t.IssuedSeq != 0 {
		w.key("issued_seq")
		w.b = strconv.AppendUint(w.b, t.IssuedSeq, 10)
	}
	w.time("not_before", t.NotBefore, false)
	return append(w.b, '}'), w.err
}

// writer writes the members of objects. With always false an empty value is left out.
type writer struct {
	b   []byte
	err error
}

func (w *writer) key(name string) {
	if w.b[len(w.b)-1] != '{' {
		w.b = append(w.b, ',')
	}
	w.b = append(w.b, '"')
	w.b = append(w.b, name...)
	w.b = append(w.b, '"', ':')
}

func (w *writer) text(name, value string, always bool) {
	if value != "" || always {
		w.key(name)
		w.quote(value)
	}
}

func (w *writer) quote(s string) {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			w.other(s)
			return
		}
	}
	w.b = append(w.b, '"')
	w.b = append(w.b, s...)
	w.b = append(w.b, '"')
}

// other writes what is rare.
func (w *writer) other(v any) {
	data, err := json.Marshal(v)
	if err != nil {
		w.err = err
		return
	}
	w.b = append(w.b, data...)
}

func (w *writer) integer(name string, n int64, always bool) {
	if n != 0 || always {
		w.key(name)
		w.b = strconv.AppendInt(w.b, n, 10)
	}
}

func (w *writer) float(name string, f float64) {
	if f == 0 {
		return
	}
	w.key(name)
	if abs := math.Abs(f); abs >= 1e-6 && abs < 1e21 {
		w.b = strconv.AppendFloat(w.b, f, 'f', -1, 64)
		return
	}
	w.other(f)
}

func (w *writer) time(name string, t time.Time, always bool) {
	switch {
	case t.IsZero() && !always:
	case t.Location() == time.UTC && t.Year() >= 0 && t.Year() <= 9999:
		w.key(name)
		w.b = append(w.b, '"')
		w.b = t.AppendFormat(w.b, time.RFC3339Nano)
		w.b = append(w.b, '"')
	default:
		w.key(name)
		w.other(t)
	}
}

func (w *writer) texts(name string, m map[string]string) {
	if len(m) == 0 {
		return
	}
	w.key(name)
	w.b = append(w.b, '{')
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if w.b[len(w.b)-1] != '{' {
			w.b = append(w.b, ',')
		}
		w.quote(k)
		w.b = append(w.b, ':')
		w.quote(m[k])
	}
	w.b = append(w.b, '}')
}

func (w *writer) spec(s *Spec) {
	w.key("spec")
	if len(s.Pieces) > 0 {
		w.other(s)
		return
	}
	w.b = append(w.b, `{"miner":`...)
	w.b = strconv.AppendUint(w.b, s.Miner, 10)
	w.b = append(w.b, `,"number":`...)
	w.b = strconv.AppendUint(w.b, s.Number, 10)
	w.integer("proof_type", int64(s.ProofType), true)
	w.text("storage_node", s.StorageNode, false)
	w.text("submitted_by", s.SubmittedBy, false)
	w.b = append(w.b, '}')
}
