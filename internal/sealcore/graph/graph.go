// Package graph draws the parents of every node of a stacked depth-robust graph: six base
// parents within the layer (bucket sampling, seeded per node by ChaCha8) and eight expander
// parents in the layer before (a Feistel permutation over all edges).
//
// Parents depend on nothing but the number of nodes, the PoRep id and the API version, so that
// any part of the graph can be drawn by itself, in any order and by many goroutines at once.
//
// Source: Filecoin spec, "Stacked DRG Proof of Replication"; storage-proofs-core drgraph.rs and
// crypto/feistel.rs, storage-proofs-porep stacked/vanilla/graph.rs (19.1.0).
package graph

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"sync"

	"sealfleet/internal/sealcore"
)

// Tags that separate what is derived from one PoRep id.
const (
	drgTag     = "Filecoin_DRSample"
	feistelTag = "Filecoin_Feistel"
)

// Graph draws parents. It is immutable and safe for concurrent use.
type Graph struct {
	nodes  uint64
	legacy bool      // API version 1.0.0
	key    [8]uint32 // ChaCha8 key; the last word is the node

	permute func() *feistel // made on first use: base parents alone don't need the tables
}

// New returns the graph of a sector with the given number of nodes (sector size / 32).
//
// It fails if there are no nodes, more than a uint32 can number, or the API version is unknown.
func New(nodes uint64, porepID sealcore.Domain, v sealcore.APIVersion) (*Graph, error) {
	if nodes == 0 || nodes > math.MaxUint32 {
		return nil, fmt.Errorf("a graph of %d nodes cannot be drawn: use 1 to %d nodes", nodes, uint64(math.MaxUint32))
	}
	if v != sealcore.V1_0_0 && v != sealcore.V1_1_0 {
		return nil, fmt.Errorf("api version %q is unknown: use %s or %s", v, sealcore.V1_0_0, sealcore.V1_1_0)
	}
	g := &Graph{nodes: nodes, legacy: v == sealcore.V1_0_0}
	seed := derive(drgTag, porepID)
	for i := range 7 { // 28 of the seed's 32 bytes
		g.key[i] = binary.LittleEndian.Uint32(seed[4*i:])
	}
	keys := derive(feistelTag, porepID)
	g.permute = sync.OnceValue(func() *feistel { return newFeistel(nodes*sealcore.ExpDegree, keys) })
	return g, nil
}

// derive gives 32 bytes that belong to one purpose and one PoRep id.
func derive(tag string, porepID sealcore.Domain) sealcore.Domain {
	return sha256.Sum256(append([]byte(tag), porepID[:]...))
}

// Nodes returns the number of nodes of a layer.
func (g *Graph) Nodes() uint64 { return g.nodes }

// BaseParents writes the six parents of node within its own layer. Parents may repeat. Nodes 0
// and 1 have six times parent 0 (which for node 0 means none). The predecessor, node-1, is the
// first of the six, or the last one under API version 1.0.0.
//
// node must be below Nodes(); anything else panics, like an index out of range.
func (g *Graph) BaseParents(node uint64, out *[sealcore.DRGDegree]uint32) {
	g.check(node)
	if node < 2 {
		*out = [sealcore.DRGDegree]uint32{}
		return
	}
	key := g.key
	key[7] = uint32(node)
	var random [2 * draws]uint64 // two 64-bit numbers for each drawn parent
	chacha8(&key, &random)

	first, pred := 1, 0
	if g.legacy {
		first, pred = 0, draws
	}
	out[pred] = uint32(node - 1)

	// Each node stands for `draws` nodes of a metagraph, in which every node has one parent
	// besides its predecessor: a bucket of distances (powers of two) is drawn, then a distance.
	// The logarithm is exact in integers: node·5 is never a power of two.
	meta := node * draws
	buckets := uint64(bits.Len64(meta - 1))
	for i := range draws {
		bucket := random[2*i]%buckets + 1
		largest := min(meta, 1<<bucket)
		smallest := max(2, largest>>1)
		distance := smallest + random[2*i+1]%(largest-smallest+1)
		parent := (meta - distance) / draws
		if parent == node {
			parent = node - 1
		}
		out[first+i] = uint32(parent)
	}
}

// draws is how many of a node's base parents are drawn; the other one is its predecessor.
const draws = sealcore.DRGDegree - 1

// ExpParents writes the eight parents of node in the layer before. Parents may repeat, and may
// be greater than node.
//
// node must be below Nodes(); anything else panics, like an index out of range.
func (g *Graph) ExpParents(node uint64, out *[sealcore.ExpDegree]uint32) {
	g.check(node)
	f := g.permute()
	edge := node * sealcore.ExpDegree
	for i := range out {
		to := f.permute(edge + uint64(i))
		if g.legacy {
			// Version 1.0.0 cuts the edge's number to 32 bits first. In sectors of 32 GiB and
			// more this leaves part of the graph without children; it is kept as it is.
			to = uint64(uint32(to))
		}
		out[i] = uint32(to / sealcore.ExpDegree)
	}
}

func (g *Graph) check(node uint64) {
	if node >= g.nodes {
		panic(fmt.Sprintf("graph: node %d of %d", node, g.nodes))
	}
}
