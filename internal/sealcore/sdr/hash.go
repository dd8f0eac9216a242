package sdr

import (
	"crypto/sha256"
	"encoding/binary"

	"sealfleet/internal/sealcore"
)

// Layout of what a label hashes.
const (
	prefixSize  = 2 * sealcore.NodeSize // replica id, then layer, node and zeros
	layerOffset = sealcore.NodeSize     // uint32, big-endian
	nodeOffset  = layerOffset + 4       // uint64, big-endian
	inputSize   = prefixSize + sealcore.LabelParents*sealcore.NodeSize
)

// prefix is what all labels of a layer begin with.
type prefix struct {
	replicaID sealcore.Domain
	layer     uint32
}

// hasher computes labels of one layer of one sector.
type hasher struct {
	input     [inputSize]byte
	layer     uint32
	prev, out []byte

	lane    *Lane
	number  int // of the lane among the batches' states
	err     *error
	scratch []byte // for the assembly
}

func newHasher(p prefix, prev, out []byte) *hasher {
	h := &hasher{layer: p.layer, prev: prev, out: out}
	copy(h.input[:], p.replicaID[:])
	binary.BigEndian.PutUint32(h.input[layerOffset:], p.layer)
	return h
}

// hashFirst computes the label of node 0, which has no parents.
func (h *hasher) hashFirst() {
	binary.BigEndian.PutUint64(h.input[nodeOffset:], 0)
	h.store(h.out, sha256.Sum256(h.input[:prefixSize]))
}

// hashGeneric computes the labels of a batch by crypto/sha256. It is what the assembly is
// measured by, and the way on CPUs without SHA extensions or other than amd64.
func (h *hasher) hashGeneric(b *batch) {
	const size = sealcore.NodeSize
	all := h.input[prefixSize:]
	once := all[:b.degree*size]
	for i := range uint64(b.count) {
		node := b.first + i
		if node == 0 {
			h.hashFirst()
			continue
		}
		binary.BigEndian.PutUint64(h.input[nodeOffset:], node)
		label := h.out[node*size:][:size]
		parents := b.parents[int(i)*b.degree:][:b.degree]
		for j, p := range parents[:sealcore.DRGDegree] {
			copy(once[j*size:][:size], h.out[uint64(p)*size:][:size])
		}
		for j, p := range parents[sealcore.DRGDegree:] {
			copy(once[(sealcore.DRGDegree+j)*size:][:size], h.prev[uint64(p)*size:][:size])
		}
		for n := len(once); n < len(all); n += copy(all[n:], once) {
		}
		h.store(label, sha256.Sum256(h.input[:]))
	}
}

func (h *hasher) store(label []byte, sum [sha256.Size]byte) {
	sum[sealcore.NodeSize-1] &= 0x3f
	copy(label, sum[:])
}
