package gadget

import (
	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"

	"sealfleet/internal/sealcore/r1cs"
)

// form tells how a bit stands to its variable.
type form uint8

const (
	constant form = iota // no variable
	plain                // the variable itself
	negated              // one minus the variable
)

// Bit is a constant, a variable that is 0 or 1, or the negation of such a variable.
// Operations on constants and negations make no constraints where they need none.
type Bit struct {
	v     r1cs.Var
	form  form
	value bool // of the bit, so after the negation
}

// Constant returns a bit that is fixed when the circuit is made.
func Constant(value bool) Bit { return Bit{value: value} }

// Value returns the bit's value in the witness.
func (x Bit) Value() bool { return x.value }

// Not returns the negation. It costs nothing.
func (x Bit) Not() Bit {
	x.value = !x.value
	switch x.form {
	case plain:
		x.form = negated
	case negated:
		x.form = plain
	}
	return x
}

func (x Bit) isConstant(value bool) bool { return x.form == constant && x.value == value }

// allocate adds a variable that holds a bit, without any constraint.
func (b *Builder) allocate(value bool) Bit {
	k := 0
	if value {
		k = 1
	}
	return Bit{v: b.sink.AllocAux(fieldConstants().bit[k]), form: plain, value: value}
}

// AllocBit adds a variable and enforces (1 − v) · v = 0, so that it is 0 or 1.
func (b *Builder) AllocBit(value bool) Bit {
	x := b.allocate(value)
	s := &b.boolean
	s.a[1].Var, s.b[0].Var = x.v, x.v
	b.emit(s)
	return x
}

// appendBit adds coeff times a bit to a linear combination; minus is −coeff.
func appendBit(lc r1cs.LC, x Bit, coeff, minus *fr.Element) r1cs.LC {
	switch x.form {
	case plain:
		return append(lc, r1cs.Term{Var: x.v, Coeff: *coeff})
	case negated:
		return append(lc, r1cs.Term{Var: r1cs.One, Coeff: *coeff}, r1cs.Term{Var: x.v, Coeff: *minus})
	}
	if x.value {
		lc = append(lc, r1cs.Term{Var: r1cs.One, Coeff: *coeff})
	}
	return lc
}

// plus and minus add a bit or its opposite to a linear combination.
func plus(lc r1cs.LC, x Bit) r1cs.LC {
	k := fieldConstants()
	return appendBit(lc, x, &k.pow2[0], &k.negPow2[0])
}

func minus(lc r1cs.LC, x Bit) r1cs.LC {
	k := fieldConstants()
	return appendBit(lc, x, &k.negPow2[0], &k.pow2[0])
}

// Xor returns x ⊕ y. For two variables it enforces 2x · y = x + y − r.
func (b *Builder) Xor(x, y Bit) Bit {
	switch {
	case x.isConstant(false):
		return y
	case y.isConstant(false):
		return x
	case x.form == constant:
		return y.Not()
	case y.form == constant:
		return x.Not()
	case x.form != y.form:
		// x ⊕ ¬y = ¬(x ⊕ y), with the plain one first.
		if x.form == negated {
			x, y = y, x
		}
		return b.xorVars(x, y.Not()).Not()
	}
	return b.xorVars(x, y) // ¬x ⊕ ¬y = x ⊕ y, of the variables
}

func (b *Builder) xorVars(x, y Bit) Bit {
	r := b.allocate(x.value != y.value)
	s := &b.xor
	s.a[0].Var = x.v
	s.b[0].Var = y.v
	s.c[0].Var, s.c[1].Var, s.c[2].Var = x.v, y.v, r.v
	b.emit(s)
	return r
}

// And returns x ∧ y. For two variables it enforces x · y = r, with 1 − x or 1 − y where
// one is negated; of a mixed pair the plain one is the left factor.
func (b *Builder) And(x, y Bit) Bit {
	switch {
	case x.isConstant(false), y.isConstant(false):
		return Constant(false)
	case x.form == constant:
		return y
	case y.form == constant:
		return x
	case x.form == negated && y.form == plain:
		x, y = y, x
	}
	r := b.allocate(x.value && y.value)
	if y.form == plain {
		s := &b.and
		s.a[0].Var, s.b[0].Var, s.c[0].Var = x.v, y.v, r.v
		b.emit(s)
		return r
	}
	b.free.a = plus(b.free.a[:0], x)
	b.free.b = plus(b.free.b[:0], y)
	b.free.c = plus(b.free.c[:0], r)
	b.emit(&b.free)
	return r
}

// nor returns ¬x ∧ ¬y of two plain bits.
func (b *Builder) nor(x, y Bit) Bit { return b.And(x.Not(), y.Not()) }

// Ch returns SHA-256's choice: y where x is one, z where it is zero. It enforces
// x · (y − z) = r − z unless a constant makes it simpler.
func (b *Builder) Ch(x, y, z Bit) Bit {
	value := z.value
	if x.value {
		value = y.value
	}
	switch {
	case x.form == plain && y.form == plain && z.form == plain:
		r := b.allocate(value)
		s := &b.ch
		s.a[0].Var, s.a[1].Var = y.v, z.v
		s.b[0].Var = x.v
		s.c[0].Var, s.c[1].Var = r.v, z.v
		b.emit(s)
		return r
	case x.form == constant && y.form == constant && z.form == constant:
		return Constant(value)
	case x.isConstant(false):
		return z
	case y.isConstant(false):
		return b.And(x.Not(), z)
	case z.isConstant(false):
		return b.And(x, y)
	case z.isConstant(true):
		return b.And(x, y.Not()).Not()
	case y.isConstant(true):
		return b.And(x.Not(), z.Not()).Not()
	}
	r := b.allocate(value)
	b.free.a = minus(plus(b.free.a[:0], y), z)
	b.free.b = plus(b.free.b[:0], x)
	b.free.c = minus(plus(b.free.c[:0], r), z)
	b.emit(&b.free)
	return r
}

// Maj returns SHA-256's majority of three bits. With t = y ∧ z it enforces
// (2t − y − z) · x = t − r unless a constant makes it simpler.
func (b *Builder) Maj(x, y, z Bit) Bit {
	value := x.value && y.value || x.value && z.value || y.value && z.value
	switch {
	case x.form == constant && y.form == constant && z.form == constant:
		return Constant(value)
	case x.isConstant(false):
		return b.And(y, z)
	case y.isConstant(false):
		return b.And(x, z)
	case z.isConstant(false):
		return b.And(x, y)
	case z.isConstant(true):
		return b.And(x.Not(), y.Not()).Not()
	case y.isConstant(true):
		return b.And(x.Not(), z.Not()).Not()
	case x.isConstant(true):
		return b.And(y.Not(), z.Not()).Not()
	}
	// The result's variable comes before that of t.
	r := b.allocate(value)
	t := b.And(y, z)
	if x.form == plain && y.form == plain && z.form == plain {
		s := &b.maj
		s.a[0].Var, s.a[1].Var, s.a[2].Var = t.v, y.v, z.v
		s.b[0].Var = x.v
		s.c[0].Var, s.c[1].Var = t.v, r.v
		b.emit(s)
		return r
	}
	b.free.a = minus(minus(plus(plus(b.free.a[:0], t), t), y), z)
	b.free.b = plus(b.free.b[:0], x)
	b.free.c = minus(plus(b.free.c[:0], t), r)
	b.emit(&b.free)
	return r
}
