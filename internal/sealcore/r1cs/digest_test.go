package r1cs_test

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"

	"sealfleet/internal/sealcore/r1cs"
	"sealfleet/internal/sealcore/r1cs/r1cstest"
)

// TestDigestOfToy compares the toy circuit's digest with that of the reference.
func TestDigestOfToy(t *testing.T) {
	raw, err := os.ReadFile("testdata/groth16-small.json")
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		Aux         int
		Constraints int
		Inputs      int `json:"inputs_including_one"`
		N           int
		X           uint64
		Prefixes    []r1cs.Prefix
		SHA256      string `json:"r1cs_sha256"`
		PublicInput string `json:"public_input_le_hex"`
	}
	if err := json.Unmarshal(raw, &want); err != nil {
		t.Fatal(err)
	}
	d := r1cs.NewDigest()
	r1cstest.Toy(d, want.X, want.N)
	got := d.Facts()
	if got.Aux != want.Aux || got.Constraints != want.Constraints || got.Inputs != want.Inputs || got.SHA256 != want.SHA256 {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for i, p := range want.Prefixes {
		if got.Prefixes[i] != p {
			t.Errorf("prefix %d is %+v, want %+v", i, got.Prefixes[i], p)
		}
	}

	var c r1cs.Checker
	r1cstest.Toy(&c, want.X, want.N)
	if bad := c.Unsatisfied(); bad != nil {
		t.Errorf("constraints %v are not satisfied", bad)
	}
	var le [fr.Bytes]byte
	fr.LittleEndian.PutElement(&le, c.Inputs()[0])
	if got := hex.EncodeToString(le[:]); got != want.PublicInput {
		t.Errorf("public input %s, want %s", got, want.PublicInput)
	}
}

// TestDigestNormalises checks that it does not matter how a combination is written.
func TestDigestNormalises(t *testing.T) {
	e := func(n int64) (x fr.Element) { x.SetInt64(n); return x }
	digest := func(lc r1cs.LC) r1cs.Facts {
		d := r1cs.NewDigest()
		for range 40 {
			d.AllocAux(fr.Element{})
		}
		d.Enforce(lc, nil, nil)
		return d.Facts()
	}
	short := digest(r1cs.LC{{Var: r1cs.One, Coeff: e(5)}, {Var: r1cs.Aux(3), Coeff: e(-2)}})
	for name, lc := range map[string]r1cs.LC{
		"out of order":  {{Var: r1cs.Aux(3), Coeff: e(-2)}, {Var: r1cs.One, Coeff: e(5)}},
		"in parts":      {{Var: r1cs.Aux(3), Coeff: e(-1)}, {Var: r1cs.One, Coeff: e(5)}, {Var: r1cs.Aux(3), Coeff: e(-1)}},
		"with zero":     {{Var: r1cs.One, Coeff: e(5)}, {Var: r1cs.Aux(1), Coeff: e(0)}, {Var: r1cs.Aux(3), Coeff: e(-2)}},
		"cancelling":    {{Var: r1cs.Aux(9), Coeff: e(4)}, {Var: r1cs.One, Coeff: e(5)}, {Var: r1cs.Aux(3), Coeff: e(-2)}, {Var: r1cs.Aux(9), Coeff: e(-4)}},
		"cancelled mid": {{Var: r1cs.Aux(1), Coeff: e(4)}, {Var: r1cs.One, Coeff: e(5)}, {Var: r1cs.Aux(3), Coeff: e(-2)}, {Var: r1cs.Aux(1), Coeff: e(-4)}},
	} {
		got := digest(lc)
		if got.SHA256 != short.SHA256 || got.NonzerosA != short.NonzerosA {
			t.Errorf("%s: %+v, want %+v", name, got, short)
		}
	}
	// Long combinations take another way.
	var long, turned r1cs.LC
	for i := range 40 {
		long = append(long, r1cs.Term{Var: r1cs.Aux(i), Coeff: e(int64(i - 20))})
		turned = append(turned, r1cs.Term{Var: r1cs.Aux(39 - i), Coeff: e(int64(19 - i))})
	}
	if a, b := digest(long), digest(append(turned, r1cs.Term{Var: r1cs.Aux(0), Coeff: e(0)})); a.SHA256 != b.SHA256 || a.NonzerosA != 39 {
		t.Errorf("long combinations differ: %+v and %+v", a, b)
	}
	if got := digest(r1cs.LC{{Var: r1cs.One, Coeff: e(5)}, {Var: r1cs.Aux(4), Coeff: e(-2)}}); got.SHA256 == short.SHA256 {
		t.Error("another variable has the same digest")
	}
}

// TestCheckerNamesTheConstraint spoils the toy circuit's witness.
func TestCheckerNamesTheConstraint(t *testing.T) {
	var c r1cs.Checker
	one := fr.One()
	x := c.AllocAux(fr.NewElement(3))
	y := c.AllocInput(fr.NewElement(9))
	lc := func(v r1cs.Var) r1cs.LC { return r1cs.LC{{Var: v, Coeff: one}} }
	c.Enforce(lc(x), lc(x), lc(y))
	c.Enforce(lc(x), lc(r1cs.One), lc(y))
	c.Enforce(lc(y), lc(r1cs.One), lc(y))
	if bad := c.Unsatisfied(); len(bad) != 1 || bad[0] != 1 {
		t.Errorf("unsatisfied: %v, want [1]", bad)
	}
}
