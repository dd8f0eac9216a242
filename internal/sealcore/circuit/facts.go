package circuit

import (
	"context"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/r1cs"
)

// Description names a circuit and says all that there is to say about its constraints.
type Description struct {
	r1cs.Facts
	ParameterIdentifier string `json:"parameter_identifier"`
}

// Facts writes the circuit once, without a witness, and digests it as it comes: memory
// is a few dozen megabytes for any size, and time is minutes at most (32 GiB: 130
// million constraints). progress, if set, is called now and then on the calling
// goroutine with the number of constraints so far and in the whole circuit.
func Facts(ctx context.Context, params sealcore.Params, progress func(done, total uint64)) (Description, error) {
	size, err := SizeOf(ctx, params)
	if err != nil {
		return Description{}, err
	}
	digest := r1cs.NewDigest()
	defer digest.Close()
	var sink r1cs.Sink = digest
	if progress != nil {
		sink = &reporter{Digest: digest, total: uint64(size.Constraints), progress: progress}
	}
	if err := Synthesize(ctx, sink, params, Blank(params)); err != nil {
		return Description{}, err
	}
	if progress != nil {
		progress(uint64(size.Constraints), uint64(size.Constraints))
	}
	return Description{Facts: digest.Facts(), ParameterIdentifier: Identifier(params)}, nil
}

// reporter tells how far a digest is.
type reporter struct {
	*r1cs.Digest
	n, total uint64
	progress func(done, total uint64)
}

// Enforce passes a constraint on.
func (r *reporter) Enforce(a, b, c r1cs.LC) {
	r.Digest.Enforce(a, b, c)
	if r.n++; r.n%(1<<18) == 0 {
		r.progress(r.n, r.total)
	}
}

// SizeOf returns how many variables, constraints and terms the circuit has, without
// writing all of it: every challenge takes the same number, so two circuits of one and
// two challenges tell the rest. Even 32 GiB takes a second.
func SizeOf(ctx context.Context, params sealcore.Params) (r1cs.Counter, error) {
	var counts [2]r1cs.Counter
	for i := range counts {
		small := params
		small.Challenges = i + 1
		if err := Synthesize(ctx, &counts[i], small, Blank(small)); err != nil {
			return r1cs.Counter{}, err
		}
	}
	n := params.Challenges - 1
	extrapolate := func(one, two int) int { return one + n*(two-one) }
	return r1cs.Counter{
		Inputs:      extrapolate(counts[0].Inputs, counts[1].Inputs),
		Aux:         extrapolate(counts[0].Aux, counts[1].Aux),
		Constraints: extrapolate(counts[0].Constraints, counts[1].Constraints),
		Terms:       uint64(extrapolate(int(counts[0].Terms), int(counts[1].Terms))),
	}, nil
}

// PublicInputs returns the public inputs that a partition's circuit gives itself, without
// the leading constant one. They must be those that a verifier computes on its own
// (vanilla.PublicInputs.SNARKInputs).
func PublicInputs(ctx context.Context, params sealcore.Params, in PartitionInput) ([]fr.Element, error) {
	var c inputs
	err := Synthesize(ctx, &c, params, in)
	return c.values, err
}

// inputs is a sink that keeps the public inputs.
type inputs struct {
	r1cs.Counter
	values []fr.Element
}

// AllocInput keeps a public input.
func (c *inputs) AllocInput(value fr.Element) r1cs.Var {
	c.values = append(c.values, value)
	return c.Counter.AllocInput(value)
}
