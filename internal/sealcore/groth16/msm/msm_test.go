package msm

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/consensys/gnark-crypto/ecc"
	bls12381 "github.com/consensys/gnark-crypto/ecc/bls12-381"
	"github.com/consensys/gnark-crypto/ecc/bls12-381/fp"
	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"
)

func seeded(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func scalar(r *rand.Rand) (e fr.Element) {
	switch r.IntN(12) {
	case 0: // zero
	case 1:
		e.SetOne()
	case 2:
		e.SetOne()
		e.Neg(&e) // the largest
	case 3:
		e.SetUint64(r.Uint64N(1 << 16))
	case 4: // digits at the borders of windows
		e.SetUint64(0x8000_7fff_8001_ffff)
	default:
		var b [32]byte
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		e.SetBytes(b[:])
	}
	return e
}

// points returns multiples of the generators, with infinity and repetitions among them.
func points(r *rand.Rand, n int) ([]bls12381.G1Affine, []bls12381.G2Affine) {
	_, _, g1, g2 := bls12381.Generators()
	scalars := make([]fr.Element, n)
	for i := range scalars {
		if i > 0 && r.IntN(8) == 0 {
			scalars[i] = scalars[r.IntN(i)]
			if r.IntN(2) == 0 {
				scalars[i].Neg(&scalars[i])
			}
		} else {
			scalars[i] = scalar(r)
		}
	}
	return bls12381.BatchScalarMultiplicationG1(&g1, scalars), bls12381.BatchScalarMultiplicationG2(&g2, scalars)
}

func TestMultiExpAgreesWithGnark(t *testing.T) {
	r := seeded(t)
	for _, n := range []int{0, 1, 2, 3, 33, 500, 3000} {
		for _, threads := range []int{1, 2, 40} {
			t.Run(fmt.Sprint(n, "/", threads), func(t *testing.T) {
				p1, p2 := points(r, n)
				scalars := make([]fr.Element, n)
				for i := range scalars {
					scalars[i] = scalar(r)
				}
				terms := Terms{N: n, Scalar: func(i int) *fr.Element { return &scalars[i] }}
				opts := Options{Threads: threads}
				got1, err1 := MultiExp[fp.Element](context.Background(), G1Slice(p1), terms, opts)
				got2, err2 := MultiExp[bls12381.E2](context.Background(), G2Slice(p2), terms, opts)
				if err := errors.Join(err1, err2); err != nil {
					t.Fatal(err)
				}
				var want1 bls12381.G1Affine
				var want2 bls12381.G2Affine
				if n > 0 {
					_, err1 = want1.MultiExp(p1, scalars, ecc.MultiExpConfig{})
					_, err2 = want2.MultiExp(p2, scalars, ecc.MultiExpConfig{})
					if err := errors.Join(err1, err2); err != nil {
						t.Fatal(err)
					}
				}
				if got1 != G1(want1) || got2 != G2(want2) {
					t.Fatal("another sum than gnark-crypto's")
				}
			})
		}
	}
}

// Many equal scalars put all points into one bucket, which must halve, not queue.
func TestMultiExpOfOneBucketAndManyChunks(t *testing.T) {
	r := seeded(t)
	p1, _ := points(r, 1000)
	n := 2*chunk + 77
	five := fr.NewElement(5)
	got, err := MultiExp[fp.Element](context.Background(), G1Slice(p1),
		Terms{N: n, Index: func(i int) int { return i % len(p1) }, Scalar: func(int) *fr.Element { return &five }},
		Options{Threads: 33})
	if err != nil {
		t.Fatal(err)
	}
	var want bls12381.G1Jac
	for i := range p1 {
		times := big.NewInt(int64(5 * ((n - i + len(p1) - 1) / len(p1))))
		var p bls12381.G1Jac
		p.FromAffine(&p1[i])
		p.ScalarMultiplication(&p, times)
		want.AddAssign(&p)
	}
	var wantAffine bls12381.G1Affine
	wantAffine.FromJacobian(&want)
	if got != G1(wantAffine) {
		t.Fatal("wrong sum")
	}
}

func TestSumOfSelectedPoints(t *testing.T) {
	r := seeded(t)
	p1, p2 := points(r, 300)
	for _, n := range []int{0, 1, 2, 299, 2*sumChunk + 13} {
		indices := make([]uint32, n)
		var want1 bls12381.G1Jac
		var want2 bls12381.G2Jac
		for i := range indices {
			indices[i] = uint32(r.IntN(len(p1)))
			want1.AddMixed(&p1[indices[i]])
			want2.AddMixed(&p2[indices[i]])
		}
		got1, err1 := Sum[fp.Element](context.Background(), G1Slice(p1), indices, Options{Threads: 3})
		got2, err2 := Sum[bls12381.E2](context.Background(), G2Slice(p2), indices, Options{Threads: 3})
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		var a1 bls12381.G1Affine
		var a2 bls12381.G2Affine
		a1.FromJacobian(&want1)
		a2.FromJacobian(&want2)
		if got1 != G1(a1) || got2 != G2(a2) {
			t.Fatalf("wrong sum of %d points", n)
		}
	}
}

func TestTableMultipliesItsBase(t *testing.T) {
	r := seeded(t)
	_, _, g1, g2 := bls12381.Generators()
	for _, n := range []int{1, 10, 1500} {
		scalars := make([]fr.Element, n)
		for i := range scalars {
			scalars[i] = scalar(r)
		}
		t1, err1 := NewTable[fp.Element](context.Background(), G1(g1), n, Options{})
		t2, err2 := NewTable[bls12381.E2](context.Background(), G2(g2), n, Options{})
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		got1, got2 := make([]G1, n), make([]G2, n)
		t1.Multiplier().Mul(got1, scalars)
		t2.Multiplier().Mul(got2, scalars)
		want1 := bls12381.BatchScalarMultiplicationG1(&g1, scalars)
		want2 := bls12381.BatchScalarMultiplicationG2(&g2, scalars)
		for i := range scalars {
			if got1[i] != G1(want1[i]) || got2[i] != G2(want2[i]) {
				t.Fatalf("wrong multiple by %s", scalars[i].String())
			}
		}
	}
}

type failing struct {
	Slice[fp.Element]
	err error
}

func (f failing) Load(i int, p *G1) error {
	if i == 77 {
		return f.err
	}
	return f.Slice.Load(i, p)
}

func TestErrorsAndCancellation(t *testing.T) {
	p1, _ := points(seeded(t), 100)
	bad := failing{G1Slice(p1), errors.New("point 77 is spoilt")}
	two := fr.NewElement(2)
	terms := Terms{N: 100, Scalar: func(int) *fr.Element { return &two }}
	if _, err := MultiExp[fp.Element](context.Background(), bad, terms, Options{}); !errors.Is(err, bad.err) {
		t.Errorf("multi-exponentiation over a spoilt point: %v", err)
	}
	if _, err := Sum[fp.Element](context.Background(), bad, []uint32{1, 77}, Options{}); !errors.Is(err, bad.err) {
		t.Errorf("sum over a spoilt point: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := MultiExp[fp.Element](ctx, G1Slice(p1), terms, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled multi-exponentiation: %v", err)
	}
	if _, err := Sum[fp.Element](ctx, G1Slice(p1), []uint32{1}, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled sum: %v", err)
	}
	if _, err := NewTable[fp.Element](ctx, G1(p1[0]), 100, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled table: %v", err)
	}
}

func BenchmarkMultiExpG1(b *testing.B) {
	_, _, g1, _ := bls12381.Generators()
	const n = 1 << 20
	scalars := make([]fr.Element, n)
	for i := range scalars {
		scalars[i].SetRandom()
	}
	p := bls12381.BatchScalarMultiplicationG1(&g1, scalars)
	terms := Terms{N: n, Scalar: func(i int) *fr.Element { return &scalars[i] }}
	b.Run("ours", func(b *testing.B) {
		for b.Loop() {
			if _, err := MultiExp[fp.Element](context.Background(), G1Slice(p), terms, Options{}); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/point")
	})
	b.Run("gnark", func(b *testing.B) {
		for b.Loop() {
			var r bls12381.G1Affine
			if _, err := r.MultiExp(p, scalars, ecc.MultiExpConfig{}); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/point")
	})
}

func BenchmarkFixedBase(b *testing.B) {
	_, _, g1, g2 := bls12381.Generators()
	const n = 1 << 13
	scalars := make([]fr.Element, n)
	for i := range scalars {
		scalars[i].SetRandom()
	}
	for c := uint(12); c <= 16; c++ {
		b.Run(fmt.Sprint("g1-wide/", c), func(b *testing.B) { benchmarkTable(b, Widen((*G1)(&g1)), c, scalars) })
		b.Run(fmt.Sprint("g1-narrow/", c), func(b *testing.B) { benchmarkTable(b, G1(g1), c, scalars) })
		b.Run(fmt.Sprint("g2/", c), func(b *testing.B) { benchmarkTable(b, G2(g2), c, scalars) })
	}
}

func benchmarkTable[E any, PE Coord[E]](b *testing.B, base Point[E], c uint, scalars []fr.Element) {
	table, err := newTable[E, PE](context.Background(), base, c, Options{})
	if err != nil {
		b.Fatal(err)
	}
	dst, m := make([]Point[E], len(scalars)), table.Multiplier()
	for b.Loop() {
		m.Mul(dst, scalars)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(scalars)), "ns/point")
}
