// Package msm adds many points of an elliptic curve: sums of selected points,
// multi-exponentiations and tables for one fixed base, over both groups of BLS12-381.
//
// Everything is done in affine coordinates. One affine addition needs an inversion, but
// a batch of independent additions can share a single one (Montgomery's trick), and then
// an addition costs six multiplications instead of the eleven of mixed Jacobian
// coordinates. So the work is always arranged in batches of independent additions.
//
// The package works on variable-time arithmetic, as every Groth16 prover in the field
// does: witness and machine belong to the same operator.
package msm

import (
	"unsafe"

	bls12381 "github.com/consensys/gnark-crypto/ecc/bls12-381"
	"github.com/consensys/gnark-crypto/ecc/bls12-381/fp"
)

// Point is an affine point of y² = x³ + b with coordinates of type E. The point at
// infinity is (0, 0), as in gnark-crypto, whose affine points have the same layout.
type Point[E any] struct{ X, Y E }

type (
	// G1 is a point of the curve over the base field.
	G1 = Point[fp.Element]
	// G2 is a point of the twist.
	G2 = Point[bls12381.E2]
)

// Coord is what the arithmetic asks of a coordinate; *fp.Element and *bls12381.E2 fit.
type Coord[E any] interface {
	*E
	Add(x, y *E) *E
	Sub(x, y *E) *E
	Mul(x, y *E) *E
	Square(x *E) *E
	Double(x *E) *E
	Neg(x *E) *E
	Inverse(x *E) *E
	SetOne() *E
	IsZero() bool
}

// Source gives points by their index. It is called from many goroutines at once.
type Source[E any] interface {
	// Load sets p to the point with the given index, which the caller keeps in range.
	Load(i int, p *Point[E]) error
}

// Slice is a Source over points in memory.
type Slice[E any] []Point[E]

// Load implements Source.
func (s Slice[E]) Load(i int, p *Point[E]) error { *p = s[i]; return nil }

// G1Slice views gnark-crypto's points as a Source, without copying them.
func G1Slice(p []bls12381.G1Affine) Slice[fp.Element] {
	return unsafe.Slice((*G1)(unsafe.Pointer(unsafe.SliceData(p))), len(p))
}

// G2Slice views gnark-crypto's points as a Source, without copying them.
func G2Slice(p []bls12381.G2Affine) Slice[bls12381.E2] {
	return unsafe.Slice((*G2)(unsafe.Pointer(unsafe.SliceData(p))), len(p))
}

func isInfinity[E any, PE Coord[E]](p *Point[E]) bool {
	return PE(&p.X).IsZero() && PE(&p.Y).IsZero()
}
