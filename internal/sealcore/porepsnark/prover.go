package porepsnark

import (
	"context"
	"path/filepath"

	"sealfleet/internal/sealcore/circuit"
	"sealfleet/internal/sealcore/groth16"
	"sealfleet/internal/sealcore/seal"
	"sealfleet/internal/sealcore/vanilla"
)

// Prover makes SNARKs with the parameters in a directory, for p4 of the built-in engine.
type Prover struct {
	Dir string // "" is the reference's default
	// SelfMadeParametersForProduction: see Options.
	SelfMadeParametersForProduction bool
}

// Prove makes the proof of a sector whose vanilla proofs have been verified, and returns
// it with the name of the parameter file.
func (p Prover) Prove(ctx context.Context, s seal.Sector, c *vanilla.Commit1, o seal.Options) (proof []byte, params string, err error) {
	mine := Options{Threads: o.Threads, Progress: o.Progress, SelfMadeParametersForProduction: p.SelfMadeParametersForProduction}
	opened, err := open(s.Params, p.Dir, mine)
	if err != nil {
		return nil, "", err
	}
	defer opened.Close()
	proof, err = prove(ctx, s.Params, c, opened, mine)
	return proof, filepath.Base(groth16.ParamsPath(p.Dir, circuit.Identifier(s.Params))), err
}
