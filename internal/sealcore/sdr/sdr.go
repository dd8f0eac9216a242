// Package sdr computes the labels of a replica: the slow, sequential part of p1.
//
// The label of a node is the SHA-256 of replica id, layer, node, and 37 parents' labels (its
// parents over and over), with the two topmost bits cleared. In the first layer the parents are
// the six base parents; in all others the eight expander parents from the layer before follow
// them. As the predecessor is always a parent, a layer is one chain of hashes: one core hashes,
// and all that does not wait for a label (drawing parents) is done ahead by others.
//
// A chain leaves most of a core's SHA unit idle. Sectors of the same graph have the same parents,
// so their labels are computed side by side: up to three chains in one core, interleaved, over
// parents that are drawn once.
//
// Source: Filecoin spec, "Stacked DRG Proof of Replication"; storage-proofs-porep
// stacked/vanilla/create_label (19.1.0).
package sdr

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/graph"
)

// Options bound and observe the work on a layer.
type Options struct {
	// Threads is how many cores to use: see Layers. One lane has no use for more than three: one
	// hashes, the others draw parents.
	Threads int
	// Progress, if set, is called now and then with the number of nodes that are done.
	Progress func(done, total uint64)
}

// Lane is one sector's part in the work on a layer.
type Lane struct {
	// Context, if set, ends the work for this sector alone.
	Context   context.Context
	ReplicaID sealcore.Domain
	// Prev and Out hold the labels of the layer before and of this one, 32 bytes per node. Prev
	// is nil in the first layer.
	Prev, Out []byte
	// Prepare, if set, is called before labels are written to Out from byte from on, for steps of
	// 64 KiB and from any goroutine; it may bring memory that has no labels yet into being. A
	// failure shows when the labels are written.
	Prepare func(from uint64)
	// Progress, if set, is called now and then, from one goroutine, with the number of nodes whose
	// labels are in Out.
	Progress func(done, total uint64)
	// Ended, if set, is called once if this sector's work ends before the others' does: nothing of
	// it is read or written any more, but Prepare may still be called.
	Ended func(err error)
}

// Layer computes the labels of one layer of one sector: see Layers.
func Layer(ctx context.Context, g *graph.Graph, replicaID sealcore.Domain, layer int, prev, out []byte, o Options) error {
	return Layers(ctx, g, []Lane{{ReplicaID: replicaID, Prev: prev, Out: out}}, layer, o)[0]
}

// Layers computes the labels of one layer, counted from 1, for sectors of the same graph, and
// returns an error or nil for each. What stops one, a fault or its own context, does not stop the
// others.
//
// The lanes are spread over o.Threads cores, up to three on each; if there are more lanes than
// that, the cores take turns. o.Progress hears of the slowest.
//
// Labels may be in mapped files. If such a file cannot be read or written (an I/O error, or no
// space left behind a sparse one), the error is ErrFault. The work stops within milliseconds when
// ctx is done. Labels are written in order; a part may be written twice. Out is read as far as it
// is written.
func Layers(ctx context.Context, g *graph.Graph, lanes []Lane, layer int, o Options) []error {
	errs := make([]error, len(lanes))
	var work []*hasher
	prefixes := make([]prefix, 0, len(lanes))
	size := g.Nodes() * sealcore.NodeSize
	for i, l := range lanes {
		if layer < 1 || uint64(len(l.Out)) != size || (layer == 1) != (l.Prev == nil) || (l.Prev != nil && uint64(len(l.Prev)) != size) {
			errs[i] = fmt.Errorf("labels of layer %d: %d bytes from %d, want %d", layer, len(l.Out), len(l.Prev), size)
			continue
		}
		p := prefix{l.ReplicaID, uint32(layer)}
		h := newHasher(p, l.Prev, l.Out)
		h.lane, h.number, h.err = &lanes[i], len(prefixes), &errs[i]
		work, prefixes = append(work, h), append(prefixes, p)
	}
	if len(work) == 0 {
		return errs
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	crews := newCrews(work, max(1, o.Threads))
	producers := max(0, min(o.Threads-len(crews), maxProducers))
	if len(crews) > 1 {
		producers = max(1, producers)
	}
	if g.Nodes() <= batchNodes && len(crews) == 1 {
		producers = 0
	}
	s := newStream(ctx, g, prefixes, layer > 1, len(crews), producers, func(b *batch) {
		for _, h := range work {
			if h.lane.Prepare != nil {
				h.lane.Prepare(b.first * sealcore.NodeSize)
			}
		}
	})
	defer s.wait()
	defer cancel()
	slowest := newSlowest(len(crews), g.Nodes(), o.Progress)
	var wg sync.WaitGroup
	for i, c := range crews[1:] {
		wg.Go(func() { c.run(s, i+1, slowest) })
	}
	crews[0].run(s, 0, slowest)
	wg.Wait()
	return errs
}

// progressNodes is how many nodes lie between two reports of progress: some tens of milliseconds.
const progressNodes = 16 * batchNodes

// ErrFault tells that the memory of a layer could not be read or written. It is a file's memory,
// so the file system or the disk under it failed.
var ErrFault = errors.New("access to the mapped file failed: look for disk errors in the kernel's log, and for free space")
