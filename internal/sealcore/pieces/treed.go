package pieces

import (
	"context"
	"fmt"
	"io"
	"math/bits"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/fr32"
)

// Chunk is how many padded bytes of a sector are held in memory at once by each worker of Build.
// A chunk is a whole subtree of tree D.
const Chunk = 1 << 20

// Source is the data of a sector's pieces in order; nil stands for a piece of zeros. Reads come
// from several goroutines and in any order.
type Source []io.ReaderAt

// TreeFile is the file of tree D: Size bytes that are zero where nothing was written.
type TreeFile interface {
	io.ReaderAt
	io.WriterAt
}

// TreeSize returns the length in bytes of tree D of a sector, leaves and root included.
func TreeSize(p sealcore.Params) int64 { return 2*int64(p.SectorSize) - sealcore.NodeSize }

// BuildOptions bound and observe Build.
type BuildOptions struct {
	Threads  int // at least 1
	Progress func(done, total uint64)
}

// Build pads the pieces, puts each in its place, and writes the sector's data to unsealed
// (p.SectorSize bytes) and tree D to tree (TreeSize bytes: the leaves, then every row above).
// Both files must read as zeros before; stretches of zeros are not written, so that they stay
// sparse. It returns CommD and each piece's CommP.
//
// sizes are the pieces' unpadded bytes; it fails like Validate. A source that ends too early
// gives an error that wraps io.ErrUnexpectedEOF; whether one is too long is for the caller to see.
func Build(ctx context.Context, p sealcore.Params, sizes []uint64, src Source, unsealed io.WriterAt, tree TreeFile,
	o BuildOptions) (sealcore.Domain, []Info, error) {
	placed, err := Layout(p, sizes)
	if err != nil {
		return sealcore.Domain{}, nil, err
	}
	if len(src) != len(sizes) {
		return sealcore.Domain{}, nil, fmt.Errorf("%d sources for %d pieces", len(src), len(sizes))
	}
	b := &builder{
		size: p.SectorSize, chunk: min(Chunk, p.SectorSize), placed: placed, src: src,
		unsealed: unsealed, tree: tree, progress: o.Progress,
	}
	b.roots = make([]byte, b.size/b.chunk*sealcore.NodeSize)

	g, ctx := errgroup.WithContext(ctx)
	for range max(1, min(o.Threads, int(b.size/b.chunk))) {
		g.Go(func() error { return b.work(ctx) })
	}
	if err := g.Wait(); err != nil {
		return sealcore.Domain{}, nil, err
	}
	if err := b.writeTop(); err != nil {
		return sealcore.Domain{}, nil, err
	}

	infos := make([]Info, len(placed))
	for i, at := range placed {
		infos[i].UnpaddedSize = sizes[i]
		off := b.rowStart(level(at.Size)) + int64(at.Offset/at.Size*sealcore.NodeSize)
		if _, err := tree.ReadAt(infos[i].CommP[:], off); err != nil {
			return sealcore.Domain{}, nil, fmt.Errorf("read tree D back: %w", err)
		}
	}
	var commD sealcore.Domain
	if _, err := tree.ReadAt(commD[:], TreeSize(p)-sealcore.NodeSize); err != nil {
		return sealcore.Domain{}, nil, fmt.Errorf("read tree D back: %w", err)
	}
	return commD, infos, nil
}

type builder struct {
	size, chunk uint64 // padded bytes
	placed      []Placed
	src         Source
	unsealed    io.WriterAt
	tree        TreeFile
	progress    func(done, total uint64)

	roots []byte // of the chunks
	next  atomic.Uint64
	done  atomic.Uint64
}

// rowStart returns the byte of tree D at which a row begins; row 0 are the leaves.
func (b *builder) rowStart(row int) int64 { return 2*int64(b.size) - int64(b.size>>row)*2 }

// work takes chunks until none is left.
func (b *builder) work(ctx context.Context) error {
	buf := make([]byte, 2*b.chunk)
	raw := make([]byte, fr32.UnpaddedSize(b.chunk))
	zeros := false // whether buf holds the subtree of zeros
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		at := (b.next.Add(1) - 1) * b.chunk
		if at >= b.size {
			return nil
		}
		leaves := buf[:b.chunk]
		data, err := b.read(at, leaves, raw, zeros)
		if err != nil {
			return err
		}
		if data {
			if _, err := b.unsealed.WriteAt(leaves, int64(at)); err != nil {
				return fmt.Errorf("write the unsealed data: %w", err)
			}
		}
		if data || !zeros {
			for row := range chunkRows(buf) {
				row.hash()
			}
			zeros = !data
		}
		if err := b.writeRows(at, buf, data); err != nil {
			return err
		}
		if done := b.done.Add(b.chunk); b.progress != nil {
			b.progress(done, b.size)
		}
	}
}

// row is one row of a chunk's subtree and the row of its parents.
type row struct {
	level          int
	nodes, parents []byte
}

func (r row) hash() {
	hashRow(r.parents, r.nodes)
}

// chunkRows yields the rows of a subtree that lies in buf as leaves, then each row above. The
// last one has one node and no parents.
func chunkRows(buf []byte) func(func(row) bool) {
	return func(yield func(row) bool) {
		for r := (row{nodes: buf[:len(buf)/2]}); len(r.nodes) > 0; r.level++ {
			rest := buf[len(buf)-len(r.nodes):]
			r.parents = rest[:len(r.nodes)/sealcore.NodeSize/2*sealcore.NodeSize]
			if !yield(r) {
				return
			}
			r.nodes = r.parents
		}
	}
}

// read fills leaves with the padded data at an offset of the sector, and tells whether there is
// any: if not, leaves are zeros. They are taken to be zeros before if zeros says so.
func (b *builder) read(at uint64, leaves, raw []byte, zeros bool) (data bool, err error) {
	clean := zeros
	for i, piece := range b.placed {
		from, to := max(at, piece.Offset), min(at+b.chunk, piece.Offset+piece.Size)
		if from >= to || b.src[i] == nil {
			continue
		}
		if !clean {
			clear(leaves)
			clean = true
		}
		raw := raw[:fr32.UnpaddedSize(to-from)]
		off := fr32.UnpaddedSize(from - piece.Offset)
		if n, err := b.src[i].ReadAt(raw, int64(off)); n < len(raw) {
			return false, fmt.Errorf("piece %d of %d: %w", i+1, len(b.placed),
				readError(err, off+uint64(n), fr32.UnpaddedSize(piece.Size)))
		}
		fr32.Pad(leaves[from-at:], raw)
		data = true
	}
	if !clean {
		clear(leaves)
	}
	return data, nil
}

// writeRows writes the rows of the chunk's subtree to their places. The root is left for
// writeTop, and leaves that are zeros for the file system.
func (b *builder) writeRows(at uint64, buf []byte, data bool) error {
	for r := range chunkRows(buf) {
		if len(r.nodes) == sealcore.NodeSize {
			copy(b.roots[at/b.chunk*sealcore.NodeSize:], r.nodes)
			break
		}
		if r.level == 0 && !data {
			continue
		}
		if _, err := b.tree.WriteAt(r.nodes, b.rowStart(r.level)+int64(at>>r.level)); err != nil {
			return fmt.Errorf("write tree D: %w", err)
		}
	}
	return nil
}

// writeTop builds the rows from the chunks' roots to the root of the tree. They are the end of
// the file.
func (b *builder) writeTop() error {
	top := make([]byte, 2*len(b.roots))
	copy(top, b.roots)
	for r := range chunkRows(top) {
		r.hash()
	}
	top = top[:len(top)-sealcore.NodeSize]
	row := bits.TrailingZeros64(b.chunk / sealcore.NodeSize)
	if _, err := b.tree.WriteAt(top, b.rowStart(row)); err != nil {
		return fmt.Errorf("write tree D: %w", err)
	}
	return nil
}
