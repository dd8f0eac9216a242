package gadget

import (
	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"

	"sealfleet/internal/sealcore/r1cs"
)

// Num is a variable that holds an element of the scalar field, with its value.
type Num struct {
	Var   r1cs.Var
	Value fr.Element
}

// AllocNum adds a private variable, without any constraint.
func (b *Builder) AllocNum(value fr.Element) Num {
	return Num{b.sink.AllocAux(value), value}
}

// Inputize adds a public input and enforces that it equals x.
func (b *Builder) Inputize(x Num) {
	in := b.sink.AllocInput(x.Value)
	b.enforceEqual(in, x.Var)
}

// Equal enforces that two numbers are the same: x · 1 = y.
func (b *Builder) Equal(x, y Num) { b.enforceEqual(x.Var, y.Var) }

func (b *Builder) enforceEqual(x, y r1cs.Var) {
	s := &b.equal
	s.a[0].Var, s.c[0].Var = x, y
	b.emit(s)
}

// Add returns x + y in a new variable. This is how a replica's node is encoded: the key
// plus the data.
func (b *Builder) Add(x, y Num) Num {
	var value fr.Element
	value.Add(&x.Value, &y.Value)
	r := b.AllocNum(value)
	s := &b.sum
	s.a[0].Var, s.a[1].Var, s.c[0].Var = x.Var, y.Var, r.Var
	b.emit(s)
	return r
}

// Pick returns x where the bit is one and y where it is zero: (y − x) · bit = y − r.
// The bit must be a plain variable.
func (b *Builder) Pick(bit Bit, x, y Num) Num {
	value := y.Value
	if bit.value {
		value = x.Value
	}
	r := b.AllocNum(value)
	s := &b.pick
	s.a[0].Var, s.a[1].Var = y.Var, x.Var
	s.b[0].Var = bit.v
	s.c[0].Var, s.c[1].Var = y.Var, r.Var
	b.emit(s)
	return r
}

// AppendNumBits splits a number into 255 bits and adds them to out, followed by a zero,
// in the order in which a hash reads the number's 32 little-endian bytes: bytes as they
// come, each byte's most significant bit first. The bits are not forced below the
// field's modulus, as in the reference.
func (b *Builder) AppendNumBits(out []Bit, x Num) []Bit {
	raw := x.Value.Bits() // little-endian words, out of Montgomery form
	k := fieldConstants()
	var bits [fieldBits + 1]Bit
	lc := b.free.c[:0]
	for i := range fieldBits {
		bits[i] = b.AllocBit(raw[i/64]>>(i%64)&1 == 1)
		lc = append(lc, r1cs.Term{Var: bits[i].v, Coeff: k.pow2[i]})
	}
	lc = append(lc, r1cs.Term{Var: x.Var, Coeff: k.negPow2[0]})
	b.free.c = lc
	b.sink.Enforce(nil, nil, lc)
	bits[fieldBits] = Constant(false)
	return appendBytewise(out, bits[:])
}

// appendBytewise adds bits to out, turning the order within each byte around.
func appendBytewise(out, bits []Bit) []Bit {
	for i := range bits {
		out = append(out, bits[i^7])
	}
	return out
}

// pack sums up 2^i times the i-th bit: a linear combination, which lasts until the next
// constraint, and its value.
func (b *Builder) pack(bits []Bit) (r1cs.LC, fr.Element) {
	k := fieldConstants()
	lc := b.free.a[:0]
	var value fr.Element
	for i, x := range bits {
		lc = appendBit(lc, x, &k.pow2[i], &k.negPow2[i])
		if x.value {
			value.Add(&value, &k.pow2[i])
		}
	}
	b.free.a = lc
	return lc, value
}

// PackDigest makes a number of a SHA-256 digest: its bytes read as little-endian, the
// two topmost bits dropped.
func (b *Builder) PackDigest(digest []Bit) Num {
	var bits [256]Bit
	lc, value := b.pack(appendBytewise(bits[:0], digest)[:Capacity])
	r := b.AllocNum(value)
	b.free.c = append(b.free.c[:0], r1cs.Term{Var: r.Var, Coeff: fieldConstants().pow2[0]})
	b.sink.Enforce(lc, b.equal.b, b.free.c)
	return r
}

// PackIntoInput makes at most 254 bits, the least significant first, one public input.
func (b *Builder) PackIntoInput(bits []Bit) {
	lc, value := b.pack(bits[:min(len(bits), Capacity)])
	in := b.sink.AllocInput(value)
	b.free.c = append(b.free.c[:0], r1cs.Term{Var: in, Coeff: fieldConstants().pow2[0]})
	b.sink.Enforce(lc, b.equal.b, b.free.c)
}

// AllocUint64 adds the 64 bits of a number, the least significant first.
func (b *Builder) AllocUint64(value uint64) []Bit {
	bits := make([]Bit, 64)
	for i := range bits {
		bits[i] = b.AllocBit(value>>i&1 == 1)
	}
	return bits
}
