package circuit_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/circuit"
	"sealfleet/internal/sealcore/r1cs"
	"sealfleet/internal/sealcore/vanilla"
)

// commit1 reads the vanilla proofs that the reference made of a 2 KiB sector.
func commit1(t testing.TB, p sealcore.Params) *vanilla.Commit1 {
	t.Helper()
	raw, err := os.ReadFile("testdata/seal-2k.c1.json")
	if err != nil {
		t.Fatal(err)
	}
	c, err := vanilla.ParseCommit1(p, raw)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func partition(t testing.TB, c *vanilla.Commit1, k int) circuit.PartitionInput {
	t.Helper()
	in, err := circuit.Partition(c, k)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// TestRealProofSatisfies checks every constraint on the reference's own vanilla proofs,
// and that the public inputs are those that a verifier computes.
func TestRealProofSatisfies(t *testing.T) {
	p := params(t, "2KiB")
	c := commit1(t, p)
	want, err := c.PublicInputs().SNARKInputs(p)
	if err != nil {
		t.Fatal(err)
	}
	var checker r1cs.Checker
	if err := circuit.Synthesize(context.Background(), &checker, p, partition(t, c, 0)); err != nil {
		t.Fatal(err)
	}
	if bad := checker.Unsatisfied(); bad != nil {
		t.Errorf("constraints %v of %d are not satisfied", bad, checker.Constraints())
	}
	if !slices.Equal(checker.Inputs(), want[0]) {
		t.Errorf("public inputs are %v, want %v", checker.Inputs(), want[0])
	}
	got, err := circuit.PublicInputs(context.Background(), p, partition(t, c, 0))
	if err != nil || !slices.Equal(got, want[0]) {
		t.Errorf("PublicInputs returns %v, %v", got, err)
	}
}

// TestSpoiltProofs changes one value of the first challenge's proof at a time. Whatever
// the value, the circuit must notice.
func TestSpoiltProofs(t *testing.T) {
	if raceDetector {
		t.Skip("too slow under the race detector")
	}
	p := params(t, "2KiB")
	p.Challenges = 1 // one is enough to spoil
	spoil := func(d *sealcore.Domain) { d[3] ^= 1 }
	for name, change := range map[string]func(in *circuit.PartitionInput){
		"replica id":            func(in *circuit.PartitionInput) { spoil(&in.ReplicaID) },
		"CommD":                 func(in *circuit.PartitionInput) { spoil(&in.CommD) },
		"CommR":                 func(in *circuit.PartitionInput) { spoil(&in.CommR) },
		"data":                  func(in *circuit.PartitionInput) { spoil(&in.Proofs[0].CommD.Leaf) },
		"tree D, sibling":       func(in *circuit.PartitionInput) { spoil(&in.Proofs[0].CommD.Base[2].Hashes[0]) },
		"tree D, index":         func(in *circuit.PartitionInput) { in.Proofs[0].CommD.Base[5].Index ^= 1 },
		"tree R, sibling":       func(in *circuit.PartitionInput) { spoil(&in.Proofs[0].CommR.Base[1].Hashes[6]) },
		"tree C, sibling":       func(in *circuit.PartitionInput) { spoil(&in.Proofs[0].Columns.Challenged.Inclusion.Base[0].Hashes[2]) },
		"base parent's row":     func(in *circuit.PartitionInput) { spoil(&in.Proofs[0].Columns.DRGParents[4].Rows[1]) },
		"expander parent's row": func(in *circuit.PartitionInput) { spoil(&in.Proofs[0].Columns.ExpParents[7].Rows[0]) },
		"expander parent's path": func(in *circuit.PartitionInput) {
			in.Proofs[0].Columns.ExpParents[0].Inclusion.Base[0].Index ^= 4
		},
		"challenged node": func(in *circuit.PartitionInput) { in.Proofs[0].Labels[0].Node ^= 1 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := partition(t, commit1(t, params(t, "2KiB")), 0)
			in.Proofs = in.Proofs[:1]
			change(&in)
			var checker r1cs.Checker
			if err := circuit.Synthesize(context.Background(), &checker, p, in); err != nil {
				t.Fatal(err)
			}
			if checker.Unsatisfied() == nil {
				t.Error("all constraints are satisfied")
			}
		})
	}
}

// TestReferenceCounts compares sizes with those in the reference's own tests
// (storage-proofs-porep, tests/stacked_circuit.rs): one challenge, two layers, base
// trees of eight leaves. They cover arities that no registered proof has.
func TestReferenceCounts(t *testing.T) {
	if raceDetector {
		t.Skip("too slow under the race detector")
	}
	for _, c := range []struct {
		shape       sealcore.TreeShape
		constraints int
	}{
		{sealcore.TreeShape{Base: 2}, 1_206_212},
		{sealcore.TreeShape{Base: 8}, 1_199_620},
		{sealcore.TreeShape{Base: 8, Sub: 4}, 1_296_576},
		{sealcore.TreeShape{Base: 8, Sub: 4, Top: 2}, 1_346_982},
	} {
		p := sealcore.Params{
			SectorSize: 8 * sealcore.NodeSize * uint64(c.shape.BaseTrees()),
			Shape:      c.shape, Layers: 2, Partitions: 1, Challenges: 1,
		}
		size, err := circuit.SizeOf(context.Background(), p)
		if err != nil {
			t.Fatal(err)
		}
		if size.Constraints != c.constraints || size.Inputs != 21 {
			t.Errorf("%s: %d constraints and %d inputs, want %d and 21", c.shape, size.Constraints, size.Inputs, c.constraints)
		}
	}
}

// TestSizeOf extrapolates, which must give what a whole circuit counts.
func TestSizeOf(t *testing.T) {
	if raceDetector {
		t.Skip("too slow under the race detector")
	}
	p := params(t, "16KiB")
	p.Challenges = 5
	var want r1cs.Counter
	if err := circuit.Synthesize(context.Background(), &want, p, circuit.Blank(p)); err != nil {
		t.Fatal(err)
	}
	got, err := circuit.SizeOf(context.Background(), p)
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

// TestBadInput wants an error before anything is written.
func TestBadInput(t *testing.T) {
	p := params(t, "2KiB")
	for name, c := range map[string]struct {
		params func(p *sealcore.Params)
		change func(in *circuit.PartitionInput)
		want   string
	}{
		"unknown arity":     {params: func(p *sealcore.Params) { p.Shape.Sub = 3 }, want: "tree shape 8-3-0"},
		"unknown layers":    {params: func(p *sealcore.Params) { p.Layers = 3 }, want: "3 layers"},
		"no challenges":     {params: func(p *sealcore.Params) { p.Challenges = 0 }, want: "at least one challenge"},
		"not a tree":        {params: func(p *sealcore.Params) { p.SectorSize = 4096 }, want: "4096 bytes"},
		"no sector":         {params: func(p *sealcore.Params) { p.SectorSize = 0 }, want: "0 bytes"},
		"other size":        {params: func(p *sealcore.Params) { p.SectorSize = 16384 }, want: "tree D: the path has 6 steps"},
		"other layers":      {params: func(p *sealcore.Params) { p.Layers = 11 }, want: "2 layers instead of 11"},
		"other challenges":  {params: func(p *sealcore.Params) { p.Challenges = 3 }, want: "2 challenges instead of 3"},
		"big replica id":    {change: func(in *circuit.PartitionInput) { in.ReplicaID[31] = 0xff }, want: "the replica id"},
		"big CommD":         {change: func(in *circuit.PartitionInput) { in.CommD[31] = 0x74 }, want: "CommD"},
		"big label":         {change: func(in *circuit.PartitionInput) { in.Proofs[1].Columns.ExpParents[3].Rows[1][31] = 0xff }, want: "challenge 1: the column of node"},
		"big sibling":       {change: func(in *circuit.PartitionInput) { in.Proofs[0].CommR.Base[0].Hashes[0][31] = 0xff }, want: "sibling 0"},
		"big leaf":          {change: func(in *circuit.PartitionInput) { in.Proofs[0].CommD.Leaf[31] = 0xff }, want: "tree D"},
		"index too large":   {change: func(in *circuit.PartitionInput) { in.Proofs[0].CommR.Base[1].Index = 8 }, want: "index 8"},
		"sibling missing":   {change: func(in *circuit.PartitionInput) { in.Proofs[0].Columns.Challenged.Inclusion.Base[1].Hashes = nil }, want: "0 siblings"},
		"parent missing":    {change: func(in *circuit.PartitionInput) { in.Proofs[0].Columns.DRGParents = nil }, want: "0 base and 8 expander"},
		"row missing":       {change: func(in *circuit.PartitionInput) { in.Proofs[0].Columns.DRGParents[2].Rows = nil }, want: "0 rows"},
		"two trees C":       {change: func(in *circuit.PartitionInput) { in.Proofs[1].Columns.Challenged.Inclusion.Root[0] ^= 1 }, want: "other roots"},
		"two trees R":       {change: func(in *circuit.PartitionInput) { in.Proofs[1].CommR.Root[0] ^= 1 }, want: "other roots"},
		"label missing":     {change: func(in *circuit.PartitionInput) { in.Proofs[1].Labels = nil }, want: "0 layers"},
		"a tree too many":   {change: func(in *circuit.PartitionInput) { in.Proofs[1].CommR.Sub = in.Proofs[1].CommR.Base[:1] }, want: "1 steps in the sub tree"},
		"no proofs":         {change: func(in *circuit.PartitionInput) { in.Proofs = nil }, want: "0 challenges"},
		"no data path":      {change: func(in *circuit.PartitionInput) { in.Proofs[0].CommD.Base = nil }, want: "0 steps in the base tree"},
		"no challenged col": {change: func(in *circuit.PartitionInput) { in.Proofs[0].Columns.Challenged.Inclusion.Base = nil }, want: "the challenged node"},
	} {
		t.Run(name, func(t *testing.T) {
			p, in := p, partition(t, commit1(t, p), 0)
			if c.params != nil {
				c.params(&p)
			}
			if c.change != nil {
				c.change(&in)
			}
			var counter r1cs.Counter
			err := circuit.Synthesize(context.Background(), &counter, p, in)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			if counter != (r1cs.Counter{}) {
				t.Errorf("it wrote %+v before", counter)
			}
		})
	}
	if _, err := circuit.Partition(commit1(t, p), 1); err == nil {
		t.Error("a 2 KiB sector has a partition 1")
	}
}

// cancelling is a sink that cancels the context once there is a constraint.
type cancelling struct {
	r1cs.Counter
	cancel context.CancelFunc
}

func (c *cancelling) Enforce(x, y, z r1cs.LC) {
	c.Counter.Enforce(x, y, z)
	c.cancel()
}

// TestCancel stops a 32 GiB circuit of 130 million constraints soon after it began.
func TestCancel(t *testing.T) {
	p := params(t, "32GiB")
	ctx, cancel := context.WithCancel(context.Background())
	sink := &cancelling{cancel: cancel}
	if err := circuit.Synthesize(ctx, sink, p, circuit.Blank(p)); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want context.Canceled", err)
	}
	if sink.Constraints > 1_000_000 {
		t.Errorf("it went on for %d constraints", sink.Constraints)
	}
	if _, err := circuit.Facts(ctx, p, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Facts returns %v, want context.Canceled", err)
	}
}

// TestProgress wants Facts to count up to the end.
func TestProgress(t *testing.T) {
	var last, total uint64
	facts, err := circuit.Facts(context.Background(), params(t, "2KiB"), func(done, all uint64) {
		if done < last || total != 0 && all != total {
			t.Errorf("%d of %d after %d of %d", done, all, last, total)
		}
		last, total = done, all
	})
	if err != nil {
		t.Fatal(err)
	}
	if last != total || total != uint64(facts.Constraints) {
		t.Errorf("it ended with %d of %d, but there are %d constraints", last, total, facts.Constraints)
	}
}

// TestSizeOf32GiB is the well-known size of the circuit that Filecoin's provers prove.
func TestSizeOf32GiB(t *testing.T) {
	if raceDetector {
		t.Skip("too slow under the race detector")
	}
	got, err := circuit.SizeOf(context.Background(), params(t, "32GiB"))
	if err != nil {
		t.Fatal(err)
	}
	if got.Constraints != 130_278_541 || got.Aux != 130_169_893 || got.Inputs != 327 {
		t.Errorf("got %+v", got)
	}
}
