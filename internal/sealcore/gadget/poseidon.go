package gadget

import (
	"fmt"
	"sync"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"

	"sealfleet/internal/sealcore/poseidon"
	"sealfleet/internal/sealcore/r1cs"
)

// Poseidon hashes 2, 4, 8 or 11 numbers, the arities of the proof of replication.
//
// Each of its constraints defines one new variable, and its linear combinations depend
// on the arity alone, some of them with dozens of terms. So they are worked out once for
// an arity, over numbered places, and each hash writes its own variables into them.
func (b *Builder) Poseidon(in []Num) Num {
	t := poseidonTemplate(len(in))
	values := t.witness(in)
	vars := b.poseidon[:0]
	for i := range in {
		vars = append(vars, in[i].Var)
	}
	place := func(dst r1cs.LC, src r1cs.LC) r1cs.LC {
		dst = append(dst[:0], src...)
		for i := range dst {
			if v := dst[i].Var; v.IsAux() {
				dst[i].Var = vars[v.Index()]
			}
		}
		return dst
	}
	for i := range t.constraints {
		vars = append(vars, b.sink.AllocAux(values[i]))
		s := &t.constraints[i]
		b.free.a = place(b.free.a, s.a)
		b.free.b = place(b.free.b, s.b)
		b.free.c = place(b.free.c, s.c)
		b.emit(&b.free)
	}
	b.poseidon = vars
	last := len(t.constraints) - 1
	return Num{vars[len(in)+last], values[last]}
}

// hashTemplate is the circuit of one arity. Its auxiliary variables are places: first
// the hash's inputs, then the variable that each constraint defines.
type hashTemplate struct {
	hash        *poseidon.Constants
	constraints []shape
}

var poseidonTemplates = map[int]func() *hashTemplate{
	2:  sync.OnceValue(func() *hashTemplate { return newHashTemplate(2) }),
	4:  sync.OnceValue(func() *hashTemplate { return newHashTemplate(4) }),
	8:  sync.OnceValue(func() *hashTemplate { return newHashTemplate(8) }),
	11: sync.OnceValue(func() *hashTemplate { return newHashTemplate(11) }),
}

func poseidonTemplate(arity int) *hashTemplate {
	t, ok := poseidonTemplates[arity]
	if !ok {
		panic(fmt.Sprintf("gadget: no circuit for Poseidon of arity %d", arity))
	}
	return t()
}

// sboxes walks over the hash's S-boxes in order, which the circuit and its witness must
// do alike. sbox applies one to element i of the state and adds key behind it; pre is a
// key to add before it, in the first round only. mix multiplies the state by a dense
// matrix, or by a sparse one.
func sboxes(c *poseidon.Constants, sbox func(i int, pre, key *fr.Element), mix func(m poseidon.Matrix, s *poseidon.Sparse)) {
	keys := c.Compressed
	take := func(n int) []fr.Element {
		k := keys[:n]
		keys = keys[n:]
		return k
	}
	half := c.FullRounds / 2
	first := take(c.Width)
	for r := range half {
		k := take(c.Width)
		for i := range c.Width {
			if r == 0 {
				sbox(i, &first[i], &k[i])
			} else {
				sbox(i, nil, &k[i])
			}
		}
		if r < half-1 {
			mix(c.MDS, nil)
		} else {
			mix(c.PreSparse, nil)
		}
	}
	for r := range c.PartialRounds {
		sbox(0, nil, &take(1)[0])
		mix(nil, &c.Sparse[r])
	}
	for r := range half {
		if r == half-1 {
			for i := range c.Width {
				sbox(i, nil, nil)
			}
		} else {
			k := take(c.Width)
			for i := range c.Width {
				sbox(i, nil, &k[i])
			}
		}
		mix(c.MDS, nil)
	}
}

// dense is a linear combination with a coefficient for the constant one and for each
// place.
type dense struct {
	constant fr.Element
	coeffs   []fr.Element
}

func (d *dense) addScaled(o *dense, k *fr.Element) {
	var t fr.Element
	d.constant.Add(&d.constant, t.Mul(&o.constant, k))
	for len(d.coeffs) < len(o.coeffs) {
		d.coeffs = append(d.coeffs, fr.Element{})
	}
	for i := range o.coeffs {
		if !o.coeffs[i].IsZero() {
			d.coeffs[i].Add(&d.coeffs[i], t.Mul(&o.coeffs[i], k))
		}
	}
}

func (d *dense) lc() r1cs.LC {
	var lc r1cs.LC
	if !d.constant.IsZero() {
		lc = append(lc, r1cs.Term{Var: r1cs.One, Coeff: d.constant})
	}
	for i := range d.coeffs {
		if !d.coeffs[i].IsZero() {
			lc = append(lc, r1cs.Term{Var: r1cs.Aux(i), Coeff: d.coeffs[i]})
		}
	}
	return lc
}

// newHashTemplate writes the legacy Poseidon circuit of neptune: an S-box first makes a
// variable of its input, unless it is one already, then of its square, its fourth power,
// and its fifth power plus the round's key. Between S-boxes the state is carried along
// as linear combinations. The first element starts as a constant, the domain tag, whose
// S-box costs nothing in the first round.
func newHashTemplate(arity int) *hashTemplate {
	c := poseidon.For(arity).Constants()
	t := &hashTemplate{hash: c}
	one := fr.One()
	single := func(place int) r1cs.LC { return r1cs.LC{{Var: r1cs.Aux(place), Coeff: one}} }
	with := func(place int, k *fr.Element) r1cs.LC {
		lc := single(place)
		if k != nil {
			lc = append(lc, r1cs.Term{Var: r1cs.One, Coeff: *k})
		}
		return lc
	}
	// define adds the constraint a · b = c, where c holds the new variable, less key.
	define := func(a, b r1cs.LC, key *fr.Element) int {
		place := arity + len(t.constraints)
		var minus *fr.Element
		if key != nil {
			minus = new(fr.Element).Neg(key)
		}
		t.constraints = append(t.constraints, shape{a, b, with(place, minus)})
		return place
	}
	unit := r1cs.LC{{Var: r1cs.One, Coeff: one}}

	state := make([]dense, c.Width)
	variable := make([]int, c.Width) // the place that an element is, or -1
	set := func(i, place int) {
		variable[i] = place
		state[i] = dense{coeffs: make([]fr.Element, place+1)}
		state[i].coeffs[place].SetOne()
	}
	state[0].constant = c.DomainTag
	for i := range arity {
		set(i+1, i)
	}
	first := true
	sbox := func(i int, pre, key *fr.Element) {
		if first { // the tag
			first = false
			quintic(&state[0].constant, pre, key)
			return
		}
		l := variable[i]
		if l < 0 {
			l = define(state[i].lc(), unit, nil)
		}
		l2 := define(with(l, pre), with(l, pre), nil)
		l4 := define(single(l2), single(l2), nil)
		set(i, define(with(l, pre), single(l4), key))
	}
	mix := func(m poseidon.Matrix, s *poseidon.Sparse) {
		next := make([]dense, c.Width)
		for j := range next {
			switch {
			case m != nil:
				for i := range state {
					next[j].addScaled(&state[i], &m[i][j])
				}
			case j == 0:
				for i := range state {
					next[0].addScaled(&state[i], &s.WHat[i])
				}
			default:
				next[j].addScaled(&state[j], &one)
				next[j].addScaled(&state[0], &s.VRest[j-1])
			}
			variable[j] = -1
		}
		state = next
	}
	sboxes(c, sbox, mix)
	define(state[1].lc(), unit, nil)
	return t
}

// quintic sets x to (x + pre)⁵ + key, either of which may be nil, and returns the square
// and the fourth power on the way.
func quintic(x, pre, key *fr.Element) (x2, x4 fr.Element) {
	if pre != nil {
		x.Add(x, pre)
	}
	x2.Square(x)
	x4.Square(&x2)
	x.Mul(&x4, x)
	if key != nil {
		x.Add(x, key)
	}
	return x2, x4
}

// witness computes the values of the variables that the template defines, in order. It
// repeats the walk of newHashTemplate on numbers.
func (t *hashTemplate) witness(in []Num) []fr.Element {
	c := t.hash
	values := make([]fr.Element, 0, len(t.constraints))
	var buffer [2][poseidon.MaxArity + 1]fr.Element
	state, next := buffer[0][:c.Width], buffer[1][:c.Width]
	state[0] = c.DomainTag
	for i := range in {
		state[i+1] = in[i].Value
	}
	round := 0
	sbox := func(i int, pre, key *fr.Element) {
		x := &state[i]
		if round > 0 {
			values = append(values, *x)
		}
		x2, x4 := quintic(x, pre, key)
		if round > 0 || i > 0 {
			values = append(values, x2, x4, *x)
		}
	}
	mix := func(m poseidon.Matrix, s *poseidon.Sparse) {
		round++
		var p fr.Element
		if m != nil {
			for j := range next {
				next[j].SetZero()
				for i := range state {
					next[j].Add(&next[j], p.Mul(&state[i], &m[i][j]))
				}
			}
			state, next = next, state
			return
		}
		var first fr.Element
		for i := range state {
			first.Add(&first, p.Mul(&state[i], &s.WHat[i]))
		}
		for j := range s.VRest {
			state[j+1].Add(&state[j+1], p.Mul(&state[0], &s.VRest[j]))
		}
		state[0] = first
	}
	sboxes(c, sbox, mix)
	return append(values, state[1])
}
