package seal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/durable"
	"sealfleet/internal/sealcore/graph"
	"sealfleet/internal/sealcore/pieces"
	"sealfleet/internal/sealcore/sdr"
)

// P1 puts the pieces together and computes the labels. It writes p.Unsealed (a whole sector of
// padded data), p.Sealed (a copy of it: the reference's p2 encodes it in place; a copy-on-write
// clone where the file system can), and in p.Cache tree D and the labels of every layer. It makes
// directories that do not exist.
//
// The list of pieces is checked before any work: the errors wrap pieces.ErrNone, ErrSize,
// ErrTooLarge and ErrOverflow; a file that is not as long as its piece gives one that wraps
// io.ErrUnexpectedEOF or pieces.ErrLonger. A full disk gives one that wraps ENOSPC, at the latest
// when a layer begins: its room is reserved. Files have their names only when they are whole and
// synced; P1 on the same paths again gives the same bytes. Labels of an earlier run are removed
// when the new ones begin, so that a cache never holds those of two runs.
//
// It needs room for Layers + 4 sectors: the labels, p.Unsealed, p.Sealed, and two for tree D.
// Layers are mapped: p1 is fast only where two of them fit in memory, of which it needs little
// besides. It stops within a fraction of a second when ctx is done.
//
// Progress has the steps "tree-d" (in bytes of the sector) and "layer 1/2" and so on (in nodes).
func P1(ctx context.Context, s Sector, list []Piece, p Paths, o Options) (*PreCommit1, error) {
	out, err := runP1(ctx, s, list, p, o)
	if err != nil {
		return nil, fmt.Errorf("p1 of sector %d: %w", s.Number, err)
	}
	return out, nil
}

func runP1(ctx context.Context, s Sector, list []Piece, p Paths, o Options) (*PreCommit1, error) {
	sizes := make([]uint64, len(list))
	for i, piece := range list {
		sizes[i] = piece.UnpaddedSize
	}
	if err := pieces.Validate(s.Params, sizes); err != nil {
		return nil, err
	}
	g, err := graph.New(s.Params.Nodes(), s.Params.PoRepID, s.Params.APIVersion)
	if err != nil {
		return nil, err
	}
	src, closePieces, err := openPieces(list)
	if err != nil {
		return nil, err
	}
	defer closePieces()
	for _, dir := range []string{filepath.Dir(p.Unsealed), filepath.Dir(p.Sealed), p.Cache} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make a directory for the sector: %w", err)
		}
	}

	r := &p1Run{options: o, paths: p, sizes: sizes, src: src, graph: g}
	r.out.Sector, r.out.Cache = s, p.Cache
	defer r.close()
	// What is finished goes to the disk while the next file is computed. The first error stops
	// everything.
	var groupCtx context.Context
	r.group, groupCtx = errgroup.WithContext(ctx)
	r.group.Go(func() error { return r.compute(groupCtx) })
	if err := r.group.Wait(); err != nil {
		return nil, err
	}
	return &r.out, nil
}

// openPieces opens the pieces' files and compares their length with what was said of them.
func openPieces(list []Piece) (_ pieces.Source, closeAll func(), err error) {
	src := make(pieces.Source, len(list))
	all := func() {
		for _, f := range src {
			if f, ok := f.(*os.File); ok {
				f.Close() // only read
			}
		}
	}
	defer func() {
		if err != nil {
			all()
		}
	}()
	for i, piece := range list {
		if piece.Path == "" {
			continue
		}
		f, err := os.Open(piece.Path)
		if err != nil {
			return nil, nil, fmt.Errorf("piece %d of %d: %w", i+1, len(list), err)
		}
		src[i] = f
		info, err := f.Stat()
		if err != nil {
			return nil, nil, fmt.Errorf("piece %d of %d: %w", i+1, len(list), err)
		}
		if err := checkPieceFile(info, piece.UnpaddedSize); err != nil {
			return nil, nil, fmt.Errorf("piece %d of %d: %s %w", i+1, len(list), piece.Path, err)
		}
	}
	return src, all, nil
}

func checkPieceFile(info os.FileInfo, unpadded uint64) error {
	if !info.Mode().IsRegular() {
		return errors.New("is no regular file: copy the data to one")
	}
	var err error
	switch size := uint64(info.Size()); {
	case size < unpadded:
		err = io.ErrUnexpectedEOF
	case size > unpadded:
		err = pieces.ErrLonger
	default:
		return nil
	}
	return fmt.Errorf("has %d bytes, the piece %d: give the right file or the right size: %w", info.Size(), unpadded, err)
}

// p1Run is one run of p1.
type p1Run struct {
	options Options
	paths   Paths
	sizes   []uint64 // of the pieces, unpadded
	src     pieces.Source
	graph   *graph.Graph
	out     PreCommit1

	group  *errgroup.Group
	files  []*durable.File // all that were created
	layers []mapping
}

// close drops what is not finished. It must be called when nothing runs any more.
func (r *p1Run) close() {
	for _, m := range r.layers {
		m.unmap()
	}
	for _, f := range r.files {
		f.Abort() // nothing if it is committed
	}
}

// create begins a file of the given size, which reads as zeros.
func (r *p1Run) create(path string, size int64) (*durable.File, error) {
	f, err := durable.Create(path)
	if err != nil {
		return nil, err
	}
	r.files = append(r.files, f)
	if err := f.Truncate(size); err != nil {
		return nil, err
	}
	return f, nil
}

// finish syncs a file and gives it its name. Most of it is written out bit by bit, because a sync
// cannot be interrupted.
func finish(ctx context.Context, f *durable.File) error {
	if err := writeOut(ctx, f.File); err != nil {
		return err
	}
	return f.Commit()
}

func (r *p1Run) compute(ctx context.Context) error {
	if err := r.data(ctx); err != nil {
		return err
	}
	s := r.out.Sector
	r.out.ReplicaID = sealcore.ReplicaID(s.ProverID, s.Number, s.Ticket, r.out.CommD, s.Params.PoRepID)
	// Labels of an earlier run may be of another ticket: were they left, a run that is killed
	// would leave a mixture of both. They would also take the room of the new ones.
	for layer := 1; layer <= s.Params.Layers; layer++ {
		err := os.Remove(LabelsConfig(s.Params, r.paths.Cache, layer).File())
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove the labels of an earlier run: %w", err)
		}
	}
	for layer := 1; layer <= s.Params.Layers; layer++ {
		if err := r.labels(ctx, layer); err != nil {
			return err
		}
	}
	return nil
}

// data writes the unsealed file, tree D and the copy, and finds CommD and the CommPs.
func (r *p1Run) data(ctx context.Context) error {
	params := r.out.Sector.Params
	unsealed, err := r.create(r.paths.Unsealed, int64(params.SectorSize))
	if err != nil {
		return err
	}
	tree, err := r.create(TreeDConfig(params, r.paths.Cache).File(), pieces.TreeSize(params))
	if err != nil {
		return err
	}
	sealed, err := r.create(r.paths.Sealed, int64(params.SectorSize))
	if err != nil {
		return err
	}
	commD, infos, err := pieces.Build(ctx, params, r.sizes, r.src, unsealed, tree, pieces.BuildOptions{
		Threads:  r.options.threads(),
		Progress: func(done, total uint64) { r.options.progress("tree-d", done, total) },
	})
	if err != nil {
		return err
	}
	r.out.CommD = commD
	for _, info := range infos {
		r.out.Pieces = append(r.out.Pieces, PieceInfo(info))
	}
	r.group.Go(func() error { return finish(ctx, tree) })
	r.group.Go(func() error {
		if err := copyFile(ctx, sealed.File, unsealed.File); err != nil {
			return err
		}
		return errors.Join(finish(ctx, unsealed), finish(ctx, sealed))
	})
	return nil
}

// labels computes one layer into its mapped file.
func (r *p1Run) labels(ctx context.Context, layer int) error {
	params := r.out.Sector.Params
	f, err := r.create(LabelsConfig(params, r.paths.Cache, layer).File(), int64(params.SectorSize))
	if err != nil {
		return err
	}
	// Without its blocks, a full disk would only show as a fault in the middle of the layer.
	if err := allocate(ctx, f.File, int64(params.SectorSize)); err != nil {
		return fmt.Errorf("reserve %d bytes for the labels of layer %d: %w", params.SectorSize, layer, err)
	}
	out, err := mapFile(f.File, int(params.SectorSize))
	if err != nil {
		return fmt.Errorf("map the labels of layer %d: %w", layer, err)
	}
	var prev mapping
	if layer > 1 {
		prev = r.layers[0]
	}
	r.layers = append(r.layers, out)

	step := fmt.Sprintf("layer %d/%d", layer, params.Layers)
	err = sdr.Layer(ctx, r.graph, r.out.ReplicaID, layer, prev, out, sdr.Options{
		Threads:  r.options.threads(),
		Prepare:  populate,
		Progress: func(done, total uint64) { r.options.progress(step, done, total) },
	})
	if err != nil {
		return err
	}
	if layer > 1 {
		r.layers = r.layers[1:]
		if err := prev.unmap(); err != nil {
			return err
		}
	}
	r.group.Go(func() error { return finish(ctx, f) })
	return nil
}

// copyStep is how much is copied or written out between two looks at the context.
const copyStep = 16 << 20

// copyFile makes dst's content that of src, which has the same size; dst reads as zeros before.
// It shares the blocks where the file system can, and copies no stretches that were never written.
func copyFile(ctx context.Context, dst, src *os.File) error {
	if cloneFile(dst, src) == nil {
		return nil
	}
	info, err := src.Stat()
	if err != nil {
		return err
	}
	for end := int64(0); end < info.Size(); {
		var start int64
		if start, end, err = nextData(src, end, info.Size()); err != nil {
			return err
		}
		for start < end {
			if err := ctx.Err(); err != nil {
				return err
			}
			n, err := copyRange(dst, src, start, min(copyStep, end-start))
			if err != nil {
				return fmt.Errorf("copy %s to %s: %w", src.Name(), dst.Name(), err)
			}
			start += n
		}
	}
	return nil
}

// copyBytes copies n bytes at an offset by way of this process.
func copyBytes(dst, src *os.File, off, n int64) (int64, error) {
	return io.Copy(io.NewOffsetWriter(dst, off), io.NewSectionReader(src, off, n))
}
