package groth16

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"
	"pgregory.net/rapid"

	"sealfleet/internal/sealcore/r1cs"
	"sealfleet/internal/sealcore/r1cs/r1cstest"
)

// buffer is a file in memory.
type buffer struct {
	mu   sync.Mutex
	data []byte
}

func (b *buffer) WriteAt(p []byte, off int64) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if need := int(off) + len(p); need > len(b.data) {
		b.data = append(b.data, make([]byte, need-len(b.data))...)
	}
	return copy(b.data[off:], p), nil
}

func setUp(t interface {
	Helper()
	Fatal(...any)
}, circuit Circuit) *Params {
	t.Helper()
	var file buffer
	key, err := Setup(context.Background(), circuit, rand.Reader, Options{}, &file)
	if err != nil {
		t.Fatal(err)
	}
	p, err := ParseParams(file.data)
	if err != nil {
		t.Fatal(err)
	}
	if !p.SameKey(key) {
		t.Fatal("the returned key is not the one in the file")
	}
	if err := p.CheckCurve(context.Background(), Options{}); err != nil {
		t.Fatal(err)
	}
	return p
}

func toy(x uint64, n int) Circuit {
	return func(_ context.Context, sink r1cs.Sink) error {
		r1cstest.Toy(sink, x, n)
		return nil
	}
}

func TestOwnParametersHaveTheReferencesShape(t *testing.T) {
	v := smallVector(t)
	p := setUp(t, v.circuit)
	for i, s := range p.sections() {
		if want := v.params.sections()[i]; s.len() != want.len() {
			t.Errorf("section %s has %d points, the reference's %d", s.name, s.len(), want.len())
		}
	}
	proof, inputs, err := Prove(t.Context(), p, toy(23, v.n), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := mustVerifier(t, p.Key).Verify(proof, inputs); err != nil {
		t.Error(err)
	}
	if err := mustVerifier(t, v.key).Verify(proof, inputs); !errors.Is(err, ErrInvalidProof) {
		t.Errorf("under the reference's key: %v", err)
	}
}

// random draws a circuit of products of linear combinations, with repeated, cancelling
// and zero terms, constants, inputs in A, B and C, and bits among the values.
func random(t *rapid.T) Circuit {
	type step struct {
		a, b, slack []uint64 // pairs: variable, coefficient
		input       bool
		bit         uint8
	}
	var steps []step
	terms := rapid.SliceOfN(rapid.Uint64(), 2, 12)
	for range rapid.IntRange(1, 60).Draw(t, "constraints") {
		steps = append(steps, step{
			terms.Draw(t, "a"), terms.Draw(t, "b"), terms.Draw(t, "slack"),
			rapid.IntRange(0, 9).Draw(t, "input") == 0, rapid.Uint8Range(0, 2).Draw(t, "bit"),
		})
	}
	return func(_ context.Context, sink r1cs.Sink) error {
		vars, values := []r1cs.Var{r1cs.One}, []fr.Element{one}
		alloc := func(v fr.Element, input bool) r1cs.Var {
			var x r1cs.Var
			if input {
				x = sink.AllocInput(v)
			} else {
				x = sink.AllocAux(v)
			}
			vars, values = append(vars, x), append(values, v)
			return x
		}
		combination := func(raw []uint64) (lc r1cs.LC, sum fr.Element) {
			for i := 0; i+1 < len(raw); i += 2 {
				k := int(raw[i] % uint64(len(vars)))
				c := fr.NewElement(raw[i+1] % 4)
				if raw[i+1]&16 != 0 {
					c.Neg(&c)
				}
				lc = append(lc, r1cs.Term{Var: vars[k], Coeff: c})
				var x fr.Element
				sum.Add(&sum, x.Mul(&c, &values[k]))
			}
			return lc, sum
		}
		// The first variable is in A alone and another in B alone; sections b have a point.
		x := alloc(fr.NewElement(3), false)
		y := alloc(fr.NewElement(5), false)
		z := alloc(fr.NewElement(15), true)
		sink.Enforce(r1cs.LC{{Var: x, Coeff: one}}, r1cs.LC{{Var: y, Coeff: one}}, r1cs.LC{{Var: z, Coeff: one}})
		for _, s := range steps {
			// a·b = slack + new, so every variable is constrained.
			a, va := combination(s.a)
			b, vb := combination(s.b)
			c, vc := combination(s.slack)
			var v fr.Element
			v.Mul(&va, &vb)
			v.Sub(&v, &vc)
			if s.bit < 2 { // make the new variable a bit by moving the rest into the constant
				bit := fr.NewElement(uint64(s.bit))
				v.Sub(&v, &bit)
				c = append(c, r1cs.Term{Var: r1cs.One, Coeff: v})
				v = bit
			}
			sink.Enforce(a, b, append(c, r1cs.Term{Var: alloc(v, s.input), Coeff: one}))
		}
		return nil
	}
}

func TestRandomCircuits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		circuit := random(t)
		p := setUp(t, circuit)
		proof, inputs, err := Prove(context.Background(), p, circuit, Options{})
		if err != nil {
			t.Fatal(err)
		}
		v, err := NewVerifier(p.Key)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := ParseProof(proof.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Verify(parsed, inputs); err != nil {
			t.Fatal(err)
		}
		k := rapid.IntRange(0, len(inputs)-1).Draw(t, "which input")
		inputs[k].Add(&inputs[k], &one)
		if err := v.Verify(parsed, inputs); !errors.Is(err, ErrInvalidProof) {
			t.Fatalf("with another input: %v", err)
		}
	})
}

func TestSetupRefusesAnUnconstrainedVariable(t *testing.T) {
	circuit := func(_ context.Context, sink r1cs.Sink) error {
		r1cstest.Toy(sink, 7, 20)
		sink.AllocAux(one)
		return nil
	}
	_, err := Setup(t.Context(), circuit, rand.Reader, Options{}, &buffer{})
	if !errors.Is(err, ErrUnconstrained) {
		t.Errorf("got %v", err)
	}
}

func TestSetupRefusesACircuitThatChanges(t *testing.T) {
	for _, second := range []int{19, 21, 5, 40} {
		n := 20
		circuit := func(_ context.Context, sink r1cs.Sink) error {
			r1cstest.Toy(sink, 7, n)
			n = second
			return nil
		}
		if _, err := Setup(t.Context(), circuit, rand.Reader, Options{}, &buffer{}); err == nil {
			t.Errorf("20 steps on the first run and %d on the second: no error", second)
		}
	}
}

func TestSetupPassesErrorsOn(t *testing.T) {
	broken := errors.New("broken")
	circuit := func(context.Context, r1cs.Sink) error { return broken }
	if _, err := Setup(t.Context(), circuit, rand.Reader, Options{}, &buffer{}); !errors.Is(err, broken) {
		t.Errorf("circuit: %v", err)
	}
	if _, err := Setup(t.Context(), toy(7, 5), io.LimitReader(rand.Reader, 100), Options{}, &buffer{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("randomness: %v", err)
	}
	if _, err := Setup(t.Context(), toy(7, 5), rand.Reader, Options{}, failingWriter{broken}); !errors.Is(err, broken) {
		t.Errorf("writer: %v", err)
	}
	// Cancelled while it makes points.
	ctx, cancel := context.WithCancel(t.Context())
	o := Options{Progress: func(step string, _, _ uint64) {
		if step == "points" {
			cancel()
		}
	}}
	if _, err := Setup(ctx, toy(7, 5), rand.Reader, o, &buffer{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

type failingWriter struct{ error }

func (w failingWriter) WriteAt([]byte, int64) (int, error) { return 0, w.error }

func TestMakeOnceForAll(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "cache")
	if err := Find(dir, "toy"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("before: %v", err)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	makers := 0
	for range 4 {
		wg.Go(func() {
			made, err := Make(t.Context(), dir, "toy", "test", toy(7, 30), Options{})
			if err != nil {
				t.Error(err)
			}
			if made {
				mu.Lock()
				makers++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if makers != 1 {
		t.Errorf("%d of them made the parameters", makers)
	}
	p, err := Load(dir, "toy")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, _, err := Prove(t.Context(), p, toy(11, 30), Options{}); err != nil {
		t.Error(err)
	}
	if ours, err := Development(dir, "toy", p.Key); err != nil || !ours {
		t.Errorf("marked for development: %v, %v", ours, err)
	}
	if ours, err := Development(dir, "toy", smallVector(t).key); err != nil || ours {
		t.Errorf("another key under the same mark: %v, %v", ours, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Errorf("the directory holds %v (%v), not three files", entries, err)
	}
}

func TestMakeWritesOverNothingForeign(t *testing.T) {
	for _, path := range []func(dir, id string) string{ParamsPath, KeyPath} {
		dir := t.TempDir()
		if err := os.WriteFile(path(dir, "toy"), []byte("precious"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Make(t.Context(), dir, "toy", "test", toy(7, 30), Options{}); err == nil {
			t.Error("it went to work beside a file that it did not make")
		}
		if data, err := os.ReadFile(path(dir, "toy")); err != nil || string(data) != "precious" {
			t.Errorf("the file is now %q (%v)", data, err)
		}
	}
}

func TestMakeAfterAnInterruption(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	o := Options{Progress: func(step string, _, _ uint64) {
		if step == "tables" {
			cancel()
		}
	}}
	if _, err := Make(ctx, dir, "toy", "test", toy(7, 30), o); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled: %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if made, err := Make(t.Context(), dir, "toy", "test", toy(7, 30), Options{}); err != nil || !made {
		t.Errorf("again: %v, %v", made, err)
	}
}

func ExampleMissingError() {
	err := Find("/nonexistent", "stacked-proof")
	fmt.Println(err)
	// Output: the circuit's parameters are missing: there is no /nonexistent/v28-stacked-proof.params; fetch Filecoin's published file of that name, or, for development only, make it with `consumer params`
}
