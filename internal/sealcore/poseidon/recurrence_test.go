package poseidon

import (
	"testing"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"
)

// TestRecurrenceEqualsTheRounds runs the partial rounds alone, with and without it.
func TestRecurrenceEqualsTheRounds(t *testing.T) {
	for arity := 1; arity <= MaxArity; arity++ {
		c := For(arity).Constants()
		keys := c.Compressed[c.Width*(1+c.FullRounds/2):][:c.PartialRounds]
		start := make([]fr.Element, c.Width)
		for i := range start {
			start[i].MustSetRandom()
		}

		want := append([]fr.Element(nil), start...)
		for _, k := range keys {
			quintic(&want[0])
			want[0].Add(&want[0], &k)
			want = c.MDS.apply(want)
		}

		rec := newRecurrence(c.MDS, c.PartialRounds)
		n := rec.n
		x, y := []fr.Element{start[0]}, []fr.Element{}
		for r, k := range keys {
			s := x[r]
			quintic(&s)
			y = append(y, *s.Add(&s, &k))
			var next, other fr.Element
			if r < n {
				dot(&next, start[1:], rec.first[r])
				dot(&other, y, rec.first[r][n:])
			} else {
				dot(&next, x[r-n+1:], rec.step)
				dot(&other, y[r-n:], rec.step[n:])
			}
			x = append(x, *next.Add(&next, &other))
		}
		p := c.PartialRounds
		got := []fr.Element{x[p]}
		for j := range n {
			var s, other fr.Element
			dot(&s, x[p-n+1:], rec.last[j])
			dot(&other, y[p-n:], rec.last[j][n:])
			got = append(got, *s.Add(&s, &other))
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("arity %d: element %d differs from state %v", arity, i, start)
			}
		}
	}
}
