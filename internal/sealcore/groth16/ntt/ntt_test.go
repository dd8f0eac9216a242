package ntt

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"
	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr/fft"
	"github.com/consensys/gnark-crypto/utils"
)

func randomVector(t testing.TB, n int) []fr.Element {
	v := make(fr.Vector, n)
	if err := v.SetRandom(); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestTransformsAreGnarks(t *testing.T) {
	for _, log := range []int{0, 1, 2, 3, 4, 5, 6, 9, 10, 11, 14, 15, 16, 17} {
		for _, threads := range []int{1, 3} {
			t.Run(fmt.Sprint(log, "/", threads), func(t *testing.T) {
				n := 1 << log
				d, err := New(n, threads)
				if err != nil {
					t.Fatal(err)
				}
				g := fft.NewDomain(uint64(n))
				size := fr.NewElement(uint64(n))
				v := randomVector(t, n)

				got, want := append([]fr.Element(nil), v...), append([]fr.Element(nil), v...)
				if err := d.Interpolate(t.Context(), got); err != nil {
					t.Fatal(err)
				}
				g.FFTInverse(want, fft.DIF)
				for i := range want {
					want[i].Mul(&want[i], &size)
				}
				equal(t, "interpolated", got, want)

				copy(got, v)
				copy(want, v)
				if err := d.Evaluate(t.Context(), got); err != nil {
					t.Fatal(err)
				}
				g.FFT(want, fft.DIT)
				equal(t, "evaluated", got, want)

				copy(got, v)
				copy(want, v)
				if err := d.BitReverse(t.Context(), got); err != nil {
					t.Fatal(err)
				}
				utils.BitReverse(want)
				equal(t, "bits reversed", got, want)

				copy(got, v)
				copy(want, v)
				if err := d.ScalePowers(t.Context(), got, g.FrMultiplicativeGen, fr.One()); err != nil {
					t.Fatal(err)
				}
				if err := d.Evaluate(t.Context(), got); err != nil {
					t.Fatal(err)
				}
				g.FFT(want, fft.DIT, fft.OnCoset())
				equal(t, "evaluated on the coset", got, want)
			})
		}
	}
}

func equal(t *testing.T, what string, got, want []fr.Element) {
	t.Helper()
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("%s: element %d differs", what, i)
		}
	}
}

func TestNoDomainOfThatSize(t *testing.T) {
	for _, n := range []int{-4, 0, 3, 1000, 1 << 33} {
		if _, err := New(n, 1); err == nil {
			t.Errorf("%d roots of unity", n)
		}
	}
}

func TestTransformStopsWhenCancelled(t *testing.T) {
	d, err := New(1<<10, 2)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, f := range map[string]func(context.Context, []fr.Element) error{"Interpolate": d.Interpolate, "Evaluate": d.Evaluate} {
		if err := f(ctx, make([]fr.Element, 1<<10)); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkInterpolate(b *testing.B) {
	const n = 1 << 20
	v := randomVector(b, n)
	b.Run("ours", func(b *testing.B) {
		d, err := New(n, 2)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if err := d.Interpolate(b.Context(), v); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("gnark", func(b *testing.B) {
		d := fft.NewDomain(n)
		for b.Loop() {
			d.FFTInverse(v, fft.DIF, fft.WithNbTasks(2))
		}
	})
}
