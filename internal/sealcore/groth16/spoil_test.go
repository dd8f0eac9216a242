package groth16

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bls12381 "github.com/consensys/gnark-crypto/ecc/bls12-381"
	"github.com/consensys/gnark-crypto/ecc/bls12-381/fp"
	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/r1cs"
)

// outsideG1 and outsideG2 return points that are on the curve but not in the subgroup.
func outsideG1(t testing.TB) bls12381.G1Affine {
	for x := uint64(1); x < 1000; x++ {
		var p bls12381.G1Affine
		p.X.SetUint64(x)
		var y2, four fp.Element
		four.SetUint64(4)
		y2.Square(&p.X).Mul(&y2, &p.X).Add(&y2, &four)
		if p.Y.Sqrt(&y2) != nil && !p.IsInSubGroup() {
			return p
		}
	}
	panic("found none")
}

func outsideG2(t testing.TB) bls12381.G2Affine {
	for x := uint64(1); x < 1000; x++ {
		var p bls12381.G2Affine
		p.X.A0.SetUint64(x)
		var y2, b bls12381.E2
		b.A0.SetUint64(4)
		b.A1.SetUint64(4)
		y2.Square(&p.X).Mul(&y2, &p.X).Add(&y2, &b)
		if y2.Legendre() == 1 {
			p.Y.Sqrt(&y2)
			if p.IsOnCurve() && !p.IsInSubGroup() {
				return p
			}
		}
	}
	panic("found none")
}

func with(data []byte, at int, part []byte) []byte {
	out := bytes.Clone(data)
	copy(out[at:], part)
	return out
}

func TestSpoiltProofsAreRefusedWithAReason(t *testing.T) {
	v := smallVector(t)
	verifier := mustVerifier(t, v.key)
	out1, out2 := outsideG1(t), outsideG2(t)
	o1, o2 := out1.Bytes(), out2.Bytes()
	_, _, g1, g2 := bls12381.Generators()
	raw1 := g1.RawBytes()
	infinity := append([]byte{0xc0}, make([]byte, 95)...)
	for name, c := range map[string]struct {
		proof  []byte
		reason string
	}{
		"empty":                         {nil, "0 bytes instead of 192"},
		"cut":                           {v.proof[:191], "191 bytes instead of 192"},
		"padded":                        {append(bytes.Clone(v.proof), 0), "193 bytes instead of 192"},
		"zeros":                         {make([]byte, 192), "not compressed"},
		"A uncompressed":                {with(v.proof, 0, raw1[:48]), "not compressed"},
		"A outside of the subgroup":     {with(v.proof, 0, o1[:]), "subgroup"},
		"B outside of the subgroup":     {with(v.proof, 48, o2[:]), "subgroup"},
		"C outside of the subgroup":     {with(v.proof, 144, o1[:]), "subgroup"},
		"A infinite":                    {with(v.proof, 0, infinity[:48]), "infinity"},
		"B infinite":                    {with(v.proof, 48, infinity), "infinity"},
		"C infinite":                    {with(v.proof, 144, infinity[:48]), "infinity"},
		"C infinite with a sign":        {with(v.proof, 144, append([]byte{0xe0}, infinity[1:48]...)), "infinity"},
		"C above the field":             {with(v.proof, 144, bytes.Repeat([]byte{0x9f}, 48)), "point C"},
		"B with a part above the field": {with(v.proof, 96, bytes.Repeat([]byte{0xff}, 48)), "point B"},
	} {
		_, err := ParseProof(c.proof)
		if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Well-formed, but not this proof: each point replaced by another of the group.
	for name, spoil := range map[string]func(p *Proof){
		"A":            func(p *Proof) { p.A = g1 },
		"B":            func(p *Proof) { p.B = g2 },
		"C":            func(p *Proof) { p.C = g1 },
		"A negative":   func(p *Proof) { p.A.Neg(&p.A) },
		"A and C":      func(p *Proof) { p.A, p.C = p.C, p.A },
		"C infinite":   func(p *Proof) { p.C.SetInfinity() },
		"A infinite":   func(p *Proof) { p.A.SetInfinity() },
		"all infinite": func(p *Proof) { *p = Proof{} },
	} {
		p := *mustProof(t, v.proof)
		spoil(&p)
		if err := verifier.Verify(&p, v.inputs); !errors.Is(err, ErrInvalidProof) {
			t.Errorf("%s replaced: %v", name, err)
		}
	}
}

// No single bit of a proof can be flipped, and none of an input.
func TestEveryFlippedBitOfAProofIsRefused(t *testing.T) {
	v := smallVector(t)
	verifier := mustVerifier(t, v.key)
	step := 1
	if testing.Short() {
		step = 13
	}
	malformed := 0
	for bit := 0; bit < 8*ProofSize; bit += step {
		data := bytes.Clone(v.proof)
		data[bit/8] ^= 1 << (bit % 8)
		p, err := ParseProof(data)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("bit %d: %v", bit, err)
			}
			malformed++
			continue
		}
		// The sign of A, B or C, or (with negligible probability) another point of the group.
		if err := verifier.Verify(p, v.inputs); !errors.Is(err, ErrInvalidProof) {
			t.Errorf("bit %d: %v", bit, err)
		}
	}
	if step == 1 && malformed != 8*ProofSize-3 {
		t.Errorf("%d flips gave a point, not only those of the three signs", 8*ProofSize-malformed)
	}
}

func TestWrongInputsAreRefused(t *testing.T) {
	key, proof, inputs := sectorVector(t)
	verifier := mustVerifier(t, key)
	check := func(name string, inputs []fr.Element, want error) {
		t.Helper()
		if err := verifier.Verify(proof, inputs); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	check("none", nil, ErrInputs)
	check("one too few", inputs[1:], ErrInputs)
	check("one too many", append(inputs[:len(inputs):len(inputs)], one), ErrInputs)
	for i := range inputs {
		changed := append([]fr.Element(nil), inputs...)
		changed[i].Add(&changed[i], &one)
		check("one changed", changed, ErrInvalidProof)
		if k := (i + 1) % len(inputs); inputs[i] != inputs[k] {
			swapped := append([]fr.Element(nil), inputs...)
			swapped[i], swapped[k] = swapped[k], swapped[i]
			check("two swapped", swapped, ErrInvalidProof)
		}
	}
	modulus := sealcore.Domain{0x01, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xfe, 0x5b, 0xfe, 0xff, 0x02, 0xa4, 0xbd, 0x53,
		0x05, 0xd8, 0xa1, 0x09, 0x08, 0xd8, 0x39, 0x33, 0x48, 0x7d, 0x9d, 0x29, 0x53, 0xa7, 0xed, 0x73}
	if _, err := ParseInputs([]sealcore.Domain{{}, modulus}); !errors.Is(err, ErrInputs) {
		t.Errorf("the modulus as an input: %v", err)
	}
}

func TestBatchNamesTheFalseProof(t *testing.T) {
	v := smallVector(t)
	verifier := mustVerifier(t, v.key)
	var proofs []*Proof
	var inputs [][]fr.Element
	for x := uint64(7); x < 12; x++ {
		proof, in, err := Prove(t.Context(), v.params, toy(x, v.n), Options{})
		if err != nil {
			t.Fatal(err)
		}
		proofs, inputs = append(proofs, proof), append(inputs, in)
	}
	for n := range len(proofs) + 1 {
		if err := verifier.VerifyBatch(proofs[:n], inputs[:n]); err != nil {
			t.Errorf("%d good proofs: %v", n, err)
		}
	}
	inputs[1], inputs[3] = inputs[3], inputs[1]
	if err := verifier.VerifyBatch(proofs, inputs); !errors.Is(err, ErrInvalidProof) || !strings.Contains(err.Error(), "proof 1:") {
		t.Errorf("inputs of 1 and 3 exchanged: %v", err)
	}
	if err := verifier.VerifyBatch(proofs[:1], inputs[1:2]); !errors.Is(err, ErrInvalidProof) {
		t.Errorf("one false proof: %v", err)
	}
	inputs[1], inputs[3] = inputs[3], inputs[1]
	// Two errors that would cancel each other without the random factors.
	first, second := *proofs[0], *proofs[1]
	_, _, g1, _ := bls12381.Generators()
	first.C.Add(&first.C, &g1)
	second.C.Sub(&second.C, &g1)
	if err := verifier.VerifyBatch([]*Proof{&first, &second}, inputs[:2]); !errors.Is(err, ErrInvalidProof) {
		t.Errorf("two false proofs that cancel: %v", err)
	}
	if err := verifier.VerifyBatch(proofs, inputs[:4]); !errors.Is(err, ErrInputs) {
		t.Errorf("inputs for one proof missing: %v", err)
	}
	inputs[4] = nil
	if err := verifier.VerifyBatch(proofs, inputs); !errors.Is(err, ErrInputs) {
		t.Errorf("no inputs for the last proof: %v", err)
	}
}

func TestSpoiltKeysAreRefusedWithAReason(t *testing.T) {
	data := read(t, "groth16-small.vk")
	out1, out2 := outsideG1(t), outsideG2(t)
	o1, o2 := out1.RawBytes(), out2.RawBytes()
	infinity := append([]byte{0x40}, make([]byte, 191)...)
	const betaG2, delta, count, ic = 192, 576, 864, 868
	for name, c := range map[string]struct {
		data   []byte
		reason string
	}{
		"empty":                      {nil, "alpha in G1"},
		"cut in a point":             {data[:500], "ends after 500 bytes"},
		"cut before the count":       {data[:count], "the number of input points"},
		"cut in the inputs":          {data[:len(data)-1], "2 points of 96 bytes are announced, but 191 bytes are left"},
		"padded":                     {append(bytes.Clone(data), 0), "1 bytes follow"},
		"count too large":            {with(data, count, []byte{0xff, 0xff, 0xff, 0xff}), "4294967295 points"},
		"count too small":            {with(data, count, []byte{0, 0, 0, 1}), "96 bytes follow"},
		"no inputs":                  {with(data[:ic], count, []byte{0, 0, 0, 0}), "not even for the constant one"},
		"alpha off the curve":        {with(data, 95, []byte{data[95] ^ 1}), "alpha in G1: malformed: the point is not on the curve"},
		"alpha outside the subgroup": {with(data, 0, o1[:]), "alpha in G1: malformed: the point is not in the subgroup"},
		"beta outside the subgroup":  {with(data, betaG2, o2[:]), "beta in G2: malformed: the point is not in the subgroup"},
		"alpha infinite":             {with(data, 0, infinity[:96]), "infinity"},
		"delta infinite":             {with(data, delta, infinity[:96]), "infinity"},
		"alpha compressed":           {with(data, 0, []byte{data[0] | 0x80}), "no uncompressed point"},
		"alpha above the field":      {with(data, 0, bytes.Repeat([]byte{0x1f}, 48)), "modulus"},
		"input outside the subgroup": {with(data, ic, o1[:]), "input points: malformed: the point is not in the subgroup"},
		"another delta in G1":        {with(data, delta, data[:96]), "beta and delta"},
	} {
		_, err := ParseVerifyingKey(c.data)
		if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSpoiltParametersAreRefusedWithAReason(t *testing.T) {
	data := read(t, "groth16-small.params")
	const key = 1060
	afterH := key + 4 + 1023*96
	for name, c := range map[string]struct {
		data   []byte
		reason string
	}{
		"empty":               {nil, "ends after 0 bytes"},
		"a key alone":         {data[:key], "the number of points of section h"},
		"cut in h":            {data[:key+1000], "section h: malformed: 1023 points of 96 bytes are announced"},
		"cut after h":         {data[:afterH], "the number of points of section l"},
		"last byte gone":      {data[:len(data)-1], "section b_g2: malformed: 501 points of 192 bytes are announced"},
		"padded":              {append(bytes.Clone(data), 0), "1 bytes follow"},
		"h too long":          {with(data, key, []byte{0x80}), "section h: malformed: 2147484671 points"},
		"first of h off":      {with(data, key+4+95, []byte{data[key+4+95] ^ 1}), "point 0 of section h: malformed: the point is not on the curve"},
		"last of b_g2 off":    {with(data, len(data)-1, []byte{data[len(data)-1] ^ 1}), "point 500 of section b_g2"},
		"first of l infinite": {with(data, afterH+4, append([]byte{0x40}, make([]byte, 95)...)), "infinity"},
	} {
		_, err := ParseParams(c.data)
		if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Damage where no sample is taken must come out at the latest in the proof's own
// verification, and then be named.
func TestDamageBetweenTheSamplesIsNamed(t *testing.T) {
	v := smallVector(t)
	data := read(t, "groth16-small.params")
	const inH = 1060 + 4 + 10*96
	for _, c := range []struct {
		at     int
		reason string
	}{
		{inH + 95, "point 10 of section h: malformed: the point is not on the curve"},
		{inH, "point 10 of section h: malformed"}, // a flag
		{len(data) - 3*192 + 5, "point 498 of section b_g2"},
	} {
		damaged := bytes.Clone(data)
		damaged[c.at] ^= 0x41
		p, err := ParseParams(damaged)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = Prove(t.Context(), p, v.circuit, Options{})
		if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("byte %d: %v", c.at, err)
		}
	}
}

func TestProveRefusesAnotherCircuit(t *testing.T) {
	v := smallVector(t)
	for name, circuit := range map[string]Circuit{
		"longer":   toy(v.x, 2000),
		"one more": toy(v.x, v.n+1),
		"one less": toy(v.x, v.n-1),
		"shorter":  toy(v.x, 10),
		"empty":    func(context.Context, r1cs.Sink) error { return nil },
		"two more inputs": func(ctx context.Context, sink r1cs.Sink) error {
			sink.AllocInput(one)
			sink.AllocInput(one)
			return v.circuit(ctx, sink)
		},
		"another density": func(ctx context.Context, sink r1cs.Sink) error {
			return v.circuit(ctx, turned{sink, func(a, b, c r1cs.LC) (r1cs.LC, r1cs.LC, r1cs.LC) { return c, b, a }})
		},
		"the same size": func(ctx context.Context, sink r1cs.Sink) error {
			return v.circuit(ctx, turned{sink, func(a, b, c r1cs.LC) (r1cs.LC, r1cs.LC, r1cs.LC) { return b, a, c }})
		},
	} {
		if _, _, err := Prove(t.Context(), v.params, circuit, Options{}); !errors.Is(err, ErrOtherCircuit) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// turned changes the order within the constraints (2y + 3x + 5) · 1 = z.
type turned struct {
	r1cs.Sink
	turn func(a, b, c r1cs.LC) (r1cs.LC, r1cs.LC, r1cs.LC)
}

func (s turned) Enforce(a, b, c r1cs.LC) {
	if len(a) == 3 {
		a, b, c = s.turn(a, b, c)
	}
	s.Sink.Enforce(a, b, c)
}

func TestProveRefusesFalseValues(t *testing.T) {
	v := smallVector(t)
	circuit := func(ctx context.Context, sink r1cs.Sink) error {
		return v.circuit(ctx, &lying{Sink: sink})
	}
	_, _, err := Prove(t.Context(), v.params, circuit, Options{})
	if !errors.Is(err, ErrUnsatisfied) || !strings.Contains(err.Error(), "number 114, of 572") {
		t.Errorf("got %v", err)
	}
}

// lying gives the 116th auxiliary variable another value than its constraint asks for.
type lying struct {
	r1cs.Sink
	n int
}

func (s *lying) AllocAux(v fr.Element) r1cs.Var {
	if s.n++; s.n == 116 {
		v.Add(&v, &one)
	}
	return s.Sink.AllocAux(v)
}

func TestProveStopsWhenCancelled(t *testing.T) {
	v := smallVector(t)
	for _, at := range []string{"synthesis", "fft", "msm h", "msm l", "msm a", "msm b1", "msm b2"} {
		ctx, cancel := context.WithCancel(t.Context())
		seen := false
		_, _, err := Prove(ctx, v.params, v.circuit, Options{Progress: func(step string, _, _ uint64) {
			if step == at {
				seen = true
				cancel()
			}
		}})
		// In the last sum nothing may be left to stop.
		if !seen || !errors.Is(err, context.Canceled) && at != "msm b2" {
			t.Errorf("cancelled in %s (seen: %v): %v", at, seen, err)
		}
		cancel()
	}
}

func TestFilesCutWhileMapped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.params")
	data := read(t, "groth16-small.params")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := OpenParams(path)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := os.Truncate(path, 50_000); err != nil {
		t.Fatal(err)
	}
	v := smallVector(t)
	if _, _, err := Prove(t.Context(), p, v.circuit, Options{}); !errors.Is(err, ErrMalformed) {
		t.Errorf("got %v", err)
	}
	if err := p.CheckCurve(t.Context(), Options{}); !errors.Is(err, ErrMalformed) {
		t.Errorf("check: %v", err)
	}
}

func TestOpenParamsRefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	short := filepath.Join(dir, "short")
	if err := os.WriteFile(short, make([]byte, 100), 0o644); err != nil {
		t.Fatal(err)
	}
	zeros := filepath.Join(dir, "zeros")
	if err := os.WriteFile(zeros, make([]byte, 5000), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, short, zeros} {
		if _, err := OpenParams(path); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func FuzzParseProof(f *testing.F) {
	v := smallVector(f)
	f.Add(v.proof)
	f.Add(v.proof[:100])
	f.Add(make([]byte, ProofSize))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParseProof(data)
		switch {
		case err != nil && !errors.Is(err, ErrMalformed):
			t.Errorf("an error of another kind: %v", err)
		case err == nil && !bytes.Equal(p.Bytes(), data):
			t.Error("written otherwise than it was read")
		}
	})
}

func FuzzParseVerifyingKey(f *testing.F) {
	data := read(f, "groth16-small.vk")
	f.Add(data)
	f.Add(data[:900])
	f.Add(with(data, 864, []byte{0, 0, 0, 1}))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := ParseVerifyingKey(data)
		switch {
		case err != nil && !errors.Is(err, ErrMalformed):
			t.Errorf("an error of another kind: %v", err)
		case err == nil && !bytes.Equal(k.Bytes(), data):
			t.Error("written otherwise than it was read")
		}
	})
}

func FuzzParseParams(f *testing.F) {
	// A small file of the right form, so that mutations reach all of it.
	params := setUpSmall(f)
	f.Add(params)
	f.Add(params[:len(params)/2])
	var long [4]byte
	binary.BigEndian.PutUint32(long[:], 1<<31)
	f.Add(with(params, keyLen(2), long[:]))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParseParams(data)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("an error of another kind: %v", err)
			}
			return
		}
		// Whatever was accepted can be used without a panic.
		_, _, _ = Prove(t.Context(), p, toy(3, 3), Options{Threads: 1})
		_ = p.CheckCurve(t.Context(), Options{Threads: 1})
	})
}

func setUpSmall(t testing.TB) []byte {
	var file buffer
	if _, err := Setup(t.Context(), toy(3, 3), zeroes{}, Options{}, &file); err != nil {
		t.Fatal(err)
	}
	return file.data
}

// zeroes is not random at all, but not zero either.
type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(i + len(p))
	}
	return len(p), nil
}
