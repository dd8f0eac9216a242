package groth16

import (
	"encoding/binary"
	"fmt"

	bls12381 "github.com/consensys/gnark-crypto/ecc/bls12-381"

	"sealfleet/internal/sealcore/groth16/msm"
)

// VerifyingKey is what a verifier needs to know of a circuit's parameters.
type VerifyingKey struct {
	AlphaG1, BetaG1          bls12381.G1Affine
	BetaG2, GammaG2, DeltaG2 bls12381.G2Affine
	DeltaG1                  bls12381.G1Affine
	IC                       []bls12381.G1Affine // one for each public input, the constant one first
}

// keyLen is the length of a key with n public inputs, the constant one among them.
func keyLen(n int) int { return 3*g1Len + 3*g2Len + 4 + n*g1Len }

// ParseVerifyingKey reads a key, all of it, and checks that each point is on its curve,
// in the subgroup and not infinity, and that beta and delta are the same in both groups.
//
// Source: bellperson 0.27, groth16/verifying_key.rs.
func ParseVerifyingKey(data []byte) (*VerifyingKey, error) {
	r := &reader{data: data}
	key := r.key()
	if r.err == nil && r.off != len(data) {
		r.fail("its end", fmt.Errorf("%w: %d bytes follow", ErrMalformed, len(data)-r.off))
	}
	if r.err != nil {
		return nil, fmt.Errorf("verifying key: %w", r.err)
	}
	return key, nil
}

func (r *reader) key() *VerifyingKey {
	k := &VerifyingKey{}
	k.AlphaG1 = r.g1("alpha in G1")
	k.BetaG1 = r.g1("beta in G1")
	k.BetaG2 = r.g2("beta in G2")
	k.GammaG2 = r.g2("gamma in G2")
	k.DeltaG1 = r.g1("delta in G1")
	k.DeltaG2 = r.g2("delta in G2")
	n := r.count("input points", g1Len)
	if r.err == nil && n == 0 {
		r.fail("input points", fmt.Errorf("%w: there is none, not even for the constant one", ErrMalformed))
	}
	if r.err != nil {
		return nil
	}
	k.IC = make([]bls12381.G1Affine, n)
	for i := range k.IC {
		if k.IC[i] = r.g1("input points"); r.err != nil {
			return nil
		}
	}
	// beta·delta must come out the same whichever of the two is taken in G1.
	var minusDelta bls12381.G1Affine
	minusDelta.Neg(&k.DeltaG1)
	same, err := bls12381.PairingCheck(
		[]bls12381.G1Affine{k.BetaG1, minusDelta}, []bls12381.G2Affine{k.DeltaG2, k.BetaG2})
	if err != nil || !same {
		r.fail("beta and delta", fmt.Errorf("%w: they differ between G1 and G2", ErrMalformed))
		return nil
	}
	return k
}

// Bytes encodes the key as the reference writes it.
func (k *VerifyingKey) Bytes() []byte {
	b := make([]byte, 0, keyLen(len(k.IC)))
	b = appendG1(b, (*msm.G1)(&k.AlphaG1))
	b = appendG1(b, (*msm.G1)(&k.BetaG1))
	b = appendG2(b, (*msm.G2)(&k.BetaG2))
	b = appendG2(b, (*msm.G2)(&k.GammaG2))
	b = appendG1(b, (*msm.G1)(&k.DeltaG1))
	b = appendG2(b, (*msm.G2)(&k.DeltaG2))
	b = binary.BigEndian.AppendUint32(b, uint32(len(k.IC)))
	for i := range k.IC {
		b = appendG1(b, (*msm.G1)(&k.IC[i]))
	}
	return b
}

// Inputs returns how many public inputs a proof under this key has, without the
// constant one.
func (k *VerifyingKey) Inputs() int { return len(k.IC) - 1 }
