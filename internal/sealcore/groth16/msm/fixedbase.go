package msm

import (
	"context"
	"unsafe"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"
)

// Table holds multiples of one point, from which any other is a sum of few: for each
// window of c bits the multiples 1 … 2^(c−1) of 2^(c·w)·base.
type Table[E any, PE Coord[E]] struct {
	c       uint
	windows [][]Point[E]
}

// NewTable makes a table of base that is good for about n multiplications. With c = 16
// it takes 48 MiB for G1 and 96 MiB for G2.
func NewTable[E any, PE Coord[E]](ctx context.Context, base Point[E], n int, opts Options) (*Table[E, PE], error) {
	return newTable[E, PE](ctx, base, windowBits(n), opts)
}

func newTable[E any, PE Coord[E]](ctx context.Context, base Point[E], c uint, opts Options) (*Table[E, PE], error) {
	t := &Table[E, PE]{c: c}
	t.windows = make([][]Point[E], windows(t.c))
	s := newAdder[E, PE]()
	for w := range t.windows {
		t.windows[w] = make([]Point[E], 1<<(t.c-1))
		t.windows[w][0] = base
		for range t.c {
			s.add(&base, &base)
		}
	}
	threads := opts.threads()
	adders := make([]*adder[E, PE], threads)
	err := each(ctx, threads, len(t.windows), func(worker, w int) error {
		if adders[worker] == nil {
			adders[worker] = newAdder[E, PE]()
		}
		adders[worker].multiples(t.windows[w])
		return nil
	})
	return t, err
}

// multiples fills p with 1, 2, 3 … times p[0].
func (s *adder[E, PE]) multiples(p []Point[E]) {
	for have := 1; have < len(p); have *= 2 {
		// have+1 … 2·have are the first ones plus the last one.
		last := p[have-1]
		more := min(have, len(p)-have)
		if more == have {
			// The last one twice is a doubling, which would hold up the batch that it is in.
			more--
			p[2*have-1] = last
			s.add(&p[2*have-1], &last)
		}
		for from := 0; from < more; from += batch {
			n := min(batch, more-from)
			copy(s.a, p[from:from+n])
			for i := range n {
				s.b[i] = last
			}
			s.run(n)
			copy(p[have+from:], s.a[:n])
		}
	}
}

// Multiplier multiplies the base of a table by many scalars. It serves one goroutine;
// any number of them may share the table.
type Multiplier[E any, PE Coord[E]] struct {
	*adder[E, PE]
	table   *Table[E, PE]
	digits  []int16
	slot    []uint32
	touched byte // keeps the compiler from dropping the reads ahead
}

// Multiplier returns a new one for this table.
func (t *Table[E, PE]) Multiplier() *Multiplier[E, PE] {
	return &Multiplier[E, PE]{adder: newAdder[E, PE](), table: t, slot: make([]uint32, batch)}
}

// Mul sets dst[i] to scalars[i] times the base. dst is at least as long as scalars.
func (m *Multiplier[E, PE]) Mul(dst []Point[E], scalars []fr.Element) {
	n := len(scalars)
	dst = dst[:n]
	if need := n * len(m.table.windows); cap(m.digits) < need {
		m.digits = make([]int16, need)
	}
	for i := range scalars {
		scalar := scalars[i].Bits()
		digitsOf(&scalar, m.table.c, m.digits[i:], n)
	}
	clear(dst)
	// Window by window, so that a window's part of the table stays in the cache.
	for w, multiples := range m.table.windows {
		digits := m.digits[w*n : (w+1)*n]
		for from := 0; from < n; from += batch {
			m.add(dst, digits, multiples, from, min(n, from+batch))
		}
	}
}

// add adds the multiples that one window's digits name to dst[from:to], at most a batch.
func (m *Multiplier[E, PE]) add(dst []Point[E], digits []int16, multiples []Point[E], from, to int) {
	// Reading the entries first, with nothing that waits for them, overlaps their cache misses.
	for _, d := range digits[from:to] {
		m.touched ^= *(*byte)(unsafe.Pointer(&multiples[max(int(d), -int(d), 1)-1].Y))
	}
	k := 0
	for i, d := range digits[from:to] {
		if d == 0 {
			continue
		}
		p := &m.b[k]
		*p = multiples[max(int(d), -int(d))-1]
		if d < 0 {
			PE(&p.Y).Neg(&p.Y)
		}
		m.a[k], m.slot[k] = dst[from+i], uint32(from+i)
		k++
	}
	m.run(k)
	for i, to := range m.slot[:k] {
		dst[to] = m.a[i]
	}
}
