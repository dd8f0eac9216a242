package msm

import (
	"context"
	"testing"

	bls12381 "github.com/consensys/gnark-crypto/ecc/bls12-381"
	"github.com/consensys/gnark-crypto/ecc/bls12-381/fp"
	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"
)

// wideSource gives narrow points as wide ones.
type wideSource struct{ Slice[fp.Element] }

func (s wideSource) Load(i int, p *G1Wide) error { *p = Widen(&s.Slice[i]); return nil }

func TestWideElementsAreFieldElements(t *testing.T) {
	r := seeded(t)
	elements := make([]fp.Element, 200)
	for i := range elements {
		switch i {
		case 0:
		case 1:
			elements[i].SetOne()
		case 2:
			elements[i].SetOne()
			elements[i].Neg(&elements[i])
		default:
			for k := range elements[i] {
				elements[i][k] = r.Uint64()
			}
			elements[i][5] >>= 4 // below the modulus
		}
	}
	widen := func(e fp.Element) (w Wide) { p := Widen(&G1{X: e}); return p.X }
	narrow := func(w Wide) fp.Element { p := Narrow(&G1Wide{X: w}); return p.X }
	for i, x := range elements {
		y := elements[(i+7)%len(elements)]
		wx, wy := widen(x), widen(y)
		if r.IntN(2) == 0 && !y.IsZero() { // another name of the same element, above p
			var minus Wide
			minus.Neg(&wy)
			wy.Neg(&minus)
		}
		var w Wide
		var e fp.Element
		for _, c := range []struct {
			name string
			got  Wide
			want fp.Element
		}{
			{"itself", wy, y},
			{"x+y", *w.Add(&wx, &wy), *e.Add(&x, &y)},
			{"x-y", *w.Sub(&wx, &wy), *e.Sub(&x, &y)},
			{"x·y", *w.Mul(&wx, &wy), *e.Mul(&x, &y)},
			{"y²", *w.Square(&wy), *e.Square(&y)},
			{"2y", *w.Double(&wy), *e.Double(&y)},
			{"-x", *w.Neg(&wx), *e.Neg(&x)},
			{"1/x", *w.Inverse(&wx), *e.Inverse(&x)},
			{"1", *w.SetOne(), *e.SetOne()},
		} {
			if narrow(c.got) != c.want || c.got.IsZero() != c.want.IsZero() {
				t.Fatalf("element %d: %s differs", i, c.name)
			}
		}
		b := x.Bytes()
		if err := w.SetBytes(b[:]); err != nil || narrow(w) != x || string(w.AppendBytes(nil)) != string(b[:]) {
			t.Fatalf("element %d: bytes differ (%v)", i, err)
		}
	}
	p := fp.Modulus().Bytes()
	if err := new(Wide).SetBytes(p); err == nil {
		t.Error("the modulus is taken for an element")
	}
}

// The eight lanes must do what the one lane does, special pairs included.
func TestWideAdditions(t *testing.T) {
	if !HasWide() {
		t.Skip("this processor has no AVX-512 IFMA")
	}
	r := seeded(t)
	p1, _ := points(r, 400)
	narrow := newAdder[fp.Element]()
	wide := newAdder[Wide]()
	for round := range 60 {
		n := 1 + r.IntN(batch)
		fast := true
		for i := range n {
			a, b := G1(p1[r.IntN(len(p1))]), G1(p1[r.IntN(len(p1))])
			if round%2 == 0 { // no doubling, no pair that cancels: the fast way is taken
				for a.X == b.X && !isInfinity[fp.Element](&a) {
					a, b = G1(p1[r.IntN(len(p1))]), G1(p1[r.IntN(len(p1))])
				}
			}
			fast = fast && (a.X != b.X || isInfinity[fp.Element](&a) || isInfinity[fp.Element](&b))
			narrow.a[i], narrow.b[i] = a, b
			wide.a[i], wide.b[i] = Widen(&a), Widen(&b)
			if r.IntN(2) == 0 && !isInfinity[fp.Element](&a) {
				var minus fp.Element
				minus.Neg(&b.Y)
				w := Widen(&G1{b.X, minus})
				wide.b[i].Y.Neg(&w.Y) // the same, but above p
			}
		}
		narrow.run(n)
		if done := wide.fast(n); done != fast {
			t.Fatalf("%d pairs: the fast way was taken: %v, not %v", n, done, fast)
		} else if !done {
			wide.run(n)
		}
		for i := range n {
			if Narrow(&wide.a[i]) != narrow.a[i] {
				t.Fatalf("round %d (fast: %v), %d pairs: sum %d differs", round, fast, n, i)
			}
		}
	}
}

func TestWideSumsAgree(t *testing.T) {
	r := seeded(t)
	_, _, g1, _ := bls12381.Generators()
	p1, _ := points(r, 3000)
	scalars := make([]fr.Element, len(p1))
	indices := make([]uint32, len(p1))
	for i := range scalars {
		scalars[i] = scalar(r)
		indices[i] = uint32(r.IntN(len(p1)))
	}
	terms := Terms{N: len(p1), Scalar: func(i int) *fr.Element { return &scalars[i] }}
	want, err := MultiExp[fp.Element](context.Background(), G1Slice(p1), terms, Options{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := MultiExp[Wide](context.Background(), wideSource{G1Slice(p1)}, terms, Options{})
	if err != nil || Narrow(&got) != want {
		t.Errorf("multi-exponentiation: another sum (%v)", err)
	}
	want, err = Sum[fp.Element](context.Background(), G1Slice(p1), indices, Options{})
	if err != nil {
		t.Fatal(err)
	}
	got, err = Sum[Wide](context.Background(), wideSource{G1Slice(p1)}, indices, Options{})
	if err != nil || Narrow(&got) != want {
		t.Errorf("sum: another one (%v)", err)
	}
	generator := G1(g1)
	table, err := NewTable[Wide](context.Background(), Widen(&generator), len(scalars), Options{})
	if err != nil {
		t.Fatal(err)
	}
	multiples := make([]G1Wide, len(scalars))
	table.Multiplier().Mul(multiples, scalars)
	for i, want := range bls12381.BatchScalarMultiplicationG1(&g1, scalars) {
		if Narrow(&multiples[i]) != G1(want) {
			t.Fatalf("the multiple by %s differs", scalars[i].String())
		}
	}
}

func BenchmarkAdditions(b *testing.B) {
	r := seeded(b)
	p1, _ := points(r, batch)
	b.Run("narrow", func(b *testing.B) {
		s := newAdder[fp.Element]()
		for b.Loop() {
			for i := range batch {
				s.a[i], s.b[i] = G1(p1[i]), G1(p1[(i+1)%batch])
			}
			s.run(batch)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/batch, "ns/addition")
	})
	b.Run("wide", func(b *testing.B) {
		_, _, g, _ := bls12381.Generators()
		generator := G1(g)
		table, err := NewTable[Wide](context.Background(), Widen(&generator), 100_000, Options{})
		if err != nil {
			b.Fatal(err)
		}
		s, from := newAdder[Wide](), table.windows[0]
		for b.Loop() {
			copy(s.a, from[:batch])
			copy(s.b, from[batch:])
			s.run(batch)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/batch, "ns/addition")
	})
}
