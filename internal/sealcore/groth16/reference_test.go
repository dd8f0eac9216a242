package groth16

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/r1cs"
	"sealfleet/internal/sealcore/r1cs/r1cstest"
	"sealfleet/internal/sealcore/sealtest"
	"sealfleet/internal/sealcore/vanilla"
)

func read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// small is the reference's toy circuit with its parameters and a proof.
type small struct {
	params *Params
	key    *VerifyingKey
	proof  []byte
	inputs []fr.Element
	x      uint64
	n      int
}

func smallVector(t testing.TB) small {
	t.Helper()
	var v struct {
		Proof sealtest.Hex    `json:"proof_hex"`
		Input sealtest.Domain `json:"public_input_le_hex"`
		X     uint64          `json:"x"`
		N     int             `json:"n"`
	}
	if err := json.Unmarshal(read(t, "groth16-small.json"), &v); err != nil {
		t.Fatal(err)
	}
	p, err := ParseParams(read(t, "groth16-small.params"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ParseVerifyingKey(read(t, "groth16-small.vk"))
	if err != nil {
		t.Fatal(err)
	}
	inputs, err := ParseInputs([]sealcore.Domain{sealcore.Domain(v.Input)})
	if err != nil {
		t.Fatal(err)
	}
	return small{p, key, v.Proof, inputs, v.X, v.N}
}

func (s *small) circuit(_ context.Context, sink r1cs.Sink) error {
	r1cstest.Toy(sink, s.x, s.n)
	return nil
}

func mustVerifier(t testing.TB, key *VerifyingKey) *Verifier {
	t.Helper()
	v, err := NewVerifier(key)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func mustProof(t testing.TB, data []byte) *Proof {
	t.Helper()
	p, err := ParseProof(data)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestReferencesFilesReadAndWriteTheSame(t *testing.T) {
	for _, name := range []string{"groth16-small.vk", "groth16-2k.vk"} {
		data := read(t, name)
		key, err := ParseVerifyingKey(data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Equal(key.Bytes(), data) {
			t.Errorf("%s: written otherwise than it was read", name)
		}
	}
	v := smallVector(t)
	if !bytes.Equal(mustProof(t, v.proof).Bytes(), v.proof) {
		t.Error("the proof is written otherwise than it was read")
	}
	if !v.params.SameKey(v.key) {
		t.Error("the parameters' key is not that of the key's file")
	}
	if err := v.params.CheckCurve(t.Context(), Options{}); err != nil {
		t.Error(err)
	}
	if got := [...]int{v.params.Domain(), v.params.Aux(), v.params.a.len(), v.params.b1.len(), v.params.b2.len()}; got != [...]int{1024, 572, 502, 501, 501} {
		t.Errorf("the sections have %v points", got)
	}
}

func TestReferencesProofsHold(t *testing.T) {
	v := smallVector(t)
	if err := mustVerifier(t, v.key).Verify(mustProof(t, v.proof), v.inputs); err != nil {
		t.Errorf("toy circuit: %v", err)
	}

	key, proof, inputs := sectorVector(t)
	if err := mustVerifier(t, key).Verify(proof, inputs); err != nil {
		t.Errorf("2 KiB sector: %v", err)
	}
}

// sectorVector returns the proof of seal-2k.json, its key and its public inputs.
func sectorVector(t testing.TB) (*VerifyingKey, *Proof, []fr.Element) {
	t.Helper()
	key, err := ParseVerifyingKey(read(t, "groth16-2k.vk"))
	if err != nil {
		t.Fatal(err)
	}
	var v struct{ Proof sealtest.Hex }
	if err := json.Unmarshal(sealtest.Read(t, "seal-2k.json"), &v); err != nil {
		t.Fatal(err)
	}
	params, err := sealcore.ForProofType(5)
	if err != nil {
		t.Fatal(err)
	}
	c1, err := vanilla.ParseCommit1(params, sealtest.Read(t, "seal-2k.c1.json"))
	if err != nil {
		t.Fatal(err)
	}
	inputs, err := c1.PublicInputs().SNARKInputs(params)
	if err != nil {
		t.Fatal(err)
	}
	return key, mustProof(t, v.Proof), inputs[0]
}

func TestProofUnderTheReferencesParameters(t *testing.T) {
	v := smallVector(t)
	proof, inputs, err := Prove(t.Context(), v.params, v.circuit, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(inputs) != 1 || inputs[0] != v.inputs[0] {
		t.Errorf("the public inputs are %v", inputs)
	}
	verifier := mustVerifier(t, v.key)
	if err := verifier.Verify(proof, v.inputs); err != nil {
		t.Error(err)
	}
	again, _, err := Prove(t.Context(), v.params, v.circuit, Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	if hex.EncodeToString(again.Bytes()) == hex.EncodeToString(proof.Bytes()) {
		t.Error("two proofs are the same: they are not blinded")
	}
}
