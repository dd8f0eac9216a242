package merkle

import (
	"errors"
	"fmt"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/durable"
	"sealfleet/internal/sealcore/field"
	"sealfleet/internal/sealcore/poseidon"
)

// chunkLeaves is the most leaves that are hashed as one piece: large enough to make the
// writes of their rows few, small enough to stay in a core's cache and to stop promptly.
const chunkLeaves = 4096

// Builder writes the files of tree C or tree R from their leaves. The leaves come in
// chunks, in any order and from many goroutines at once; a chunk's rows are hashed and
// written while it is hot, and only the chunks' roots are kept in memory (32 bytes for
// 4096 leaves). The files get their names when Finish has everything on the disk.
type Builder struct {
	shape  sealcore.TreeShape
	hasher *poseidon.Hasher
	files  []*durable.File // of the base trees
	bases  []*baseTree
	chunk  uint64         // leaves of a chunk, a power of the arity
	roots  [][]fr.Element // of the chunks, by base tree
}

// NewTreeC returns a builder of the tree C in a sector's cache directory.
func NewTreeC(dir string, params sealcore.Params) (*Builder, error) {
	return newBuilder(dir, TreeCID, params, 0)
}

// NewTreeR returns a builder of the tree R in a sector's cache directory. Its leaves are
// not stored, nor are the rows that params discards.
func NewTreeR(dir string, params sealcore.Params) (*Builder, error) {
	return newBuilder(dir, TreeRID, params, 1+params.RowsToDiscard())
}

func newBuilder(dir, id string, params sealcore.Params, firstRow int) (*Builder, error) {
	shape := params.Shape
	leaves := params.Nodes() / uint64(shape.BaseTrees())
	rows, err := Rows(leaves, shape.Base)
	if err != nil {
		return nil, err
	}
	b := &Builder{shape: shape, hasher: poseidon.For(shape.Base), chunk: 1}
	for b.chunk*uint64(shape.Base) <= min(leaves, chunkLeaves) {
		b.chunk *= uint64(shape.Base)
	}
	for _, path := range Files(dir, id, shape) {
		file, err := durable.Create(path)
		if err != nil {
			return nil, errors.Join(err, b.Abort())
		}
		b.files = append(b.files, file)
		t := &baseTree{file: file.File, leaves: leaves, arity: uint64(shape.Base), rows: rows, firstRow: firstRow}
		b.bases = append(b.bases, t)
		b.roots = append(b.roots, make([]fr.Element, leaves/b.chunk))
		if err := file.Truncate(t.offset(rows)); err != nil {
			return nil, errors.Join(err, b.Abort())
		}
	}
	return b, nil
}

// ChunkLeaves returns how many leaves a chunk has. It divides a base tree's leaves.
func (b *Builder) ChunkLeaves() int { return int(b.chunk) }

// Scratch is the working memory of one goroutine that calls Add.
type Scratch struct {
	rows  [2][]fr.Element
	bytes []byte
}

// Add hashes chunk number c, which begins at the sector's leaf c·ChunkLeaves, and writes
// its rows. It may be called from many goroutines, with a Scratch each and once for
// each chunk. It panics if leaves is not one chunk.
func (b *Builder) Add(c uint64, leaves []fr.Element, s *Scratch) error {
	if uint64(len(leaves)) != b.chunk {
		panic(fmt.Sprintf("merkle: %d leaves are not a chunk of %d", len(leaves), b.chunk))
	}
	perBase := uint64(len(b.roots[0]))
	base, at := c/perBase, c%perBase
	root, err := b.climb(int(base), 0, at, leaves, s)
	if err != nil {
		return err
	}
	b.roots[base][at] = root
	return nil
}

// climb writes row, which is part number at of its row of a base tree, and the rows above
// it up to its root, which it returns.
func (b *Builder) climb(base, rowNumber int, at uint64, row []fr.Element, s *Scratch) (fr.Element, error) {
	t, file, arity := b.bases[base], b.files[base], b.shape.Base
	for level := 0; ; level++ {
		if r := rowNumber + level; r >= t.firstRow {
			n := len(row) * sealcore.NodeSize
			if cap(s.bytes) < n {
				s.bytes = make([]byte, n)
			}
			field.ToBytes(s.bytes[:n], row)
			offset := t.offset(r) + int64(at*uint64(len(row)))*sealcore.NodeSize
			if _, err := file.WriteAt(s.bytes[:n], offset); err != nil {
				return fr.Element{}, fmt.Errorf("write row %d of tree: %w", r, err)
			}
		}
		if len(row) == 1 {
			return row[0], nil
		}
		above := s.rows[level%2]
		if cap(above) < len(row)/arity {
			above = make([]fr.Element, len(row)/arity)
			s.rows[level%2] = above
		}
		above = above[:len(row)/arity]
		b.hasher.SumBatch(above, row)
		row = above
	}
}

// Finish hashes the rows above the chunks, syncs the files, gives them their names, and
// returns the tree's root (CommC or CommR_last). Every chunk must have been added. After
// an error the temporary files are gone.
func (b *Builder) Finish() (root sealcore.Domain, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Abort())
		}
	}()
	chunkRow, err := Rows(b.chunk, b.shape.Base)
	if err != nil {
		return root, err
	}
	roots := make([]sealcore.Domain, len(b.bases))
	for i := range b.bases {
		// The chunks' roots are written a second time here, with the same bytes.
		top, err := b.climb(i, chunkRow-1, 0, b.roots[i], &Scratch{})
		if err != nil {
			return root, err
		}
		roots[i] = field.ToDomain(top)
	}
	u, err := over(b.shape, roots)
	if err != nil {
		return root, err
	}
	for _, f := range b.files {
		if err := f.Commit(); err != nil {
			return root, err
		}
	}
	return u.root, nil
}

// Abort drops what was not given its name by Finish.
func (b *Builder) Abort() error {
	var errs []error
	for _, f := range b.files {
		errs = append(errs, f.Abort())
	}
	return errors.Join(errs...)
}
