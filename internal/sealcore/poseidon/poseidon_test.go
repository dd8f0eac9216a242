package poseidon

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/field"
	"sealfleet/internal/sealcore/sealtest"
)

func element(t testing.TB, s string) fr.Element {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 32 {
		t.Fatalf("%q is not 32 bytes of hex", s)
	}
	e, err := field.FromDomain(sealcore.Domain(b))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestVectors compares with digests made by the reference implementation.
func TestVectors(t *testing.T) {
	var vectors []struct {
		Arity    int      `json:"arity"`
		Digest   string   `json:"digest_le_hex"`
		Name     string   `json:"preimage"`
		Preimage []string `json:"preimage_le_hex"`
	}
	if err := json.Unmarshal(sealtest.Read(t, "poseidon.json"), &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors) == 0 {
		t.Fatal("no vectors")
	}
	for _, v := range vectors {
		t.Run(fmt.Sprintf("%d/%s", v.Arity, v.Name), func(t *testing.T) {
			in := make([]fr.Element, len(v.Preimage))
			for i, s := range v.Preimage {
				in[i] = element(t, s)
			}
			if got, want := For(v.Arity).Sum(in), element(t, v.Digest); got != want {
				t.Errorf("got %s, want %s", got.Text(16), want.Text(16))
			}
		})
	}
}

// plain is the unoptimised permutation, straight from the paper: constants, S-boxes,
// MDS, round by round.
func plain(c *Constants, in []fr.Element) fr.Element {
	s := append([]fr.Element{c.DomainTag}, in...)
	half := c.FullRounds / 2
	for r, keys := range c.roundConstants() {
		for i := range s {
			s[i].Add(&s[i], &keys[i])
		}
		n := 1
		if r < half || r >= half+c.PartialRounds {
			n = len(s)
		}
		for i := range n {
			var t fr.Element
			t.Square(&s[i])
			t.Square(&t)
			s[i].Mul(&s[i], &t)
		}
		s = c.MDS.apply(s)
	}
	return s[1]
}

// TestOptimisedEqualsPlain holds the compressed constants and sparse matrices of every
// arity against the paper's form.
func TestOptimisedEqualsPlain(t *testing.T) {
	for arity := 1; arity <= MaxArity; arity++ {
		h := For(arity)
		c := h.Constants()
		if want := c.FullRounds*c.Width + c.PartialRounds; len(c.Compressed) != want {
			t.Errorf("arity %d: %d compressed constants, want %d", arity, len(c.Compressed), want)
		}
		in := make([]fr.Element, arity)
		for i := range in {
			in[i].MustSetRandom()
		}
		if got, want := h.Sum(in), plain(c, in); got != want {
			t.Errorf("arity %d: optimised %s, plain %s for %v", arity, got.Text(16), want.Text(16), in)
		}
	}
}

func TestSumBatchEqualsSum(t *testing.T) {
	for _, arity := range []int{2, 4, 8, 11} {
		h := For(arity)
		for _, n := range []int{0, 1, 7, 8, 9, 16, 17} {
			in := make([]fr.Element, n*arity)
			for i := range in {
				in[i].MustSetRandom()
			}
			out := make([]fr.Element, n)
			h.SumBatch(out, in)
			for i := range out {
				if want := h.Sum(in[i*arity : (i+1)*arity]); out[i] != want {
					t.Fatalf("arity %d, %d at once: hash %d differs", arity, n, i)
				}
			}
		}
	}
}

func BenchmarkSumBatch(b *testing.B) {
	for _, arity := range []int{2, 8, 11} {
		b.Run(fmt.Sprint(arity), func(b *testing.B) {
			h := For(arity)
			const n = 64
			in := make([]fr.Element, n*arity)
			for i := range in {
				in[i].MustSetRandom()
			}
			out := make([]fr.Element, n)
			for b.Loop() {
				h.SumBatch(out, in)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n/1000, "µs/hash")
		})
	}
}
