package seal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

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
// when a layer begins: its room is reserved. Files have their names only when they are whole, and
// are synced when P1 returns; P1 on the same paths again gives the same bytes. Labels of an earlier
// run are removed when the new ones begin, so that a cache never holds those of two runs.
//
// It needs room for Layers + 4 sectors: the labels, p.Unsealed, p.Sealed, and two for tree D.
// Layers are mapped: p1 is fast only where two of them fit in memory, of which it needs little
// besides. It stops within a fraction of a second when ctx is done.
//
// Progress has the steps "tree-d" (in bytes of the sector) and "layer 1/2" and so on (in nodes).
//
// A finished layer is recorded with its hash in RecordName in p.Cache, with what it belongs to. P1
// that is killed or cancelled repeats no more than the layer that it was at: the next one on the
// same paths compares the data and tree D with the pieces, reads every recorded layer again, keeps
// what is right and computes the rest. It does so on any host. The record is gone when P1 is done:
// done again, it trusts nothing. A first step "resumed at layer 2/11" tells that layers were kept.
func P1(ctx context.Context, s Sector, list []Piece, p Paths, o Options) (*PreCommit1, error) {
	r := P1Batch(ctx, []BatchItem{{Sector: s, Pieces: list, Paths: p, Options: o}}, o.threads())[0]
	return r.Output, r.Err
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
	threads int
	paths   Paths
	sizes   []uint64 // of the pieces, unpadded
	src     pieces.Source
	graph   *graph.Graph
	out     PreCommit1
	record  *record
	todo    []int // layers, in order

	// What is finished goes to the disk while the next file is computed. The first error stops
	// everything of this sector.
	ctx       context.Context
	cancel    context.CancelCauseFunc
	wg        sync.WaitGroup
	closeData func()

	over func() // has end called, in the background

	files []*durable.File // all that were created
	layer int             // that is mapped as labels, or 0
	label mapping
}

// newP1Run checks the input and makes the directories.
func newP1Run(ctx context.Context, item BatchItem) (*p1Run, error) {
	s := item.Sector
	sizes := make([]uint64, len(item.Pieces))
	for i, piece := range item.Pieces {
		sizes[i] = piece.UnpaddedSize
	}
	if err := pieces.Validate(s.Params, sizes); err != nil {
		return nil, err
	}
	src, closePieces, err := openPieces(item.Pieces)
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{filepath.Dir(item.Paths.Unsealed), filepath.Dir(item.Paths.Sealed), item.Paths.Cache} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			closePieces()
			return nil, fmt.Errorf("make a directory for the sector: %w", err)
		}
	}
	r := &p1Run{options: item.Options, paths: item.Paths, sizes: sizes, src: src, closeData: closePieces}
	r.out.Sector, r.out.Cache = s, item.Paths.Cache
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	return r, nil
}

// background does something beside the work. Its error stops the run.
func (r *p1Run) background(do func() error) {
	r.wg.Go(func() { r.fail(do()) })
}

// fail stops the run, unless err is nil or it is stopped already.
func (r *p1Run) fail(err error) {
	if err != nil {
		r.cancel(err)
	}
}

// end waits for what is in the background, drops what is not finished, and tells how it went.
func (r *p1Run) end() error {
	r.wg.Wait()
	err := r.ctx.Err()
	if cause := context.Cause(r.ctx); cause != nil && !errors.Is(err, context.DeadlineExceeded) {
		err = cause
	}
	if err == nil {
		err = r.record.remove()
	}
	r.cancel(nil)
	r.unmap()
	for _, f := range r.files {
		f.Abort() // nothing if it is committed
	}
	r.closeData()
	return err
}

func (r *p1Run) unmap() {
	if r.label != nil {
		r.fail(r.label.unmap())
	}
	r.label, r.layer = nil, 0
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

// begin makes the data, finds what an earlier run left, and says which layers are to do.
func (r *p1Run) begin() error {
	s := r.out.Sector
	var err error
	if r.record, err = readRecord(r.paths.Cache); err != nil {
		return err
	}
	kept := false
	if r.record.Data {
		if kept, err = r.sameData(); err != nil {
			return err
		}
	}
	if !kept {
		if err := r.record.forgetData(); err != nil {
			return err
		}
		if err := r.data(); err != nil {
			return err
		}
	}
	r.out.ReplicaID = sealcore.ReplicaID(s.ProverID, s.Number, s.Ticket, r.out.CommD, s.Params.PoRepID)
	return r.resume()
}

// data writes the unsealed file, tree D and the copy, and finds CommD and the CommPs.
func (r *p1Run) data() error {
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
	if err := r.build(unsealed, tree); err != nil {
		return err
	}
	r.background(func() error {
		var group errgroup.Group
		group.Go(func() error { return finish(r.ctx, tree) })
		group.Go(func() error {
			if err := copyFile(r.ctx, sealed.File, unsealed.File); err != nil {
				return err
			}
			return errors.Join(finish(r.ctx, unsealed), finish(r.ctx, sealed))
		})
		if err := group.Wait(); err != nil {
			return err
		}
		return r.record.addData()
	})
	return nil
}

// build puts the pieces together.
func (r *p1Run) build(unsealed io.WriterAt, tree pieces.TreeFile) error {
	commD, infos, err := pieces.Build(r.ctx, r.out.Sector.Params, r.sizes, r.src, unsealed, tree, pieces.BuildOptions{
		Threads:  r.threads,
		Progress: func(done, total uint64) { r.options.progress("tree-d", done, total) },
	})
	if err != nil {
		return err
	}
	r.out.CommD, r.out.Pieces = commD, nil
	for _, info := range infos {
		r.out.Pieces = append(r.out.Pieces, PieceInfo(info))
	}
	return nil
}

// work is a layer that is being computed.
type work struct {
	lane   sdr.Lane
	layer  int
	file   *durable.File
	out    mapping
	hashed func() (sealcore.Domain, error) // waits for the layer's hash
	ended  bool                            // before the others of its batch, and closed
	mu     sync.Mutex
	closed bool // out and file are not for prepare any more
}

// open prepares the next layer that is to do.
func (r *p1Run) open() (*work, error) {
	params, layer := r.out.Sector.Params, r.todo[0]
	size := int(params.SectorSize)
	w := &work{layer: layer}
	if layer > 1 && r.layer != layer-1 {
		r.unmap()
		f, err := os.OpenFile(LabelsConfig(params, r.paths.Cache, layer-1).File(), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		defer f.Close() // only mapped
		if r.label, err = mapFile(f, size); err != nil {
			return nil, fmt.Errorf("map the labels of layer %d: %w", layer-1, err)
		}
		r.layer = layer - 1
	}
	var err error
	if w.file, err = r.create(LabelsConfig(params, r.paths.Cache, layer).File(), int64(size)); err != nil {
		return nil, err
	}
	// Without its blocks, a full disk would only show as a fault in the middle of the layer.
	if err := allocate(r.ctx, w.file.File, int64(size)); err != nil {
		return nil, fmt.Errorf("reserve %d bytes for the labels of layer %d: %w", size, layer, err)
	}
	if w.out, err = mapFile(w.file.File, size); err != nil {
		return nil, fmt.Errorf("map the labels of layer %d: %w", layer, err)
	}
	step := fmt.Sprintf("layer %d/%d", layer, params.Layers)
	follow, hashed := followHash(w.out)
	w.hashed = hashed
	w.lane = sdr.Lane{
		Context: r.ctx, ReplicaID: r.out.ReplicaID, Out: w.out,
		Prepare: w.prepare,
		Progress: func(done, total uint64) {
			follow(done * sealcore.NodeSize)
			r.options.progress(step, done, total)
		},
	}
	if layer > 1 {
		w.lane.Prev = r.label
	}
	return w, nil
}

// prepare brings memory into being for labels from a byte on, as long as the layer is open.
func (w *work) prepare(from uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		populate(w.file.File, w.out, from)
	}
}

// close records a layer that was computed, or drops it.
func (r *p1Run) close(w *work, err error) {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	sum, hashErr := w.hashed()
	if r.unmap(); err == nil {
		err = hashErr
	}
	if err != nil {
		r.fail(errors.Join(err, w.out.unmap()))
		return
	}
	r.label, r.layer, r.todo = w.out, w.layer, r.todo[1:]
	// From here on the layer counts. It has its name before it is on the disk, because the
	// record has its hash: what a crash of the machine may leave is not taken for it.
	if err := w.file.Publish(); err != nil {
		r.fail(err)
		return
	}
	if err := r.record.addLayer(w.layer, sum); err != nil {
		r.fail(err)
		return
	}
	r.background(func() error { return finish(r.ctx, w.file) })
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
