package sdr

import (
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"unsafe"
)

// maxLanes is how many chains one core interleaves. On a Zen 5 the third is almost free and a
// fourth gains nothing; on an Emerald Rapids two already fill the SHA unit.
const maxLanes = 3

// crew is the lanes that one core works on: groups of at most maxLanes, which take turns.
type crew struct{ groups [][]*hasher }

// newCrews spreads lanes over so many cores, as evenly as possible.
func newCrews(work []*hasher, threads int) []*crew {
	crews := make([]*crew, min(threads, len(work)))
	for i := range crews {
		lanes := work[i*len(work)/len(crews) : (i+1)*len(work)/len(crews)]
		n := (len(lanes) + maxLanes - 1) / maxLanes
		crews[i] = &crew{}
		for k := range n {
			crews[i].groups = append(crews[i].groups, lanes[k*len(lanes)/n:(k+1)*len(lanes)/n])
		}
	}
	return crews
}

// run computes the labels of all its lanes. A crew without any lane left still takes its batches,
// because the others' come back only when all are done with them.
func (c *crew) run(s *stream, consumer int, all *slowest) {
	for b, err := range s.batches(consumer) {
		if err != nil {
			for _, group := range c.groups {
				for _, h := range group {
					*h.err = err
				}
			}
			return
		}
		done := b.first + uint64(b.count)
		report := done%progressNodes == 0 || done == s.g.Nodes()
		left := 0
		for i, group := range c.groups {
			before := group
			group = hashGroup(b, living(group))
			c.groups[i] = group
			tellEnded(before, group)
			left += len(group)
			for _, h := range group {
				if report && h.lane.Progress != nil {
					h.lane.Progress(done, s.g.Nodes())
				}
			}
		}
		if left == 0 && s.consumers == 1 {
			return
		}
		if report {
			all.reached(consumer, done, left > 0)
		}
	}
}

// tellEnded tells the lanes that were in a group before and are no more.
func tellEnded(before, after []*hasher) {
	if len(before) == len(after) {
		return
	}
	for _, h := range before {
		if h.lane.Ended != nil && !slices.Contains(after, h) {
			h.lane.Ended(*h.err)
		}
	}
}

// living leaves out the lanes whose own context is done.
func living(group []*hasher) []*hasher {
	for i, h := range group {
		if h.lane.Context == nil || h.lane.Context.Err() == nil {
			continue
		}
		*h.err = h.lane.Context.Err()
		rest := append([]*hasher{}, group[:i]...)
		return living(append(rest, group[i+1:]...))
	}
	return group
}

// hashGroup computes the labels of a batch for some lanes and returns those that could. A lane in
// whose memory a fault was is left out, and the others' labels are computed again.
func hashGroup(b *batch, group []*hasher) []*hasher {
	for len(group) > 0 {
		addr, fault := guarded(b, group)
		if !fault {
			return group
		}
		var rest []*hasher
		for _, h := range group {
			if !h.holds(addr) {
				rest = append(rest, h)
			}
		}
		if len(rest) == len(group) { // nobody's: then it may be anybody's
			rest = nil
		}
		for _, h := range group {
			if h.holds(addr) || rest == nil {
				*h.err = fmt.Errorf("labels of layer %d, nodes from %d: %w (address %#x)", h.layer, b.first, ErrFault, addr)
			}
		}
		group = rest
	}
	return nil
}

// guarded hashes a batch. A fault in mapped memory comes back as its address.
func guarded(b *batch, group []*hasher) (addr uintptr, fault bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			if f, ok := r.(interface{ Addr() uintptr }); ok {
				addr, fault = f.Addr(), true
				return
			}
			panic(r)
		}
	}()
	hashLanes(b, group)
	return 0, false
}

// holds tells whether an address is in the lane's labels.
func (h *hasher) holds(addr uintptr) bool {
	in := func(labels []byte) bool {
		from := uintptr(unsafe.Pointer(unsafe.SliceData(labels)))
		return addr >= from && addr-from < uintptr(len(labels))
	}
	return in(h.out) || in(h.prev)
}

// slowest tells how far the crew is that is behind all others.
type slowest struct {
	mu    sync.Mutex
	at    []uint64
	last  uint64
	total uint64
	tell  func(done, total uint64)
}

func newSlowest(crews int, total uint64, tell func(done, total uint64)) *slowest {
	return &slowest{at: make([]uint64, crews), total: total, tell: tell}
}

// reached notes where a crew is. One that has no lanes left counts as finished, without being
// told of.
func (s *slowest) reached(crew int, done uint64, working bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at[crew] = done; !working {
		s.at[crew] = s.total
	}
	least := s.total
	for _, at := range s.at {
		least = min(least, at)
	}
	if least > s.last && working && s.tell != nil {
		s.last = least
		s.tell(least, s.total)
	}
}
