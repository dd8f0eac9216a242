package groth16

import (
	"context"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"
	"golang.org/x/sync/errgroup"

	"sealfleet/internal/sealcore/groth16/ntt"
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
	done := uint64(0)
	o.report("fft", 0, transforms)
	domain, err := ntt.New(n, o.threads())
	if err != nil {
		return nil, err
	}
	var first error
	step := func(f func(context.Context, []fr.Element) error, p []fr.Element) {
		if first != nil {
			return
		}
		first = f(ctx, p)
		done++
		o.report("fft", done, transforms)
	}
	a, b = extend(a, n), extend(b, n)
	c := make([]fr.Element, n)
	spread(o.threads(), n, func(from, to int) {
		v := fr.Vector(c[from:to])
		v.Mul(a[from:to], b[from:to])
	})
	// Interpolation leaves out a division by n. A and B make up for it on the way to the
	// coset, C at the end.
	var overN, g, overG, scale fr.Element
	overN.SetUint64(uint64(n))
	overN.Inverse(&overN)
	g.SetUint64(cosetGenerator)
	overG.Inverse(&g)
	scale = zOnCoset(g, n)
	scale.Inverse(&scale)
	scale.Mul(&scale, &overN)
	step(domain.Interpolate, c)
	for _, p := range [][]fr.Element{a, b} {
		step(domain.Interpolate, p)
		if first == nil {
			first = domain.ScalePowers(ctx, p, g, overN)
		}
		step(domain.Evaluate, p)
	}
	if first != nil {
		return nil, first
	}
	spread(o.threads(), n, func(from, to int) {
		v := fr.Vector(a[from:to])
		v.Mul(v, b[from:to])
	})
	step(domain.Interpolate, a)
	if first == nil {
		first = domain.ScalePowers(ctx, a, overG, scale)
	}
	if first != nil {
		return nil, first
	}
	spread(o.threads(), n, func(from, to int) {
		v, w := fr.Vector(a[from:to]), fr.Vector(c[from:to])
		w.ScalarMul(w, &scale)
		v.Sub(v, w)
	})
	return a, domain.BitReverse(ctx, a)
}

// cosetGenerator is no root of unity of any order that is a power of two.
const cosetGenerator = 7

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
