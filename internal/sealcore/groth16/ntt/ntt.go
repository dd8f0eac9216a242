// Package ntt transforms polynomials over BLS12-381's scalar field between their
// coefficients and their values on a power of two of roots of unity, in place.
//
// gnark-crypto has such transforms; these do the same with a thirtieth of the tables,
// which at 32 GiB would take 16 GiB, and by vectors, which gnark-crypto's arithmetic
// multiplies twice as fast as single elements where the processor has AVX-512 IFMA.
package ntt

import (
	"context"
	"fmt"
	"math/big"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"
	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr/fft"
	"github.com/consensys/gnark-crypto/utils"
)

const (
	// A stage that combines elements up to 2^tableLog apart has all its factors in a
	// table; of a wider one only the first 2^tableLog, and every 2^tableLog-th.
	tableLog = 14
	// tile is how many elements are worked on at a time, so that they stay in the
	// first-level cache between the vector operations of a butterfly.
	tile = 256
	// smallest distance that is worth vectors; below it single elements are faster.
	vectorLog = 4
)

// Domain is the group of n-th roots of unity, n a power of two.
type Domain struct {
	log               int
	forward, backward *twiddles
	threads           int
}

// twiddles are the factors of one direction. Stage s combines elements 2^s apart; its
// factors are the powers of a primitive root of order 2^(s+1).
type twiddles struct {
	low  [][]fr.Element // per stage: powers 0 … min(2^s, 2^tableLog)−1
	high [][]fr.Element // per stage above tableLog: every 2^tableLog-th
}

// New returns the domain of n roots, the same as the reference's: its generator is a
// power of 7. n is a power of two up to 2^32. The domain uses at most so many threads.
func New(n, threads int) (*Domain, error) {
	if n < 1 || n&(n-1) != 0 || bits.Len(uint(n)) > 33 {
		return nil, fmt.Errorf("there is no domain of %d roots of unity: it has to be a power of two up to 2^32", n)
	}
	omega, err := fft.Generator(uint64(n))
	if err != nil {
		return nil, err
	}
	var inverse fr.Element
	inverse.Inverse(&omega)
	d := &Domain{log: bits.TrailingZeros(uint(n)), threads: max(1, threads)}
	d.forward, d.backward = newTwiddles(omega, d.log), newTwiddles(inverse, d.log)
	return d, nil
}

// Size returns n.
func (d *Domain) Size() int { return 1 << d.log }

func newTwiddles(root fr.Element, log int) *twiddles {
	t := &twiddles{low: make([][]fr.Element, log), high: make([][]fr.Element, log)}
	for s := log - 1; s >= 0; s-- {
		t.low[s] = powers(root, 1<<min(s, tableLog))
		if s > tableLog {
			step := root
			for range tableLog {
				step.Square(&step)
			}
			t.high[s] = powers(step, 1<<(s-tableLog))
		}
		root.Square(&root)
	}
	return t
}

// powers returns x⁰ … x^(n−1).
func powers(x fr.Element, n int) []fr.Element {
	p := make([]fr.Element, n)
	p[0].SetOne()
	for i := 1; i < n; i++ {
		p[i].Mul(&p[i-1], &x)
	}
	return p
}

// Interpolate turns values on the domain, in order, into n times the coefficients, in
// bit-reversed order.
func (d *Domain) Interpolate(ctx context.Context, a []fr.Element) error {
	return d.transform(ctx, a, d.backward, false)
}

// Evaluate turns coefficients in bit-reversed order into values on the domain, in order.
func (d *Domain) Evaluate(ctx context.Context, a []fr.Element) error {
	return d.transform(ctx, a, d.forward, true)
}

// ScalePowers multiplies the k-th element, of a vector in bit-reversed order, by
// factor·xᵏ: coefficients are moved to a coset that way, or back.
func (d *Domain) ScalePowers(ctx context.Context, a []fr.Element, x, factor fr.Element) error {
	d.check(a)
	// The place of k is its bits reversed: its upper ones come from the place's lower ones.
	low := min(d.log, 10)
	step := x
	for range d.log - low {
		step.Square(&step)
	}
	table := powers(step, 1<<low)
	utils.BitReverse(table)
	return d.parallel(ctx, 1<<(d.log-low), func(block int, t *[tile]fr.Element) {
		var first fr.Element
		k := int64(0)
		if d.log > low {
			k = int64(bits.Reverse64(uint64(block)) >> (64 - (d.log - low)))
		}
		first.Exp(x, big.NewInt(k))
		first.Mul(&first, &factor)
		part := a[block<<low : (block+1)<<low]
		for from := 0; from < len(part); from += tile {
			to := min(from+tile, len(part))
			v, f := fr.Vector(part[from:to]), fr.Vector(t[:to-from])
			f.ScalarMul(table[from:to], &first)
			v.Mul(v, f)
		}
	})
}

// BitReverse turns bit-reversed order into order, and back.
func (d *Domain) BitReverse(ctx context.Context, a []fr.Element) error {
	d.check(a)
	if d.log == 0 {
		return ctx.Err()
	}
	const piece = 1 << 14
	return d.parallel(ctx, (len(a)+piece-1)/piece, func(task int, _ *[tile]fr.Element) {
		for i := task * piece; i < min(len(a), (task+1)*piece); i++ {
			// Whoever comes to the smaller index of a pair exchanges the two.
			if k := int(bits.Reverse64(uint64(i)) >> (64 - d.log)); i < k {
				a[i], a[k] = a[k], a[i]
			}
		}
	})
}

func (d *Domain) check(a []fr.Element) {
	if len(a) != d.Size() {
		panic(fmt.Sprintf("ntt: a vector of %d elements in a domain of %d", len(a), d.Size()))
	}
}

// transform runs all stages: from the widest to the narrowest (decimation in frequency),
// or back (decimation in time). Wide stages are cut into pieces for all threads; from
// blockLog on each thread does a block to its end, which its cache can hold.
func (d *Domain) transform(ctx context.Context, a []fr.Element, t *twiddles, up bool) error {
	d.check(a)
	const blockLog = tableLog
	narrow := min(d.log, blockLog)
	blocks := func() error {
		return d.parallel(ctx, 1<<(d.log-narrow), func(block int, scratch *[tile]fr.Element) {
			part := a[block<<narrow : (block+1)<<narrow]
			if up {
				climb(part, narrow-1, t, scratch)
			} else {
				descend(part, narrow-1, t, scratch)
			}
		})
	}
	wide := func(s int) error {
		// Pieces of 2^tableLog factors, each for all blocks of the stage.
		const piece = 1 << tableLog
		perBlock := max(1, 1<<s/piece)
		width := min(piece, 1<<s)
		return d.parallel(ctx, perBlock<<(d.log-1-s), func(task int, scratch *[tile]fr.Element) {
			block, at := task/perBlock, task%perBlock
			x := a[block<<(s+1)+at*width:][:width]
			y := a[block<<(s+1)+1<<s+at*width:][:width]
			var first *fr.Element
			if at > 0 {
				first = &t.high[s][at]
			}
			butterflies(x, y, t.low[s], first, up, scratch)
		})
	}
	if up {
		if err := blocks(); err != nil {
			return err
		}
		for s := narrow; s < d.log; s++ {
			if err := wide(s); err != nil {
				return err
			}
		}
		return nil
	}
	for s := d.log - 1; s >= narrow; s-- {
		if err := wide(s); err != nil {
			return err
		}
	}
	return blocks()
}

// descend does stages s, s−1, … 0 of a block of 2^(s+1), halves one after the other so
// that they stay in the cache.
func descend(a []fr.Element, s int, t *twiddles, scratch *[tile]fr.Element) {
	if s < 0 {
		return
	}
	half := 1 << s
	if s < vectorLog {
		for i := range half {
			x, y := &a[i], &a[half+i]
			fr.Butterfly(x, y)
			if i > 0 {
				y.Mul(y, &t.low[s][i])
			}
		}
	} else {
		butterflies(a[:half], a[half:], t.low[s], nil, false, scratch)
	}
	descend(a[:half], s-1, t, scratch)
	descend(a[half:], s-1, t, scratch)
}

// climb is descend the other way round.
func climb(a []fr.Element, s int, t *twiddles, scratch *[tile]fr.Element) {
	if s < 0 {
		return
	}
	half := 1 << s
	climb(a[:half], s-1, t, scratch)
	climb(a[half:], s-1, t, scratch)
	if s >= vectorLog {
		butterflies(a[:half], a[half:], t.low[s], nil, true, scratch)
		return
	}
	for i := range half {
		x, y := &a[i], &a[half+i]
		if i > 0 {
			y.Mul(y, &t.low[s][i])
		}
		fr.Butterfly(x, y)
	}
}

// butterflies combines x and y with the given factors, all of them times first, if that
// is not nil.
func butterflies(x, y, factors []fr.Element, first *fr.Element, up bool, scratch *[tile]fr.Element) {
	for from := 0; from < len(x); from += tile {
		to := min(from+tile, len(x))
		a, b, f, t := fr.Vector(x[from:to]), fr.Vector(y[from:to]), fr.Vector(factors[from:to]), fr.Vector(scratch[:to-from])
		if up { // a + f·b, a − f·b
			t.Mul(b, f)
			if first != nil {
				t.ScalarMul(t, first)
			}
			b.Sub(a, t)
			a.Add(a, t)
		} else { // a + b, f·(a − b)
			t.Sub(a, b)
			a.Add(a, b)
			if first != nil {
				t.ScalarMul(t, first)
			}
			b.Mul(t, f)
		}
	}
}

// parallel runs do for all tasks below n, each with scratch memory of its goroutine. It
// stops with ctx's error.
func (d *Domain) parallel(ctx context.Context, n int, do func(task int, scratch *[tile]fr.Element)) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(d.threads, n) {
		wg.Go(func() {
			scratch := new([tile]fr.Element)
			for ctx.Err() == nil {
				task := int(next.Add(1)) - 1
				if task >= n {
					return
				}
				do(task, scratch)
			}
		})
	}
	wg.Wait()
	return ctx.Err()
}
