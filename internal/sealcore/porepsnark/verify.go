package porepsnark

import (
	"fmt"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/circuit"
	"sealfleet/internal/sealcore/groth16"
	"sealfleet/internal/sealcore/vanilla"
)

// Key loads the verifying key of a kind of sector and decides, as p4 does, whether it
// may be used.
func Key(params sealcore.Params, dir string, o Options) (*groth16.VerifyingKey, error) {
	key, err := groth16.LoadKey(dir, circuit.Identifier(params))
	if err == nil {
		err = allowed(params, dir, key, o)
	}
	if err != nil {
		return nil, err
	}
	return key, nil
}

// Verify checks the proof of a sector: all its partitions' proofs, one after the other
// in one run of bytes, against what everybody knows of the sector. The error says why:
// groth16.ErrMalformed, groth16.ErrInvalidProof, or groth16.ErrInputs if the key is not
// that of this kind of sector.
func Verify(params sealcore.Params, pi vanilla.PublicInputs, proof []byte, key *groth16.VerifyingKey) error {
	if want := params.Partitions * groth16.ProofSize; len(proof) != want {
		return fmt.Errorf("proof: %w: it has %d bytes instead of %d for %d partitions", groth16.ErrMalformed, len(proof), want, params.Partitions)
	}
	inputs, err := pi.SNARKInputs(params)
	if err != nil {
		return fmt.Errorf("%w: %w", groth16.ErrInputs, err)
	}
	proofs := make([]*groth16.Proof, params.Partitions)
	for k := range proofs {
		if proofs[k], err = groth16.ParseProof(proof[k*groth16.ProofSize : (k+1)*groth16.ProofSize]); err != nil {
			return fmt.Errorf("partition %d: %w", k, err)
		}
	}
	v, err := groth16.NewVerifier(key)
	if err != nil {
		return err
	}
	return v.VerifyBatch(proofs, inputs)
}
