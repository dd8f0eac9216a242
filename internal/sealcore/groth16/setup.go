package groth16

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"sync/atomic"

	bls12381 "github.com/consensys/gnark-crypto/ecc/bls12-381"
	"github.com/consensys/gnark-crypto/ecc/bls12-381/fp"
	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"
	"golang.org/x/sync/errgroup"

	"sealfleet/internal/sealcore/groth16/msm"
	"sealfleet/internal/sealcore/r1cs"
)

// ErrUnconstrained says that a variable occurs in no constraint, so there are no parameters.
var ErrUnconstrained = errors.New("a variable occurs in no constraint")

// Setup makes parameters for a circuit and writes them to w, in the reference's format.
// It returns their verifying key. The circuit is run twice; the values that it gives its
// variables do not matter.
//
// Whoever knows the random numbers of a setup can forge proofs under its key. They are
// forgotten here, but nobody else can know that: such parameters are for development.
//
// Memory: 96 bytes for each variable, and 150 MiB of tables.
//
// Source: bellperson 0.27, groth16/generator.rs.
func Setup(ctx context.Context, circuit Circuit, random io.Reader, o Options, w io.WriterAt) (*VerifyingKey, error) {
	secret, err := newTrapdoor(random)
	if err != nil {
		return nil, err
	}
	defer secret.forget()
	var counts r1cs.Counter
	o.report("count", 0, 1)
	if err := circuit(ctx, &counts); err != nil {
		return nil, err
	}
	o.report("count", 1, 1)
	s := &setup{Options: o, ctx: ctx, secret: secret, w: w}
	if err := s.columns(circuit, &counts); err != nil {
		return nil, err
	}
	if err := s.tables(); err != nil {
		return nil, err
	}
	if err := s.write(); err != nil {
		return nil, err
	}
	return s.key, ctx.Err()
}

// trapdoor holds the secret numbers of a setup.
type trapdoor struct {
	alpha, beta, gamma, delta, tau fr.Element
	gammaInverse, deltaInverse     fr.Element
}

func newTrapdoor(random io.Reader) (*trapdoor, error) {
	t := &trapdoor{}
	for _, e := range []*fr.Element{&t.alpha, &t.beta, &t.gamma, &t.delta, &t.tau} {
		for e.IsZero() || *e == one {
			var err error
			if *e, err = randomScalar(random); err != nil {
				return nil, err
			}
		}
	}
	t.gammaInverse.Inverse(&t.gamma)
	t.deltaInverse.Inverse(&t.delta)
	return t, nil
}

// forget overwrites the numbers. Copies may live on in registers and dead stack frames.
func (t *trapdoor) forget() { *t = trapdoor{} }

// setup is one run.
type setup struct {
	Options
	ctx    context.Context
	secret *trapdoor
	w      io.WriterAt
	key    *VerifyingKey

	domain int
	// The columns at tau, for all variables: public inputs, then auxiliary ones.
	inputs  int
	a, b, c []fr.Element // c becomes (beta·a + alpha·b + c), divided by gamma or delta

	// These write a section at a place of the file.
	writeG1, writeG2 func(step string, at int64, values *scalars) error

	done, total atomic.Uint64 // points
}

// columns runs the circuit and fills in a, b and c.
func (s *setup) columns(circuit Circuit, counts *r1cs.Counter) error {
	s.inputs = counts.Inputs + 1
	constraints := counts.Constraints + s.inputs
	for s.domain = 1; s.domain < constraints; s.domain *= 2 {
	}
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	l, err := newLagrange(ctx, s.secret.tau, s.domain, constraints)
	if err != nil {
		return fmt.Errorf("a circuit of %d constraints: %w", constraints, err)
	}
	total := uint64(counts.Constraints)
	s.report("synthesis", 0, total)
	sink := newColumns(counts, l)
	err = circuit(ctx, &observed{Sink: sink, report: func(n int) { s.report("synthesis", uint64(n), total) }})
	if err == nil {
		err = s.ctx.Err()
	}
	if err != nil {
		return err
	}
	if !sink.finish() {
		return errors.New("the circuit is not the same on its second run")
	}
	s.report("synthesis", total, total)
	s.a, s.b, s.c = sink.of[0], sink.of[1], sink.of[2]
	return s.combine()
}

// combine replaces each c by (beta·a + alpha·b + c)/gamma for public inputs and /delta
// for auxiliary variables.
func (s *setup) combine() error {
	var zero atomic.Int64
	spread(s.threads(), len(s.c), func(from, to int) {
		var t fr.Element
		for i := from; i < to; i++ {
			c := &s.c[i]
			c.Add(c, t.Mul(&s.a[i], &s.secret.beta))
			c.Add(c, t.Mul(&s.b[i], &s.secret.alpha))
			if i < s.inputs {
				c.Mul(c, &s.secret.gammaInverse)
			} else {
				c.Mul(c, &s.secret.deltaInverse)
			}
			if c.IsZero() {
				zero.Store(int64(i) + 1)
			}
		}
	})
	if i := int(zero.Load()); i > 0 {
		return fmt.Errorf("%w: auxiliary variable %d", ErrUnconstrained, i-1-s.inputs)
	}
	return nil
}

// tables prepares multiplication of the two generators.
func (s *setup) tables() error {
	_, _, g1, g2 := bls12381.Generators()
	s.report("tables", 0, 1)
	o := msm.Options{Threads: s.threads()}
	n1, n2 := s.domain+3*len(s.a), len(s.a)
	if generator := msm.G1(g1); msm.HasWide() {
		table, err := msm.NewTable[msm.Wide](s.ctx, msm.Widen(&generator), n1, o)
		if err != nil {
			return err
		}
		s.writeG1 = func(step string, at int64, values *scalars) error {
			return writeSection(s, step, at, values, table, g1Len, appendG1Wide)
		}
	} else {
		table, err := msm.NewTable[fp.Element](s.ctx, generator, n1, o)
		if err != nil {
			return err
		}
		s.writeG1 = func(step string, at int64, values *scalars) error {
			return writeSection(s, step, at, values, table, g1Len, appendG1)
		}
	}
	table, err := msm.NewTable[bls12381.E2](s.ctx, msm.G2(g2), n2, o)
	if err != nil {
		return err
	}
	s.writeG2 = func(step string, at int64, values *scalars) error {
		return writeSection(s, step, at, values, table, g2Len, appendG2)
	}
	s.report("tables", 1, 1)
	t := s.secret
	in1 := func(e *fr.Element) (p bls12381.G1Affine) { return *p.ScalarMultiplication(&g1, e.BigInt(new(big.Int))) }
	in2 := func(e *fr.Element) (p bls12381.G2Affine) { return *p.ScalarMultiplication(&g2, e.BigInt(new(big.Int))) }
	s.key = &VerifyingKey{
		AlphaG1: in1(&t.alpha), BetaG1: in1(&t.beta), BetaG2: in2(&t.beta), GammaG2: in2(&t.gamma),
		DeltaG1: in1(&t.delta), DeltaG2: in2(&t.delta), IC: bls12381.BatchScalarMultiplicationG1(&g1, s.c[:s.inputs]),
	}
	return nil
}

// setupBlock is how many points a goroutine makes at a time.
const setupBlock = 1 << 13

// write makes and writes the file: the key and the five sections.
func (s *setup) write() error {
	h := func(dst []fr.Element, from int) []fr.Element {
		// τⁱ·(τⁿ − 1)/delta for i = from …
		coefficient := zOnCoset(s.secret.tau, s.domain)
		coefficient.Mul(&coefficient, &s.secret.deltaInverse)
		var power fr.Element
		power.Exp(s.secret.tau, big.NewInt(int64(from)))
		power.Mul(&power, &coefficient)
		for i := range dst {
			dst[i] = power
			power.Mul(&power, &s.secret.tau)
		}
		return dst
	}
	aux := s.c[s.inputs:]
	a, b := nonzero(s.a), nonzero(s.b)
	s.total.Store(uint64(s.domain - 1 + len(aux) + a.count + 2*b.count))
	key := s.key.Bytes()
	if _, err := s.w.WriteAt(key, 0); err != nil {
		return err
	}
	at := int64(len(key))
	for _, sec := range []struct {
		step    string
		scalars scalars
		g2      bool
	}{
		{"h", scalars{count: s.domain - 1, blocks: blocks(s.domain - 1), fill: h}, false},
		{"l", scalars{count: len(aux), blocks: blocks(len(aux)), fill: func(dst []fr.Element, from int) []fr.Element {
			return aux[from : from+len(dst)]
		}}, false},
		{"a", a, false},
		{"b1", b, false},
		{"b2", b, true},
	} {
		if _, err := s.w.WriteAt(binary.BigEndian.AppendUint32(nil, uint32(sec.scalars.count)), at); err != nil {
			return err
		}
		at += 4
		var err error
		if sec.g2 {
			err = s.writeG2(sec.step, at, &sec.scalars)
			at += int64(sec.scalars.count) * g2Len
		} else {
			err = s.writeG1(sec.step, at, &sec.scalars)
			at += int64(sec.scalars.count) * g1Len
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// scalars are a section's, in blocks: block k starts with the blocks[k]-th point of the
// section; fill gives the scalars that come from places from … from+len(dst)−1.
type scalars struct {
	count  int
	blocks []int
	places int // how many places there are, if more than count
	fill   func(dst []fr.Element, from int) []fr.Element
}

// blocks returns the starts of blocks where no place is left out.
func blocks(n int) (starts []int) {
	for from := 0; from < n; from += setupBlock {
		starts = append(starts, from)
	}
	return starts
}

// nonzero leaves out the zeros, which the file has no points for.
func nonzero(values []fr.Element) scalars {
	s := scalars{places: len(values)}
	for from := 0; from < len(values); from += setupBlock {
		s.blocks = append(s.blocks, s.count)
		for i := from; i < min(from+setupBlock, len(values)); i++ {
			if !values[i].IsZero() {
				s.count++
			}
		}
	}
	s.fill = func(dst []fr.Element, from int) []fr.Element {
		n := 0
		for i := from; i < from+len(dst); i++ {
			if !values[i].IsZero() {
				dst[n] = values[i]
				n++
			}
		}
		return dst[:n]
	}
	return s
}

// writeSection makes the points of a section, block by block in parallel, and writes
// each block in its place.
func writeSection[E any, PE msm.Coord[E]](s *setup, step string, at int64, values *scalars,
	table *msm.Table[E, PE], size int, encode func([]byte, *msm.Point[E]) []byte,
) error {
	places := max(values.places, values.count)
	type scratch struct {
		*msm.Multiplier[E, PE]
		scalars []fr.Element
		points  []msm.Point[E]
		bytes   []byte
	}
	free := make(chan *scratch, s.threads())
	for range cap(free) {
		free <- &scratch{table.Multiplier(), make([]fr.Element, setupBlock), make([]msm.Point[E], setupBlock), nil}
	}
	g, ctx := errgroup.WithContext(s.ctx)
	g.SetLimit(s.threads())
	for k, first := range values.blocks {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			me := <-free
			defer func() { free <- me }()
			from := k * setupBlock
			chosen := values.fill(me.scalars[:min(setupBlock, places-from)], from)
			me.Mul(me.points, chosen)
			me.bytes = me.bytes[:0]
			for i := range chosen {
				me.bytes = encode(me.bytes, &me.points[i])
			}
			if _, err := s.w.WriteAt(me.bytes, at+int64(first)*int64(size)); err != nil {
				return err
			}
			s.report("points", s.done.Add(uint64(len(chosen))), s.total.Load())
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("section %s: %w", step, err)
	}
	return s.ctx.Err()
}
