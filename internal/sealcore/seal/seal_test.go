package seal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/sealtest"
	"sealfleet/internal/sealcore/vanilla"
)

// chain is one sector of the reference's, on its way through the phases.
type chain struct {
	v      sealtest.Seal
	s      Sector
	pieces []Piece
	paths  Paths
	p1     *PreCommit1
	p2     *PreCommit2
	p3     *Commit1
}

func newChain(t testing.TB, name string) *chain {
	t.Helper()
	v := sealtest.LoadVector(t, name)
	dir := t.TempDir()
	c := &chain{v: v, s: sectorOf(t, v), paths: InDir(dir)}
	for i, path := range v.WritePieces(t, dir) {
		c.pieces = append(c.pieces, Piece{Path: path, UnpaddedSize: v.Pieces[i].UnpaddedSize})
	}
	return c
}

// run does the phases from first to last, 1 to 3.
func (c *chain) run(ctx context.Context, first, last int, o Options) (err error) {
	for phase := first; phase <= last && err == nil; phase++ {
		switch phase {
		case 1:
			c.p1, err = P1(ctx, c.s, c.pieces, c.paths, o)
		case 2:
			c.p2, err = P2(ctx, c.p1, c.paths, o)
		case 3:
			c.p3, err = P3(ctx, c.s, c.p1.CommD, c.p2.CommR, sealcore.Domain(c.v.Seed), c.p1.Pieces, c.paths, o)
		}
	}
	return err
}

func (c *chain) facts(t testing.TB) map[string]FileFact {
	t.Helper()
	facts, err := FileFacts(context.Background(), c.paths)
	if err != nil {
		t.Fatal(err)
	}
	return facts
}

// want is what the vector says of the files after p1 or p2.
func (c *chain) want(phase int) map[string]FileFact {
	cache, sealed := c.v.CacheAfterP1, c.v.UnsealedSHA256
	if phase > 1 {
		cache, sealed = c.v.CacheAfterP2, c.v.SealedSHA256
	}
	size := int64(c.v.SectorSize)
	want := map[string]FileFact{
		"unsealed": {size, hex.EncodeToString(c.v.UnsealedSHA256)},
		"sealed":   {size, hex.EncodeToString(sealed)},
	}
	for name, f := range cache {
		want[name] = FileFact{f.Size, hex.EncodeToString(f.SHA256)}
	}
	return want
}

// check compares the files with the vector's. t_aux holds a path of the machine that made
// it: of it, only what it describes is compared.
func (c *chain) check(t *testing.T, phase int) {
	t.Helper()
	got, want := c.facts(t), c.want(phase)
	if _, ok := got[TAuxName]; ok != (phase > 1) {
		t.Errorf("after p%d: t_aux is there: %t", phase, ok)
	}
	if phase > 1 {
		data, err := os.ReadFile(filepath.Join(c.paths.Cache, TAuxName))
		if err != nil {
			t.Fatal(err)
		}
		aux, err := ParseTAux(data)
		if err != nil {
			t.Fatal(err)
		}
		if err := aux.Check(c.s.Params); err != nil {
			t.Error(err)
		}
	}
	delete(got, TAuxName)
	delete(want, TAuxName)
	for name, w := range want {
		if got[name] != w {
			t.Errorf("after p%d: %s is %+v, want %+v", phase, name, got[name], w)
		}
		delete(got, name)
	}
	for name := range got {
		t.Errorf("after p%d: %s should not be there", phase, name)
	}
}

// checkOutputs compares what the phases returned with the vector's.
func (c *chain) checkOutputs(t *testing.T) {
	t.Helper()
	for _, d := range []struct {
		name string
		got  sealcore.Domain
		want sealtest.Domain
	}{
		{"CommD", c.p1.CommD, c.v.CommD},
		{"replica id", c.p1.ReplicaID, c.v.ReplicaID},
		{"CommC", c.p2.CommC, c.v.CommC},
		{"CommRLast", c.p2.CommRLast, c.v.CommRLast},
		{"CommR", c.p2.CommR, c.v.CommR},
		{"CommR in the proofs", c.p3.Proofs.CommR, c.v.CommR},
		{"replica id in the proofs", c.p3.Proofs.ReplicaID, c.v.ReplicaID},
	} {
		if d.got != sealcore.Domain(d.want) {
			t.Errorf("%s is %x, want %x", d.name, d.got, d.want)
		}
	}
	if len(c.p1.Pieces) != len(c.v.Pieces) {
		t.Fatalf("%d pieces, want %d", len(c.p1.Pieces), len(c.v.Pieces))
	}
	for i, piece := range c.v.Pieces {
		if want := (PieceInfo{piece.UnpaddedSize, sealcore.Domain(piece.CommP)}); c.p1.Pieces[i] != want {
			t.Errorf("piece %d is %+v, want %+v", i, c.p1.Pieces[i], want)
		}
	}
	if c.v.C1Bytes != 0 && int64(len(c.p3.JSON)) != c.v.C1Bytes {
		t.Errorf("commit-phase-1 JSON has %d bytes, want %d", len(c.p3.JSON), c.v.C1Bytes)
	}
	if sum := sha256.Sum256(c.p3.JSON); sum != c.p3.SHA256 || !bytes.Equal(sum[:], c.v.C1SHA256) {
		t.Errorf("commit-phase-1 JSON has SHA-256 %x (said to be %x), want %x", sum, c.p3.SHA256, c.v.C1SHA256)
	}
}

func (c *chain) verifyJSON(t *testing.T) {
	t.Helper()
	if _, err := VerifyCommit1(t.Context(), c.s, c.p1.CommD, c.p2.CommR, sealcore.Domain(c.v.Seed), c.p3.JSON, Options{}); err != nil {
		t.Error(err)
	}
}

// small names the vectors of sectors that seal in a moment, one of each tree shape.
var small = []string{"2k", "2k-v1", "2k-pieces", "16k", "32k"}

func TestPhasesGiveTheReferencesAnswers(t *testing.T) {
	names := append([]string{"8m"}, small...)
	if testing.Short() {
		names = small
	}
	if os.Getenv("SEALFLEET_TEST_512M") == "1" {
		names = append(names, "512m")
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			c := newChain(t, name)
			for phase := 1; phase <= 3; phase++ {
				if err := c.run(t.Context(), phase, phase, Options{}); err != nil {
					t.Fatal(err)
				}
				c.check(t, phase)
			}
			c.checkOutputs(t)
			c.verifyJSON(t)
		})
	}
}

func TestDoingAPhaseAgainGivesTheSameBytes(t *testing.T) {
	for _, name := range []string{"2k-pieces", "32k"} {
		t.Run(name, func(t *testing.T) {
			c := newChain(t, name)
			if err := c.run(t.Context(), 1, 3, Options{}); err != nil {
				t.Fatal(err)
			}
			before, json := c.facts(t), c.p3.JSON
			for first := 3; first >= 1; first-- {
				// One thread: the order of the work must not show either.
				if err := c.run(t.Context(), first, 3, Options{Threads: 1}); err != nil {
					t.Fatal(err)
				}
				if after := c.facts(t); !maps.Equal(before, after) {
					t.Errorf("p%d again: files %v, were %v", first, after, before)
				}
				if !bytes.Equal(c.p3.JSON, json) {
					t.Errorf("p%d again: another commit-phase-1 JSON", first)
				}
			}
		})
	}
}

// Each phase is cancelled at its first report of progress, then at its second, and so on,
// and each time done again over what it left.
func TestACancelledPhaseLeavesNoHalfFiles(t *testing.T) {
	for _, name := range []string{"2k", "16k"} {
		t.Run(name, func(t *testing.T) {
			for phase := 1; phase <= 3; phase++ {
				c := newChain(t, name)
				if err := c.run(t.Context(), 1, phase-1, Options{}); err != nil {
					t.Fatal(err)
				}
				for at := 0; ; at++ {
					err := c.cancelAt(phase, at)
					if err == nil {
						if at < 2 {
							t.Errorf("p%d reports its progress %d times only", phase, at)
						}
						break // it got to its end before the report to be cancelled at
					}
					if !errors.Is(err, context.Canceled) {
						t.Fatalf("p%d, cancelled at report %d: error %v, want %v", phase, at, err, context.Canceled)
					}
					c.checkWhole(t, phase, at)
				}
				if err := c.run(t.Context(), phase+1, 3, Options{}); err != nil {
					t.Fatal(err)
				}
				c.check(t, 3)
				c.checkOutputs(t)
			}
		})
	}
}

// cancelAt runs a phase and cancels it at its at-th report; 0: before it starts.
func (c *chain) cancelAt(phase, at int) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if at == 0 {
		cancel()
	}
	var reports int
	return c.run(ctx, phase, phase, Options{Threads: 1, Progress: func(string, uint64, uint64) {
		if reports++; reports == at {
			cancel()
		}
	}})
}

// checkWhole checks that every file under its final name is one of the vector's, whole.
func (c *chain) checkWhole(t *testing.T, phase, at int) {
	t.Helper()
	before, after := c.want(max(1, phase-1)), c.want(phase)
	for name, got := range c.facts(t) {
		if name != TAuxName && got != before[name] && got != after[name] {
			t.Errorf("p%d, cancelled at report %d, left %s as %+v, want %+v or %+v", phase, at, name, got, before[name], after[name])
		}
	}
}

// Eleven layers, several partitions and a tree of three parts at once, as 64 GiB has
// them, on a toy sector for which there is no vector.
func TestElevenLayersAndSeveralPartitions(t *testing.T) {
	c := newChain(t, "32k")
	c.s.Params.Layers, c.s.Params.Partitions, c.s.Params.Challenges = 11, 3, 4
	if err := c.run(t.Context(), 1, 3, Options{}); err != nil {
		t.Fatal(err)
	}
	c.verifyJSON(t)
	proofs := c.p3.Proofs
	if n := len(proofs.Partitions); n != 3 {
		t.Fatalf("proofs of %d partitions", n)
	}
	for _, tc := range []struct {
		name  string
		spoil func(p *vanilla.Proof)
		want  error
	}{
		{"sub tree of tree R", func(p *vanilla.Proof) { p.CommR.Sub[0].Hashes[3][0] ^= 1 }, vanilla.ErrPath},
		{"top tree of tree R", func(p *vanilla.Proof) { p.CommR.Top[0].Hashes[0][0] ^= 1 }, vanilla.ErrPath},
		{"index in the sub tree of tree R", func(p *vanilla.Proof) { p.CommR.Sub[0].Index ^= 1 }, vanilla.ErrNode},
		{"index in the top tree of tree R", func(p *vanilla.Proof) { p.CommR.Top[0].Index ^= 1 }, vanilla.ErrNode},
		{"top tree of tree C", func(p *vanilla.Proof) { p.Columns.DRGParents[5].Inclusion.Top[0].Hashes[0][0] ^= 1 }, vanilla.ErrPath},
		{"no top tree", func(p *vanilla.Proof) { p.Columns.Challenged.Inclusion.Top = nil }, vanilla.ErrShape},
		{"label of layer 11", func(p *vanilla.Proof) { p.Columns.Challenged.Rows[10][0] ^= 1 }, vanilla.ErrColumn},
		{"root of tree R", func(p *vanilla.Proof) { p.CommR.Root[0] ^= 1 }, vanilla.ErrPath},
	} {
		again, err := vanilla.ParseCommit1(c.s.Params, c.p3.JSON)
		if err != nil {
			t.Fatal(err)
		}
		tc.spoil(&again.Partitions[2][3])
		err = vanilla.Verify(t.Context(), c.s.Params, again.PublicInputs(), again.Partitions, 0)
		var bad *vanilla.ProofError
		if !errors.As(err, &bad) || !errors.Is(err, tc.want) || bad.Partition != 2 || bad.Challenge != 3 {
			t.Errorf("%s: error %v, want %v in partition 2, challenge 3", tc.name, err, tc.want)
		}
	}
	// A partition with another replica's roots.
	proofs.Partitions[1][0].CommR.Root[0] ^= 1
	err := vanilla.Verify(t.Context(), c.s.Params, proofs.PublicInputs(), proofs.Partitions, 0)
	if !errors.Is(err, vanilla.ErrCommR) {
		t.Errorf("error %v, want %v", err, vanilla.ErrCommR)
	}
}

func TestP3RefusesOtherFiles(t *testing.T) {
	damage := func(c *chain, name string, size int64) error {
		path := filepath.Join(c.paths.Cache, name)
		if name == "sealed" {
			path = c.paths.Sealed
		}
		if size == -1 {
			return os.Remove(path)
		}
		return os.Truncate(path, size)
	}
	for _, tc := range []struct {
		name  string
		spoil func(t *testing.T, c *chain) error
		want  error
	}{
		{"other pieces", func(_ *testing.T, c *chain) error { c.p1.Pieces[0].CommP[0]++; return nil }, ErrOtherSector},
		{"no seed", func(_ *testing.T, c *chain) error { c.v.Seed = sealtest.Domain{}; return nil }, nil},
		{"other CommR", func(_ *testing.T, c *chain) error { c.p2.CommR[0]++; return nil }, ErrOtherSector},
		{"another sector's cache", func(t *testing.T, c *chain) error {
			other := newChain(t, "2k-pieces")
			if err := other.run(t.Context(), 1, 2, Options{}); err != nil {
				return err
			}
			c.paths = other.paths
			return nil
		}, ErrOtherSector},
		{"another sector's layers", func(_ *testing.T, c *chain) error { c.s.Number++; return nil }, nil},
		{"no p_aux", func(_ *testing.T, c *chain) error { return damage(c, PAuxName, -1) }, fs.ErrNotExist},
		{"short p_aux", func(_ *testing.T, c *chain) error { return damage(c, PAuxName, 63) }, nil},
		{"no layer", func(_ *testing.T, c *chain) error { return damage(c, "sc-02-data-layer-2.dat", -1) }, fs.ErrNotExist},
		{"a short layer", func(_ *testing.T, c *chain) error { return damage(c, "sc-02-data-layer-2.dat", 2047) }, nil},
		{"no tree D", func(_ *testing.T, c *chain) error { return damage(c, "sc-02-data-tree-d.dat", -1) }, fs.ErrNotExist},
		{"a short tree C", func(_ *testing.T, c *chain) error { return damage(c, "sc-02-data-tree-c.dat", 32) }, nil},
		{"no sealed file", func(_ *testing.T, c *chain) error { return damage(c, "sealed", -1) }, fs.ErrNotExist},
		{"a short sealed file", func(_ *testing.T, c *chain) error { return damage(c, "sealed", 0) }, nil},
		{"a sealed file of before p2", func(_ *testing.T, c *chain) error {
			data, err := os.ReadFile(c.paths.Unsealed)
			if err != nil {
				return err
			}
			return os.WriteFile(c.paths.Sealed, data, 0o644)
		}, nil},
		{"layers in the wrong order", func(_ *testing.T, c *chain) error {
			one, two := filepath.Join(c.paths.Cache, "sc-02-data-layer-1.dat"), filepath.Join(c.paths.Cache, "sc-02-data-layer-2.dat")
			return errors.Join(os.Rename(one, one+"x"), os.Rename(two, one), os.Rename(one+"x", two))
		}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newChain(t, "2k")
			if err := c.run(t.Context(), 1, 2, Options{}); err != nil {
				t.Fatal(err)
			}
			if err := tc.spoil(t, c); err != nil {
				t.Fatal(err)
			}
			c.p3 = nil
			err := c.run(t.Context(), 3, 3, Options{})
			if err == nil || c.p3 != nil {
				t.Fatal("p3 made a proof")
			}
			if tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("error %v, want one of %v", err, tc.want)
			}
			t.Log(err)
		})
	}
}
