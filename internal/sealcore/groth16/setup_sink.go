package groth16

import (
	"context"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"
	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr/fft"

	"sealfleet/internal/sealcore/r1cs"
)

// columns is the sink of the setup: for each variable it adds up, over the constraints,
// coefficient times Lagrange polynomial at tau, for A, B and C. What the reference does
// with all terms in memory and then an FFT needs one pass and 96 bytes per variable.
type columns struct {
	of       [3][]fr.Element // for A, B, C: the public inputs, then the auxiliary variables
	inputs   int             // how many public inputs there will be, with the constant one
	input    int             // how many there were so far
	aux      int
	lagrange *lagrange
	excess   bool // there was more than was announced
}

func newColumns(counts *r1cs.Counter, l *lagrange) *columns {
	s := &columns{lagrange: l, inputs: counts.Inputs + 1, input: 1}
	for i := range s.of {
		s.of[i] = make([]fr.Element, s.inputs+counts.Aux)
	}
	return s
}

// AllocInput implements r1cs.Sink.
func (s *columns) AllocInput(fr.Element) r1cs.Var {
	if s.input == s.inputs {
		s.excess = true
		return r1cs.One
	}
	s.input++
	return r1cs.Input(s.input - 1)
}

// AllocAux implements r1cs.Sink.
func (s *columns) AllocAux(fr.Element) r1cs.Var {
	if s.inputs+s.aux == len(s.of[0]) {
		s.excess = true
		return r1cs.One
	}
	s.aux++
	return r1cs.Aux(s.aux - 1)
}

// Enforce implements r1cs.Sink.
func (s *columns) Enforce(a, b, c r1cs.LC) {
	l, ok := s.lagrange.next()
	if !ok {
		s.excess = true
		return
	}
	s.add(s.of[0], a, l)
	s.add(s.of[1], b, l)
	s.add(s.of[2], c, l)
}

func (s *columns) add(columns []fr.Element, lc r1cs.LC, l *fr.Element) {
	var t fr.Element
	for i := range lc {
		term := &lc[i]
		at := term.Var.Index()
		if term.Var.IsAux() {
			at += s.inputs
		}
		column := &columns[at]
		switch term.Coeff {
		case one:
			column.Add(column, l)
		case minusOne:
			column.Sub(column, l)
		default:
			column.Add(column, t.Mul(l, &term.Coeff))
		}
	}
}

// finish adds the constraints input·0 = 0 that a prover adds for each input, so that all
// are in A, and tells whether everything that was announced came, and no more.
func (s *columns) finish() bool {
	for i := range s.inputs {
		x, ok := s.lagrange.next()
		if !ok {
			return false
		}
		s.of[0][i].Add(&s.of[0][i], x)
	}
	_, more := s.lagrange.next()
	return !more && !s.excess && s.input == s.inputs && s.inputs+s.aux == len(s.of[0])
}

var minusOne = func() (e fr.Element) { return *e.Neg(&one) }()

// lagrange gives the Lagrange polynomials of a domain at tau, in order:
// L_j(τ) = (τⁿ − 1)/n · ωʲ/(τ − ωʲ). A goroutine computes them in blocks, ahead of use.
type lagrange struct {
	block  []fr.Element
	blocks chan []fr.Element
}

// newLagrange starts with L₀ and gives the first count of a domain of n. The goroutine
// ends with ctx, or when all were taken.
func newLagrange(ctx context.Context, tau fr.Element, n, count int) (*lagrange, error) {
	omega, err := fft.Generator(uint64(n))
	if err != nil {
		return nil, err
	}
	const size = 1 << 12
	l := &lagrange{blocks: make(chan []fr.Element, 4)}
	scale := zOnCoset(tau, n) // τⁿ − 1
	cardinality := fr.NewElement(uint64(n))
	scale.Mul(&scale, cardinality.Inverse(&cardinality))
	go func() {
		defer close(l.blocks)
		power := one // ωʲ
		for count > 0 {
			block, powers := make([]fr.Element, min(size, count)), make([]fr.Element, min(size, count))
			for i := range block {
				block[i].Sub(&tau, &power)
				powers[i].Mul(&power, &scale)
				power.Mul(&power, &omega)
			}
			block = fr.BatchInvert(block)
			v := fr.Vector(block)
			v.Mul(v, powers)
			select {
			case l.blocks <- block:
			case <-ctx.Done():
				return
			}
			count -= len(block)
		}
	}()
	return l, nil
}

// next returns the next value; false after the last, or if ctx is done.
func (l *lagrange) next() (*fr.Element, bool) {
	if len(l.block) == 0 {
		block, ok := <-l.blocks
		if !ok {
			return nil, false
		}
		l.block = block
	}
	v := &l.block[0]
	l.block = l.block[1:]
	return v, true
}
