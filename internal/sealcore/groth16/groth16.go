// Package groth16 makes and checks Groth16 proofs over BLS12-381, with the parameter,
// key and proof files of the reference implementation (bellperson 0.27, groth16), so
// that Filecoin's published parameters drop in and its verifiers accept what comes out.
//
// # Files
//
// A verifying key is alpha (G1), beta (G1, G2), gamma (G2), delta (G1, G2), a count and
// the points IC of the public inputs. A parameter file is a verifying key and five
// sections, each a count and points: h, l, a, b in G1, b in G2. Points are uncompressed
// (96 and 192 bytes) in the encoding of zcash, counts are big-endian uint32. A proof is
// three compressed points, 192 bytes. h has one point less than the domain (a power of
// two); l one for each auxiliary variable; the others leave out the variables that
// appear in no A (or B) of the circuit: what a prover calls their density.
//
// # Memory
//
// For a circuit with v auxiliary variables, of which f are neither 0 nor 1, and a domain
// of n ≥ constraints + inputs (a power of two), a proof takes in bytes
//
//	w = 6·v + 32·f                                  the witness
//	w + 64·n                                        while the circuit is evaluated
//	w + 96·n                                        in the transforms: the peak
//	w + 32·n + 64 MiB per 16 threads + 24 MiB each  in the sum over h
//	w + 4·v + 8·f + the same                        in the other sums
//
// and some 100 MiB of program and circuit. 512 MiB (n = 2²³) takes 0.9 GiB, and 32 GiB (n
// = 2²⁷, v = 1.3·10⁸) about 13 GiB, for one partition at a time. See MemoryNeed.
// Parameters are mapped, not read; their pages come and go as the kernel likes.
package groth16

import (
	"context"
	"errors"
	"runtime"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"

	"sealfleet/internal/sealcore/r1cs"
)

// Circuit gives a circuit to a sink: the same constraints and variables in the same
// order on every call. It stops with ctx's error soon after ctx is done.
type Circuit func(ctx context.Context, sink r1cs.Sink) error

// Reasons for which things are refused; errors wrap them.
var (
	// ErrMalformed: a file or a proof is cut short, padded, or holds what is no point.
	ErrMalformed = errors.New("malformed")
	// ErrOtherCircuit: parameters do not fit the circuit that they are used for.
	ErrOtherCircuit = errors.New("parameters of another circuit")
	// ErrUnsatisfied: the values do not satisfy the circuit, so there is nothing to prove.
	ErrUnsatisfied = errors.New("constraint not satisfied")
	// ErrInputs: public inputs that are too few, too many, or no field elements.
	ErrInputs = errors.New("wrong public inputs")
	// ErrInvalidProof: a well-formed proof that does not hold under this key and inputs.
	ErrInvalidProof = errors.New("proof does not hold")
)

// Options bound and observe a long computation.
type Options struct {
	// Threads is the most cores to use; 0 stands for GOMAXPROCS.
	Threads int
	// Progress, if set, is called now and then, from any goroutine, with the step
	// ("synthesis", "fft", "msm h", …) and how far it is in the step's own units.
	Progress func(step string, done, total uint64)
}

func (o Options) threads() int {
	if o.Threads > 0 {
		return o.Threads
	}
	return runtime.GOMAXPROCS(0)
}

func (o Options) report(step string, done, total uint64) {
	if o.Progress != nil {
		o.Progress(step, done, total)
	}
}

var one = fr.One()
