package vanilla

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/sealtest"
)

// reference returns the reference's commit-phase-1 JSON of the 2 KiB sector.
func reference(t testing.TB) (sealcore.Params, []byte) {
	t.Helper()
	p, err := sealcore.ForProofType(5)
	if err != nil {
		t.Fatal(err)
	}
	return p, sealtest.Read(t, "seal-2k.c1.json")
}

func parse(t testing.TB, p sealcore.Params, data []byte) *Commit1 {
	t.Helper()
	c, err := ParseCommit1(p, data)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func write(t testing.TB, p sealcore.Params, c *Commit1) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := c.WriteJSON(&out, p); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestJSONIsTheReferencesByteForByte(t *testing.T) {
	p, data := reference(t)
	if got := write(t, p, parse(t, p, data)); !bytes.Equal(got, data) {
		i := 0
		for i < min(len(got), len(data)) && got[i] == data[i] {
			i++
		}
		t.Fatalf("differs at byte %d: %.60s…, want %.60s…", i, got[i:], data[i:])
	}
}

func TestOrderOfKeysAndWhiteSpaceDoNotMatter(t *testing.T) {
	p, data := reference(t)
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	sorted, err := json.MarshalIndent(v, "\r\n", "\t ")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(sorted, data) {
		t.Fatal("nothing was changed")
	}
	if got := write(t, p, parse(t, p, sorted)); !bytes.Equal(got, data) {
		t.Fatal("the sorted and indented JSON reads as another one")
	}
}

func TestMalformedJSONIsRefusedWithPlaceAndReason(t *testing.T) {
	p, data := reference(t)
	replace := func(old, new string) string {
		s := strings.Replace(string(data), old, new, 1)
		if s == string(data) {
			t.Fatalf("%q is not in the reference's JSON", old)
		}
		return s
	}
	for _, c := range []struct{ name, json, where, reason string }{
		{"empty", "", "", "ends where '{' should come"},
		{"null", "null", "", "found 'n'"},
		{"an empty object", "{}", "", `key "registered_proof" is missing`},
		{"cut short", string(data[:len(data)/2]), "vanilla_proofs", ""},
		{"cut before the end", string(data[:len(data)-1]), "", "ends where"},
		{"bytes after the end", string(data) + "{}", "", "2 bytes follow"},
		{"variant of another size", replace(`{"StackedDrg2KiBV1":`, `{"StackedDrg8MiBV1":`), "vanilla_proofs", `"StackedDrg8MiBV1" is unknown here`},
		{"a missing key", replace(`,"_h":null`, ``), "vanilla_proofs.StackedDrg2KiBV1[0][0].replica_column_proofs.c_x.column", `key "_h" is missing`},
		{"an unknown key", replace(`"leaf"`, `"leave"`), "vanilla_proofs.StackedDrg2KiBV1[0][0].comm_d_proofs.data.Single", `key "leave" is unknown here: expected root, leaf, path`},
		{"a key twice", replace(`"comm_d":`, `"comm_r":`), "", `key "comm_r" comes twice`},
		{"a number above a byte", replace(`"comm_r":[186`, `"comm_r":[256`), "comm_r[0]", "larger than 255"},
		{"a huge number", replace(`"comm_r":[186`, `"comm_r":[99999999999999999999999999999`), "comm_r[0]", "larger than 255"},
		{"a negative number", replace(`"comm_r":[186`, `"comm_r":[-186`), "comm_r[0]", "expected a number"},
		{"a fraction", replace(`"comm_r":[186`, `"comm_r":[18.6`), "comm_r", "found '.'"},
		{"an exponent", replace(`"comm_r":[186`, `"comm_r":[18e1`), "comm_r", "found 'e'"},
		{"a leading zero", replace(`"comm_r":[186`, `"comm_r":[0186`), "comm_r[0]", "starts with a zero"},
		{"a string for a number", replace(`"comm_r":[186`, `"comm_r":["186"`), "comm_r[0]", "expected a number"},
		{"31 bytes", replace(`"comm_r":[186,`, `"comm_r":[`), "comm_r", "31 values instead of 32"},
		{"33 bytes", replace(`"comm_r":[186,`, `"comm_r":[186,186,`), "comm_r", "more than 32"},
		{"an empty path", replace(`"comm_r_last_proof":{"data":{"Single":{"root":`, `"comm_r_last_proof":{"data":{"Single":{"path":{"path":[]},"root":`), "vanilla_proofs.StackedDrg2KiBV1[0][0].comm_r_last_proof.data.Single.path.path", "0 values instead of 2"},
		{"another tree's variant", replace(`"comm_r_last_proof":{"data":{"Single"`, `"comm_r_last_proof":{"data":{"Sub"`), "vanilla_proofs.StackedDrg2KiBV1[0][0].comm_r_last_proof.data", `"Sub" is unknown here`},
		{"an index out of range", replace(`]],"index":0}`, `]],"index":2}`), "vanilla_proofs.StackedDrg2KiBV1[0][0].comm_d_proofs.data.Single.path.path[0].index", "larger than 1"},
		{"no partition", `{"registered_proof":"StackedDrg2KiBV1_1","vanilla_proofs":{"StackedDrg2KiBV1":[]}}`, "vanilla_proofs.StackedDrg2KiBV1", "0 values instead of 1"},
		{"no challenge", `{"registered_proof":"StackedDrg2KiBV1_1","vanilla_proofs":{"StackedDrg2KiBV1":[[]]}}`, "vanilla_proofs.StackedDrg2KiBV1[0]", "0 values instead of 2"},
		{"an escape", replace(`"comm_r":`, `"comm\u005fr":`), "", `'\\'`},
		{"a string without end", `{"registered_proof":"` + strings.Repeat("x", 1000), "registered_proof", "does not end within 64 bytes"},
		{"true for null", replace(`"_h":null`, `"_h":true`), "vanilla_proofs.StackedDrg2KiBV1[0][0].replica_column_proofs.c_x.column._h", "expected null"},
		{"deep nesting", strings.Repeat("[", 1<<20), "", "found '['"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseCommit1(p, []byte(c.json))
			var bad *MalformedError
			if !errors.As(err, &bad) {
				t.Fatalf("error %v, want a *MalformedError", err)
			}
			if c.where != "" && c.reason == "" { // the place is somewhere inside
				if !strings.HasPrefix(bad.Where, c.where) {
					t.Errorf("place %q, want one in %q", bad.Where, c.where)
				}
			} else if c.where != "" && bad.Where != c.where {
				t.Errorf("place %q, want %q", bad.Where, c.where)
			}
			if !strings.Contains(bad.Reason, c.reason) {
				t.Errorf("reason %q, want one with %q", bad.Reason, c.reason)
			}
		})
	}
}

func TestJSONOfAnotherKindOfSectorIsRefusedAsSuch(t *testing.T) {
	_, data := reference(t)
	for _, proofType := range []int{0, 6, 8} {
		p, err := sealcore.ForProofType(proofType)
		if err != nil {
			t.Fatal(err)
		}
		_, err = ParseCommit1(p, data)
		var kind *KindError
		if !errors.As(err, &kind) || kind.Got != `"StackedDrg2KiBV1_1"` || kind.Want != p.RegisteredProof() {
			t.Errorf("error %v, want that it is not of %s", err, p.RegisteredProof())
		}
	}
}

func TestWriteJSONRefusesAnotherShape(t *testing.T) {
	p, data := reference(t)
	for name, spoil := range map[string]func(c *Commit1){
		"partitions": func(c *Commit1) { c.Partitions = append(c.Partitions, c.Partitions[0]) },
		"challenges": func(c *Commit1) { c.Partitions[0] = c.Partitions[0][:1] },
		"rows":       func(c *Commit1) { c.Partitions[0][1].Columns.ExpParents[7].Rows = nil },
		"parents":    func(c *Commit1) { c.Partitions[0][1].Columns.ExpParents = nil },
		"labels":     func(c *Commit1) { c.Partitions[0][1].Labels = nil },
	} {
		c := parse(t, p, data)
		spoil(c)
		if err := c.WriteJSON(new(bytes.Buffer), p); !errors.Is(err, ErrShape) {
			t.Errorf("wrong number of %s: error %v, want %v", name, err, ErrShape)
		}
	}
}

// FuzzParseCommit1 looks for input that panics, or that is read as something that is
// not written as it was read.
func FuzzParseCommit1(f *testing.F) {
	p, data := reference(f)
	f.Add(data)
	f.Add(data[:1000])
	f.Add([]byte(`{"registered_proof":"StackedDrg2KiBV1_1","vanilla_proofs":{"StackedDrg2KiBV1":[[{}]]}}`))
	f.Add([]byte(`{"registered_proof":"StackedDrg2KiBV1_1","comm_r":[256]}`))
	f.Add([]byte(`{`))
	toy, err := sealcore.ForShape("32KiB")
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"vanilla_proofs":[[{"comm_r_last_proof":{"data":{"Top":{"base_proof":{"path":[{"hashes":[],"index":9}]}}}}}]]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, p := range []sealcore.Params{p, toy} {
			c, err := ParseCommit1(p, data)
			if err != nil {
				var bad *MalformedError
				var kind *KindError
				if !errors.As(err, &bad) && !errors.As(err, &kind) {
					t.Fatalf("error %v, want a *MalformedError or a *KindError", err)
				}
				continue
			}
			written := write(t, p, c)
			var compact bytes.Buffer
			if err := json.Compact(&compact, data); err != nil {
				t.Fatalf("this is read, but is not JSON: %v", err)
			}
			if compact.Len() != len(written) {
				t.Fatalf("%d bytes of JSON are written as %d", compact.Len(), len(written))
			}
			if again := write(t, p, parse(t, p, written)); !bytes.Equal(again, written) {
				t.Fatal("what was written reads as something else")
			}
		}
	})
}
