package vanilla

import (
	"bytes"
	"encoding/json"
	"io"
	"math/rand/v2"
	"reflect"
	"testing"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/merkle"
)

// made returns proofs with the shape of p's and any content: hashes and numbers are
// random, as far as the shape lets them.
func made(p sealcore.Params, r *rand.Rand) *Commit1 {
	domain := func() (d sealcore.Domain) {
		for i := range d {
			d[i] = byte(r.Uint32() >> r.UintN(25)) // numbers of one, two and three digits
		}
		return d
	}
	domains := func(n int) []sealcore.Domain {
		out := make([]sealcore.Domain, n)
		for i := range out {
			out[i] = domain()
		}
		return out
	}
	steps := func(n, arity int) []merkle.Step {
		if n == 0 {
			return nil
		}
		out := make([]merkle.Step, n)
		for i := range out {
			out[i] = merkle.Step{Hashes: domains(arity - 1), Index: r.Uint64N(uint64(arity))}
		}
		return out
	}
	path := func(s sealcore.TreeShape) merkle.Proof {
		return merkle.Proof{
			Leaf: domain(), Root: domain(),
			Base: steps(baseSteps(p, s), s.Base), Sub: steps(min(1, s.Sub), s.Sub), Top: steps(min(1, s.Top), s.Top),
		}
	}
	columns := func(n int) []ColumnProof {
		out := make([]ColumnProof, n)
		for i := range out {
			out[i] = ColumnProof{Node: uint32(r.Uint64N(p.Nodes())), Rows: domains(p.Layers), Inclusion: path(p.Shape)}
		}
		return out
	}
	label := func() LabelingProof {
		return LabelingProof{Parents: domains(sealcore.LabelParents), Layer: uint32(r.IntN(p.Layers + 1)), Node: r.Uint64N(p.Nodes())}
	}
	c := &Commit1{
		Partitions: make([][]Proof, p.Partitions),
		CommR:      domain(), CommD: domain(), ReplicaID: domain(), Seed: domain(), Ticket: domain(),
	}
	for k := range c.Partitions {
		for range p.Challenges {
			proof := Proof{
				CommD: path(merkle.Binary), CommR: path(p.Shape), Encoding: label(),
				Columns: ColumnProofs{Challenged: columns(1)[0], DRGParents: columns(sealcore.DRGDegree), ExpParents: columns(sealcore.ExpDegree)},
			}
			for range p.Layers {
				proof.Labels = append(proof.Labels, label())
			}
			c.Partitions[k] = append(c.Partitions[k], proof)
		}
	}
	return c
}

// kinds returns the kinds of sector, each tree shape, API version and number of layers
// among them; the production sizes with fewer partitions.
func kinds(t testing.TB) []sealcore.Params {
	t.Helper()
	var all []sealcore.Params
	for proofType := range 10 {
		p, err := sealcore.ForProofType(proofType)
		if err != nil {
			t.Fatal(err)
		}
		p.Partitions = min(p.Partitions, 2)
		all = append(all, p)
	}
	for _, name := range []string{"16KiB", "32KiB"} {
		p, err := sealcore.ForShape(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func TestEveryKindOfSectorSurvivesJSON(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for _, p := range kinds(t) {
		t.Run(p.String(), func(t *testing.T) {
			c := made(p, rand.New(rand.NewPCG(seed, p.SectorSize)))
			data := write(t, p, c)
			if !json.Valid(data) {
				t.Fatal("what is written is not JSON")
			}
			if got := parse(t, p, data); !reflect.DeepEqual(got, c) {
				t.Fatal("what was written reads as something else")
			}
			for _, other := range kinds(t) {
				if other.Name != p.Name || other.APIVersion != p.APIVersion {
					if _, err := ParseCommit1(other, data); err == nil {
						t.Errorf("it reads as that of %s", other)
					}
				}
			}
		})
	}
}

// Benchmark32GiB is what p3 and p4 spend on the JSON of a production sector.
func Benchmark32GiB(b *testing.B) {
	p, err := sealcore.ForProofType(8)
	if err != nil {
		b.Fatal(err)
	}
	c := made(p, rand.New(rand.NewPCG(1, 2)))
	var buf bytes.Buffer
	if err := c.WriteJSON(&buf, p); err != nil {
		b.Fatal(err)
	}
	b.Run("write", func(b *testing.B) {
		b.SetBytes(int64(buf.Len()))
		b.ReportAllocs()
		for b.Loop() {
			if err := c.WriteJSON(io.Discard, p); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("parse", func(b *testing.B) {
		b.SetBytes(int64(buf.Len()))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ParseCommit1(p, buf.Bytes()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
