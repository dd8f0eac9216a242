//go:build !purego

package poseidon

import (
	"sync"
	"unsafe"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"
	"golang.org/x/sys/cpu"
)

//go:generate sh -c "cd asm && go run . -out ../ifma_amd64.s -stubs ../ifma_amd64.go -pkg poseidon"

// lanes is how many preimages one call of the eight-lane form takes.
const lanes = 8

// minLanes is from how many preimages on the eight-lane form, with the other lanes idle,
// beats one permutation after the other.
const minLanes = 2

const limbMask = 1<<52 - 1

// operand is a field element in each of eight lanes, in five limbs of 52 bits: limb k of
// lane l is at [k][l]. The form is Montgomery's with R = 2^260; values may exceed the
// modulus (see asm/main.go for how far). A result's limbs, but for the last, may have
// bits above 52, which are already counted in the limb above and must be ignored.
type operand [5][lanes]uint64

// limb5 is a constant for all lanes, in the same form, below the modulus.
type limb5 [5]uint64

// hasIFMA tells whether the processor and the operating system let us use AVX-512 IFMA.
func hasIFMA() bool { return cpu.X86.HasAVX512F && cpu.X86.HasAVX512IFMA }

// laneConstants are the constants of an instance for the eight-lane form.
type laneConstants struct {
	width, half, partial int

	keys  []limb5 // Compressed without the first width, then width zeros
	mds   []limb5 // column by column
	first [][]limb5
	step  []limb5
	last  [][]limb5
	out   []limb5 // the MDS column of the result, so scaled that it comes out as fr.Element does
	pool  sync.Pool
}

// newLaneConstants returns nil if the processor lacks what the eight-lane form needs.
func newLaneConstants(c *Constants) *laneConstants {
	if !hasIFMA() {
		return nil
	}
	rec := newRecurrence(c.MDS, c.PartialRounds)
	l := &laneConstants{width: c.Width, half: c.FullRounds / 2, partial: c.PartialRounds}
	l.keys = append(limbsOf(c.Compressed[c.Width:]), make([]limb5, c.Width)...)
	for _, column := range c.MDS.transposed() {
		l.mds = append(l.mds, limbsOf(column)...)
	}
	for _, row := range rec.first {
		l.first = append(l.first, limbsOf(row))
	}
	l.step = limbsOf(rec.step)
	for _, row := range rec.last {
		l.last = append(l.last, limbsOf(row))
	}
	for i := range c.Width {
		l.out = append(l.out, split(&c.MDS[i][1], 0)) // R = 2^256 here
	}
	l.pool.New = func() any { return newWorkspace(l) }
	return l
}

// limbsOf turns constants into limbs with R = 2^260.
func limbsOf(in []fr.Element) []limb5 {
	var sixteen fr.Element
	sixteen.SetUint64(16)
	out := make([]limb5, len(in))
	for i := range in {
		var t fr.Element
		t.Mul(&in[i], &sixteen) // its words are now those of the element times 2^260
		out[i] = split(&t, 0)
	}
	return out
}

// split cuts the words of z, shifted left by 0 or 4 bits, into limbs.
func split(z *fr.Element, shift uint) limb5 {
	return limb5{
		z[0] << shift & limbMask,
		(z[0]>>(52-shift) | z[1]<<(12+shift)) & limbMask,
		(z[1]>>(40-shift) | z[2]<<(24+shift)) & limbMask,
		(z[2]>>(28-shift) | z[3]<<(36+shift)) & limbMask,
		z[3] >> (16 - shift),
	}
}

// workspace is the memory of one run of the eight-lane form. Its operands are aligned to
// cache lines: a misaligned vector would lie in two of them.
type workspace struct {
	memory      []byte
	state, next []operand
	x, y        []operand // element 0 before and after the S-box of each partial round
}

func newWorkspace(l *laneConstants) *workspace {
	const size = unsafe.Sizeof(operand{})
	n := 2*l.width + 2*l.partial + 1
	w := &workspace{memory: make([]byte, uintptr(n)*size+63)}
	start := unsafe.Pointer(unsafe.SliceData(w.memory))
	at := unsafe.Slice((*operand)(unsafe.Add(start, -uintptr(start)&63)), n)
	w.state, at = at[:l.width], at[l.width:]
	w.next, at = at[:l.width], at[l.width:]
	w.x, w.y = at[:l.partial+1], at[l.partial+1:]
	return w
}

// sum8 hashes up to eight preimages, len(dst) of them.
func (l *laneConstants) sum8(dst, in []fr.Element, start []fr.Element) {
	w := l.pool.Get().(*workspace)
	defer l.pool.Put(w)
	w.load(in, start, len(dst))

	keys := l.keys
	for range l.half {
		w.full(l, keys)
		keys = keys[l.width:]
	}

	n := l.width - 1
	x, y, u := w.x, w.y, w.state[1:]
	x[0] = w.state[0]
	for r := range l.partial {
		sbox(y[r:r+1], x[r:r+1], keys[r:])
		if r < n {
			dot2(&x[r+1], u, y[:r+1], l.first[r])
		} else {
			dot2(&x[r+1], x[r-n+1:r+1], y[r-n:r+1], l.step)
		}
	}
	p := l.partial
	w.state[0] = x[p]
	for j := range n {
		dot2(&w.state[j+1], x[p-n+1:], y[p-n:], l.last[j])
	}
	keys = keys[p:]

	for range l.half - 1 {
		w.full(l, keys)
		keys = keys[l.width:]
	}
	sbox(w.state, w.state, keys)
	dot2(&w.next[0], w.state[:1], w.state[1:], l.out)
	w.store(dst)
}

// full is a full round.
func (w *workspace) full(l *laneConstants, keys []limb5) {
	sbox(w.state, w.state, keys)
	for j := range w.next {
		dot2(&w.next[j], w.state[:1], w.state[1:], l.mds[j*l.width:])
	}
	w.state, w.next = w.next, w.state
}

// load sets the state to start plus the preimages. Lanes beyond n repeat the last one.
func (w *workspace) load(in, start []fr.Element, n int) {
	arity := len(start) - 1
	tag := split(&start[0], 4)
	for k := range tag {
		for lane := range lanes {
			w.state[0][k][lane] = tag[k]
		}
	}
	for lane := range lanes {
		preimage := in[min(lane, n-1)*arity:]
		for i := range arity {
			var t fr.Element
			t.Add(&preimage[i], &start[i+1])
			// Words of the element times 2^256, shifted by 4 bits: times 2^260, below 16r.
			for k, limb := range split(&t, 4) {
				w.state[i+1][k][lane] = limb
			}
		}
	}
}

// store packs the result's limbs into words. They hold less than 2r: the last product
// sums at most 17 products of less than 1.1r·r, over R, plus r.
func (w *workspace) store(dst []fr.Element) {
	r := &w.next[0]
	for lane := range dst {
		a, b, c, d := r[0][lane]&limbMask, r[1][lane]&limbMask, r[2][lane]&limbMask, r[3][lane]&limbMask
		z := fr.Element{a | b<<52, b>>12 | c<<40, c>>24 | d<<28, d>>36 | r[4][lane]<<16}
		reduceOnce(&z)
		dst[lane] = z
	}
}

func sbox(dst, src []operand, keys []limb5) {
	sbox8(&dst[0][0][0], &src[0][0][0], len(src), &keys[:len(src)][0][0])
}

func dot2(dst *operand, a, b []operand, coeffs []limb5) {
	dot8(&dst[0][0], &a[0][0][0], len(a), &b[0][0][0], len(b), &coeffs[:len(a)+len(b)][0][0])
}
