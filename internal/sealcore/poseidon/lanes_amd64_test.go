//go:build !purego

package poseidon

import (
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

func toBig(o *operand, lane int) *big.Int {
	z := new(big.Int)
	for k := len(o) - 1; k >= 0; k-- {
		z.Lsh(z, 52).Add(z, new(big.Int).SetUint64(o[k][lane]))
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
// of 1/R, its limbs' size, and the bound xy/R + r.
func check(t *testing.T, name string, got *operand, lane int, product *big.Int) {
	t.Helper()
	r := fr.Modulus()
	inverse := new(big.Int).ModInverse(new(big.Int).Lsh(big.NewInt(1), 260), r)
	want := new(big.Int).Mul(product, inverse)
	want.Mod(want, r)
	g := toBig(got, lane)
	if new(big.Int).Mod(g, r).Cmp(want) != 0 {
		t.Errorf("%s: lane %d holds %x, want %x modulo r", name, lane, g, want)
	}
	for k := range got {
		if got[k][lane] > limbMask {
			t.Errorf("%s: lane %d: limb %d has more than 52 bits: %x", name, lane, k, got[k][lane])
		}
	}
	most := new(big.Int).Rsh(product, 260)
	if most.Add(most, r).Cmp(g) < 0 {
		t.Errorf("%s: lane %d holds %x, more than xy/R + r", name, lane, g)
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
					t.Errorf("S-box %d of %d: lane %d holds %x, 4r or more", i, n, lane, g)
				}
				if g.Mod(g, r).Cmp(want[i][lane]) != 0 {
					t.Errorf("S-box %d of %d: lane %d holds %x, want %x", i, n, lane, g, want[i][lane])
				}
			}
		}
	}
}

// TestLanesEqualScalar holds the eight-lane form against the one-lane one: random
// preimages, and edges of the field.
func TestLanesEqualScalar(t *testing.T) {
	needIFMA(t)
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
			got := make([]fr.Element, n)
			h.lanes.sum8(got, in, h.start)
			for i := range got {
				var want fr.Element
				h.sum(&want, in[i*arity:(i+1)*arity])
				if got[i] != want {
					t.Fatalf("arity %d, preimage %d of %d, %v: eight lanes %v, one lane %v",
						arity, i, n, in[i*arity:(i+1)*arity], got[i], want)
				}
			}
		}
	}
}
