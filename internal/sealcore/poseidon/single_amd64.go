//go:build !purego

package poseidon

import (
	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"
	"golang.org/x/sys/cpu"
)

// hasADX tells whether the processor has the two carry chains that dotADX uses.
func hasADX() bool { return cpu.X86.HasADX && cpu.X86.HasBMI2 }

// singleConstants are the constants of an instance for one lane with lazily reduced sums:
// the partial rounds as a recurrence, coefficients times 2^64 as dotADX wants them.
type singleConstants struct {
	*Constants
	mds   []fr.Element // column by column
	first [][]fr.Element
	step  []fr.Element
	last  [][]fr.Element
}

// newSingleConstants returns nil if the processor lacks what dotADX needs.
func newSingleConstants(c *Constants) *singleConstants {
	if !hasADX() {
		return nil
	}
	rec := newRecurrence(c.MDS, c.PartialRounds)
	s := &singleConstants{Constants: c, step: shifted(rec.step)}
	for _, column := range c.MDS.transposed() {
		s.mds = append(s.mds, shifted(column)...)
	}
	for _, row := range rec.first {
		s.first = append(s.first, shifted(row))
	}
	for _, row := range rec.last {
		s.last = append(s.last, shifted(row))
	}
	return s
}

// shifted returns the elements of in times 2^64.
func shifted(in []fr.Element) []fr.Element {
	var shift fr.Element
	shift.SetUint64(1 << 32)
	shift.Square(&shift)
	out := make([]fr.Element, len(in))
	for i := range in {
		out[i].Mul(&in[i], &shift)
	}
	return out
}

// maxPartialRounds is the most partial rounds that an instance has.
const maxPartialRounds = 59

// sum is one permutation.
func (c *singleConstants) sum(out *fr.Element, in, start []fr.Element) {
	w, n, p := c.Width, c.Width-1, c.PartialRounds
	var a, b [MaxArity + 1]fr.Element
	s, next := a[:w], b[:w]
	s[0] = start[0]
	for i := range in {
		s[i+1].Add(&start[i+1], &in[i])
	}
	keys := c.Compressed[w:]
	full := func() {
		for i := range s {
			quintic(&s[i])
			s[i].Add(&s[i], &keys[i])
		}
		keys = keys[w:]
		for j := range next {
			dotLazy(&next[j], s[:1], s[1:], c.mds[j*w:(j+1)*w])
		}
		s, next = next, s
	}
	for range c.FullRounds / 2 {
		full()
	}

	var xs, ys [maxPartialRounds + 1]fr.Element
	x, y := xs[:p+1], ys[:p]
	x[0] = s[0]
	for r := range p {
		y[r] = x[r]
		quintic(&y[r])
		y[r].Add(&y[r], &keys[r])
		if r < n {
			dotLazy(&x[r+1], s[1:], y[:r+1], c.first[r])
		} else {
			dotLazy(&x[r+1], x[r-n+1:r+1], y[r-n:r+1], c.step)
		}
	}
	s[0] = x[p]
	for j := range n {
		dotLazy(&s[j+1], x[p-n+1:], y[p-n:], c.last[j])
	}
	keys = keys[p:]

	for range c.FullRounds/2 - 1 {
		full()
	}
	for i := range s {
		quintic(&s[i])
	}
	dotLazy(out, s[:1], s[1:], c.mds[w:2*w])
}

// dotLazy sets dst to Σ a[i]·k[i] + Σ b[i]·k[len(a)+i], where k is coeffs over 2^64.
func dotLazy(dst *fr.Element, a, b, coeffs []fr.Element) {
	dotADX(&dst[0], &a[0][0], len(a), &b[0][0], len(b), &coeffs[:len(a)+len(b)][0][0])
	reduceOnce(dst)
}
