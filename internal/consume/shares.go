package consume

import (
	"math"
	"sync"
)

// shares divides a host's copy limits among the copies that run. Each copy runs in a
// child of its own, so the children can't share one limiter: the consumer tells each its
// share, anew whenever a copy begins or ends or a limit is changed.
//
// Shares are max-min fair: all copies get equally much until one limit is used up; those
// under it stay there, and the others go on sharing what is left of theirs.
type shares struct {
	mu     sync.Mutex
	total  int64            // bytes per second of all copies together, 0: unlimited
	nodes  map[string]int64 // of all copies to a node; absent or 0: unlimited
	copies map[chan int64]string
	told   map[chan int64]int64
}

func newShares(total int64) *shares {
	return &shares{total: total, nodes: map[string]int64{}, copies: map[chan int64]string{}, told: map[chan int64]int64{}}
}

// join adds a copy to a node. It returns its first share and where new ones come; leave
// ends it.
func (s *shares) join(node string) (first int64, changes <-chan int64, leave func()) {
	ch := make(chan int64, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.copies[ch] = node
	s.told[ch] = -1
	s.tell()
	return <-ch, ch, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.copies, ch)
		delete(s.told, ch)
		s.tell()
	}
}

// set changes the limit of all copies together, and of each node's.
func (s *shares) set(total int64, nodes map[string]int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total, s.nodes = total, nodes
	s.tell()
}

// tell gives everybody whose share is another one now the new one, in the place of one
// not yet taken.
func (s *shares) tell() {
	for ch, share := range s.divide() {
		if s.told[ch] == share {
			continue
		}
		s.told[ch] = share
		select {
		case <-ch:
		default:
		}
		ch <- share // there is room: only tell sends, under the lock
	}
}

// divide returns each copy's share, 0 for unlimited.
func (s *shares) divide() map[chan int64]int64 {
	type limit struct {
		left float64
		of   func(node string) bool
	}
	var limits []limit
	if s.total > 0 {
		limits = append(limits, limit{float64(s.total), func(string) bool { return true }})
	}
	for name, n := range s.nodes {
		if n > 0 {
			limits = append(limits, limit{float64(n), func(node string) bool { return node == name }})
		}
	}
	out := map[chan int64]int64{}
	open := map[chan int64]string{}
	for ch, node := range s.copies {
		open[ch] = node
	}
	level := 0.0 // what the copies that are still open have got
	for len(open) > 0 {
		step, at := math.Inf(1), -1
		for i, l := range limits {
			n := 0
			for _, node := range open {
				if l.of(node) {
					n++
				}
			}
			if n > 0 && l.left/float64(n) < step {
				step, at = l.left/float64(n), i
			}
		}
		if at < 0 { // no limit concerns those that are left
			for ch := range open {
				out[ch] = 0
			}
			break
		}
		level += step
		for i := range limits {
			for _, node := range open {
				if limits[i].of(node) {
					limits[i].left -= step
				}
			}
		}
		for ch, node := range open {
			if limits[at].of(node) {
				out[ch] = max(int64(level+0.5), 1)
				delete(open, ch)
			}
		}
	}
	return out
}
