package groth16

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"math/big"
	"runtime/debug"

	bls12381 "github.com/consensys/gnark-crypto/ecc/bls12-381"
	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"

	"sealfleet/internal/sealcore/groth16/msm"
)

// Prove makes a proof that the circuit is satisfied by the values that it gives its
// variables, and verifies it. It also returns the public inputs, without the constant
// one. Two proofs of the same thing differ: they are blinded from crypto/rand.
//
// Errors: ErrOtherCircuit if the parameters do not fit, ErrUnsatisfied if the values are
// false, ErrMalformed if the parameters turn out to be damaged; the circuit's own; ctx's
// within a second or two.
//
// Source: bellperson 0.27, groth16/prover/native.rs.
func Prove(ctx context.Context, p *Params, circuit Circuit, o Options) (*Proof, []fr.Element, error) {
	return prove(ctx, p, circuit, rand.Reader, o)
}

func prove(ctx context.Context, p *Params, circuit Circuit, random io.Reader, o Options) (*Proof, []fr.Element, error) {
	s, err := synthesize(ctx, p, circuit, o)
	if err != nil {
		return nil, nil, err
	}
	w := &prover{Options: o, ctx: ctx, params: p, s: s}
	if err := w.sums(); err != nil {
		return nil, nil, err
	}
	r, err := randomScalar(random)
	if err != nil {
		return nil, nil, err
	}
	t, err := randomScalar(random)
	if err != nil {
		return nil, nil, err
	}
	proof, inputs := w.blind(&r, &t), s.publicInputs()
	o.report("verify", 0, 1)
	v, err := NewVerifier(p.Key)
	if err != nil {
		return nil, nil, err
	}
	if err := v.Verify(proof, inputs); err != nil {
		return nil, nil, w.diagnose(err)
	}
	o.report("verify", 1, 1)
	return proof, inputs, nil
}

// synthesize runs the circuit into an assignment.
func synthesize(ctx context.Context, p *Params, circuit Circuit, o Options) (*assignment, error) {
	total := uint64(p.Domain())
	o.report("synthesis", 0, total)
	s := newAssignment(p)
	sink := &observed{Sink: s, report: func(n int) { o.report("synthesis", uint64(n), total) }}
	if err := circuit(ctx, sink); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.finish(p); err != nil {
		return nil, err
	}
	o.report("synthesis", uint64(len(s.a)), uint64(len(s.a)))
	return s, nil
}

// randomScalar draws a field element; 48 bytes, so that its bias is below 2^−128.
func randomScalar(random io.Reader) (e fr.Element, err error) {
	var b [48]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return e, fmt.Errorf("randomness: %w", err)
	}
	e.SetBytes(b[:])
	return e, nil
}

// prover computes the sums that a proof is made of.
type prover struct {
	Options
	ctx    context.Context
	params *Params
	s      *assignment

	h, l, a, b1 bls12381.G1Affine
	b2          bls12381.G2Affine
}

func (w *prover) sums() error {
	p, s := w.params, w.s
	h, err := quotient(w.ctx, s.a, s.b, p.Domain(), w.Options)
	if err != nil {
		return err
	}
	s.a, s.b = nil, nil
	// What the transforms used, gigabytes for a large circuit, is to go back at once and
	// not when the collector next feels like it.
	debug.FreeOSMemory()
	total := p.h.len()
	w.h, err = explained(msm.MultiExpG1(w.ctx, g1Points{&p.h}, msm.Terms{
		N: total, Scalar: func(i int) *fr.Element { return &h[i] },
	}, w.msm("msm h", 0, total)))
	if err != nil {
		return err
	}
	p.release(&p.h)
	h = nil
	debug.FreeOSMemory()

	terms := &selection{s: s}
	for _, sum := range []struct {
		section *section
		inputs  bool
		inB     bool
		run     func() error
	}{
		{&p.l, false, false, func() (err error) { w.l, err = w.selected("msm l", &p.l, terms); return err }},
		{&p.a, true, false, func() (err error) { w.a, err = w.selected("msm a", &p.a, terms); return err }},
		{&p.b1, true, true, func() (err error) { w.b1, err = w.selected("msm b1", &p.b1, terms); return err }},
		{&p.b2, true, true, func() (err error) { w.b2, err = w.selectedG2("msm b2", &p.b2, terms); return err }},
	} {
		switch {
		case !sum.inputs:
			terms.collect(nil, nil, nil)
		case !sum.inB:
			terms.collect(s.inputs, nil, &s.inA)
		case sum.section == &p.b1: // b_g2 has the same terms
			terms.collect(s.inputs, &s.inputInB, &s.inB)
		}
		if err := sum.run(); err != nil {
			return err
		}
		p.release(sum.section)
	}
	return nil
}

func (w *prover) msm(step string, before, total int) msm.Options {
	return msm.Options{Threads: w.threads(), Progress: func(done, _ int) {
		w.report(step, uint64(before+done), uint64(total))
	}}
}

// selection is a section's terms: the points whose scalar is one, and those that need a
// multiplication.
type selection struct {
	s      *assignment
	ones   []uint32
	points []uint32 // with the scalar values[refs[i]−refValue]
	refs   []ref
}

// collect gathers the terms of a section that has points for inputs (those in inputsIn,
// or all if that is nil) and then auxiliary variables (those in auxIn, or all).
func (t *selection) collect(inputs []ref, inputsIn, auxIn *density) {
	t.ones, t.points, t.refs = t.ones[:0], t.points[:0], t.refs[:0]
	point := uint32(0)
	add := func(refs []ref, in *density) {
		for i, r := range refs {
			if in != nil && !in.has(i) {
				continue
			}
			switch r {
			case refZero:
			case refOne:
				t.ones = append(t.ones, point)
			default:
				t.points, t.refs = append(t.points, point), append(t.refs, r)
			}
			point++
		}
	}
	add(inputs, inputsIn)
	add(t.s.aux, auxIn)
}

// terms returns those that need a multiplication.
func (t *selection) terms() msm.Terms {
	return msm.Terms{
		N:      len(t.points),
		Index:  func(i int) int { return int(t.points[i]) },
		Scalar: func(i int) *fr.Element { return &t.s.values[t.refs[i]-refValue] },
	}
}

// selected adds up the terms of a section of G1.
func (w *prover) selected(step string, s *section, t *selection) (sum bls12381.G1Affine, err error) {
	total := len(t.ones) + len(t.points)
	ones, err := explained(msm.SumG1(w.ctx, g1Points{s}, t.ones, w.msm(step, 0, total)))
	if err != nil {
		return sum, err
	}
	rest, err := explained(msm.MultiExpG1(w.ctx, g1Points{s}, t.terms(), w.msm(step, len(t.ones), total)))
	return *sum.Add(&ones, &rest), err
}

// selectedG2 adds up the terms of a section of G2.
func (w *prover) selectedG2(step string, s *section, t *selection) (sum bls12381.G2Affine, err error) {
	total := len(t.ones) + len(t.points)
	ones, err := msm.Sum[bls12381.E2](w.ctx, g2Points{s}, t.ones, w.msm(step, 0, total))
	if err != nil {
		return sum, explain(err)
	}
	rest, err := msm.MultiExp[bls12381.E2](w.ctx, g2Points{s}, t.terms(), w.msm(step, len(t.ones), total))
	a, b := bls12381.G2Affine(ones), bls12381.G2Affine(rest)
	return *sum.Add(&a, &b), explain(err)
}

// explained is gnark-crypto's form of a sum, and explain's of an error.
func explained(p msm.G1, err error) (bls12381.G1Affine, error) {
	return bls12381.G1Affine(p), explain(err)
}

// blind puts the proof together:
//
//	A = alpha + a + r·delta,  B = beta + b + s·delta,  C = l + h + s·A + r·B − r·s·delta
//
// with B in G1 for C's sake.
func (w *prover) blind(r, s *fr.Element) *Proof {
	k := w.params.Key
	var rs fr.Element
	rs.Mul(r, s)
	var a, b1, c, t bls12381.G1Affine
	var b2, t2 bls12381.G2Affine
	times := func(p *bls12381.G1Affine, e *fr.Element) *bls12381.G1Affine {
		return t.ScalarMultiplication(p, e.BigInt(new(big.Int)))
	}
	a.Add(&k.AlphaG1, &w.a)
	a.Add(&a, times(&k.DeltaG1, r))
	b1.Add(&k.BetaG1, &w.b1)
	b1.Add(&b1, times(&k.DeltaG1, s))
	b2.Add(&k.BetaG2, &w.b2)
	b2.Add(&b2, t2.ScalarMultiplication(&k.DeltaG2, s.BigInt(new(big.Int))))
	c.Add(&w.l, &w.h)
	c.Add(&c, times(&a, s))
	c.Add(&c, times(&b1, r))
	c.Sub(&c, times(&k.DeltaG1, &rs))
	return &Proof{a, b2, c}
}

// diagnose says more about a proof that did not verify. The circuit was satisfied, so
// the parameters are not this circuit's or are damaged, or the machine miscomputed.
func (w *prover) diagnose(err error) error {
	if damage := w.params.CheckCurve(w.ctx, w.Options); damage != nil {
		return fmt.Errorf("the parameter file is damaged: get it again: %w", damage)
	}
	return fmt.Errorf("the proof that was made fails its verification though its circuit is satisfied: %w (of the same "+
		"size), or this machine miscomputes: %w", ErrOtherCircuit, err)
}
