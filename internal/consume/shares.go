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
// under it stay there, and the others go on sharing what is left of theirs. Of a group's
// limit this host takes its own part only, see grouplimit.go.
type shares struct {
	mu     sync.Mutex
	total  int64            // bytes per second of all copies together, 0: unlimited
	nodes  map[string]int64 // of all copies to a node; absent or 0: unlimited
	groups map[string]*groupShare
	copies map[chan int64]copying
	told   map[chan int64]int64
	moved  chan struct{} // what this host tells the others of its groups may have changed
}

// copying is a copy that runs.
type copying struct{ node, group string }

func newShares(total int64) *shares {
	return &shares{
		total: total, nodes: map[string]int64{}, groups: map[string]*groupShare{},
		copies: map[chan int64]copying{}, told: map[chan int64]int64{}, moved: make(chan struct{}, 1),
	}
}

// join adds a copy of a group's sector to a node. It returns its first share and where new
// ones come; leave ends it.
func (s *shares) join(node, group string) (first int64, changes <-chan int64, leave func()) {
	ch := make(chan int64, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.copies[ch] = copying{node, group}
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
	select {
	case s.moved <- struct{}{}:
	default:
	}
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

// limit is a bound for some of the copies together.
type limit struct {
	left float64
	of   func(copying) bool
}

// divide returns each copy's share, 0 for unlimited.
func (s *shares) divide() map[chan int64]int64 {
	limits := s.own()
	for name, g := range s.groups {
		if part := s.part(name, g); part > 0 {
			limits = append(limits, limit{float64(part), func(c copying) bool { return c.group == name }})
		}
	}
	return s.under(limits)
}

// own returns the limits of this host alone.
func (s *shares) own() (limits []limit) {
	if s.total > 0 {
		limits = append(limits, limit{float64(s.total), func(copying) bool { return true }})
	}
	for name, n := range s.nodes {
		if n > 0 {
			limits = append(limits, limit{float64(n), func(c copying) bool { return c.node == name }})
		}
	}
	return limits
}

// under divides what the limits leave, which it uses up.
func (s *shares) under(limits []limit) map[chan int64]int64 {
	out := map[chan int64]int64{}
	open := map[chan int64]copying{}
	for ch, c := range s.copies {
		open[ch] = c
	}
	level := 0.0 // what the copies that are still open have got
	for len(open) > 0 {
		step, at := math.Inf(1), -1
		for i, l := range limits {
			n := 0
			for _, c := range open {
				if l.of(c) {
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
			for _, c := range open {
				if limits[i].of(c) {
					limits[i].left -= step
				}
			}
		}
		for ch, c := range open {
			if limits[at].of(c) {
				out[ch] = max(int64(level), 1)
				delete(open, ch)
			}
		}
	}
	return out
}
