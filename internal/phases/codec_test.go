package phases

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// anyText is mostly plain, as in life.
func anyText() *rapid.Generator[string] {
	return rapid.OneOf(rapid.Just(""), rapid.StringMatching(`[a-zA-Z0-9 ./_-]{1,20}`), rapid.String())
}

func anyTime() *rapid.Generator[time.Time] {
	return rapid.Custom(func(t *rapid.T) time.Time {
		if rapid.Bool().Draw(t, "zero") {
			return time.Time{}
		}
		return time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "s"), rapid.Int64Range(0, 1e9-1).Draw(t, "ns")).UTC()
	})
}

func anySpec() *rapid.Generator[Spec] {
	return rapid.Custom(func(t *rapid.T) Spec {
		s := Spec{
			Miner: rapid.Uint64().Draw(t, "miner"), Number: rapid.Uint64().Draw(t, "number"), ProofType: rapid.IntRange(-1, 10).Draw(t, "type"),
			StorageNode: anyText().Draw(t, "node"), SubmittedBy: anyText().Draw(t, "by"),
		}
		for range rapid.IntRange(0, 2).Draw(t, "pieces") {
			s.Pieces = append(s.Pieces, Piece{Path: anyText().Draw(t, "path"), UnpaddedSize: rapid.Uint64().Draw(t, "size")})
		}
		return s
	})
}

func anyMap() *rapid.Generator[map[string]string] {
	return rapid.Custom(func(t *rapid.T) map[string]string {
		m := rapid.MapOfN(anyText(), anyText(), 0, 4).Draw(t, "map")
		if len(m) == 0 {
			return nil
		}
		return m
	})
}

func anyEvent() *rapid.Generator[Event] {
	return rapid.Custom(func(t *rapid.T) Event {
		text := func(name string) string { return anyText().Draw(t, name) }
		e := Event{
			V: rapid.IntRange(0, 3).Draw(t, "v"), ID: text("id"), Type: rapid.SampledFrom([]EventType{Submitted, Issued, Claimed, Progress, Done, Failed, Cancelled, Redo, Finished, "new"}).Draw(t, "type"),
			Group: text("group"), Sector: text("sector"), Step: rapid.SampledFrom(append(Steps(), SectorEnd, "p9", "")).Draw(t, "step"),
			Issue: rapid.Int().Draw(t, "issue"), Attempt: rapid.IntRange(0, 9).Draw(t, "attempt"), ClaimID: text("claim"), PrevID: text("prev"), Host: text("host"),
			At: anyTime().Draw(t, "at"), InputDigest: text("digest"), Inputs: anyMap().Draw(t, "inputs"), Target: rapid.SampledFrom(append(Steps(), "")).Draw(t, "target"),
			Reason: text("reason"), NotBefore: anyTime().Draw(t, "not before"), Note: text("note"), Fraction: rapid.Float64().Draw(t, "fraction"),
		}
		if rapid.Bool().Draw(t, "with spec") {
			s := anySpec().Draw(t, "spec")
			e.Spec = &s
		}
		if rapid.Bool().Draw(t, "with result") {
			e.Result = &Result{
				Code: text("code"), Class: Class(text("class")), Message: text("message"), Digest: text("result digest"), Outputs: anyMap().Draw(t, "outputs"),
				Seconds: rapid.Float64().Draw(t, "seconds"), Bytes: rapid.Int64().Draw(t, "bytes"),
			}
		}
		return e
	})
}

func TestEventsAreWrittenAndReadAsEncodingJSONDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := anyEvent().Draw(t, "event")
		want, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		got, err := e.AppendJSON(nil)
		if err != nil || string(got) != string(want) {
			t.Fatalf("wrote\n%s\nwant\n%s\n%v", got, want, err)
		}
		var back Event
		if err := json.Unmarshal(want, &back); err != nil {
			t.Fatal(err)
		}
		read, err := DecodeEvent(got)
		if err != nil || !reflect.DeepEqual(read, back) {
			t.Fatalf("read\n%+v\nwant\n%+v\n%v", read, back, err)
		}
		if quiet := QuietEvent(got); quiet && e.Type != Issued && e.Type != Claimed && e.Type != Progress {
			t.Fatalf("%s passes for quiet", e.Type)
		}
	})
}

func TestTasksAreWrittenAndReadAsEncodingJSONDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		task := Task{
			V: 1, Group: anyText().Draw(t, "group"), Sector: anyText().Draw(t, "sector"), Step: P3, Issue: rapid.Int().Draw(t, "issue"), Attempt: 2,
			IssuedID: anyText().Draw(t, "id"), Spec: anySpec().Draw(t, "spec"), Inputs: anyMap().Draw(t, "inputs"),
			IssuedSeq: rapid.Uint64().Draw(t, "seq"), NotBefore: anyTime().Draw(t, "not before"),
		}
		want, err := json.Marshal(task)
		if err != nil {
			t.Fatal(err)
		}
		got, err := task.AppendJSON(nil)
		if err != nil || string(got) != string(want) {
			t.Fatalf("wrote\n%s\nwant\n%s\n%v", got, want, err)
		}
		var back Task
		if err := json.Unmarshal(want, &back); err != nil {
			t.Fatal(err)
		}
		if read, err := DecodeTask(got); err != nil || !reflect.DeepEqual(read, back) {
			t.Fatalf("read\n%+v\nwant\n%+v\n%v", read, back, err)
		}
	})
}

// What is usual must take the short way, and what is no event must not pass.
func TestTheUsualFormIsReadByHand(t *testing.T) {
	e := Event{
		V: 1, ID: "01J", Type: Done, Group: "group1", Sector: "s-t01000-7", Step: P1, Issue: 1, Attempt: 1, ClaimID: "C", PrevID: "P", Host: "h",
		At: time.Unix(1, 500).UTC(), Result: &Result{Code: "ok", Outputs: map[string]string{"comm_d": "00"}, Seconds: 1.5, Bytes: 7},
	}
	data, err := e.AppendJSON(nil)
	if err != nil {
		t.Fatal(err)
	}
	r := reader{b: data}
	var got Event
	r.object(func(name []byte) { r.eventMember(&got, name) })
	if !r.whole() || !reflect.DeepEqual(got, e) {
		t.Fatalf("read %+v, strange at %d of %s", got, r.at, data)
	}
	for i := range len(data) {
		if _, err := DecodeEvent(data[:i]); err == nil {
			t.Fatalf("%s passes for an event", data[:i])
		}
	}
	for _, bad := range []string{``, `null x`, `[]`, `{}x`, `{"v":01}`, `{"v":1,}`, `{"v":-}`, `{"fraction":1.}`, `{"id":"a` + "\n" + `"}`, `{"v":1 "id":""}`, `{"v":"1"}`} {
		var std Event
		_, err := DecodeEvent([]byte(bad))
		if want := json.Unmarshal([]byte(bad), &std); (err == nil) != (want == nil) {
			t.Errorf("%q: %v, encoding/json says %v", bad, err, want)
		}
	}
}

func FuzzDecodeEvent(f *testing.F) {
	f.Add([]byte(`{"v":1,"id":"x","type":"done","fraction":0.5,"result":{"code":"ok"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var want Event
		wantErr := json.Unmarshal(data, &want)
		got, err := DecodeEvent(data)
		if (err == nil) != (wantErr == nil) || err == nil && !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: %+v, %v; encoding/json: %+v, %v", data, got, err, want, wantErr)
		}
	})
}
