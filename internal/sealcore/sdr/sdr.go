// Package sdr computes the labels of a replica: the slow, sequential part of p1.
//
// The label of a node is the SHA-256 of replica id, layer, node, and 37 parents' labels (its
// parents over and over), with the two topmost bits cleared. In the first layer the parents are
// the six base parents; in all others the eight expander parents from the layer before follow
// them. As the predecessor is always a parent, a layer is one chain of hashes: one core hashes,
// and all that does not wait for a label (drawing parents) is done ahead by others.
//
// Source: Filecoin spec, "Stacked DRG Proof of Replication"; storage-proofs-porep
// stacked/vanilla/create_label (19.1.0).
package sdr

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/graph"
)

// Options bound and observe the work on a layer.
type Options struct {
	// Threads is how many cores to use: one hashes, the others draw parents. With less than two
	// the hashing core does both. More than three don't help.
	Threads int
	// Prepare, if set, is called before labels are written to a part of out, in order and from any
	// goroutine; it may bring the part into memory. A failure shows when the part is written.
	Prepare func(part []byte)
	// Progress, if set, is called now and then with the number of nodes that are done.
	Progress func(done, total uint64)
}

// Layer computes the labels of one layer, counted from 1, into out: 32 bytes per node. prev holds
// the labels of the layer before; it is nil for the first layer, which has none.
//
// Both may be mapped files. If such a file cannot be read or written (an I/O error, or no space
// left behind a sparse one), the error is ErrFault. The work stops within milliseconds when ctx
// is done. Labels are written in order, each once; out is read as far as it is written.
func Layer(ctx context.Context, g *graph.Graph, replicaID sealcore.Domain, layer int, prev, out []byte, o Options) error {
	size := g.Nodes() * sealcore.NodeSize
	if layer < 1 || uint64(len(out)) != size || (layer == 1) != (prev == nil) || (prev != nil && uint64(len(prev)) != size) {
		return fmt.Errorf("labels of layer %d: %d bytes from %d, want %d", layer, len(out), len(prev), size)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := prefix{replicaID, uint32(layer)}
	s := newStream(ctx, g, p, prev != nil, o.Threads, func(b *batch) {
		if o.Prepare != nil {
			o.Prepare(out[b.first*sealcore.NodeSize:][:b.count*sealcore.NodeSize])
		}
	})
	defer s.wait()
	defer cancel()

	h := newHasher(p, prev, out)
	for batch, err := range s.batches() {
		if err != nil {
			return err
		}
		if err := h.guarded(batch); err != nil {
			return fmt.Errorf("labels of layer %d, nodes from %d: %w", layer, batch.first, err)
		}
		done := batch.first + uint64(batch.count)
		if o.Progress != nil && (done%progressNodes == 0 || done == g.Nodes()) {
			o.Progress(done, g.Nodes())
		}
	}
	return nil
}

// progressNodes is how many nodes lie between two reports of progress: some tens of milliseconds.
const progressNodes = 16 * batchNodes

// ErrFault tells that the memory of a layer could not be read or written. It is a file's memory,
// so the file system or the disk under it failed.
var ErrFault = errors.New("access to the mapped file failed: look for disk errors in the kernel's log, and for free space")

// guarded hashes a batch. A fault in mapped memory comes back as an error.
func (h *hasher) guarded(b *batch) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			if fault, ok := r.(interface{ Addr() uintptr }); ok {
				err = fmt.Errorf("%w (address %#x)", ErrFault, fault.Addr())
				return
			}
			panic(r)
		}
	}()
	h.hash(b)
	return nil
}
