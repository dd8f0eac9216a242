package seal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"
	"golang.org/x/sync/errgroup"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/durable"
	"sealfleet/internal/sealcore/field"
	"sealfleet/internal/sealcore/merkle"
	"sealfleet/internal/sealcore/poseidon"
)

// P2 makes the replica and its trees from the labels and tree D of p1, in one pass over
// them: the column hashes and tree C, the sealed file (data plus last label, in the
// field), and tree R. It then writes p_aux and t_aux.
//
// The data is read from tree D's leaves and never from p.Sealed, so p2 can be done again
// after it succeeded and gives the same bytes. Until its end it needs room for a second
// sealed file beside the first. Memory is some megabytes per thread, whatever the sector's
// size. The only progress step is "trees", in nodes. When ctx is cancelled it stops within
// a fraction of a second and leaves the files as they were.
func P2(ctx context.Context, p1 *PreCommit1, p Paths, o Options) (*PreCommit2, error) {
	out, err := runP2(ctx, p1, p, o)
	if err != nil {
		return nil, fmt.Errorf("p2 of sector %d: %w", p1.Sector.Number, err)
	}
	return out, nil
}

func runP2(ctx context.Context, p1 *PreCommit1, p Paths, o Options) (_ *PreCommit2, err error) {
	params := p1.Sector.Params
	in, err := openP2Inputs(p1, p.Cache)
	if err != nil {
		return nil, err
	}
	defer in.close()

	sealed, err := durable.Create(p.Sealed)
	if err != nil {
		return nil, err
	}
	defer sealed.Abort()
	if err := sealed.Truncate(int64(params.SectorSize)); err != nil {
		return nil, fmt.Errorf("make room for the sealed file: %w", err)
	}
	treeC, err := merkle.NewTreeC(p.Cache, params)
	if err != nil {
		return nil, err
	}
	defer treeC.Abort()
	treeR, err := merkle.NewTreeR(p.Cache, params)
	if err != nil {
		return nil, err
	}
	defer treeR.Abort()

	run := &p2Run{
		inputs: in,
		column: poseidon.For(params.Layers),
		sealed: sealed,
		treeC:  treeC,
		treeR:  treeR,
		chunk:  treeC.ChunkLeaves(),
		total:  params.Nodes(),
		report: o.Progress,
	}
	if err := run.all(ctx, o.Threads); err != nil {
		return nil, err
	}

	out := &PreCommit2{Params: params, CommD: p1.CommD}
	if out.CommC, err = treeC.Finish(); err != nil {
		return nil, err
	}
	if err := sealed.Commit(); err != nil {
		return nil, err
	}
	if out.CommRLast, err = treeR.Finish(); err != nil {
		return nil, err
	}
	if out.CommR, err = merkle.Poseidon([]sealcore.Domain{out.CommC, out.CommRLast}); err != nil {
		return nil, err
	}
	return out, writeAux(params, p.Cache, PAux{out.CommC, out.CommRLast})
}

// writeAux writes p_aux and t_aux.
func writeAux(params sealcore.Params, cache string, aux PAux) error {
	pAux, err := aux.MarshalBinary()
	if err != nil {
		return err
	}
	tAux, err := NewTAux(params, cache).MarshalBinary()
	if err != nil {
		return err
	}
	if err := durable.Write(filepath.Join(cache, PAuxName), pAux); err != nil {
		return err
	}
	return durable.Write(filepath.Join(cache, TAuxName), tAux)
}

// p2Inputs are the files that p2 reads.
type p2Inputs struct {
	layers []*os.File // labels, layer 1 first
	treeD  *os.File   // its first row is the data
}

func openP2Inputs(p1 *PreCommit1, cache string) (*p2Inputs, error) {
	params := p1.Sector.Params
	in := &p2Inputs{}
	for layer := 1; layer <= params.Layers; layer++ {
		f, err := openSized(LabelsConfig(params, cache, layer))
		if err != nil {
			in.close()
			return nil, fmt.Errorf("labels of layer %d: %w: do p1 again", layer, err)
		}
		in.layers = append(in.layers, f)
	}
	var err error
	if in.treeD, err = openSized(TreeDConfig(params, cache)); err != nil {
		in.close()
		return nil, fmt.Errorf("tree D: %w: do p1 again", err)
	}
	var root sealcore.Domain
	if _, err := in.treeD.ReadAt(root[:], int64(TreeDConfig(params, cache).Size-1)*sealcore.NodeSize); err != nil {
		in.close()
		return nil, fmt.Errorf("tree D: %w", err)
	}
	if root != p1.CommD {
		in.close()
		return nil, fmt.Errorf("tree D's root is %x, the output of p1 says CommD %x: %s holds another sector's files",
			root, p1.CommD, cache)
	}
	return in, nil
}

// openSized opens a store that lies in its file in full.
func openSized(c StoreConfig) (*os.File, error) {
	f, err := os.Open(c.File())
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if want := int64(c.Size * sealcore.NodeSize); info.Size() != want {
		return nil, errors.Join(fmt.Errorf("%s has %d bytes, want %d", c.File(), info.Size(), want), f.Close())
	}
	return f, nil
}

func (in *p2Inputs) close() {
	for _, f := range in.layers {
		f.Close()
	}
	if in.treeD != nil {
		in.treeD.Close()
	}
}

// p2Run is the pass over the sector.
type p2Run struct {
	inputs *p2Inputs
	column *poseidon.Hasher
	sealed *durable.File
	treeC  *merkle.Builder
	treeR  *merkle.Builder
	chunk  int    // nodes that a thread takes at a time
	total  uint64 // nodes
	next   atomic.Uint64
	report func(step string, done, total uint64)

	mu   sync.Mutex // of done, so that reports don't go backwards
	done uint64
}

// all takes every chunk through, with the given number of threads.
func (r *p2Run) all(ctx context.Context, threads int) error {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	chunks := r.total / uint64(r.chunk)
	g, ctx := errgroup.WithContext(ctx)
	for range min(uint64(threads), chunks) {
		g.Go(func() error {
			w := newP2Worker(r)
			for {
				if err := ctx.Err(); err != nil {
					return err
				}
				c := r.next.Add(1) - 1
				if c >= chunks {
					return nil
				}
				if err := w.do(c); err != nil {
					return err
				}
				r.advance()
			}
		})
	}
	return g.Wait()
}

func (r *p2Run) advance() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done += uint64(r.chunk)
	if r.report != nil {
		r.report("trees", r.done, r.total)
	}
}

// p2Worker is the working memory of one thread.
type p2Worker struct {
	*p2Run
	bytes   []byte       // of a chunk's nodes
	columns []fr.Element // labels of a chunk, node by node
	leaves  []fr.Element // of tree C or tree R
	scratch merkle.Scratch
}

func newP2Worker(r *p2Run) *p2Worker {
	return &p2Worker{
		p2Run:   r,
		bytes:   make([]byte, r.chunk*sealcore.NodeSize),
		columns: make([]fr.Element, r.chunk*len(r.inputs.layers)),
		leaves:  make([]fr.Element, r.chunk),
	}
}

// do takes one chunk from labels and data to the rows of both trees and the sealed file.
func (w *p2Worker) do(c uint64) error {
	first := c * uint64(w.chunk)
	layers := len(w.inputs.layers)
	for i, f := range w.inputs.layers {
		if err := w.read(w.columns[i:], layers, f, first); err != nil {
			return err
		}
	}
	w.column.SumBatch(w.leaves, w.columns)
	if err := w.treeC.Add(c, w.leaves, &w.scratch); err != nil {
		return fmt.Errorf("tree C: %w", err)
	}

	if err := w.read(w.leaves, 1, w.inputs.treeD, first); err != nil {
		return err
	}
	for i := range w.leaves {
		key := &w.columns[i*layers+layers-1]
		w.leaves[i].Add(&w.leaves[i], key)
	}
	field.ToBytes(w.bytes, w.leaves)
	if _, err := w.sealed.WriteAt(w.bytes, int64(first)*sealcore.NodeSize); err != nil {
		return fmt.Errorf("write the sealed file: %w", err)
	}
	if err := w.treeR.Add(c, w.leaves, &w.scratch); err != nil {
		return fmt.Errorf("tree R: %w", err)
	}
	return nil
}

// read sets every stride-th element of dst to the nodes of f from first on.
func (w *p2Worker) read(dst []fr.Element, stride int, f *os.File, first uint64) error {
	if _, err := f.ReadAt(w.bytes, int64(first)*sealcore.NodeSize); err != nil {
		return fmt.Errorf("read %s: %w", f.Name(), err)
	}
	err := field.FromBytesStrided(dst, stride, w.bytes)
	if bad := (*field.RangeError)(nil); errors.As(err, &bad) {
		return fmt.Errorf("%s is damaged: node %d is not a field element: do p1 again", f.Name(), first+uint64(bad.Index))
	}
	return err
}
