package sdr

import (
	"context"
	"iter"
	"sync"
	"sync/atomic"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/graph"
)

// batchNodes is how many nodes' parents are drawn at once: large enough that handing a batch over
// costs nothing, small enough that a few of them stay in a core's cache.
const batchNodes = 2048

// batch holds what labels of some nodes in a row need and that does not wait for other labels.
type batch struct {
	first   uint64        // node
	count   int           // nodes
	degree  int           // 6 or 14
	parents []uint32      // degree per node: base parents, then expander parents if there are any
	states  [][][8]uint32 // of SHA-256 behind each node's prefix, for each lane; nil where they cannot be used

	producer int
	users    atomic.Int32 // consumers that are not done with it
}

// slack is how many nodes' parents the batch has room for besides its own: the hasher fetches
// labels ahead, and may look behind the batch's end.
const slack = 2

// stream draws the parents of a layer once for all consumers, batch after batch, ahead of those
// who hash.
type stream struct {
	ctx       context.Context
	g         *graph.Graph
	prefixes  []prefix // of all lanes
	states    bool     // whether to compute the batches' states
	degree    int
	consumers int
	begin     func(*batch) // called for each batch, by who draws it
	// Each producer draws every n-th batch and hands it over on its own channel to each consumer;
	// a consumer goes round. Batches that all are done with come back on free.
	full [][]chan *batch // by producer and consumer
	free []chan *batch
	wg   sync.WaitGroup
}

// ahead is how many batches each producer may be in front of the slowest consumer.
const ahead = 3

// maxProducers is how many are enough for one who hashes: drawing takes less than half as long.
const maxProducers = 2

// newStream begins to draw with so many producers. There may be none if there is one consumer,
// which then draws for itself.
func newStream(ctx context.Context, g *graph.Graph, p []prefix, expander bool, consumers, producers int, begin func(*batch)) *stream {
	s := &stream{ctx: ctx, g: g, prefixes: p, states: accelerated(), degree: sealcore.DRGDegree, consumers: consumers, begin: begin}
	if expander {
		s.degree = sealcore.Degree
	}
	for i := range producers {
		free := make(chan *batch, ahead)
		for range ahead {
			b := s.newBatch()
			b.producer = i
			free <- b
		}
		full := make([]chan *batch, consumers)
		for c := range full {
			full[c] = make(chan *batch, ahead)
		}
		s.full, s.free = append(s.full, full), append(s.free, free)
	}
	for i := range s.full { // only now: a producer reads both lists
		s.wg.Go(func() { s.produce(i) })
	}
	return s
}

func (s *stream) newBatch() *batch {
	b := &batch{degree: s.degree, parents: make([]uint32, (batchNodes+slack)*s.degree)}
	if s.states {
		for range s.prefixes {
			b.states = append(b.states, make([][8]uint32, batchNodes))
		}
	}
	return b
}

// wait returns when no producer is running any more.
func (s *stream) wait() { s.wg.Wait() }

// produce draws every n-th batch, beginning with batch i, for n producers.
func (s *stream) produce(i int) {
	for first := uint64(i) * batchNodes; first < s.g.Nodes(); first += uint64(len(s.full)) * batchNodes {
		select {
		case b := <-s.free[i]:
			s.draw(b, first)
			b.users.Store(int32(s.consumers))
			for _, full := range s.full[i] {
				full <- b // never blocks: there are no more batches than places
			}
		case <-s.ctx.Done():
			return
		}
	}
}

// draw fills b with the parents of the nodes from first on.
func (s *stream) draw(b *batch, first uint64) {
	b.first = first
	b.count = int(min(batchNodes, s.g.Nodes()-first))
	s.begin(b)
	var base [sealcore.DRGDegree]uint32
	var exp [sealcore.ExpDegree]uint32
	for i := range b.count {
		out := b.parents[i*b.degree : (i+1)*b.degree]
		s.g.BaseParents(first+uint64(i), &base)
		copy(out, base[:])
		if b.degree == sealcore.Degree {
			s.g.ExpParents(first+uint64(i), &exp)
			copy(out[sealcore.DRGDegree:], exp[:])
		}
	}
	for lane := range b.states {
		s.prefixes[lane].states(b.states[lane][:b.count], first)
	}
}

// batches yields the layer's batches in order to one consumer; a batch is valid until the next
// one. It ends with the context's error if that is done before.
func (s *stream) batches(consumer int) iter.Seq2[*batch, error] {
	return func(yield func(*batch, error) bool) {
		var own *batch // if there is no producer
		if len(s.full) == 0 {
			own = s.newBatch()
		}
		for n := 0; uint64(n)*batchNodes < s.g.Nodes(); n++ {
			if err := s.ctx.Err(); err != nil {
				yield(nil, err)
				return
			}
			if own != nil {
				s.draw(own, uint64(n)*batchNodes)
				if !yield(own, nil) {
					return
				}
				continue
			}
			select {
			case b := <-s.full[n%len(s.full)][consumer]:
				more := yield(b, nil)
				s.release(b)
				if !more {
					return
				}
			case <-s.ctx.Done():
				yield(nil, s.ctx.Err())
				return
			}
		}
	}
}

// release gives a batch back when the last consumer is done with it.
func (s *stream) release(b *batch) {
	if b.users.Add(-1) == 0 {
		s.free[b.producer] <- b // never blocks
	}
}
