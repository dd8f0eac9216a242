package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"sealfleet/internal/chain"
	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/groth16"
	"sealfleet/internal/sealcore/porepsnark"
	"sealfleet/internal/sealcore/vanilla"
)

// verifier checks the proofs that the development chain is given, under the verifying
// keys in a directory. A key is read when the first proof of its kind comes; one that is
// missing leaves the commit pending, because it may still be fetched or made.
type verifier struct {
	dir      string
	selfMade bool // also for production sizes
	mu       sync.Mutex
	keys     map[int]*groth16.VerifyingKey // by proof type
}

func newVerifier(dir string, selfMade bool) chain.Verifier {
	return &verifier{dir: dir, selfMade: selfMade, keys: map[int]*groth16.VerifyingKey{}}
}

// Verify is part of chain.Verifier.
func (v *verifier) Verify(_ context.Context, p chain.Proof) error {
	params, err := sealcore.ForProofType(p.ProofType)
	if err != nil {
		return fmt.Errorf("%w: %w", chain.ErrInvalidProof, err)
	}
	key, err := v.key(params)
	if err != nil {
		return err
	}
	pi := vanilla.PublicInputs{
		ReplicaID: sealcore.ReplicaID(sealcore.ProverID(p.Miner), p.Number, p.Ticket, p.CommD, params.PoRepID),
		CommD:     p.CommD, CommR: p.CommR, Seed: p.Seed,
	}
	err = porepsnark.Verify(params, pi, p.Proof, key)
	if err != nil && (errors.Is(err, groth16.ErrInvalidProof) || errors.Is(err, groth16.ErrMalformed) || errors.Is(err, groth16.ErrInputs)) {
		return fmt.Errorf("%w: %w", chain.ErrInvalidProof, err)
	}
	return err
}

func (v *verifier) key(params sealcore.Params) (*groth16.VerifyingKey, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if key := v.keys[params.ProofType]; key != nil {
		return key, nil
	}
	key, err := porepsnark.Key(params, v.dir, porepsnark.Options{SelfMadeParametersForProduction: v.selfMade})
	if err != nil {
		return nil, err
	}
	v.keys[params.ProofType] = key
	return key, nil
}
