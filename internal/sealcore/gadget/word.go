package gadget

import (
	"math/bits"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"

	"sealfleet/internal/sealcore/r1cs"
)

// Word is a 32-bit number, the least significant bit first.
type Word [32]Bit

// ConstantWord returns a word that is fixed when the circuit is made.
func ConstantWord(value uint32) Word {
	var w Word
	for i := range w {
		w[i] = Constant(value>>i&1 == 1)
	}
	return w
}

// wordBE reads a word from 32 bits, the most significant first.
func wordBE(in []Bit) Word {
	var w Word
	for i := range w {
		w[i] = in[31-i]
	}
	return w
}

// appendBE adds a word's bits to a message, the most significant first.
func appendBE(out []Bit, w *Word) []Bit {
	for i := range w {
		out = append(out, w[31-i])
	}
	return out
}

func (w *Word) isConstant() bool {
	for i := range w {
		if w[i].form != constant {
			return false
		}
	}
	return true
}

func (w *Word) value() uint32 {
	var v uint32
	for i := range w {
		if w[i].value {
			v |= 1 << i
		}
	}
	return v
}

// xorRotated returns (w >>> i) ⊕ (w >>> j) ⊕ (w >>> k); the last one shifts zeros in
// instead of rotating if shift is set.
func (b *Builder) xorRotated(w *Word, i, j, k int, shift bool) Word {
	var r Word
	for n := range r {
		r[n] = b.Xor(w[(n+i)%32], w[(n+j)%32])
	}
	for n := range r {
		last := w[(n+k)%32]
		if shift && n+k >= 32 {
			last = Constant(false)
		}
		r[n] = b.Xor(r[n], last)
	}
	return r
}

func (b *Builder) chWord(x, y, z *Word) Word {
	var r Word
	for i := range r {
		r[i] = b.Ch(x[i], y[i], z[i])
	}
	return r
}

func (b *Builder) majWord(x, y, z *Word) Word {
	var r Word
	for i := range r {
		r[i] = b.Maj(x[i], y[i], z[i])
	}
	return r
}

// multiEq collects equalities between sums of bits and enforces as many of them in one
// constraint as fit side by side into a field element.
type multiEq struct {
	b        *Builder
	used     int // bits of the element that are taken
	left     r1cs.LC
	right    r1cs.LC
	constant fr.Element // of the left side
}

// add returns the sum of 2 to 8 words modulo 2³². It allocates as many bits as the
// largest sum needs, and drops those above 32 from the result.
func (m *multiEq) add(words ...*Word) Word {
	b := m.b
	var sum uint64
	fixed := true
	for _, w := range words {
		sum += uint64(w.value())
		fixed = fixed && w.isConstant()
	}
	if fixed {
		return ConstantWord(uint32(sum))
	}
	n := bits.Len64(uint64(len(words)) * (1<<32 - 1))
	var result [36]Bit
	for i := range n {
		result[i] = b.AllocBit(sum>>i&1 == 1)
	}

	if m.used+n >= Capacity {
		m.flush()
	}
	k := fieldConstants()
	var constants uint64
	for _, w := range words {
		for i := range w {
			switch x := &w[i]; x.form {
			case plain:
				m.left = append(m.left, r1cs.Term{Var: x.v, Coeff: k.pow2[m.used+i]})
			case negated:
				constants += 1 << i
				m.left = append(m.left, r1cs.Term{Var: x.v, Coeff: k.negPow2[m.used+i]})
			default:
				if x.value {
					constants += 1 << i
				}
			}
		}
	}
	if constants != 0 {
		c := fr.NewElement(constants)
		c.Mul(&c, &k.pow2[m.used])
		m.constant.Add(&m.constant, &c)
	}
	for i := range n {
		m.right = append(m.right, r1cs.Term{Var: result[i].v, Coeff: k.pow2[m.used+i]})
	}
	m.used += n
	return Word(result[:32])
}

// flush enforces what is collected, if anything: left · 1 = right.
func (m *multiEq) flush() {
	if m.used == 0 {
		return
	}
	if !m.constant.IsZero() {
		m.left = append(m.left, r1cs.Term{Var: r1cs.One, Coeff: m.constant})
	}
	m.b.sink.Enforce(m.left, m.b.equal.b, m.right)
	m.left, m.right = m.left[:0], m.right[:0]
	m.constant.SetZero()
	m.used = 0
}
