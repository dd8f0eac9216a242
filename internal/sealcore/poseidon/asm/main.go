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

// The modulus r. Its lowest limb is 2^52 - 2^32 + 1, so -1/r mod 2^52 is 2^52 - 2^32 - 1.
var r = [4]uint64{0xffffffff00000001, 0x53bda402fffe5bfe, 0x3339d80809a1d805, 0x73eda753299d7d48}

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
func (c *columns) reduce(k constants) []reg.VecVirtual {
	t := ZMM()
	for i := range limbs {
		// m = -c/r mod 2^52; as a factor only its low 52 bits count.
		m := copyOf(k.zero)
		VPMADD52LUQ(k.inverse, c.lo[i], m)
		for j := range limbs {
			VPMADD52LUQ_BCST(k.modulus.Offset(8*j), m, c.lo[i+j])
			VPMADD52HUQ_BCST(k.modulus.Offset(8*j), m, c.hi[i+j+1])
		}
		// The column is now a multiple of 2^52: what is above belongs to the next one.
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

// carry adds to each limb what the one below has above 52 bits. It leaves those bits
// where they are, because the multiplier does not look at them.
func carry(l []reg.VecVirtual) {
	t := ZMM()
	for k := range limbs - 1 {
		VPSRLQ(Imm(52), l[k], t)
		VPADDQ(t, l[k+1], l[k+1])
	}
}

// constants are what reduce needs at hand.
type constants struct {
	modulus Mem            // five limbs
	zero    reg.VecVirtual //
	inverse reg.VecVirtual // -1/r mod 2^52
}

func loadConstants(modulus, inverse Mem) constants {
	k := constants{modulus, ZMM(), ZMM()}
	VPXORQ(k.zero, k.zero, k.zero)
	VPBROADCASTQ(inverse, k.inverse)
	return k
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
func square(a []reg.VecVirtual, k constants) []reg.VecVirtual {
	// Products of different limbs count twice: they are summed apart and doubled.
	var lo, hi [2 * limbs]reg.VecVirtual
	for i := 1; i <= 2*limbs-3; i++ {
		lo[i], hi[i+1] = copyOf(k.zero), copyOf(k.zero)
	}
	for i := range limbs {
		for j := i + 1; j < limbs; j++ {
			VPMADD52LUQ(a[j], a[i], lo[i+j])
			VPMADD52HUQ(a[j], a[i], hi[i+j+1])
		}
	}
	c := &columns{}
	c.hi[1] = lo[1]
	for i := 1; i <= 2*limbs-2; i++ {
		if i > 1 {
			c.hi[i] = hi[i]
		}
		if i > 1 && lo[i] != nil {
			VPADDQ(lo[i], hi[i], hi[i])
		}
		VPADDQ(c.hi[i], c.hi[i], c.hi[i])
	}
	// The squares of limbs go to the other half; the highest is alone in its column.
	for i := range 2*limbs - 1 {
		c.lo[i] = copyOf(k.zero)
	}
	c.hi[2*limbs-1] = copyOf(k.zero)
	for i := range limbs {
		VPMADD52LUQ(a[i], a[i], c.lo[2*i])
		if i < limbs-1 {
			VPMADD52HUQ(a[i], a[i], c.lo[2*i+1])
		} else {
			VPMADD52HUQ(a[i], a[i], c.hi[2*i+1])
		}
	}
	out := c.reduce(k)
	carry(out)
	return out
}

// dot8(dst, a, na, b, nb, coeffs): dst = Σ a[i]·coeffs[i] + Σ b[i]·coeffs[na+i].
func dot8(modulus, inverse Mem) {
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
	k := loadConstants(modulus, inverse)
	c := newColumns(k.zero)
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
	out := c.reduce(k)
	carry(out)
	store(out, Mem{Base: Load(Param("dst"), GP64())})
	VZEROUPPER()
	RET()
}

// sbox8(dst, src, n, keys): dst[i] = src[i]^5 + keys[i].
func sbox8(modulus, inverse Mem) {
	TEXT("sbox8", NOSPLIT, "func(dst, src *uint64, n int, keys *uint64)")
	Pragma("noescape")
	Doc("sbox8 sets dst[i] to src[i]^5 + keys[i] for i < n. Operands are eight lanes of five",
		"limbs, keys five limbs for all lanes. n may not be 0; dst may be src.")
	dst := Load(Param("dst"), GP64())
	src := Load(Param("src"), GP64())
	n := Load(Param("n"), GP64())
	keys := Load(Param("keys"), GP64())
	k := loadConstants(modulus, inverse)

	Label("element")
	power := square(square(load(Mem{Base: src}), k), k)
	c := newColumns(k.zero)
	x := ZMM()
	for j := range limbs {
		VMOVDQU64(Mem{Base: src}.Offset(vector*j), x)
		c.addProducts(power, j, x)
	}
	out := c.reduce(k)
	for i := range limbs {
		VPADDQ_BCST(Mem{Base: keys}.Offset(8*i), out[i], out[i])
	}
	carry(out)
	store(out, Mem{Base: dst})
	ADDQ(U32(lanes8), src)
	ADDQ(U32(lanes8), dst)
	ADDQ(U32(scalar), keys)
	DECQ(n)
	JNZ(LabelRef("element"))
	VZEROUPPER()
	RET()
}

// dotADX(dst, a, na, b, nb, coeffs): dst = (Σ a[i]·coeffs[i] + Σ b[i]·coeffs[na+i])/2^320.
// One lane, words of 64 bits; for processors without IFMA.
func dotADX() {
	TEXT("dotADX", NOSPLIT, "func(dst, a *uint64, na int, b *uint64, nb int, coeffs *uint64)")
	Pragma("noescape")
	Doc("dotADX sets dst to the sum of a[i]·coeffs[i] (i < na) and b[i]·coeffs[na+i] (i < nb),",
		"divided by 2^320 and reduced but for one subtraction of the modulus. Operands are",
		"four words below the modulus. na and nb may not be 0, nor both together above 64.")
	// Fourteen registers: two pointers, nine words of the sum, RDX and two halves of a
	// product. The counters stay on the stack.
	a, coeffs := GP64(), GP64()
	Load(Param("a"), a)
	Load(Param("coeffs"), coeffs)
	locals := AllocLocal(16)
	n, second := locals, locals.Offset(8)
	low, high := GP64(), GP64()
	Load(Param("na"), low)
	MOVQ(low, n)
	MOVQ(U32(0), second)
	w := make([]reg.GPVirtual, 9)
	for i := range w {
		w[i] = GP64()
		MOVQ(U32(0), w[i])
	}

	Label("term")
	for i := range 4 {
		MOVQ(Mem{Base: a}.Offset(8*i), reg.RDX)
		addRow(w[i:], coeffs, low, high)
	}
	ADDQ(Imm(32), a)
	ADDQ(Imm(32), coeffs)
	DECQ(n)
	JNZ(LabelRef("term"))
	CMPQ(second, Imm(0))
	JNE(LabelRef("sum"))
	Load(Param("b"), a)
	Load(Param("nb"), low)
	MOVQ(low, n)
	MOVQ(U32(1), second)
	JMP(LabelRef("term"))

	Label("sum")
	// The lowest word of r is 2^64 - 2^32 + 1, so -1/r is -(2^32 + 1) modulo 2^64.
	modulus := GLOBL("modulus64", RODATA|NOPTR)
	for i, word := range r {
		DATA(8*i, U64(word))
	}
	table := GP64()
	LEAQ(modulus, table)
	for i := range 5 {
		MOVQ(w[i], reg.RDX)
		SHLQ(Imm(32), reg.RDX)
		ADDQ(w[i], reg.RDX)
		NEGQ(reg.RDX)
		addRow(w[i:], table, low, high)
	}
	Load(Param("dst"), table)
	for i := range 4 {
		MOVQ(w[5+i], Mem{Base: table}.Offset(8*i))
	}
	RET()
}

// addRow adds RDX times the four words at b to the words of w and carries to their end.
// What is carried out of the last is lost.
func addRow(w []reg.GPVirtual, b, low, high reg.GPVirtual) {
	XORQ(low, low) // clears both carries
	for j := range 4 {
		MULXQ(Mem{Base: b}.Offset(8*j), low, high)
		ADOXQ(low, w[j])
		if j+1 < len(w) {
			ADCXQ(high, w[j+1])
		}
	}
	MOVQ(U32(0), low)
	for k := 4; k < len(w); k++ {
		ADOXQ(low, w[k])
		if k+1 < len(w) {
			ADCXQ(low, w[k+1])
		}
	}
}

func main() {
	ConstraintExpr("!purego")
	modulus := GLOBL("modulus52", RODATA|NOPTR)
	for i, l := range split(r) {
		DATA(8*i, U64(l))
	}
	inverse := GLOBL("inverse52", RODATA|NOPTR)
	DATA(0, U64(1<<52-1<<32-1))
	dot8(modulus, inverse)
	sbox8(modulus, inverse)
	dotADX()
	Generate()
}
