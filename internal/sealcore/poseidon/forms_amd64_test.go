//go:build !purego

package poseidon

import (
	"encoding/binary"
	"fmt"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"
)

func needIFMA(t *testing.T) {
	if !hasIFMA() {
		t.Skip("the processor has no AVX-512 IFMA")
	}
}

// seeded returns a random source and makes a failing test print its seed.
func seeded(t *testing.T) *rand.Rand {
	a, b := rand.Uint64(), rand.Uint64()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d, %d", a, b)
		}
	})
	return rand.New(rand.NewPCG(a, b))
}

// bound is the largest multiple of the modulus that an operand is tried with, well above
// what a permutation can reach (see store and asm/main.go).
const bound = 16

// toBig reads a lane as the multiplier does: the low 52 bits of each limb, and all of the
// last, which may not have more.
func toBig(o *operand, lane int) *big.Int {
	z := new(big.Int).SetUint64(o[len(o)-1][lane])
	for k := len(o) - 2; k >= 0; k-- {
		z.Lsh(z, 52).Add(z, new(big.Int).SetUint64(o[k][lane]&limbMask))
	}
	return z
}

func (o *operand) set(lane int, z *big.Int) {
	z = new(big.Int).Set(z)
	mask := new(big.Int).SetUint64(limbMask)
	for k := range o {
		o[k][lane] = new(big.Int).And(z, mask).Uint64()
		z.Rsh(z, 52)
	}
}

func limbs(z *big.Int) (l limb5) {
	var o operand
	o.set(0, z)
	for k := range l {
		l[k] = o[k][0]
	}
	return l
}

// draw returns a number below the limit: mostly any, sometimes an edge.
func draw(rng *rand.Rand, limit *big.Int) *big.Int {
	switch rng.IntN(8) {
	case 0:
		return new(big.Int)
	case 1:
		return new(big.Int).Sub(limit, big.NewInt(1))
	case 2: // all bits that fit
		z := new(big.Int).Lsh(big.NewInt(1), uint(limit.BitLen()-1))
		return z.Sub(z, big.NewInt(1))
	case 3: // multiples of the modulus
		z := new(big.Int).Mul(fr.Modulus(), big.NewInt(rng.Int64N(bound)))
		return z.Mod(z, limit)
	}
	z := new(big.Int)
	for range 5 {
		z.Lsh(z, 64).Add(z, new(big.Int).SetUint64(rng.Uint64()))
	}
	return z.Mod(z, limit)
}

// check compares a result with what big integers say: its value modulo r times a power
// of 1/R, and the bound xy/R + r.
func check(t *testing.T, name string, got *operand, lane int, product *big.Int) {
	t.Helper()
	r := fr.Modulus()
	inverse := new(big.Int).ModInverse(new(big.Int).Lsh(big.NewInt(1), 260), r)
	want := new(big.Int).Mul(product, inverse)
	want.Mod(want, r)
	g := toBig(got, lane)
	if new(big.Int).Mod(g, r).Cmp(want) != 0 {
		t.Fatalf("%s: lane %d holds %x, want %x modulo r", name, lane, g, want)
	}
	most := new(big.Int).Rsh(product, 260)
	if most.Add(most, r).Cmp(g) < 0 {
		t.Fatalf("%s: lane %d holds %x, more than xy/R + r", name, lane, g)
	}
}

func TestDot8(t *testing.T) {
	needIFMA(t)
	rng := seeded(t)
	r := fr.Modulus()
	limit := new(big.Int).Mul(r, big.NewInt(2))
	for range 300 {
		a, b := make([]operand, 1+rng.IntN(MaxArity+1)), make([]operand, 1+rng.IntN(MaxArity+1))
		all := make([]*operand, 0, len(a)+len(b))
		for i := range a {
			all = append(all, &a[i])
		}
		for i := range b {
			all = append(all, &b[i])
		}
		coeffs := make([]limb5, len(all))
		var want [lanes]big.Int
		for i, o := range all {
			c := draw(rng, r)
			coeffs[i] = limbs(c)
			for lane := range lanes {
				z := draw(rng, limit)
				o.set(lane, z)
				want[lane].Add(&want[lane], z.Mul(z, c))
			}
		}
		var got operand
		dot2(&got, a, b, coeffs)
		for lane := range lanes {
			check(t, fmt.Sprintf("%d+%d terms", len(a), len(b)), &got, lane, &want[lane])
		}
	}
}

func TestSbox8(t *testing.T) {
	needIFMA(t)
	rng := seeded(t)
	r := fr.Modulus()
	limit := new(big.Int).Mul(r, big.NewInt(bound))
	inverse := new(big.Int).ModInverse(new(big.Int).Lsh(big.NewInt(1), 260), r)
	for range 300 {
		n := 1 + rng.IntN(4)
		src, keys := make([]operand, n), make([]limb5, n)
		want := make([][lanes]*big.Int, n)
		for i := range n {
			key := draw(rng, r)
			keys[i] = limbs(key)
			for lane := range lanes {
				x := draw(rng, limit)
				src[i].set(lane, x)
				z := new(big.Int).Exp(x, big.NewInt(5), r)
				for range 4 {
					z.Mul(z, inverse)
				}
				want[i][lane] = z.Add(z, key).Mod(z, r)
			}
		}
		dst := make([]operand, n)
		if rng.IntN(2) == 0 {
			dst = src
		}
		sbox(dst, src, keys)
		for i := range n {
			for lane := range lanes {
				g := toBig(&dst[i], lane)
				if g.Cmp(new(big.Int).Lsh(r, 2)) >= 0 {
					t.Fatalf("S-box %d of %d: lane %d holds %x, 4r or more", i, n, lane, g)
				}
				if g.Mod(g, r).Cmp(want[i][lane]) != 0 {
					t.Fatalf("S-box %d of %d: lane %d holds %x, want %x", i, n, lane, g, want[i][lane])
				}
			}
		}
	}
}

// TestFormsAreEqual holds the eight-lane form and the one with ADX against the plain one:
// random preimages, and edges of the field.
func TestFormsAreEqual(t *testing.T) {
	if For(2).lanes == nil && For(2).single == nil {
		t.Skip("the processor has neither AVX-512 IFMA nor ADX")
	}
	rng := seeded(t)
	r := fr.Modulus()
	for arity := 1; arity <= MaxArity; arity++ {
		h := For(arity)
		for round := range 20 {
			n := 1 + rng.IntN(lanes)
			in := make([]fr.Element, n*arity)
			for i := range in {
				switch round {
				case 0: // zeros
				case 1:
					in[i].SetBigInt(new(big.Int).Sub(r, big.NewInt(1)))
				case 2: // the largest words in Montgomery form
					in[i] = fr.Element{0xffffffff00000000, 0x53bda402fffe5bfe, 0x3339d80809a1d805, 0x73eda753299d7d48}
				default:
					in[i].SetBigInt(draw(rng, r))
				}
			}
			lanes := make([]fr.Element, n)
			if h.lanes != nil {
				h.lanes.sum8(lanes, in, h.start)
			}
			for i := range n {
				preimage := in[i*arity : (i+1)*arity]
				var want, single fr.Element
				h.plain(&want, preimage)
				if h.lanes != nil && lanes[i] != want {
					t.Fatalf("arity %d, preimage %d of %d, %v: eight lanes %v, plain %v", arity, i, n, preimage, lanes[i], want)
				}
				if h.single == nil {
					continue
				}
				if h.single.sum(&single, preimage, h.start); single != want {
					t.Fatalf("arity %d, preimage %v: with ADX %v, plain %v", arity, preimage, single, want)
				}
			}
		}
	}
}

func TestDotADX(t *testing.T) {
	if !hasADX() {
		t.Skip("the processor has no ADX")
	}
	rng := seeded(t)
	r := fr.Modulus()
	inverse := new(big.Int).ModInverse(new(big.Int).Lsh(big.NewInt(1), 320), r)
	words := func(z *big.Int) (e fr.Element) {
		var b [32]byte
		z.FillBytes(b[:])
		for i := range e {
			e[i] = binary.BigEndian.Uint64(b[24-8*i:])
		}
		return e
	}
	for range 1000 {
		a, b := make([]fr.Element, 1+rng.IntN(MaxArity+1)), make([]fr.Element, 1+rng.IntN(MaxArity+1))
		coeffs := make([]fr.Element, len(a)+len(b))
		want := new(big.Int)
		for i := range coeffs {
			x, c := draw(rng, r), draw(rng, r)
			coeffs[i] = words(c)
			if i < len(a) {
				a[i] = words(x)
			} else {
				b[i-len(a)] = words(x)
			}
			want.Add(want, x.Mul(x, c))
		}
		want.Mul(want, inverse).Mod(want, r)
		var got fr.Element
		if dotLazy(&got, a, b, coeffs); got != words(want) {
			t.Fatalf("%d+%d terms: got words %x, want %x", len(a), len(b), got, words(want))
		}
	}
}

// BenchmarkForms times one preimage of each form, as far as the processor has it.
func BenchmarkForms(b *testing.B) {
	for _, arity := range []int{2, 8, 11} {
		h := For(arity)
		in := make([]fr.Element, arity)
		for i := range in {
			in[i].MustSetRandom()
		}
		var out fr.Element
		if h.single != nil {
			b.Run(fmt.Sprintf("ADX/%d", arity), func(b *testing.B) {
				for b.Loop() {
					h.single.sum(&out, in, h.start)
				}
			})
		}
		b.Run(fmt.Sprintf("plain/%d", arity), func(b *testing.B) {
			for b.Loop() {
				h.plain(&out, in)
			}
		})
	}
}
