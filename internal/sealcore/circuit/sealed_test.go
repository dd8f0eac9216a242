package circuit_test

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/circuit"
	"sealfleet/internal/sealcore/r1cs"
	"sealfleet/internal/sealcore/seal"
)

// TestSealedSectorsSatisfy seals small sectors with the tree shapes of 32 GiB and 64 GiB,
// and one with their eleven layers, and checks every constraint on them.
func TestSealedSectorsSatisfy(t *testing.T) {
	if raceDetector {
		t.Skip("too slow under the race detector")
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	random := func() (d sealcore.Domain) {
		for i := range d {
			d[i] = byte(r.Uint32())
		}
		return d
	}
	for _, c := range []struct {
		name, shape        string
		layers, challenges int
	}{
		{"8-8-0", "16KiB", 2, 2},
		{"8-8-2", "32KiB", 2, 2},
		{"8-8-2, 11 layers", "32KiB", 11, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := params(t, c.shape)
			p.Layers, p.Challenges = c.layers, c.challenges
			ctx := context.Background()
			s := seal.Sector{Params: p, ProverID: sealcore.ProverID(1000), Number: r.Uint64(), Ticket: random()}
			data := make([]byte, p.UnpaddedSize())
			for i := range data {
				data[i] = byte(r.Uint32())
			}
			piece := filepath.Join(t.TempDir(), "piece")
			if err := os.WriteFile(piece, data, 0o600); err != nil {
				t.Fatal(err)
			}
			paths := seal.InDir(t.TempDir())
			p1, err := seal.P1(ctx, s, []seal.Piece{{Path: piece, UnpaddedSize: p.UnpaddedSize()}}, paths, seal.Options{})
			if err != nil {
				t.Fatal(err)
			}
			p2, err := seal.P2(ctx, p1, paths, seal.Options{})
			if err != nil {
				t.Fatal(err)
			}
			pieces := []seal.PieceInfo{{UnpaddedSize: p.UnpaddedSize(), CommP: p2.CommD}}
			p3, err := seal.P3(ctx, s, p2.CommD, p2.CommR, random(), pieces, paths, seal.Options{})
			if err != nil {
				t.Fatal(err)
			}
			var checker r1cs.Checker
			if err := circuit.Synthesize(ctx, &checker, p, partition(t, p3.Proofs, 0)); err != nil {
				t.Fatal(err)
			}
			if bad := checker.Unsatisfied(); bad != nil {
				t.Errorf("constraints %v of %d are not satisfied", bad, checker.Constraints())
			}
			want, err := p3.Proofs.PublicInputs().SNARKInputs(p)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(checker.Inputs(), want[0]) {
				t.Errorf("public inputs are %v, want %v", checker.Inputs(), want[0])
			}
		})
	}
}
