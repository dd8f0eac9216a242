package phases

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
)

// number reads a variable of the model's, so that make model and whoever looks for a
// failing seed can set it.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s=%q: %v (example: %s=1000000)", name, text, err, name)
	}
	return n
}

// halt is a world that does not end.
type halt struct{ why string }

func (halt) Fatalf(format string, a ...any) { panic(halt{fmt.Sprintf(format, a...)}) }

// one runs one world to its end, and checks it.
func one(seed uint64) (w *world, err error) {
	w = newWorld(seed)
	defer func() {
		if h, stuck := recover().(halt); stuck {
			err = fmt.Errorf("%s", h.why)
		}
	}()
	w.run(halt{})
	return w, w.verify()
}

// The same world as in TestNoPhaseStartsEarlyTwiceOrNever, over as many seeds as wanted:
// each is another interleaving of dispatchers, hosts, operators and a forger. `make model`
// runs a million; SEALFLEET_MODEL_SEED and SEALFLEET_MODEL_RUNS=1 run one again.
func TestManyInterleavings(t *testing.T) {
	first, runs := number(t, "SEALFLEET_MODEL_SEED", 1), number(t, "SEALFLEET_MODEL_RUNS", 2000)
	if testing.Short() {
		runs = min(runs, 200)
	}
	var next, events, believed, taken, finished atomic.Uint64
	next.Store(first)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for !t.Failed() {
				seed := next.Add(1) - 1
				if seed >= first+runs {
					return
				}
				w, err := one(seed)
				if err != nil {
					t.Errorf("SEALFLEET_MODEL_SEED=%d SEALFLEET_MODEL_RUNS=1: %v\n%s", seed, err, tell(w.log))
					return
				}
				events.Add(uint64(len(w.log)))
				believed.Add(uint64(len(w.believed)))
				claims := map[Step]int{}
				for _, e := range w.believed {
					if e.Type == Claimed {
						claims[e.Step]++
					}
				}
				for _, n := range claims {
					if n > 1 {
						taken.Add(1)
						break
					}
				}
				if w.truth.Status(DefaultPolicy()) == StatusFinished {
					finished.Add(1)
				}
			}
		})
	}
	workers.Wait()
	t.Logf("seeds %d to %d: %d events, %d believed; in %d worlds a step was claimed more than once, %d sectors finished",
		first, first+runs-1, events.Load(), believed.Load(), taken.Load(), finished.Load())
	// A world in which nothing goes wrong, or nothing goes right, would prove little.
	if runs >= 200 && !t.Failed() && (taken.Load() < runs/10 || finished.Load() < runs/4 || believed.Load() == events.Load()) {
		t.Error("the worlds are too tame, or too wild")
	}
}
