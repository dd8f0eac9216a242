package groth16

import (
	"fmt"

	bls12381 "github.com/consensys/gnark-crypto/ecc/bls12-381"
)

// ProofSize is the length of an encoded proof in bytes.
const ProofSize = 2*g1CompressedLen + g2CompressedLen

// Proof is a Groth16 proof.
type Proof struct {
	A bls12381.G1Affine
	B bls12381.G2Affine
	C bls12381.G1Affine
}

// ParseProof reads a proof of exactly ProofSize bytes. It refuses, with ErrMalformed,
// other lengths, points that are not compressed, not on the curve, outside the subgroup
// or infinity, and any second encoding of the same proof.
//
// Source: bellperson 0.27, groth16/proof.rs.
func ParseProof(b []byte) (*Proof, error) {
	if len(b) != ProofSize {
		return nil, fmt.Errorf("proof: %w: it has %d bytes instead of %d", ErrMalformed, len(b), ProofSize)
	}
	var p Proof
	for _, part := range []struct {
		name  string
		bytes []byte
		set   func([]byte) (int, error)
		check func() error
	}{
		{"A", b[:48], p.A.SetBytes, func() error { return checkG1(&p.A) }},
		{"B", b[48:144], p.B.SetBytes, func() error { return checkG2(&p.B) }},
		{"C", b[144:], p.C.SetBytes, func() error { return checkG1(&p.C) }},
	} {
		// Without this flag gnark would expect an uncompressed point.
		if part.bytes[0]&0x80 == 0 {
			return nil, fmt.Errorf("proof: point %s: %w: it is not compressed", part.name, ErrMalformed)
		}
		if part.bytes[0]&flagMask == 0xe0 {
			return nil, fmt.Errorf("proof: point %s: %w: it is infinity with a sign", part.name, ErrMalformed)
		}
		if _, err := part.set(part.bytes); err != nil {
			return nil, fmt.Errorf("proof: point %s: %w: %w", part.name, ErrMalformed, err)
		}
		if err := part.check(); err != nil {
			return nil, fmt.Errorf("proof: point %s: %w", part.name, err)
		}
	}
	return &p, nil
}

// Bytes encodes the proof in ProofSize bytes.
func (p *Proof) Bytes() []byte {
	b := make([]byte, 0, ProofSize)
	a, bb, c := p.A.Bytes(), p.B.Bytes(), p.C.Bytes()
	return append(append(append(b, a[:]...), bb[:]...), c[:]...)
}
