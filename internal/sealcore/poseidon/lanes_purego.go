//go:build !amd64 || purego

package poseidon

import "github.com/consensys/gnark-crypto/ecc/bls12-381/fr"

// The eight-lane form is for processors with AVX-512 IFMA only.
const (
	lanes    = 8
	minLanes = 2
)

func hasIFMA() bool { return false }

type laneConstants struct{}

func newLaneConstants(*Constants) *laneConstants { return nil }

func (*laneConstants) sum8(_, _, _ []fr.Element) { panic("poseidon: no eight-lane form") }
