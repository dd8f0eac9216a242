package host

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrHung says that a file system did not answer in time.
var ErrHung = errors.New("hung mount or stale handle")

// bounded does one thing after the other that may hang with a file system. What hangs
// keeps its goroutine until the file system answers; until then nothing more is begun.
type bounded struct {
	once sync.Once
	turn chan struct{}
}

// do calls f, and returns its error or, after the limit, one that wraps ErrHung. f may
// still run then: it must not use what do's caller owns.
func (b *bounded) do(within time.Duration, f func() error) error {
	b.once.Do(func() { b.turn = make(chan struct{}, 1) })
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case b.turn <- struct{}{}:
	case <-timer.C:
		return fmt.Errorf("%w: what was asked before has not been answered", ErrHung)
	}
	done := make(chan error, 1)
	go func() {
		defer func() { <-b.turn }()
		done <- f()
	}()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return fmt.Errorf("%w: no answer within %s", ErrHung, within)
	}
}

// Patience does what may hang with a file system, and waits only so long for it. One path's
// hanging keeps nothing from being done on others.
type Patience struct {
	within time.Duration

	mu    sync.Mutex
	turns map[string]*bounded
}

// NewPatience returns one that waits as long as within.
func NewPatience(within time.Duration) *Patience {
	return &Patience{within: within, turns: map[string]*bounded{}}
}

// Do calls f, which uses the file system of path, and returns its error or one that wraps
// ErrHung. After that f may still run: it must not use what Do's caller owns.
func (p *Patience) Do(path string, f func() error) error {
	p.mu.Lock()
	turn := p.turns[path]
	if turn == nil {
		turn = &bounded{}
		p.turns[path] = turn
	}
	p.mu.Unlock()
	return turn.do(p.within, f)
}
