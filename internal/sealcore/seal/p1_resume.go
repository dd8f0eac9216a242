package seal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"sealfleet/internal/sealcore/pieces"
)

// resume decides which layers are to do. It keeps those that an earlier run of the same replica
// recorded and that are still what was recorded, and removes all others: they may be of another
// ticket, and were they left, a run that is killed would leave a mixture of both.
func (r *p1Run) resume() error {
	params := r.out.Sector.Params
	recorded := r.record.bind(params, r.out.ReplicaID)
	good := make([]bool, params.Layers+1)
	sums := make([]FileFact, params.Layers+1)
	group, ctx := errgroup.WithContext(r.ctx)
	group.SetLimit(r.threads)
	for layer := range recorded {
		if layer < 1 || layer > params.Layers {
			continue
		}
		group.Go(func() (err error) {
			sums[layer], err = fileFact(ctx, LabelsConfig(params, r.paths.Cache, layer).File())
			good[layer] = err == nil && sums[layer].SHA256 == recorded[layer] && sums[layer].Size == int64(params.SectorSize)
			if err == nil || ctx.Err() == nil { // what cannot be read is computed again
				return nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	kept := 0
	for layer := 1; layer <= params.Layers; layer++ {
		path := LabelsConfig(params, r.paths.Cache, layer).File()
		if !good[layer] {
			r.todo = append(r.todo, layer)
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove the labels of an earlier run: %w", err)
			}
			continue
		}
		kept++
		r.record.keep(layer, sums[layer].SHA256)
		// It may have been killed before it was synced.
		r.background(func() error { return syncFile(r.ctx, path) })
	}
	if kept == 0 {
		return nil
	}
	next := params.Layers
	if len(r.todo) > 0 {
		next = r.todo[0]
	}
	r.options.progress(fmt.Sprintf("resumed at layer %d/%d", next, params.Layers), uint64(kept), uint64(params.Layers))
	return nil
}

func syncFile(ctx context.Context, path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(writeOut(ctx, f), f.Sync(), f.Close())
}

// sameData tells whether the unsealed file, tree D and the copy are what p1 would write. It
// builds them once more, but only compares.
func (r *p1Run) sameData() (bool, error) {
	params := r.out.Sector.Params
	unsealed, err := openComparer(r.paths.Unsealed, int64(params.SectorSize))
	if err != nil {
		return false, nil //nolint:nilerr // what cannot be read is written again
	}
	defer unsealed.f.Close()
	tree, err := openComparer(TreeDConfig(params, r.paths.Cache).File(), pieces.TreeSize(params))
	if err != nil {
		return false, nil //nolint:nilerr // as above
	}
	defer tree.f.Close()
	sealed, err := openComparer(r.paths.Sealed, int64(params.SectorSize))
	if err != nil {
		return false, nil //nolint:nilerr // as above
	}
	defer sealed.f.Close()

	err = r.build(unsealed, tree)
	for _, c := range []*comparer{unsealed, tree} {
		if err == nil {
			err = c.restIsZero(r.ctx)
		}
	}
	if err == nil {
		err = sealed.is(r.ctx, unsealed.f)
	}
	switch {
	case err == nil:
		return true, nil
	case r.ctx.Err() != nil:
		return false, r.ctx.Err()
	case errors.Is(err, errOther):
		return false, nil
	}
	return false, err
}

// errOther tells that a file is not what is to be written.
var errOther = errors.New("the file holds something else")

// comparer takes what is to be written to a file and compares it with what is in it.
type comparer struct {
	f    *os.File
	size int64

	mu      sync.Mutex
	written [][2]int64 // from, to
	buffers sync.Pool
}

func openComparer(path string, size int64) (*comparer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Size() != size) {
		err = errOther
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	c := &comparer{f: f, size: size}
	c.buffers.New = func() any { return new([]byte) }
	return c, nil
}

// WriteAt implements io.WriterAt. It fails with errOther.
func (c *comparer) WriteAt(p []byte, off int64) (int, error) {
	buf := c.buffers.Get().(*[]byte)
	defer c.buffers.Put(buf)
	if cap(*buf) < len(p) {
		*buf = make([]byte, len(p))
	}
	got := (*buf)[:len(p)]
	if n, err := c.f.ReadAt(got, off); n < len(p) {
		return 0, errors.Join(errOther, err)
	}
	if !bytes.Equal(got, p) {
		return 0, errOther
	}
	c.mu.Lock()
	c.written = append(c.written, [2]int64{off, off + int64(len(p))})
	c.mu.Unlock()
	return len(p), nil
}

// ReadAt implements io.ReaderAt.
func (c *comparer) ReadAt(p []byte, off int64) (int, error) { return c.f.ReadAt(p, off) }

// restIsZero fails with errOther if something is where nothing is to be written.
func (c *comparer) restIsZero(ctx context.Context) error {
	slices.SortFunc(c.written, func(a, b [2]int64) int { return int(min(1, max(-1, a[0]-b[0]))) })
	at := int64(0)
	for _, w := range append(c.written, [2]int64{c.size, c.size}) {
		if at < w[0] {
			if err := c.isZero(ctx, at, w[0]); err != nil {
				return err
			}
		}
		at = max(at, w[1])
	}
	return nil
}

func (c *comparer) isZero(ctx context.Context, at, end int64) error {
	buf, zeros := make([]byte, 1<<20), make([]byte, 1<<20)
	for at < end {
		start, stop, err := nextData(c.f, at, c.size)
		if err != nil {
			return err
		}
		for at = max(at, start); at < min(stop, end); {
			if err := ctx.Err(); err != nil {
				return err
			}
			part := buf[:min(int64(len(buf)), min(stop, end)-at)]
			if n, err := c.f.ReadAt(part, at); n < len(part) {
				return errors.Join(errOther, err)
			}
			if !bytes.Equal(part, zeros[:len(part)]) {
				return errOther
			}
			at += int64(len(part))
		}
	}
	return nil
}

// is fails with errOther if another file of the same size has another content.
func (c *comparer) is(ctx context.Context, other *os.File) error {
	buf := make([]byte, 1<<20)
	for at := int64(0); at < c.size; at += int64(len(buf)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := buf[:min(int64(len(buf)), c.size-at)]
		if n, err := other.ReadAt(part, at); n < len(part) {
			return errors.Join(io.ErrUnexpectedEOF, err)
		}
		if _, err := c.WriteAt(part, at); err != nil {
			return err
		}
	}
	return nil
}
