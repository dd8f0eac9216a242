package vanilla

import (
	"crypto/sha256"
	"encoding/json"
	"math/big"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/field"
	"sealfleet/internal/sealcore/sealtest"
)

// inputsVector is public-inputs-N.json.
type inputsVector struct {
	ProofType    int                 `json:"registered_seal_proof"`
	ProverID     sealtest.Domain     `json:"prover_id"`
	SectorNumber uint64              `json:"sector_number"`
	Ticket       sealtest.Domain     `json:"ticket"`
	Seed         sealtest.Domain     `json:"seed"`
	CommD        sealtest.Domain     `json:"comm_d"`
	CommR        sealtest.Domain     `json:"comm_r"`
	Inputs       [][]sealtest.Domain `json:"public_inputs_le_hex"`
}

func TestSNARKInputsAreTheReferences(t *testing.T) {
	for _, name := range []string{"public-inputs-5.json", "public-inputs-7.json", "public-inputs-8.json"} {
		t.Run(name, func(t *testing.T) {
			var v inputsVector
			if err := json.Unmarshal(sealtest.Read(t, name), &v); err != nil {
				t.Fatal(err)
			}
			p, err := sealcore.ForProofType(v.ProofType)
			if err != nil {
				t.Fatal(err)
			}
			checkInputs(t, p, PublicInputs{
				ReplicaID: sealcore.ReplicaID(sealcore.Domain(v.ProverID), v.SectorNumber, sealcore.Domain(v.Ticket), sealcore.Domain(v.CommD), p.PoRepID),
				CommD:     sealcore.Domain(v.CommD),
				CommR:     sealcore.Domain(v.CommR),
				Seed:      sealcore.Domain(v.Seed),
			}, v.Inputs)
		})
	}
	for _, name := range []string{"16k", "32k"} {
		t.Run(name, func(t *testing.T) {
			s := sealtest.LoadVector(t, name)
			checkInputs(t, s.Params(t), PublicInputs{
				ReplicaID: sealcore.Domain(s.ReplicaID),
				CommD:     sealcore.Domain(s.CommD),
				CommR:     sealcore.Domain(s.CommR),
				Seed:      sealcore.Domain(s.Seed),
			}, s.PublicInputs)
		})
	}
}

func checkInputs(t *testing.T, p sealcore.Params, pi PublicInputs, want [][]sealtest.Domain) {
	t.Helper()
	got, err := pi.SNARKInputs(p)
	if err != nil {
		t.Fatal(err)
	}
	if len(want) == 0 || len(got) != len(want) {
		t.Fatalf("inputs of %d partitions, want %d", len(got), len(want))
	}
	for k := range got {
		if len(got[k]) != len(want[k]) {
			t.Fatalf("partition %d has %d inputs, want %d", k, len(got[k]), len(want[k]))
		}
		for i := range got[k] {
			if d := field.ToDomain(got[k][i]); d != sealcore.Domain(want[k][i]) {
				t.Fatalf("partition %d: input %d is %x, want %x", k, i, d, want[k][i])
			}
		}
	}
}

func TestSNARKInputsRefuseWhatIsNoElement(t *testing.T) {
	p, err := sealcore.ForProofType(5)
	if err != nil {
		t.Fatal(err)
	}
	high := sealcore.Domain{31: 0x80}
	for _, pi := range []PublicInputs{{ReplicaID: high}, {CommD: high}, {CommR: high}} {
		if _, err := pi.SNARKInputs(p); err == nil {
			t.Errorf("%+v gave inputs", pi)
		}
	}
	if _, err := (PublicInputs{Seed: high}).SNARKInputs(p); err != nil {
		t.Errorf("the seed is no field element and need not be one: %v", err)
	}
}

func TestModulo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := [sha256.Size]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "digest"))
		m := rapid.Uint64Range(1, 1<<63).Draw(t, "modulus")
		be := slices.Clone(d[:])
		slices.Reverse(be)
		want := new(big.Int).Mod(new(big.Int).SetBytes(be), new(big.Int).SetUint64(m)).Uint64()
		if got := modLittleEndian(d, m); got != want {
			t.Fatalf("%x mod %d is %d, want %d", d, m, got, want)
		}
	})
}
