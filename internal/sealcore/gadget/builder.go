// Package gadget builds the parts that the circuit of the proof of replication is made
// of: bits, 32-bit words, SHA-256, Poseidon, numbers of the scalar field, packing and
// the insertion of a node among its siblings.
//
// Every gadget carries the values of its variables, so that one pass over the circuit
// gives both its constraints and its witness; with zeros as values the constraints are
// the same, which is how parameters and digests are made. The order in which a gadget
// allocates and enforces is a fact of Filecoin's parameters, as is every place where a
// constant is folded away: change neither.
//
// Source: the gadgets of bellperson 0.27 and bellpepper-core 0.2 (boolean, num, uint32,
// multieq, multipack, sha256), of storage-proofs-core 19.1 (insertion, uint64,
// constraint, encode, por) and the legacy Poseidon circuit of neptune 11.
package gadget

import (
	"sealfleet/internal/sealcore/r1cs"
)

// Capacity is the number of bits that always fit into an element of the scalar field.
const Capacity = 254

// fieldBits is the number of bits of an element of the scalar field.
const fieldBits = 255

// Builder writes gadgets to a sink. It keeps linear combinations for reuse, so it serves
// one goroutine at a time.
type Builder struct {
	sink r1cs.Sink

	// Linear combinations whose coefficients never change, for the constraints that a
	// circuit is nearly all made of: only their variables are set before each use.
	boolean, equal, sum, pick shape
	xor, and, ch, maj         shape

	free shape // for the constraints whose shape varies
	sums multiEq

	poseidon []r1cs.Var // the variables of the Poseidon hash at work
}

// shape is one constraint's three linear combinations.
type shape struct{ a, b, c r1cs.LC }

// New returns a builder that writes to sink.
func New(sink r1cs.Sink) *Builder {
	k := fieldConstants()
	one, minusOne, two := k.pow2[0], k.negPow2[0], k.pow2[1]
	plus := func() r1cs.LC { return r1cs.LC{{Coeff: one}} }
	b := &Builder{
		sink:    sink,
		boolean: shape{r1cs.LC{{Var: r1cs.One, Coeff: one}, {Coeff: minusOne}}, plus(), nil},
		equal:   shape{plus(), r1cs.LC{{Var: r1cs.One, Coeff: one}}, plus()},
		sum:     shape{r1cs.LC{{Coeff: one}, {Coeff: one}}, r1cs.LC{{Var: r1cs.One, Coeff: one}}, plus()},
		pick:    shape{r1cs.LC{{Coeff: one}, {Coeff: minusOne}}, plus(), r1cs.LC{{Coeff: one}, {Coeff: minusOne}}},
		xor:     shape{r1cs.LC{{Coeff: two}}, plus(), r1cs.LC{{Coeff: one}, {Coeff: one}, {Coeff: minusOne}}},
		and:     shape{plus(), plus(), plus()},
		ch:      shape{r1cs.LC{{Coeff: one}, {Coeff: minusOne}}, plus(), r1cs.LC{{Coeff: one}, {Coeff: minusOne}}},
		maj: shape{r1cs.LC{{Coeff: two}, {Coeff: minusOne}, {Coeff: minusOne}}, plus(),
			r1cs.LC{{Coeff: one}, {Coeff: minusOne}}},
	}
	b.sums.b = b
	return b
}

// emit hands a constraint of fixed shape to the sink.
func (b *Builder) emit(s *shape) { b.sink.Enforce(s.a, s.b, s.c) }
