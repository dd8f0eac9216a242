package throttle

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// zeros is a source that never ends and gives short reads, as a network does.
type zeros struct{ rnd *rand.Rand }

func (z zeros) Read(p []byte) (int, error) {
	if len(p) > 1 && z.rnd.IntN(4) == 0 {
		p = p[:1+z.rnd.IntN(len(p)-1)]
	}
	return len(p), nil
}

// meter counts what goes through per tenth of a second of the bubble's clock.
type meter struct {
	mu    sync.Mutex
	start time.Time
	parts []int64
}

func (m *meter) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := int(time.Since(m.start) / (100 * time.Millisecond))
	for len(m.parts) <= i {
		m.parts = append(m.parts, 0)
	}
	m.parts[i] += int64(len(p))
	return len(p), nil
}

// anyTenSeconds returns the least and the most bytes of any 10 seconds within the first n.
func (m *meter) anyTenSeconds(n int) (least, most int64) {
	least = math.MaxInt64
	for from := 0; from+100 <= n*10; from++ {
		var sum int64
		for _, b := range m.parts[from : from+100] {
			sum += b
		}
		least, most = min(least, sum), max(most, sum)
	}
	return least, most
}

func TestRateOverAnyTenSeconds(t *testing.T) {
	for _, test := range []struct {
		rate   int64
		copies int
	}{{500e6, 1}, {500e6, 4}, {10e6, 3}, {64 << 10, 2}, {1000, 4}} {
		synctest.Test(t, func(t *testing.T) {
			seed := rand.Uint64()
			l := New(test.rate)
			m := &meter{start: time.Now()}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			var wg sync.WaitGroup
			for i := range test.copies {
				wg.Go(func() {
					rnd := rand.New(rand.NewPCG(seed, uint64(i)))
					buf := make([]byte, 1<<20)
					r := l.Reader(ctx, zeros{rnd})
					for {
						n, err := r.Read(buf)
						if err != nil {
							return
						}
						m.Write(buf[:n])
						if rnd.IntN(8) == 0 { // the disk dawdles, less than the burst
							time.Sleep(time.Duration(rnd.IntN(10)) * time.Millisecond)
						}
					}
				})
			}
			wg.Wait()
			least, most := m.anyTenSeconds(29)
			want := float64(test.rate) * 10
			if float64(least) < 0.97*want || float64(most) > 1.03*want {
				t.Errorf("rate %d, %d copies (seed %d): %d to %d bytes in 10 s, want %.0f within 3 %%",
					test.rate, test.copies, seed, least, most, want)
			}
		})
	}
}

func TestRateChangesWhileCopying(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(1) // a byte a second: this write would take 12 days
		start := time.Now()
		done := make(chan error)
		go func() {
			_, err := l.Writer(t.Context(), io.Discard).Write(make([]byte, 1<<20))
			done <- err
		}()
		time.Sleep(1500 * time.Millisecond)
		l.SetRate(1 << 20)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < 2400*time.Millisecond || took > 2600*time.Millisecond {
			t.Errorf("took %v of the bubble's time, want 2.5 s", took)
		}
		l.SetRate(0)
		start = time.Now()
		l.Writer(t.Context(), io.Discard).Write(make([]byte, 1<<24))
		if took := time.Since(start); took != 0 {
			t.Errorf("unlimited write waited %v", took)
		}
	})
}

func TestOftenChangedRateLetsNoBurstsThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 10 << 20
		l := New(1 << 20)
		stop := make(chan struct{})
		go func() {
			for i := int64(0); ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(100 * time.Millisecond):
					l.SetRate(1<<20 + i&1)
				}
			}
		}()
		start := time.Now()
		l.Writer(t.Context(), io.Discard).Write(make([]byte, size))
		close(stop)
		if took := time.Since(start); took < 9700*time.Millisecond {
			t.Errorf("10 MiB at 1 MiB/s took %v of the bubble's time", took)
		}
	})
}

func TestCancelEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(10)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { _, err := io.Copy(l.Writer(ctx, io.Discard), zeros{rand.New(rand.NewPCG(1, 1))}); done <- err }()
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		// What the cancelled copy had reserved is not lost to the others.
		start := time.Now()
		if err := l.Wait(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 200*time.Millisecond {
			t.Errorf("a byte took %v of the bubble's time", took)
		}
	})
}

func TestDataPassesUnchanged(t *testing.T) {
	in := make([]byte, 300_000)
	rand.NewChaCha8([32]byte{7}).Read(in)
	for _, l := range []*Limiter{nil, {}, New(0), New(100e6)} {
		var out bytes.Buffer
		n, err := io.Copy(l.Writer(t.Context(), &out), l.Reader(t.Context(), bytes.NewReader(in)))
		if err != nil || n != int64(len(in)) || !bytes.Equal(out.Bytes(), in) {
			t.Errorf("rate %d: %d bytes, %v", l.Rate(), n, err)
		}
	}
}
