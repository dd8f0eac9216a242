package groth16

import (
	"fmt"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"

	"sealfleet/internal/sealcore/r1cs"
)

// ref names the value of a variable: most are bits, so they are told apart here and only
// the others are stored as field elements.
type ref = uint32

const (
	refZero ref = iota
	refOne
	refValue // and above: values[ref−refValue]
)

// assignment is the sink of a prover. It evaluates each constraint as it comes and keeps
// the values of A and B; that of C is their product if the constraint holds. It also
// keeps which variables occur in A and in B, since parameters have no points for those
// that don't.
type assignment struct {
	inputs []ref // the constant one first
	aux    []ref
	values []fr.Element
	a, b   []fr.Element // one per constraint

	inA, inB density // of auxiliary variables
	inputInB density // inputs are all in A, by the constraints that the prover adds

	maxAux, maxConstraints int // what the parameters have room for
	unsatisfied            int // the first constraint that does not hold, or −1
	overflow               bool
}

func newAssignment(p *Params) *assignment {
	s := &assignment{
		aux: make([]ref, 0, p.Aux()), a: make([]fr.Element, 0, p.Domain()), b: make([]fr.Element, 0, p.Domain()),
		inA: density{state: make([]uint8, p.Aux())}, inB: density{state: make([]uint8, p.Aux())},
		maxAux: p.Aux(), maxConstraints: p.Domain() - len(p.Key.IC), unsatisfied: -1,
		inputInB: density{state: make([]uint8, len(p.Key.IC))},
	}
	s.input(one)
	return s
}

func (s *assignment) ref(v fr.Element) ref {
	switch {
	case v.IsZero():
		return refZero
	case v == one:
		return refOne
	}
	s.values = append(s.values, v)
	return refValue + ref(len(s.values)-1)
}

func (s *assignment) input(v fr.Element) { s.inputs = append(s.inputs, s.ref(v)) }

// AllocInput implements r1cs.Sink.
func (s *assignment) AllocInput(v fr.Element) r1cs.Var {
	if len(s.inputs) == len(s.inputInB.state) {
		s.overflow = true
		s.inputInB.state = append(s.inputInB.state, 0)
	}
	s.input(v)
	return r1cs.Input(len(s.inputs) - 1)
}

// AllocAux implements r1cs.Sink.
func (s *assignment) AllocAux(v fr.Element) r1cs.Var {
	if len(s.aux) == s.maxAux {
		// Another circuit than that of the parameters: go on without keeping anything more.
		s.overflow = true
		return r1cs.Aux(s.maxAux - 1)
	}
	s.aux = append(s.aux, s.ref(v))
	return r1cs.Aux(len(s.aux) - 1)
}

// Enforce implements r1cs.Sink.
func (s *assignment) Enforce(a, b, c r1cs.LC) {
	if s.overflow || len(s.a) == s.maxConstraints {
		s.overflow = true
		return
	}
	var va, vb, vc fr.Element
	s.eval(&va, a)
	s.inA.note(a, nil)
	s.eval(&vb, b)
	s.inB.note(b, &s.inputInB)
	s.eval(&vc, c)
	s.a, s.b = append(s.a, va), append(s.b, vb)
	if va.Mul(&va, &vb); va != vc && s.unsatisfied < 0 {
		s.unsatisfied = len(s.a) - 1
	}
}

// eval computes the value of a linear combination.
func (s *assignment) eval(sum *fr.Element, lc r1cs.LC) {
	var t fr.Element
	for i := range lc {
		term := &lc[i]
		var r ref
		if term.Var.IsAux() {
			r = s.aux[term.Var.Index()]
		} else {
			r = s.inputs[term.Var.Index()]
		}
		switch {
		case r == refZero:
		case r == refOne:
			sum.Add(sum, &term.Coeff)
		case term.Coeff == one:
			sum.Add(sum, &s.values[r-refValue])
		default:
			sum.Add(sum, t.Mul(&term.Coeff, &s.values[r-refValue]))
		}
	}
}

// finish adds the constraints input·0 = 0 that the prover owes for each input, which give
// every input its place in A, and checks what only the whole circuit shows.
func (s *assignment) finish(p *Params) error {
	what := func(name string, circuit, params int) error {
		return fmt.Errorf("%w: the circuit has %d %s, the parameters are for %d", ErrOtherCircuit, circuit, name, params)
	}
	switch {
	case len(s.inputs) != len(p.Key.IC):
		return what("public inputs", len(s.inputs)-1, p.Key.Inputs())
	case s.overflow:
		return fmt.Errorf("%w: the circuit has more than the %d auxiliary variables or %d constraints that they are for",
			ErrOtherCircuit, s.maxAux, s.maxConstraints)
	case len(s.aux) != p.Aux():
		return what("auxiliary variables", len(s.aux), p.Aux())
	case len(s.a)+len(s.inputs) <= p.Domain()/2:
		return what("constraints", len(s.a), p.Domain())
	}
	if s.unsatisfied >= 0 {
		return fmt.Errorf("%w: number %d, of %d: the values it was given are false", ErrUnsatisfied, s.unsatisfied, len(s.a))
	}
	if n := len(s.inputs) + s.inA.count(); n != p.a.len() {
		return what("variables in A", n, p.a.len())
	}
	if n := s.inputInB.count() + s.inB.count(); n != p.b1.len() {
		return what("variables in B", n, p.b1.len())
	}
	for _, r := range s.inputs {
		s.a, s.b = append(s.a, s.value(r)), append(s.b, fr.Element{})
	}
	return nil
}

// value returns what a ref stands for.
func (s *assignment) value(r ref) fr.Element {
	switch r {
	case refZero:
		return fr.Element{}
	case refOne:
		return one
	}
	return s.values[r-refValue]
}

// publicInputs returns the inputs' values without the constant one.
func (s *assignment) publicInputs() []fr.Element {
	values := make([]fr.Element, len(s.inputs)-1)
	for i := range values {
		values[i] = s.value(s.inputs[i+1])
	}
	return values
}
