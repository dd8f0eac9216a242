//go:build amd64 && !purego

package sdr

import (
	"encoding/binary"
	"sync"
	"unsafe"

	"golang.org/x/sys/cpu"

	"sealfleet/internal/sealcore"
)

// accelerated tells whether the CPU has all that the assembly needs. Leaf 7 of CPUID, which tells
// of the SHA extensions, is there in every CPU that has BMI2 or those extensions.
var accelerated = sync.OnceValue(func() bool {
	return cpu.X86.HasSSSE3 && cpu.X86.HasSSE41 && maxLeaf() >= 7 && hasSHA()
})

// states computes the state of SHA-256 behind the first block (replica id, layer, node) of nodes
// in a row. It waits for no label, so it is done with the drawing of the parents.
func (p *prefix) states(states [][8]uint32, first uint64) {
	if len(states) == 0 {
		return
	}
	var replicaID [8]uint32
	for i := range replicaID {
		replicaID[i] = binary.BigEndian.Uint32(p.replicaID[4*i:])
	}
	prefixesNI(&states[0], &replicaID, uint64(p.layer), first, uint64(len(states)))
}

// hashLanes computes the labels of a batch for at most maxLanes sectors.
func hashLanes(b *batch, group []*hasher) {
	if b.states == nil {
		for _, h := range group {
			h.hashGeneric(b)
		}
		return
	}
	i := 0
	if b.first == 0 {
		for _, h := range group {
			h.hashFirst()
		}
		if i = 1; b.count == 1 {
			return
		}
	}
	for len(group) > 0 {
		n := min(len(group), maxLanes)
		if len(group) == maxLanes+1 {
			n = 2 // and two more, not three and one
		}
		lanesFrom(b, group[:n], i)
		group = group[n:]
	}
}

//go:generate sh -c "cd asm && go run . -out ../lanes_amd64.s -stubs ../lanes_amd64.go -pkg sdr"

// laneArgs is what the assembly for one to three lanes takes: asm/main.go knows its layout.
type laneArgs struct {
	out, prev, label [maxLanes]*byte
	states           [maxLanes]*[8]uint32
	parents          *uint32
	degree           uint64 // in bytes
	last             uint64 // byte of a node's parents at which the last one is that is hashed
	repeat           uint64 // blocks
	end              uint64 // bytes of labels
	scratch          *byte
}

// scratchSize is the memory that three lanes need: state, message schedule, seven slots of
// message schedules; and what aligning it takes.
const scratchSize = maxLanes*(32+256+7*256) + 64

// lanesFrom computes labels of one to three sectors from node i of a batch on.
func lanesFrom(b *batch, group []*hasher, i int) {
	if group[0].scratch == nil {
		group[0].scratch = make([]byte, scratchSize) // on the heap, where it stays aligned
	}
	scratch := group[0].scratch
	aligned := -uintptr(unsafe.Pointer(&scratch[0])) % 64
	a := laneArgs{
		parents: &b.parents[i*b.degree], degree: 4 * uint64(b.degree),
		last:   4 * uint64((sealcore.LabelParents-1)%b.degree),
		repeat: uint64((sealcore.LabelParents-1)/2 - b.degree/2),
		end:    uint64(b.count-i) * sealcore.NodeSize, scratch: &scratch[aligned],
	}
	for l, h := range group {
		a.out[l], a.prev[l] = unsafe.SliceData(h.out), unsafe.SliceData(h.prev)
		a.label[l] = &h.out[(b.first+uint64(i))*sealcore.NodeSize:][:a.end][0]
		a.states[l] = &b.states[h.number][i]
	}
	switch args := (*byte)(unsafe.Pointer(&a)); len(group) {
	case 1:
		labels1(args)
	case 2:
		labels2(args)
	case 3:
		labels3(args)
	}
}

// prefixesNI writes the states (A B E F C D G H, highest word of each four first, in reverse) of
// count nodes from node on. replicaID is in host order.
//
//go:noescape
func prefixesNI(states *[8]uint32, replicaID *[8]uint32, layer, node, count uint64)

func hasSHA() bool

func maxLeaf() uint32
