package msm

import (
	"context"
	"errors"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

// Options bound and observe a computation.
type Options struct {
	// Threads is the most cores to use; 0 stands for GOMAXPROCS.
	Threads int
	// Progress, if set, is called with the number of points done so far and in total.
	Progress func(done, total int)
}

func (o Options) threads() int {
	if o.Threads > 0 {
		return o.Threads
	}
	return runtime.GOMAXPROCS(0)
}

func (o Options) report(done, total int) {
	if o.Progress != nil {
		o.Progress(done, total)
	}
}

// each runs do(worker, task) for every task below n, on at most threads goroutines. It
// returns the first error and starts no task after one, nor after ctx is done.
func each(ctx context.Context, threads, n int, do func(worker, task int) error) error {
	threads = min(threads, n)
	var next atomic.Int64
	var failed atomic.Bool
	var once sync.Once
	var first error
	fail := func(err error) {
		once.Do(func() { first = err })
		failed.Store(true)
	}
	var wg sync.WaitGroup
	for worker := range threads {
		wg.Go(func() {
			for !failed.Load() {
				task := int(next.Add(1)) - 1
				if task >= n {
					return
				}
				if err := ctx.Err(); err != nil {
					fail(err)
					return
				}
				if err := Guard(func() error { return do(worker, task) }); err != nil {
					fail(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return first
}

// ErrFault says that memory could not be read: a mapped file was cut short under us, or
// its disk failed.
var ErrFault = errors.New("mapped memory cannot be read")

// Guard runs f and turns a fault in mapped memory, which would end the process, into
// ErrFault.
func Guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch r := recover().(type) {
		case nil:
		case interface{ Addr() uintptr }:
			err = ErrFault
		default:
			panic(r)
		}
	}()
	return f()
}

// span returns the task-th of the pieces of size step of a range of n things.
func span(task, step, n int) (from, to int) {
	return task * step, min(n, (task+1)*step)
}
