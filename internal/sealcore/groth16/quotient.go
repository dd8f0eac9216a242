package groth16

import (
	"context"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"
	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr/fft"
	"golang.org/x/sync/errgroup"
)

// quotient returns the coefficients of H = (A·B − C)/Z, where A, B and C are the
// polynomials with the given values (C's are the products of A's and B's) on the domain
// of n-th roots of unity, and Z = Xⁿ − 1. It works in a's and b's memory, which must
// have room for n elements; the result is a's.
//
// C needs no transform to the coset: A·B interpolated on the coset g·ωⁱ is A·B modulo
// Xⁿ − gⁿ, and with A·B = H·Z + C that is (gⁿ − 1)·H + C. So six transforms do.
func quotient(ctx context.Context, a, b []fr.Element, n int, o Options) ([]fr.Element, error) {
	const transforms = 6
	threads := o.threads()
	done := uint64(0)
	step := func() error {
		done++
		o.report("fft", done, transforms)
		return ctx.Err()
	}
	o.report("fft", 0, transforms)
	domain := fft.NewDomain(uint64(n))
	tasks := fft.WithNbTasks(threads)
	a, b = extend(a, n), extend(b, n)
	c := make([]fr.Element, n)
	spread(threads, n, func(from, to int) {
		v := fr.Vector(c[from:to])
		v.Mul(a[from:to], b[from:to])
	})
	// Decimation in frequency leaves the coefficients in bit-reversed order, which is the
	// order that decimation in time starts from.
	for _, p := range [][]fr.Element{a, b, c} {
		domain.FFTInverse(p, fft.DIF, tasks)
		if err := step(); err != nil {
			return nil, err
		}
	}
	for _, p := range [][]fr.Element{a, b} {
		domain.FFT(p, fft.DIT, fft.OnCoset(), tasks)
		if err := step(); err != nil {
			return nil, err
		}
	}
	spread(threads, n, func(from, to int) {
		v := fr.Vector(a[from:to])
		v.Mul(v, b[from:to])
	})
	domain.FFTInverse(a, fft.DIF, fft.OnCoset(), tasks)
	scale := zOnCoset(domain.FrMultiplicativeGen, n)
	scale.Inverse(&scale)
	spread(threads, n, func(from, to int) {
		v := fr.Vector(a[from:to])
		v.Sub(v, c[from:to])
		v.ScalarMul(v, &scale)
	})
	fft.BitReverse(a)
	return a, step()
}

// zOnCoset returns gⁿ − 1 for a power of two n: the value of Z everywhere on the coset.
func zOnCoset(g fr.Element, n int) fr.Element {
	for ; n > 1; n /= 2 {
		g.Square(&g)
	}
	return *g.Sub(&g, &one)
}

// extend lengthens v with zeros, in place if there is room.
func extend(v []fr.Element, n int) []fr.Element {
	if cap(v) < n {
		w := make([]fr.Element, n)
		copy(w, v)
		return w
	}
	from := len(v)
	v = v[:n]
	clear(v[from:])
	return v
}

// spread runs do over pieces of 0 … n−1 on the given number of goroutines.
func spread(threads, n int, do func(from, to int)) {
	const piece = 1 << 13
	var g errgroup.Group
	g.SetLimit(threads)
	step := max(piece, (n/threads/4+piece-1)/piece*piece)
	for from := 0; from < n; from += step {
		g.Go(func() error { do(from, min(n, from+step)); return nil })
	}
	_ = g.Wait() // none fails
}
