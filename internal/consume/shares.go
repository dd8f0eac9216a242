package consume

import "sync"

// shares divides a host's copy limit among the copies that run. Each copy runs in a
// child of its own, so the children can't share one limiter: the consumer tells each its
// share, anew whenever a copy begins or ends.
type shares struct {
	mu    sync.Mutex
	total int64 // bytes per second, 0: unlimited
	chans map[chan int64]struct{}
}

func newShares(total int64) *shares {
	return &shares{total: total, chans: map[chan int64]struct{}{}}
}

// join adds a copy. It returns its first share and where new ones come; leave ends it.
func (s *shares) join() (first int64, changes <-chan int64, leave func()) {
	ch := make(chan int64, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.chans[ch] = struct{}{}
	s.tell(ch)
	return s.share(), ch, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.chans, ch)
		s.tell(nil)
	}
}

// set changes the limit of all copies together.
func (s *shares) set(total int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total = total
	s.tell(nil)
}

func (s *shares) share() int64 {
	if s.total <= 0 || len(s.chans) == 0 {
		return max(s.total, 0)
	}
	return max(s.total/int64(len(s.chans)), 1)
}

// tell gives everybody but one the present share, in the place of one not yet taken.
func (s *shares) tell(but chan int64) {
	for ch := range s.chans {
		if ch == but {
			continue
		}
		select {
		case <-ch:
		default:
		}
		ch <- s.share() // there is room: only tell sends, under the lock
	}
}
