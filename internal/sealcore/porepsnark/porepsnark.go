// Package porepsnark is the SNARK of a sector's commit phase 2: one Groth16 proof for
// each partition of the stacked-DRG proof of replication, over Filecoin's circuit and
// parameters, so that the network accepts it.
//
// Partitions are proved one after the other, so that the memory of one is enough.
package porepsnark

import (
	"context"
	"errors"
	"fmt"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/circuit"
	"sealfleet/internal/sealcore/groth16"
	"sealfleet/internal/sealcore/r1cs"
	"sealfleet/internal/sealcore/seal"
	"sealfleet/internal/sealcore/vanilla"
)

// Options bound and observe a computation.
type Options struct {
	// Threads is the most cores to use; 0 stands for GOMAXPROCS.
	Threads int
	// Progress, if set, is called now and then, from any goroutine, with the step
	// ("partition 1/10 msm h", …) and how far it is in the step's own units.
	Progress func(step string, done, total uint64)
	// SelfMadeParametersForProduction lifts the refusal to use parameters for sectors of
	// 32 and 64 GiB that are not the ones Filecoin has published.
	SelfMadeParametersForProduction bool
}

// ErrDevelopmentParameters says that parameters for a production size are not those that
// Filecoin has published; whoever made them could forge proofs.
var ErrDevelopmentParameters = errors.New("parameters are not the published ones")

// Commit2 is p4 for a sector: it reads and checks the commit-phase-1 JSON, proves each
// partition, and verifies what it made. dir holds the parameters; "" is the reference's
// default. The proof is sealcore.ProofSize bytes for each partition.
//
// All that can fail early does, before the first minute: missing, foreign, damaged or
// self-made parameters (*groth16.MissingError, ErrDevelopmentParameters), too little
// memory (*MemoryError), and a bad JSON (seal.VerifyCommit1's errors).
func Commit2(ctx context.Context, s seal.Sector, commD, commR, seed sealcore.Domain, c1 []byte, dir string, o Options) (proof []byte, err error) {
	p, err := open(s.Params, dir, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	o.report("check vanilla proofs", 0, 1)
	commit, err := seal.VerifyCommit1(ctx, s, commD, commR, seed, c1, seal.Options{Threads: o.Threads})
	if err != nil {
		return nil, err
	}
	o.report("check vanilla proofs", 1, 1)
	return prove(ctx, s.Params, commit, p, o)
}

// Prove is Commit2 for a commit phase 1 that is parsed already: it checks the vanilla
// proofs, but not that they are of a certain sector.
func Prove(ctx context.Context, params sealcore.Params, c1 *vanilla.Commit1, dir string, o Options) (proof []byte, err error) {
	p, err := open(params, dir, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	o.report("check vanilla proofs", 0, 1)
	if err := vanilla.Verify(ctx, params, c1.PublicInputs(), c1.Partitions, o.Threads); err != nil {
		return nil, err
	}
	o.report("check vanilla proofs", 1, 1)
	return prove(ctx, params, c1, p, o)
}

// Ready tells whether a proof of this kind of sector could be started now: parameters
// are there, fit to be used, and there is memory. It takes less than a second.
func Ready(params sealcore.Params, dir string, o Options) error {
	p, err := open(params, dir, o)
	if err != nil {
		return err
	}
	return p.Close()
}

// open finds and checks the parameters, and the memory that a proof under them takes.
func open(params sealcore.Params, dir string, o Options) (*groth16.Params, error) {
	p, err := groth16.Load(dir, circuit.Identifier(params))
	if err != nil {
		return nil, err
	}
	err = allowed(params, dir, p.Key, o)
	if want := inputs(params); err == nil && p.Key.Inputs() != want {
		err = fmt.Errorf("%s: %w: they are for %d public inputs, a partition of %s has %d",
			groth16.ParamsPath(dir, circuit.Identifier(params)), groth16.ErrOtherCircuit, p.Key.Inputs(), params, want)
	}
	if err == nil {
		err = enoughMemory("/", p, o.Threads)
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// inputs returns how many public inputs the SNARK of a partition has.
func inputs(params sealcore.Params) int { return 3 + vanilla.InputsPerChallenge*params.Challenges }

// prove makes one proof for each partition.
func prove(ctx context.Context, params sealcore.Params, c1 *vanilla.Commit1, p *groth16.Params, o Options) ([]byte, error) {
	want, err := c1.PublicInputs().SNARKInputs(params)
	if err != nil {
		return nil, err
	}
	var proofs []byte
	for k := range c1.Partitions {
		in, err := circuit.Partition(c1, k)
		if err != nil {
			return nil, err
		}
		name := ""
		if len(c1.Partitions) > 1 {
			name = fmt.Sprintf("partition %d/%d ", k+1, len(c1.Partitions))
		}
		proof, got, err := groth16.Prove(ctx, p, synthesis(params, in), groth16.Options{
			Threads:  o.Threads,
			Progress: func(step string, done, total uint64) { o.report(name+step, done, total) },
		})
		if err != nil {
			return nil, fmt.Errorf("partition %d: %w", k, err)
		}
		if !equal(got, want[k]) {
			return nil, fmt.Errorf("partition %d: %w: the circuit's are not those of the sector: the vanilla proofs answer other challenges", k, groth16.ErrInputs)
		}
		proofs = append(proofs, proof.Bytes()...)
	}
	return proofs, nil
}

// synthesis is the circuit with its values.
func synthesis(params sealcore.Params, in circuit.PartitionInput) groth16.Circuit {
	return func(ctx context.Context, sink r1cs.Sink) error {
		return circuit.Synthesize(ctx, sink, params, in)
	}
}

func equal(a, b []fr.Element) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func (o Options) report(step string, done, total uint64) {
	if o.Progress != nil {
		o.Progress(step, done, total)
	}
}
