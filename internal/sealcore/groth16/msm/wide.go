package msm

import (
	"encoding/binary"
	"errors"
	"math/big"
	"math/bits"
	"sync"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fp"
)

// Wide is an element of the base field in eight limbs of 52 bits, in Montgomery form with
// R = 2^416: what AVX-512 IFMA multiplies eight at a time. Its value is below 4p, not
// always below p. Its methods serve the odd cases, one at a time; the work is done by
// adder.runWide.
type Wide [8]uint64

// G1Wide is a point of G1 with such coordinates.
type G1Wide = Point[Wide]

const limbMask = 1<<52 - 1

// wideConstants are factors between the forms.
type wideConstants struct {
	into     fp.Element // 2^416: from a plain number to Wide
	out      fp.Element // 2^-416: from Wide to a plain number
	scale    fp.Element // 2^32: from fp.Element to Wide
	unscale  fp.Element // 2^-32
	scale2   fp.Element // 2^64
	one      Wide
	multiple [4][6]uint64 // 0, p, 2p, 3p
}

var wideFactors = sync.OnceValue(func() *wideConstants {
	c := &wideConstants{}
	power := func(e *fp.Element, n uint) { e.SetBigInt(new(big.Int).Lsh(big.NewInt(1), n)) }
	power(&c.into, 416)
	c.out.Inverse(&c.into)
	power(&c.scale, 32)
	c.unscale.Inverse(&c.scale)
	power(&c.scale2, 64)
	c.one.split(&c.scale)
	p := fp.Modulus()
	for i := range c.multiple {
		var b [48]byte
		new(big.Int).Mul(p, big.NewInt(int64(i))).FillBytes(b[:])
		c.multiple[i] = words(b[:])
	}
	return c
})

// words reads 48 big-endian bytes.
func words(b []byte) (w [6]uint64) {
	for k := range w {
		w[k] = binary.BigEndian.Uint64(b[40-8*k:])
	}
	return w
}

// split takes over the six words of e as they are: with words(e) = v·2^384 the value
// becomes v·2^-32.
func (z *Wide) split(e *fp.Element) {
	z[0] = e[0] & limbMask
	z[1] = (e[0]>>52 | e[1]<<12) & limbMask
	z[2] = (e[1]>>40 | e[2]<<24) & limbMask
	z[3] = (e[2]>>28 | e[3]<<36) & limbMask
	z[4] = (e[3]>>16 | e[4]<<48) & limbMask
	z[5] = e[4] >> 4 & limbMask
	z[6] = (e[4]>>56 | e[5]<<8) & limbMask
	z[7] = e[5] >> 44
}

// join is the inverse of split; it also reduces below p.
func (z *Wide) join() (e fp.Element) {
	e = fp.Element{
		z[0] | z[1]<<52, z[1]>>12 | z[2]<<40, z[2]>>24 | z[3]<<28,
		z[3]>>36 | z[4]<<16, z[4]>>48 | z[5]<<4 | z[6]<<56, z[6]>>8 | z[7]<<44,
	}
	m := &wideFactors().multiple
	for k := 3; k > 0; k-- {
		var d fp.Element
		var borrow uint64
		for i := range d {
			d[i], borrow = bits.Sub64(e[i], m[k][i], borrow)
		}
		if borrow == 0 {
			return d
		}
	}
	return e
}

var errNotReduced = errors.New("not below the field's modulus")

// SetBytes reads a number of 48 bytes, big-endian, that must be below p.
func (z *Wide) SetBytes(b []byte) error {
	c := wideFactors()
	w := words(b)
	var borrow uint64
	for i := range w {
		_, borrow = bits.Sub64(w[i], c.multiple[1][i], borrow)
	}
	if borrow == 0 {
		return errNotReduced
	}
	e := fp.Element(w)
	z.split(e.Mul(&e, &c.into))
	return nil
}

// AppendBytes writes the number in 48 bytes, big-endian.
func (z *Wide) AppendBytes(b []byte) []byte {
	e := z.join()
	e.Mul(&e, &wideFactors().out)
	for k := 5; k >= 0; k-- {
		b = binary.BigEndian.AppendUint64(b, e[k])
	}
	return b
}

// Widen returns the same point with wide coordinates.
func Widen(p *G1) (w G1Wide) {
	c := wideFactors()
	var x, y fp.Element
	w.X.split(x.Mul(&p.X, &c.scale))
	w.Y.split(y.Mul(&p.Y, &c.scale))
	return w
}

// Narrow returns the same point with gnark-crypto's coordinates, which are below p.
func Narrow(w *G1Wide) (p G1) {
	c := wideFactors()
	p.X, p.Y = w.X.join(), w.Y.join()
	p.X.Mul(&p.X, &c.unscale)
	p.Y.Mul(&p.Y, &c.unscale)
	return p
}

// do sets z to f of two operands.
func (z *Wide) do(x, y *Wide, f func(e, x, y *fp.Element)) *Wide {
	a, b := x.join(), y.join()
	var e fp.Element
	f(&e, &a, &b)
	z.split(&e)
	return z
}

// Add sets z = x + y.
func (z *Wide) Add(x, y *Wide) *Wide {
	return z.do(x, y, func(e, x, y *fp.Element) { e.Add(x, y) })
}

// Sub sets z = x − y.
func (z *Wide) Sub(x, y *Wide) *Wide {
	return z.do(x, y, func(e, x, y *fp.Element) { e.Sub(x, y) })
}

// Mul sets z = x·y.
func (z *Wide) Mul(x, y *Wide) *Wide {
	return z.do(x, y, func(e, x, y *fp.Element) { e.Mul(x, y).Mul(e, &wideFactors().unscale) })
}

// Square sets z = x².
func (z *Wide) Square(x *Wide) *Wide { return z.Mul(x, x) }

// Double sets z = 2x.
func (z *Wide) Double(x *Wide) *Wide { return z.Add(x, x) }

// Inverse sets z = 1/x, and 0 for 0.
func (z *Wide) Inverse(x *Wide) *Wide {
	return z.do(x, x, func(e, x, _ *fp.Element) { e.Inverse(x).Mul(e, &wideFactors().scale2) })
}

// SetOne sets z = 1.
func (z *Wide) SetOne() *Wide { *z = wideFactors().one; return z }

// fourP is 4p in limbs.
var fourP = sync.OnceValue(func() *Wide {
	var b [48]byte
	new(big.Int).Lsh(fp.Modulus(), 2).FillBytes(b[:])
	e := fp.Element(words(b[:]))
	z := &Wide{}
	z.split(&e)
	return z
})

// Neg sets z = −x, which may be nearly 4p. Zero stays zero, so that infinity keeps its
// one form.
func (z *Wide) Neg(x *Wide) *Wide {
	if x[0]|x[1]|x[2]|x[3]|x[4]|x[5]|x[6]|x[7] == 0 {
		*z = Wide{}
		return z
	}
	m := fourP()
	borrow := int64(0)
	for i := range z {
		d := int64(m[i]-x[i]) + borrow
		z[i], borrow = uint64(d)&limbMask, d>>52
	}
	return z
}

// IsZero tells whether z is a multiple of p.
func (z *Wide) IsZero() bool {
	if z[7] != 0 && z[0] != 0 {
		low := wideFactors()
		for k := 1; k < 4; k++ {
			if z[0] == low.multiple[k][0]&limbMask {
				e := z.join()
				return e.IsZero()
			}
		}
		return false
	}
	e := z.join()
	return e.IsZero()
}
