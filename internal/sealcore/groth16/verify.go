package groth16

import (
	"crypto/rand"
	"fmt"
	"math/big"

	"github.com/consensys/gnark-crypto/ecc"
	bls12381 "github.com/consensys/gnark-crypto/ecc/bls12-381"
	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/field"
)

// Verifier checks proofs under one key. It is safe for many goroutines.
type Verifier struct {
	key       VerifyingKey
	lines     [2]lines    // of −gamma and −delta, for the Miller loop
	alphaBeta bls12381.GT // e(alpha, beta)
}

type lines = [2][len(bls12381.LoopCounter) - 1]bls12381.LineEvaluationAff

// NewVerifier prepares a key for verifying.
func NewVerifier(key *VerifyingKey) (*Verifier, error) {
	v := &Verifier{key: *key}
	var gamma, delta bls12381.G2Affine
	v.lines[0] = bls12381.PrecomputeLines(*gamma.Neg(&key.GammaG2))
	v.lines[1] = bls12381.PrecomputeLines(*delta.Neg(&key.DeltaG2))
	var err error
	v.alphaBeta, err = bls12381.Pair([]bls12381.G1Affine{key.AlphaG1}, []bls12381.G2Affine{key.BetaG2})
	if err != nil {
		return nil, fmt.Errorf("verifying key: %w", err)
	}
	return v, nil
}

// ParseInputs reads public inputs from field elements of 32 bytes, little-endian. It
// refuses one that is not below the field's modulus, which would be a second name of
// the same input.
func ParseInputs(domains []sealcore.Domain) ([]fr.Element, error) {
	inputs := make([]fr.Element, len(domains))
	for i := range domains {
		var err error
		if inputs[i], err = field.FromDomain(domains[i]); err != nil {
			return nil, fmt.Errorf("%w: input %d: %w", ErrInputs, i, err)
		}
	}
	return inputs, nil
}

// Verify checks one proof with its public inputs, without the constant one. A proof that
// does not hold gives ErrInvalidProof, a wrong number of inputs ErrInputs.
//
// It checks A·B = alpha·beta + inputs·gamma + C·delta with three pairings, two of them
// prepared, and one final exponentiation.
func (v *Verifier) Verify(proof *Proof, inputs []fr.Element) error {
	acc, err := v.accumulate(inputs)
	if err != nil {
		return err
	}
	fixed, err := v.fixed(acc, proof.C)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidProof, err)
	}
	free, err := bls12381.MillerLoop([]bls12381.G1Affine{proof.A}, []bls12381.G2Affine{proof.B})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidProof, err)
	}
	if got := bls12381.FinalExponentiation(&free, &fixed); !got.Equal(&v.alphaBeta) {
		return fmt.Errorf("%w: it was made for other public inputs, for another key, or never held", ErrInvalidProof)
	}
	return nil
}

// accumulate returns IC₀ + Σ inputsᵢ·ICᵢ₊₁.
func (v *Verifier) accumulate(inputs []fr.Element) (acc bls12381.G1Affine, err error) {
	if len(inputs) != v.key.Inputs() {
		return acc, fmt.Errorf("%w: there are %d, but the key is for %d", ErrInputs, len(inputs), v.key.Inputs())
	}
	if len(inputs) > 0 {
		if _, err := acc.MultiExp(v.key.IC[1:], inputs, ecc.MultiExpConfig{NbTasks: 1}); err != nil {
			return acc, fmt.Errorf("%w: %w", ErrInputs, err)
		}
	}
	return *acc.Add(&acc, &v.key.IC[0]), nil
}

// fixed runs the Miller loop of acc with −gamma and c with −delta.
func (v *Verifier) fixed(acc, c bls12381.G1Affine) (bls12381.GT, error) {
	if acc.IsInfinity() || c.IsInfinity() {
		// The loop over prepared lines has no room for infinity among other points.
		var gamma, delta bls12381.G2Affine
		gamma.Neg(&v.key.GammaG2)
		delta.Neg(&v.key.DeltaG2)
		return bls12381.MillerLoop([]bls12381.G1Affine{acc, c}, []bls12381.G2Affine{gamma, delta})
	}
	prepared := v.lines // a copy: gnark-crypto's loop writes into the lines that it is given
	return bls12381.MillerLoopFixedQ([]bls12381.G1Affine{acc, c}, prepared[:])
}

// VerifyBatch checks many proofs at once, proofs[i] with inputs[i]: one final
// exponentiation and one pairing for each proof instead of three. The proofs are combined
// with random factors of 128 bits, so that a set with a false proof passes with
// probability 2^−128. Where the set fails, each proof is checked to name the first false one.
//
// Source: Zcash protocol specification, appendix B.2.
func (v *Verifier) VerifyBatch(proofs []*Proof, inputs [][]fr.Element) error {
	if len(proofs) != len(inputs) {
		return fmt.Errorf("%w: %d proofs with inputs for %d", ErrInputs, len(proofs), len(inputs))
	}
	for i := range inputs {
		if len(inputs[i]) != v.key.Inputs() {
			return fmt.Errorf("proof %d: %w: there are %d, but the key is for %d", i, ErrInputs, len(inputs[i]), v.key.Inputs())
		}
	}
	if len(proofs) > 1 {
		ok, err := v.combined(proofs, inputs)
		if err != nil || ok {
			return err
		}
	}
	for i, p := range proofs {
		if err := v.Verify(p, inputs[i]); err != nil {
			return fmt.Errorf("proof %d: %w", i, err)
		}
	}
	if len(proofs) > 1 {
		return fmt.Errorf("%w: the combination of all fails although each one holds: a fault of memory or processor", ErrInvalidProof)
	}
	return nil
}

// combined checks Σ zᵢ·(Aᵢ·Bᵢ) = (Σ zᵢ)·alpha·beta + (Σ zᵢ·inputsᵢ)·gamma + (Σ zᵢ·Cᵢ)·delta.
func (v *Verifier) combined(proofs []*Proof, inputs [][]fr.Element) (bool, error) {
	z := make([]fr.Element, len(proofs))
	scalars := make([]fr.Element, len(v.key.IC))
	c := make([]bls12381.G1Affine, len(proofs))
	a, b := make([]bls12381.G1Affine, len(proofs)), make([]bls12381.G2Affine, len(proofs))
	for i, p := range proofs {
		var random [16]byte
		if _, err := rand.Read(random[:]); err != nil {
			return false, fmt.Errorf("random factors: %w", err)
		}
		z[i].SetBytes(random[:])
		scalars[0].Add(&scalars[0], &z[i])
		for k := range inputs[i] {
			var t fr.Element
			scalars[k+1].Add(&scalars[k+1], t.Mul(&z[i], &inputs[i][k]))
		}
		a[i].ScalarMultiplication(&p.A, z[i].BigInt(new(big.Int)))
		b[i], c[i] = p.B, p.C
	}
	var acc, sumC, alpha bls12381.G1Affine
	if _, err := acc.MultiExp(v.key.IC, scalars, ecc.MultiExpConfig{NbTasks: 1}); err != nil {
		return false, err
	}
	if _, err := sumC.MultiExp(c, z, ecc.MultiExpConfig{NbTasks: 1}); err != nil {
		return false, err
	}
	// alpha·beta is one more pairing in the same Miller loop, cheaper than a power in GT.
	alpha.ScalarMultiplication(&v.key.AlphaG1, scalars[0].BigInt(new(big.Int)))
	a, b = append(a, *alpha.Neg(&alpha)), append(b, v.key.BetaG2)
	fixed, err := v.fixed(acc, sumC)
	if err != nil {
		return false, err
	}
	free, err := bls12381.MillerLoop(a, b)
	if err != nil {
		return false, err
	}
	got := bls12381.FinalExponentiation(&free, &fixed)
	return got.IsOne(), nil
}
