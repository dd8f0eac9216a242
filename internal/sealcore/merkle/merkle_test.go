package merkle

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/field"
)

// shapes covers one base tree of one chunk, one of several chunks, and sub and top trees.
var shapes = []sealcore.Params{
	{Name: "8-0-0 one chunk", SectorSize: 64 * 32, Shape: sealcore.TreeShape{Base: 8}},
	{Name: "8-0-0 eight chunks", SectorSize: 1 << 20, Shape: sealcore.TreeShape{Base: 8}},
	{Name: "8-8-0", SectorSize: 512 * 32, Shape: sealcore.TreeShape{Base: 8, Sub: 8}},
	{Name: "8-8-2", SectorSize: 1024 * 32, Shape: sealcore.TreeShape{Base: 8, Sub: 8, Top: 2}},
}

// nodes returns n reproducible field elements.
func nodes(n uint64) []sealcore.Domain {
	out := make([]sealcore.Domain, n)
	for i := range out {
		out[i] = sha256.Sum256(binary.LittleEndian.AppendUint64([]byte("leaf"), uint64(i)))
		out[i][31] &= 0x3f
	}
	return out
}

// rowsOf is the simple construction: every row of a tree in memory.
func rowsOf(t testing.TB, leaves []sealcore.Domain, arity int, hash Hash) [][]sealcore.Domain {
	rows := [][]sealcore.Domain{leaves}
	for row := leaves; len(row) > 1; {
		row = rowAbove(t, row, arity, hash)
		rows = append(rows, row)
	}
	return rows
}

func rowAbove(t testing.TB, row []sealcore.Domain, arity int, hash Hash) (above []sealcore.Domain) {
	for i := 0; i < len(row); i += arity {
		n, err := hash(row[i : i+arity])
		if err != nil {
			t.Fatal(err)
		}
		above = append(above, n)
	}
	return above
}

func flat(rows [][]sealcore.Domain) []byte {
	var b []byte
	for _, row := range rows {
		for _, n := range row {
			b = append(b, n[:]...)
		}
	}
	return b
}

// build runs a builder over leaves with chunks in random order from several goroutines.
func build(t testing.TB, b *Builder, leaves []sealcore.Domain) sealcore.Domain {
	t.Helper()
	elements := make([]fr.Element, len(leaves))
	if err := field.FromBytes(elements, flat([][]sealcore.Domain{leaves})); err != nil {
		t.Fatal(err)
	}
	n := b.ChunkLeaves()
	chunks := make(chan int, len(leaves)/n)
	for _, c := range rand.Perm(len(leaves) / n) {
		chunks <- c
	}
	close(chunks)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			var s Scratch
			for c := range chunks {
				if err := b.Add(uint64(c), elements[c*n:(c+1)*n], &s); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	root, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// prover is what the three trees have in common.
type prover interface {
	Prove(leaf uint64) (Proof, error)
	Root() sealcore.Domain
	Close() error
}

func someLeaves(n uint64) []uint64 {
	return []uint64{0, 1, 7, 8, 63, n / 2, n/2 - 1, n - 8, n - 1}
}

func TestTreesAgainstTheSimpleConstruction(t *testing.T) {
	for _, p := range shapes {
		t.Run(p.Name, func(t *testing.T) {
			dir := t.TempDir()
			leaves := nodes(p.Nodes())
			sealed := filepath.Join(dir, "sealed")
			if err := os.WriteFile(sealed, flat([][]sealcore.Domain{leaves}), 0o600); err != nil {
				t.Fatal(err)
			}
			// What the files and roots ought to be.
			per := len(leaves) / p.Shape.BaseTrees()
			var bases [][][]sealcore.Domain
			var roots []sealcore.Domain
			for i := 0; i < len(leaves); i += per {
				rows := rowsOf(t, leaves[i:i+per], p.Shape.Base, Poseidon)
				bases = append(bases, rows)
				roots = append(roots, rows[len(rows)-1][0])
			}
			if p.Shape.Sub > 0 {
				roots = rowAbove(t, roots, p.Shape.Sub, Poseidon)
			}
			if p.Shape.Top > 0 {
				roots = rowAbove(t, roots, p.Shape.Top, Poseidon)
			}
			want := roots[0]

			for _, tree := range []struct {
				id       string
				firstRow int
				create   func(string, sealcore.Params) (*Builder, error)
				open     func() (prover, error)
			}{
				{TreeCID, 0, NewTreeC, func() (prover, error) { return OpenTreeC(dir, p) }},
				{TreeRID, 1 + p.RowsToDiscard(), NewTreeR, func() (prover, error) { return OpenTreeR(dir, sealed, p) }},
			} {
				b, err := tree.create(dir, p)
				if err != nil {
					t.Fatal(err)
				}
				if got := build(t, b, leaves); got != want {
					t.Fatalf("%s: root %x, want %x", tree.id, got, want)
				}
				for i, path := range Files(dir, tree.id, p.Shape) {
					got, err := os.ReadFile(path)
					if err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(got, flat(bases[i][tree.firstRow:])) {
						t.Errorf("%s differs", path)
					}
				}
				opened, err := tree.open()
				if err != nil {
					t.Fatal(err)
				}
				checkProofs(t, opened, p.Shape, leaves, want, Poseidon)
			}
			left, err := filepath.Glob(filepath.Join(dir, ".*"))
			if err != nil || len(left) > 0 {
				t.Errorf("temporary files are left: %v, %v", left, err)
			}
		})
	}
}

func checkProofs(t *testing.T, tree prover, shape sealcore.TreeShape, leaves []sealcore.Domain, root sealcore.Domain, hash Hash) {
	t.Helper()
	if tree.Root() != root {
		t.Errorf("root %x, want %x", tree.Root(), root)
	}
	n := uint64(len(leaves))
	for _, leaf := range someLeaves(n) {
		p, err := tree.Prove(leaf)
		if err != nil {
			t.Fatalf("leaf %d: %v", leaf, err)
		}
		if p.Leaf != leaves[leaf] || p.Root != root {
			t.Errorf("leaf %d: the proof is of another leaf or root", leaf)
		}
		if err := p.Verify(shape, n, leaf, hash); err != nil {
			t.Errorf("leaf %d: %v", leaf, err)
		}
		if err := p.Verify(shape, n, leaf^1, hash); err == nil {
			t.Errorf("the proof of leaf %d passes for leaf %d", leaf, leaf^1)
		}
	}
	if _, err := tree.Prove(n); err == nil {
		t.Error("a leaf beyond the last was proved")
	}
	if err := tree.Close(); err != nil {
		t.Error(err)
	}
}

func TestTreeD(t *testing.T) {
	leaves := nodes(64)
	rows := rowsOf(t, leaves, 2, SHA256)
	path := filepath.Join(t.TempDir(), FileName(TreeDID))
	if err := os.WriteFile(path, flat(rows), 0o600); err != nil {
		t.Fatal(err)
	}
	tree, err := OpenTreeD(path, 64)
	if err != nil {
		t.Fatal(err)
	}
	checkProofs(t, tree, Binary, leaves, rows[6][0], SHA256)
	if _, err := OpenTreeD(path, 128); err == nil || !strings.Contains(err.Error(), "bytes, want") {
		t.Errorf("a file of another size was opened: %v", err)
	}
	if _, err := OpenTreeD(path, 63); err == nil {
		t.Error("63 leaves were taken for a full tree")
	}
}

// TestSpoiltProofsAreRefused changes a good proof in every way that its form allows.
func TestSpoiltProofsAreRefused(t *testing.T) {
	p := shapes[3]
	dir := t.TempDir()
	leaves := nodes(p.Nodes())
	b, err := NewTreeC(dir, p)
	if err != nil {
		t.Fatal(err)
	}
	build(t, b, leaves)
	tree, err := OpenTreeC(dir, p)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	const leaf = 777
	spoil := map[string]func(*Proof){
		"leaf":             func(q *Proof) { q.Leaf[3] ^= 1 },
		"root":             func(q *Proof) { q.Root[3] ^= 1 },
		"base sibling":     func(q *Proof) { q.Base[1].Hashes[6][0] ^= 1 },
		"sub sibling":      func(q *Proof) { q.Sub[0].Hashes[0][0] ^= 1 },
		"top sibling":      func(q *Proof) { q.Top[0].Hashes[0][0] ^= 1 },
		"not an element":   func(q *Proof) { q.Base[0].Hashes[0][31] = 0xff },
		"index":            func(q *Proof) { q.Base[0].Index ^= 1 },
		"index too large":  func(q *Proof) { q.Base[0].Index = 8 },
		"index huge":       func(q *Proof) { q.Sub[0].Index = 1 << 63 },
		"short path":       func(q *Proof) { q.Base = q.Base[:1] },
		"no sub":           func(q *Proof) { q.Sub = nil },
		"two tops":         func(q *Proof) { q.Top = append(q.Top, q.Top...) },
		"sibling too many": func(q *Proof) { q.Base[0].Hashes = append(q.Base[0].Hashes, sealcore.Domain{}) },
		"sibling missing":  func(q *Proof) { q.Base[0].Hashes = q.Base[0].Hashes[:6] },
	}
	for name, f := range spoil {
		q, err := tree.Prove(leaf)
		if err != nil {
			t.Fatal(err)
		}
		if err := q.Verify(p.Shape, p.Nodes(), leaf, Poseidon); err != nil {
			t.Fatal(err)
		}
		f(&q)
		if err := q.Verify(p.Shape, p.Nodes(), leaf, Poseidon); err == nil {
			t.Errorf("%s: passes", name)
		} else if name == "top sibling" && !errors.Is(err, ErrRoot) {
			t.Errorf("%s: %v is not ErrRoot", name, err)
		}
	}
}

// TestTreeRTellsAForeignReplica changes one byte of the sealed file.
func TestTreeRTellsAForeignReplica(t *testing.T) {
	p := shapes[0]
	dir := t.TempDir()
	leaves := nodes(p.Nodes())
	b, err := NewTreeR(dir, p)
	if err != nil {
		t.Fatal(err)
	}
	build(t, b, leaves)
	sealed := filepath.Join(dir, "sealed")
	data := flat([][]sealcore.Domain{leaves})
	data[100] ^= 1
	if err := os.WriteFile(sealed, data, 0o600); err != nil {
		t.Fatal(err)
	}
	tree, err := OpenTreeR(dir, sealed, p)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if _, err := tree.Prove(0); err == nil || !strings.Contains(err.Error(), "do not belong together") {
		t.Errorf("error %v", err)
	}
	if _, err := OpenTreeR(dir, filepath.Join(dir, FileName(TreeRID)), p); err == nil {
		t.Error("a sealed file of the wrong size was opened")
	}
}

func TestAbortLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	b, err := NewTreeC(dir, shapes[3])
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Abort(); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
