package poseidon

import (
	"fmt"
	"math/bits"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"
)

// Hasher hashes preimages of one arity. It has no state: any number of goroutines may
// use one.
type Hasher struct {
	constants *Constants
	start     []fr.Element     // the state before the first S-box, without the preimage
	lanes     *laneConstants   // of the eight-lane form; nil where the processor lacks it
	single    *singleConstants // of the one-lane form with assembly; nil likewise
}

func newHasher(c *Constants) *Hasher {
	h := &Hasher{constants: c, start: append([]fr.Element(nil), c.Compressed[:c.Width]...)}
	h.start[0].Add(&h.start[0], &c.DomainTag)
	h.lanes = newLaneConstants(c)
	h.single = newSingleConstants(c)
	return h
}

// Constants returns the numbers of the instance, for the circuit. They are shared:
// don't change them.
func (h *Hasher) Constants() *Constants { return h.constants }

// Kernel names the form that SumBatch takes on this machine, for people.
func Kernel() string {
	switch {
	case hasIFMA():
		return "eight lanes with AVX-512 IFMA"
	case hasADX():
		return "one lane with ADX"
	}
	return "one lane"
}

// Arity returns how many elements a preimage has.
func (h *Hasher) Arity() int { return h.constants.Arity }

// Sum returns the hash of one preimage. It panics if len(in) is not the arity.
func (h *Hasher) Sum(in []fr.Element) fr.Element {
	var out [1]fr.Element
	h.SumBatch(out[:], in)
	return out[0]
}

// SumBatch hashes len(dst) preimages that lie one after the other in in, on the calling
// goroutine, eight at a time where the processor allows it. It panics if len(in) is not
// arity·len(dst). dst may not overlap in.
func (h *Hasher) SumBatch(dst, in []fr.Element) {
	arity := h.constants.Arity
	if len(in) != arity*len(dst) {
		panic(fmt.Sprintf("poseidon: %d elements are not %d preimages of %d", len(in), len(dst), arity))
	}
	for h.lanes != nil && len(dst) >= minLanes {
		n := min(lanes, len(dst))
		h.lanes.sum8(dst[:n], in[:n*arity], h.start)
		dst, in = dst[n:], in[n*arity:]
	}
	for i := range dst {
		if h.single != nil {
			h.single.sum(&dst[i], in[i*arity:(i+1)*arity], h.start)
		} else {
			h.plain(&dst[i], in[i*arity:(i+1)*arity])
		}
	}
}

// plain is one permutation in neptune's optimised static form, without assembly of our
// own: the twin that the other forms are held against.
func (h *Hasher) plain(out *fr.Element, in []fr.Element) {
	c := h.constants
	w := c.Width
	var a, b [MaxArity + 1]fr.Element
	s, next := a[:w], b[:w]
	copy(s, h.start)
	for i := range in {
		s[i+1].Add(&s[i+1], &in[i])
	}
	keys := c.Compressed[w:]
	half := c.FullRounds / 2
	for r := range half {
		for i := range s {
			quintic(&s[i])
			s[i].Add(&s[i], &keys[i])
		}
		keys = keys[w:]
		m := c.MDS
		if r == half-1 {
			m = c.PreSparse
		}
		m.applyTo(next, s)
		s, next = next, s
	}
	for r := range c.Sparse {
		quintic(&s[0])
		s[0].Add(&s[0], &keys[r])
		c.Sparse[r].applyTo(s)
	}
	keys = keys[c.PartialRounds:]
	for range half - 1 {
		for i := range s {
			quintic(&s[i])
			s[i].Add(&s[i], &keys[i])
		}
		keys = keys[w:]
		c.MDS.applyTo(next, s)
		s, next = next, s
	}
	for i := range s {
		quintic(&s[i])
	}
	// Only element 1 leaves the last product. MDS is symmetric: its row is its column.
	dot(out, s, c.MDS[1])
}

// quintic sets z to z^5.
func quintic(z *fr.Element) {
	var t fr.Element
	t.Square(z)
	t.Square(&t)
	z.Mul(z, &t)
}

// applyTo sets dst to the row vector v·m.
func (m Matrix) applyTo(dst, v []fr.Element) {
	var t fr.Element
	for j := range dst {
		dst[j].Mul(&v[0], &m[0][j])
	}
	for i := 1; i < len(v); i++ {
		row := m[i]
		for j := range dst {
			dst[j].Add(&dst[j], t.Mul(&v[i], &row[j]))
		}
	}
}

// applyTo sets s to the row vector s·m.
func (m *Sparse) applyTo(s []fr.Element) {
	first := s[0]
	dot(&s[0], s, m.WHat)
	var t fr.Element
	for j, v := range m.VRest {
		s[j+1].Add(&s[j+1], t.Mul(&first, &v))
	}
}

// dot sets z to Σ a[i]·b[i].
func dot(z *fr.Element, a, b []fr.Element) {
	var sum, t fr.Element
	for i := range a {
		sum.Add(&sum, t.Mul(&a[i], &b[i]))
	}
	*z = sum
}

// reduceOnce subtracts the modulus from z if z is not below it.
func reduceOnce(z *fr.Element) {
	const r0, r1, r2, r3 = 0xffffffff00000001, 0x53bda402fffe5bfe, 0x3339d80809a1d805, 0x73eda753299d7d48
	var t fr.Element
	var b uint64
	t[0], b = bits.Sub64(z[0], r0, 0)
	t[1], b = bits.Sub64(z[1], r1, b)
	t[2], b = bits.Sub64(z[2], r2, b)
	t[3], b = bits.Sub64(z[3], r3, b)
	if b == 0 {
		*z = t
	}
}
