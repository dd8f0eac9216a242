//go:build !amd64 || purego

package poseidon

import "github.com/consensys/gnark-crypto/ecc/bls12-381/fr"

// The eight-lane form is for processors with AVX-512 IFMA only, the one-lane form with
// lazily reduced sums for those with ADX and BMI2.
const (
	lanes    = 8
	minLanes = 2
)

func hasIFMA() bool { return false }

func hasADX() bool { return false }

type laneConstants struct{}

func newLaneConstants(*Constants) *laneConstants { return nil }

func (*laneConstants) sum8(_, _, _ []fr.Element) { panic("poseidon: no eight-lane form") }

type singleConstants struct{}

func newSingleConstants(*Constants) *singleConstants { return nil }

func (*singleConstants) sum(_ *fr.Element, _, _ []fr.Element) { panic("poseidon: no ADX form") }
