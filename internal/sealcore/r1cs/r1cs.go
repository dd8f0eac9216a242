// Package r1cs is the border between the circuit, which says which variables and
// constraints there are, and what is done with them: digest them, make parameters
// from them, or prove them.
//
// A circuit is a function that calls a Sink: it allocates variables in a fixed order
// and enforces ⟨A,w⟩·⟨B,w⟩ = ⟨C,w⟩ in a fixed order. The order is part of Filecoin's
// parameters, so it must never change.
package r1cs

import "github.com/consensys/gnark-crypto/ecc/bls12-381/fr"

// Var is a variable: bit 31 set for an auxiliary (private) one, clear for a public
// input; the other bits are its index. Public input 0 is the constant one.
type Var uint32

// One is the public input that is always 1.
const One Var = 0

const auxBit = 1 << 31

// Input returns the public input with the given index.
func Input(i int) Var { return Var(i) }

// Aux returns the auxiliary variable with the given index.
func Aux(i int) Var { return Var(i) | auxBit }

// IsAux tells whether v is an auxiliary variable.
func (v Var) IsAux() bool { return v&auxBit != 0 }

// Index returns the index of v among the variables of its kind.
func (v Var) Index() int { return int(v &^ auxBit) }

// Term is a coefficient times a variable.
type Term struct {
	Var   Var
	Coeff fr.Element
}

// LC is a linear combination. A variable may occur several times; the terms add up.
type LC []Term

// Sink takes a circuit. It does not keep the linear combinations that it is given, so a
// circuit may reuse their memory after Enforce returns.
type Sink interface {
	// AllocInput adds a public input with its value; AllocAux a private variable. A sink
	// that only wants the constraints ignores the values.
	AllocInput(value fr.Element) Var
	AllocAux(value fr.Element) Var
	// Enforce adds the constraint ⟨a,w⟩·⟨b,w⟩ = ⟨c,w⟩.
	Enforce(a, b, c LC)
}
