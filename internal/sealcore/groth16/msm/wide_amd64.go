//go:build amd64 && !purego

package msm

import (
	bls12381 "github.com/consensys/gnark-crypto/ecc/bls12-381"
	"github.com/consensys/gnark-crypto/ecc/bls12-381/fp"
	"golang.org/x/sys/cpu"
)

//go:generate sh -c "cd asm && go run . -out ../ifma_amd64.s -stubs ../ifma_amd64.go -pkg msm"

// HasWide tells whether this processor adds points of G1 faster with wide coordinates.
func HasWide() bool { return cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512IFMA }

const lanes = 8

// wideScratch is what eight lanes need beside the adder's own memory.
type wideScratch struct {
	operands [4 * lanes]Wide // the inverse and three more
	harmless [2]G1Wide       // two different points
	known    []knownSum
}

// knownSum is the sum of a pair with infinity in it.
type knownSum struct {
	at  int
	sum G1Wide
}

func newWideScratch() *wideScratch {
	_, _, g, _ := bls12381.Generators()
	var double bls12381.G1Affine
	double.Double(&g)
	one, two := G1(g), G1(double)
	return &wideScratch{harmless: [2]G1Wide{Widen(&one), Widen(&two)}}
}

// runWide is run for wide coordinates, or returns false if a pair is of points with the
// same x; then it has changed nothing.
func runWide(s *adder[Wide, *Wide], n int) bool {
	// Sums with infinity are known; a harmless pair takes their place.
	known := s.wide.known[:0]
	for i := range n {
		a, b := &s.a[i], &s.b[i]
		if zeros(b) {
			known = append(known, knownSum{i, *a})
			*a, *b = s.wide.harmless[0], s.wide.harmless[1]
		} else if zeros(a) {
			known = append(known, knownSum{i, *b})
			*a, *b = s.wide.harmless[0], s.wide.harmless[1]
		}
	}
	s.wide.known = known
	groups := (n + lanes - 1) / lanes
	for i := n; i < groups*lanes; i++ {
		s.a[i], s.b[i] = s.wide.harmless[0], s.wide.harmless[1]
	}
	// den[8g+k] and pre[8g+k] are limb k of the eight lanes of group g.
	one := &wideFactors().one
	for k := range one {
		for lane := range lanes {
			s.pre[k][lane] = one[k]
		}
	}
	forward8(&s.a[0].X[0], &s.b[0].X[0], &s.den[0][0], &s.pre[0][0], groups)
	if !invertLanes(s.pre[groups*lanes:][:lanes], s.wide.operands[:lanes]) {
		for _, k := range known {
			s.a[k.at], s.b[k.at] = k.sum, G1Wide{}
		}
		return false
	}
	backward8(&s.a[0].X[0], &s.b[0].X[0], &s.den[0][0], &s.pre[0][0], &s.wide.operands[0][0], groups)
	for _, k := range known {
		s.a[k.at] = k.sum
	}
	return true
}

// zeros tells whether a point is infinity, which is always stored as zeros.
func zeros(p *G1Wide) bool {
	return p.X[7]|p.Y[7] == 0 && *p == G1Wide{}
}

// invertLanes inverts eight lanes; false if one of them is zero.
func invertLanes(from, to []Wide) bool {
	var e, before [lanes]fp.Element
	product := fp.One()
	for lane := range lanes {
		var w Wide
		for k := range w {
			w[k] = from[k][lane] & limbMask
		}
		e[lane] = w.join()
		if e[lane].IsZero() {
			return false
		}
		before[lane] = product
		product.Mul(&product, &e[lane])
	}
	product.Inverse(&product)
	scale := &wideFactors().scale2
	for lane := lanes - 1; lane >= 0; lane-- {
		var inverse fp.Element
		inverse.Mul(&product, &before[lane])
		product.Mul(&product, &e[lane])
		var w Wide
		w.split(inverse.Mul(&inverse, scale))
		for k := range w {
			to[k][lane] = w[k]
		}
	}
	return true
}
