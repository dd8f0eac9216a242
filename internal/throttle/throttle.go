// Package throttle bounds how many bytes a second go through a reader or a writer. One
// Limiter may be shared by any number of copies, and its rate may be changed while they
// run.
//
// Accuracy: over any 10 seconds the bytes let through stay within 3 % of rate × time as
// long as the other end keeps up. Bytes are asked for in pieces of an eightieth of a
// second at the most. What a late wake-up missed (cores are busy where sectors are sealed)
// is made good up to a fifth of a second: that is also the most that goes through at once,
// 2 % of ten seconds.
package throttle

import (
	"context"
	"io"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limiter bounds bytes per second. Its zero value and a nil Limiter let everything pass.
type Limiter struct {
	mu      sync.Mutex
	bucket  *rate.Limiter // nil: unlimited
	perSec  int64
	changed chan struct{} // closed by SetRate: who sleeps at an old rate asks again
}

const (
	burstPart = 5       // of a second: what may go through at once
	piecePart = 80      // of a second: bytes asked for at once
	pieceMax  = 1 << 20 // and never more
)

// New returns a limiter of so many bytes per second; 0 or less stands for unlimited.
func New(bytesPerSecond int64) *Limiter {
	l := &Limiter{}
	l.SetRate(bytesPerSecond)
	return l
}

// SetRate changes the rate, also for copies under way; 0 or less stands for unlimited.
func (l *Limiter) SetRate(bytesPerSecond int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	bytesPerSecond = max(bytesPerSecond, 0)
	if bytesPerSecond == l.perSec {
		return
	}
	l.perSec = bytesPerSecond
	l.bucket = nil
	if bytesPerSecond > 0 {
		burst := int(min(max(bytesPerSecond/burstPart, 1), math.MaxInt32))
		l.bucket = rate.NewLimiter(rate.Limit(bytesPerSecond), burst)
		// A new bucket is full. Empty it: a rate that is changed often would else let a
		// burst through each time.
		l.bucket.AllowN(time.Now(), burst)
	}
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// Rate returns the bytes per second, 0 for unlimited.
func (l *Limiter) Rate() int64 {
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.perSec
}

// piece is how many bytes should be asked for at once.
func (l *Limiter) piece() int {
	r := l.Rate()
	if r == 0 {
		return pieceMax
	}
	return int(min(max(r/piecePart, 1), pieceMax))
}

// reserve takes up to n bytes and returns how many it took and how long to wait for
// them; the channel tells that the rate has changed.
func (l *Limiter) reserve(n int) (took int, r *rate.Reservation, delay time.Duration, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bucket == nil {
		return n, nil, 0, nil
	}
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	n = min(n, l.bucket.Burst())
	now := time.Now()
	r = l.bucket.ReserveN(now, n)
	return n, r, r.DelayFrom(now), l.changed
}

// Wait blocks until n more bytes may pass, or ctx is done.
func (l *Limiter) Wait(ctx context.Context, n int) error {
	if l == nil {
		return ctx.Err()
	}
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		took, r, delay, changed := l.reserve(n)
		if delay > 0 {
			timer := time.NewTimer(delay)
			select {
			case <-timer.C:
			case <-changed: // these bytes wait anew, at the new rate
				timer.Stop()
				continue
			case <-ctx.Done():
				timer.Stop()
				r.Cancel() // give back what was not used
				return ctx.Err()
			}
		}
		n -= took
	}
	return ctx.Err()
}

// Reader returns r, slowed down. Its Read returns ctx's error when ctx is done.
func (l *Limiter) Reader(ctx context.Context, r io.Reader) io.Reader {
	return &reader{ctx: ctx, l: l, r: r}
}

// Writer returns w, slowed down. Its Write returns ctx's error when ctx is done.
func (l *Limiter) Writer(ctx context.Context, w io.Writer) io.Writer {
	return &writer{ctx: ctx, l: l, w: w}
}

type reader struct {
	ctx context.Context
	l   *Limiter
	r   io.Reader
}

func (t *reader) Read(p []byte) (int, error) {
	if err := t.ctx.Err(); err != nil {
		return 0, err
	}
	if t.l != nil && len(p) > 0 {
		p = p[:min(len(p), t.l.piece())]
	}
	n, err := t.r.Read(p)
	// Only what was read is paid for: a short read must not waste the rest.
	if waitErr := t.l.Wait(t.ctx, n); waitErr != nil {
		return n, waitErr
	}
	return n, err
}

type writer struct {
	ctx context.Context
	l   *Limiter
	w   io.Writer
}

func (t *writer) Write(p []byte) (int, error) {
	done := 0
	for {
		part := p[done:]
		if t.l != nil {
			part = part[:min(len(part), t.l.piece())]
		}
		if err := t.l.Wait(t.ctx, len(part)); err != nil {
			return done, err
		}
		n, err := t.w.Write(part)
		done += n
		if err != nil || done == len(p) {
			return done, err
		}
	}
}
