// Command asm writes ifma_amd64.s: field arithmetic for eight Poseidon states at once
// with the 52-bit multiply-and-add of AVX-512 IFMA. It is a module of its own, so that
// building sealfleet does not need avo. Run it by `go generate` in package poseidon.
//
// An operand is five vectors of eight lanes: limb k of all lanes, 52 bits each, radix
// 2^52, so that R = 2^260 is the Montgomery radix and a lane may hold up to 2^260, more
// than 35 times the modulus r. A product x·y/R + r is below (xy/35r² + 1)·r: sums of some
// twenty products of small multiples of r need no reduction but the one at their end.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const (
	limbs  = 5
	vector = 64             // bytes of one limb of eight lanes
	lanes8 = limbs * vector // bytes of an operand
	scalar = limbs * 8      // bytes of a constant
)

// The modulus r. In limbs its lowest one is 2^52 - 2^32 + 1, so -1/r mod 2^52 is
// -(2^32 + 1), and multiplying by that is a shift and two additions.
var modulus = [4]uint64{0xffffffff00000001, 0x53bda402fffe5bfe, 0x3339d80809a1d805, 0x73eda753299d7d48}

func split(w [4]uint64) (l [limbs]uint64) {
	const mask = 1<<52 - 1
	l[0] = w[0] & mask
	l[1] = (w[0]>>52 | w[1]<<12) & mask
	l[2] = (w[1]>>40 | w[2]<<24) & mask
	l[3] = (w[2]>>28 | w[3]<<36) & mask
	l[4] = w[3] >> 16
	return l
}

// columns are the accumulators of a double-length number: column k is worth 2^(52k) and
// is the sum of lo[k] and hi[k]. Low and high halves of products go to different ones,
// which halves the chains of dependent additions. lo[9] and hi[0] don't exist.
type columns struct{ lo, hi [2 * limbs]reg.VecVirtual }

func newColumns(zero reg.VecVirtual) *columns {
	c := &columns{}
	for k := range 2 * limbs {
		if k < 2*limbs-1 {
			c.lo[k] = copyOf(zero)
		}
		if k > 0 {
			c.hi[k] = copyOf(zero)
		}
	}
	return c
}

// copyOf gives a new register the value of v. Clearing by a copy of zero, and not by
// XOR with itself, keeps avo from seeing a use of the register before it.
func copyOf(v reg.VecVirtual) reg.VecVirtual {
	r := ZMM()
	VMOVDQA64(v, r)
	return r
}

// addProducts adds a·(limb j of b).
func (c *columns) addProducts(a []reg.VecVirtual, j int, b reg.VecVirtual) {
	for i := range limbs {
		VPMADD52LUQ(b, a[i], c.lo[i+j])
	}
	for i := range limbs {
		VPMADD52HUQ(b, a[i], c.hi[i+j+1])
	}
}

// reduce divides by R (Montgomery) and returns five limbs that may exceed 52 bits.
func (c *columns) reduce(q Mem, zero reg.VecVirtual) []reg.VecVirtual {
	m, t := ZMM(), ZMM()
	for i := range limbs {
		// m = -(c + c·2^32) mod 2^52; the multiplier looks at the low 52 bits only.
		VPSLLQ(Imm(32), c.lo[i], t)
		VPADDQ(t, c.lo[i], t)
		VPSUBQ(t, zero, m)
		for j := range limbs {
			VPMADD52LUQ_BCST(q.Offset(8*j), m, c.lo[i+j])
			VPMADD52HUQ_BCST(q.Offset(8*j), m, c.hi[i+j+1])
		}
		// The column is now a multiple of 2^52: its upper bits belong to the next one.
		VPSRLQ(Imm(52), c.lo[i], t)
		VPADDQ(c.hi[i+1], c.lo[i+1], c.lo[i+1])
		VPADDQ(t, c.lo[i+1], c.lo[i+1])
	}
	out := c.lo[limbs : 2*limbs]
	for k := limbs + 1; k < 2*limbs-1; k++ {
		VPADDQ(c.hi[k], c.lo[k], c.lo[k])
	}
	out[limbs-1] = c.hi[2*limbs-1]
	return out
}

// carry brings five limbs to 52 bits each; the last keeps what is above.
func carry(l []reg.VecVirtual, mask reg.VecVirtual) {
	t := ZMM()
	for k := range limbs - 1 {
		VPSRLQ(Imm(52), l[k], t)
		VPADDQ(t, l[k+1], l[k+1])
		VPANDQ(mask, l[k], l[k])
	}
}

func maskRegister() reg.VecVirtual {
	mask := ZMM()
	VPTERNLOGQ(Imm(0xff), mask, mask, mask)
	VPSRLQ(Imm(12), mask, mask)
	return mask
}

func zeroRegister() reg.VecVirtual {
	zero := ZMM()
	VPXORQ(zero, zero, zero)
	return zero
}

func load(at Mem) []reg.VecVirtual {
	a := make([]reg.VecVirtual, limbs)
	for k := range a {
		a[k] = ZMM()
		VMOVDQU64(at.Offset(vector*k), a[k])
	}
	return a
}

func store(l []reg.VecVirtual, at Mem) {
	for k := range limbs {
		VMOVDQU64(l[k], at.Offset(vector*k))
	}
}

// square returns a², reduced and carried.
func square(a []reg.VecVirtual, q Mem, zero, mask reg.VecVirtual) []reg.VecVirtual {
	// Products of different limbs count twice: they are summed apart and doubled.
	var lo, hi [2 * limbs]reg.VecVirtual
	for k := 1; k <= 2*limbs-3; k++ {
		lo[k], hi[k+1] = copyOf(zero), copyOf(zero)
	}
	for i := range limbs {
		for j := i + 1; j < limbs; j++ {
			VPMADD52LUQ(a[j], a[i], lo[i+j])
			VPMADD52HUQ(a[j], a[i], hi[i+j+1])
		}
	}
	c := &columns{}
	c.hi[1] = lo[1]
	for k := 1; k <= 2*limbs-2; k++ {
		if k > 1 {
			c.hi[k] = hi[k]
		}
		if k > 1 && lo[k] != nil {
			VPADDQ(lo[k], hi[k], hi[k])
		}
		VPADDQ(c.hi[k], c.hi[k], c.hi[k])
	}
	// The squares of limbs go to the other half; the highest is alone in its column.
	for k := range 2*limbs - 1 {
		c.lo[k] = copyOf(zero)
	}
	c.hi[2*limbs-1] = copyOf(zero)
	for i := range limbs {
		VPMADD52LUQ(a[i], a[i], c.lo[2*i])
		if i < limbs-1 {
			VPMADD52HUQ(a[i], a[i], c.lo[2*i+1])
		} else {
			VPMADD52HUQ(a[i], a[i], c.hi[2*i+1])
		}
	}
	out := c.reduce(q, zero)
	carry(out, mask)
	return out
}

// dot8(dst, a, na, b, nb, coeffs): dst = Σ a[i]·coeffs[i] + Σ b[i]·coeffs[na+i].
func dot8(q Mem) {
	TEXT("dot8", NOSPLIT, "func(dst, a *uint64, na int, b *uint64, nb int, coeffs *uint64)")
	Pragma("noescape")
	Doc("dot8 sets dst to the sum of a[i]·coeffs[i] (i < na) and b[i]·coeffs[na+i] (i < nb),",
		"reduced. Operands are eight lanes of five limbs, coefficients five limbs for all",
		"lanes. na and nb may not be 0.")
	a := Load(Param("a"), GP64())
	n := Load(Param("na"), GP64())
	coeffs := Load(Param("coeffs"), GP64())
	second := GP64()
	XORQ(second, second)
	zero := zeroRegister()
	c := newColumns(zero)
	x := ZMM()

	Label("term")
	at := load(Mem{Base: a})
	for j := range limbs {
		VPBROADCASTQ(Mem{Base: coeffs}.Offset(8*j), x)
		c.addProducts(at, j, x)
	}
	ADDQ(U32(lanes8), a)
	ADDQ(U32(scalar), coeffs)
	DECQ(n)
	JNZ(LabelRef("term"))
	// The first time round go on with b.
	TESTQ(second, second)
	JNZ(LabelRef("sum"))
	Load(Param("b"), a)
	Load(Param("nb"), n)
	INCQ(second)
	JMP(LabelRef("term"))

	Label("sum")
	out := c.reduce(q, zero)
	carry(out, maskRegister())
	store(out, Mem{Base: Load(Param("dst"), GP64())})
	VZEROUPPER()
	RET()
}

// sbox8(dst, src, n, keys): dst[i] = src[i]^5 + keys[i].
func sbox8(q Mem) {
	TEXT("sbox8", NOSPLIT, "func(dst, src *uint64, n int, keys *uint64)")
	Pragma("noescape")
	Doc("sbox8 sets dst[i] to src[i]^5 + keys[i] for i < n. Operands are eight lanes of five",
		"limbs, keys five limbs for all lanes. n may not be 0; dst may be src.")
	dst := Load(Param("dst"), GP64())
	src := Load(Param("src"), GP64())
	n := Load(Param("n"), GP64())
	keys := Load(Param("keys"), GP64())
	zero, mask := zeroRegister(), maskRegister()

	Label("element")
	power := square(square(load(Mem{Base: src}), q, zero, mask), q, zero, mask)
	c := newColumns(zero)
	x := ZMM()
	for j := range limbs {
		VMOVDQU64(Mem{Base: src}.Offset(vector*j), x)
		c.addProducts(power, j, x)
	}
	out := c.reduce(q, zero)
	for k := range limbs {
		VPADDQ_BCST(Mem{Base: keys}.Offset(8*k), out[k], out[k])
	}
	carry(out, mask)
	store(out, Mem{Base: dst})
	ADDQ(U32(lanes8), src)
	ADDQ(U32(lanes8), dst)
	ADDQ(U32(scalar), keys)
	DECQ(n)
	JNZ(LabelRef("element"))
	VZEROUPPER()
	RET()
}

func main() {
	ConstraintExpr("!purego")
	q := GLOBL("modulus52", RODATA|NOPTR)
	for k, l := range split(modulus) {
		DATA(8*k, U64(l))
	}
	dot8(q)
	sbox8(q)
	Generate()
}
