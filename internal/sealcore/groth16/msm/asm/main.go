// Command asm writes ifma_amd64.s: additions of eight pairs of points of G1 at once with
// the 52-bit multiply-and-add of AVX-512 IFMA. It is a module of its own, so that
// building sealfleet does not need avo. Run it by `go generate` in package msm.
//
// A point is 16 words: x and y, eight limbs of 52 bits each, in Montgomery form with
// R = 2^416. The modulus p has 381 bits, so there is room for 35 more: products of small
// multiples of p come out below p·(1 + 2^-25), and only sums have to be brought down
// now and then. Vectors hold one limb of eight points; points are transposed on loading.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const (
	limbs  = 8
	vector = 64             // bytes of one limb of eight lanes, and of one coordinate
	lanes8 = limbs * vector // bytes of an operand of eight lanes
	point  = 2 * vector     // bytes of a point
	points = 8 * point
)

// The modulus, little-endian.
var p = [6]uint64{0xb9feffffffffaaab, 0x1eabfffeb153ffff, 0x6730d2a0f6b0f624, 0x64774b84f38512bf, 0x4b1ba7b6434bacd7, 0x1a0111ea397fe69a}

const mask = 1<<52 - 1

// split cuts six words, shifted to the left by some bits, into eight limbs.
func split(w [6]uint64, shift uint) (l [limbs]uint64) {
	for k := range l {
		for bit := uint(0); bit < 52; bit++ {
			if at := int(52*uint(k)+bit) - int(shift); at >= 0 && at < 384 {
				l[k] |= w[at/64] >> (at % 64) & 1 << bit
			}
		}
	}
	return l
}

// inverse returns -1/p mod 2^52.
func inverse() uint64 {
	x := uint64(1)
	for range 6 {
		x *= 2 - p[0]*x
	}
	return -x & mask
}

// complement returns 2^416 - p: adding it q times subtracts q·p, but for what leaves the
// topmost limb.
func complement() (l [limbs]uint64) {
	carry := uint64(1)
	for k, v := range split(p, 0) {
		l[k] = (^v & mask) + carry
		carry = l[k] >> 52
		l[k] &= mask
	}
	return l
}

func table(name string, values ...uint64) Mem {
	m := GLOBL(name, RODATA|NOPTR)
	for i, v := range values {
		DATA(8*i, U64(v))
	}
	return m
}

// constants are in memory, each a word for all lanes.
type constants struct {
	modulus, complement, four, eight Mem // p, 2^416-p, 4p, 8p
	inverse, mask, quotient          Mem
	zero                             reg.VecVirtual
}

func copyOf(v reg.VecVirtual) reg.VecVirtual {
	r := ZMM()
	VMOVDQA64(v, r)
	return r
}

// withZero adds a register of zeros. Other registers are cleared by a copy of it, not by
// XOR with themselves, in which avo would see a use of what they held before.
func (k constants) withZero() constants {
	k.zero = ZMM()
	VPXORQ(k.zero, k.zero, k.zero)
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

// mul returns a·b/R in limbs that may exceed 52 bits. The other factor is in memory.
func mul(a []reg.VecVirtual, b Mem, k constants) []reg.VecVirtual {
	none := k.zero
	lo, hi := make([]reg.VecVirtual, limbs), make([]reg.VecVirtual, limbs+1)
	for i := range limbs {
		lo[i], hi[i+1] = copyOf(none), copyOf(none)
	}
	x, m, t := ZMM(), ZMM(), ZMM()
	for j := range limbs {
		VMOVDQU64(b.Offset(vector*j), x)
		for i := range limbs {
			VPMADD52LUQ(x, a[i], lo[i])
			VPMADD52HUQ(x, a[i], hi[i+1])
		}
		// m = -lo[0]/p mod 2^52; as a factor only its low 52 bits count.
		VMOVDQA64(none, m)
		VPMADD52LUQ_BCST(k.inverse, lo[0], m)
		for i := range limbs {
			VPMADD52LUQ_BCST(k.modulus.Offset(8*i), m, lo[i])
			VPMADD52HUQ_BCST(k.modulus.Offset(8*i), m, hi[i+1])
		}
		// The lowest column is a multiple of 2^52: what is above belongs to the next one,
		// and all columns move down by one.
		VPSRLQ(Imm(52), lo[0], t)
		VPADDQ(hi[1], t, t)
		free := lo[0]
		copy(lo, lo[1:])
		VPADDQ(t, lo[0], lo[0])
		VMOVDQA64(none, free)
		lo[limbs-1] = free
		free = hi[1]
		copy(hi[1:], hi[2:])
		VMOVDQA64(none, free)
		hi[limbs] = free
	}
	// hi[i+1] now belongs to column i+1, where hi[1] is column 1.
	for i := 1; i < limbs; i++ {
		VPADDQ(hi[i], lo[i], lo[i])
	}
	return lo
}

// carry adds to each limb what the one below has above 52 bits, or borrows. It leaves
// those bits where they are, because the multiplier does not look at them.
func carry(l []reg.VecVirtual) {
	t := ZMM()
	for k := range limbs - 1 {
		VPSRAQ(Imm(52), l[k], t)
		VPADDQ(t, l[k+1], l[k+1])
	}
}

func clean(l []reg.VecVirtual, k constants) {
	m := ZMM()
	VPBROADCASTQ(k.mask, m)
	for i := range l {
		VPANDQ(m, l[i], l[i])
	}
}

// addConstant adds a multiple of p.
func addConstant(l []reg.VecVirtual, c Mem) {
	for i := range limbs {
		VPADDQ_BCST(c.Offset(8*i), l[i], l[i])
	}
}

// reduce brings a carried number below 2^20·p, or so, down to at most 2.0001·p, in clean
// limbs. The quotient comes from the topmost limb and is exact or one too small.
func reduce(l []reg.VecVirtual, k constants) {
	clean(l, k)
	q := copyOf(k.zero)
	VPMADD52HUQ_BCST(k.quotient, l[limbs-1], q)
	hi := make([]reg.VecVirtual, limbs)
	for i := range limbs {
		VPMADD52LUQ_BCST(k.complement.Offset(8*i), q, l[i])
		if i < limbs-1 {
			hi[i] = copyOf(k.zero)
			VPMADD52HUQ_BCST(k.complement.Offset(8*i), q, hi[i])
		}
	}
	for i := range limbs - 1 {
		VPADDQ(hi[i], l[i+1], l[i+1])
	}
	carry(l)
	clean(l, k)
}

// transpose turns eight vectors of one point's limbs into eight of one limb's points, or back.
func transpose(r []reg.VecVirtual) []reg.VecVirtual {
	var t [8]reg.VecVirtual
	for i := 0; i < 8; i += 2 {
		t[i], t[i+1] = ZMM(), ZMM()
		VPUNPCKLQDQ(r[i+1], r[i], t[i])
		VPUNPCKHQDQ(r[i+1], r[i], t[i+1])
	}
	out := make([]reg.VecVirtual, 8)
	for odd := range 2 {
		shuffle := func(imm uint64, a, b reg.VecVirtual) reg.VecVirtual {
			d := ZMM()
			VSHUFI64X2(Imm(imm), b, a, d)
			return d
		}
		u0, u1 := shuffle(0x88, t[odd], t[2+odd]), shuffle(0xdd, t[odd], t[2+odd])
		u2, u3 := shuffle(0x88, t[4+odd], t[6+odd]), shuffle(0xdd, t[4+odd], t[6+odd])
		out[odd], out[4+odd] = shuffle(0x88, u0, u2), shuffle(0xdd, u0, u2)
		out[2+odd], out[6+odd] = shuffle(0x88, u1, u3), shuffle(0xdd, u1, u3)
	}
	return out
}

// rows loads one coordinate of eight points.
func rows(at Mem) []reg.VecVirtual {
	r := make([]reg.VecVirtual, 8)
	for i := range r {
		r[i] = ZMM()
		VMOVDQU64(at.Offset(point*i), r[i])
	}
	return transpose(r)
}

func storeRows(l []reg.VecVirtual, at Mem) {
	for i, r := range transpose(l) {
		VMOVDQU64(r, at.Offset(point*i))
	}
}

func forward(k constants) {
	TEXT("forward8", NOSPLIT, "func(a, b, den, pre *uint64, groups int)")
	Pragma("noescape")
	Doc("forward8 sets den[g] = b[g].X - a[g].X and pre[g+1] = pre[g]·den[g] for each group g of",
		"eight pairs. den and pre are eight lanes of limbs; pre[0] is given.")
	a, b := Load(Param("a"), GP64()), Load(Param("b"), GP64())
	den, pre := Load(Param("den"), GP64()), Load(Param("pre"), GP64())
	n := Load(Param("groups"), GP64())
	k = k.withZero()

	Label("group")
	x1 := rows(Mem{Base: a})
	d := rows(Mem{Base: b})
	for i := range limbs {
		VPSUBQ(x1[i], d[i], d[i])
	}
	addConstant(d, k.four)
	carry(d)
	store(d, Mem{Base: den})
	product := mul(d, Mem{Base: pre}, k)
	carry(product)
	ADDQ(U32(lanes8), pre)
	store(product, Mem{Base: pre})
	ADDQ(U32(points), a)
	ADDQ(U32(points), b)
	ADDQ(U32(lanes8), den)
	DECQ(n)
	JNZ(LabelRef("group"))
	VZEROUPPER()
	RET()
}

func backward(k constants) {
	TEXT("backward8", NOSPLIT, "func(a, b, den, pre, inv *uint64, groups int)")
	Pragma("noescape")
	Doc("backward8 sets a += b for each group of eight pairs, from the last to the first, where",
		"forward8 has filled in den and pre and inv is the inverse of the last pre. It is",
		"overwritten, as are the three operands of eight lanes behind it. No pair may be of",
		"points with the same x, nor have infinity in it.")
	a, b := Load(Param("a"), GP64()), Load(Param("b"), GP64())
	den, pre := Load(Param("den"), GP64()), Load(Param("pre"), GP64())
	inv, n := Load(Param("inv"), GP64()), Load(Param("groups"), GP64())
	// Not on the stack, which would put half of each vector into the next cache line.
	scratch := func(k int) Mem { return Mem{Base: inv}.Offset(k * lanes8) }
	slope, x1, y1 := scratch(1), scratch(2), scratch(3)
	// To the end of the arrays: n·lanes8 and n·points bytes on.
	offset := GP64()
	MOVQ(n, offset)
	SHLQ(U8(9), offset)
	ADDQ(offset, den)
	ADDQ(offset, pre)
	ADDQ(offset, offset)
	ADDQ(offset, a)
	ADDQ(offset, b)
	k = k.withZero()

	Label("group")
	SUBQ(U32(points), a)
	SUBQ(U32(points), b)
	SUBQ(U32(lanes8), den)
	SUBQ(U32(lanes8), pre)

	// 1/den = inv·pre, and inv·den is the inverse for the group before.
	i := load(Mem{Base: inv})
	t := mul(i, Mem{Base: pre}, k)
	carry(t)
	store(t, slope)
	i = load(Mem{Base: inv})
	next := mul(i, Mem{Base: den}, k)
	carry(next)
	store(next, Mem{Base: inv})

	// slope = (y2 - y1)/den
	v := rows(Mem{Base: a}.Offset(vector))
	store(v, y1)
	u := rows(Mem{Base: b}.Offset(vector))
	for i := range limbs {
		VPSUBQ(v[i], u[i], u[i])
	}
	addConstant(u, k.four)
	carry(u)
	l := mul(u, slope, k)
	carry(l)
	store(l, slope)

	// x3 = slope² - x1 - x2
	x3 := mul(l, slope, k)
	x := rows(Mem{Base: a})
	store(x, x1)
	for i := range limbs {
		VPSUBQ(x[i], x3[i], x3[i])
	}
	x = rows(Mem{Base: b})
	for i := range limbs {
		VPSUBQ(x[i], x3[i], x3[i])
	}
	addConstant(x3, k.eight)
	carry(x3)
	reduce(x3, k)
	storeRows(x3, Mem{Base: a})

	// y3 = slope·(x1 - x3) - y1
	w := load(x1)
	for i := range limbs {
		VPSUBQ(x3[i], w[i], w[i])
	}
	addConstant(w, k.four)
	carry(w)
	y3 := mul(w, slope, k)
	for i := range limbs {
		v := ZMM()
		VMOVDQU64(y1.Offset(vector*i), v)
		VPSUBQ(v, y3[i], y3[i])
	}
	addConstant(y3, k.four)
	carry(y3)
	reduce(y3, k)
	storeRows(y3, Mem{Base: a}.Offset(vector))

	DECQ(n)
	JNZ(LabelRef("group"))
	VZEROUPPER()
	RET()
}

func main() {
	ConstraintExpr("!purego")
	modulus, four, eight, minus := split(p, 0), split(p, 2), split(p, 3), complement()
	k := constants{
		modulus:    table("ifmaModulus", modulus[:]...),
		complement: table("ifmaComplement", minus[:]...),
		four:       table("ifmaFour", four[:]...),
		eight:      table("ifmaEight", eight[:]...),
		inverse:    table("ifmaInverse", inverse()),
		mask:       table("ifmaMask", mask),
		quotient:   table("ifmaQuotient", (1<<52)/(modulus[limbs-1]+1)),
	}
	forward(k)
	backward(k)
	Generate()
}
