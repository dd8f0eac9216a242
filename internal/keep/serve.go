package keep

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sealfleet/internal/engine"
	"sealfleet/internal/phases"
	"sealfleet/internal/sealcore/durable"
)

// progressFD is where a keeper finds the FIFO's writing end.
const progressFD = 3

const orphanLook = time.Second // how often a keeper looks whether its consumer lives

// Serve is a keeper: it does the job of a directory and leaves the outcome there. engineOf
// makes the engine; started must be called with the process group of each program that it
// runs, so that those can be killed even if the keeper is not there any more. The returned
// number is the exit code.
func Serve(dir string, engineOf func(started func(group int)) (engine.Engine, error)) int {
	syscall.CloseOnExec(progressFD) // what the engine starts must not look like this keeper
	k := &Kept{dir: dir}
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, "keeper:", err)
		return 1
	}
	if err := writeProcess(k.path(pidFile), os.Getpid()); err != nil {
		return fail(err)
	}
	var o order
	if err := k.read(requestFile, &o); err != nil {
		return fail(err)
	}
	e, err := engineOf(func(group int) {
		if err := writeProcess(k.path(engineFile), group); err != nil {
			fmt.Fprintln(os.Stderr, "keeper:", err)
		}
	})
	if err != nil {
		return fail(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ctx, orphan := context.WithCancelCause(ctx)
	defer orphan(nil)
	go watchConsumer(filepath.Join(filepath.Dir(filepath.Dir(dir)), lockFile), o.OrphanLimit, orphan)
	limits := make(chan int64, 1)
	o.Request.Limits = limits
	if err := k.hear(limits); err != nil {
		return fail(err)
	}
	start := time.Now()
	result, err := run(ctx, e, o.Request, (&teller{fd: progressFD}).tell)
	out := outcome{Seconds: time.Since(start).Seconds()}
	var failure *engine.Error
	switch {
	case err == nil:
		out.Result = &result
	case ctx.Err() != nil:
		out.Stopped = context.Cause(ctx).Error()
	case errors.As(err, &failure):
		out.Error = failure
	default:
		out.Error = &engine.Error{Code: "phase_failed", Class: phases.Retryable, Message: err.Error()}
	}
	data, err := json.Marshal(out)
	if err == nil {
		err = durable.Write(k.path(resultFile), data)
	}
	if err != nil {
		return fail(fmt.Errorf("the outcome is lost: %w", err))
	}
	return 0
}

// run turns an engine's panic into a failed attempt that says where it was.
func run(ctx context.Context, e engine.Engine, r engine.Request, progress func(engine.Progress)) (result engine.Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &engine.Error{Code: "panic", Class: phases.Retryable, Message: fmt.Sprint(p)}
		}
	}()
	return e.Run(ctx, r, progress)
}

// watchConsumer ends the work when no consumer has held the lock for as long as the limit.
func watchConsumer(lock string, limit time.Duration, orphan context.CancelCauseFunc) {
	alone := time.Time{}
	for now := range time.Tick(orphanLook) {
		if consumerLives(lock) {
			alone = time.Time{}
			continue
		}
		if alone.IsZero() {
			alone = now
		}
		if now.Sub(alone) >= limit {
			orphan(fmt.Errorf("no consumer for %v (ORPHAN_LIMIT)", limit))
			return
		}
	}
}

// consumerLives tells whether a consumer holds the lock. What cannot be told counts as
// life: the limit is against forgotten keepers, and no authority.
func consumerLives(lock string) bool {
	f, err := os.Open(lock)
	if err != nil {
		return !errors.Is(err, os.ErrNotExist)
	}
	defer f.Close() // gives the lock back
	return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
}

// hear hands on what the consumer says. The keeper holds both ends, so a consumer that
// goes away is no end of file.
func (k *Kept) hear(limits chan int64) error {
	f, err := os.OpenFile(k.path(controlFifo), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	go func() {
		lines := bufio.NewReader(f)
		for {
			line, err := lines.ReadBytes('\n')
			if err != nil && !errors.Is(err, io.EOF) {
				return
			}
			var c control
			if json.Unmarshal(line, &c) != nil {
				continue
			}
			engine.Offer(limits, c.CopyBytesPerSec)
		}
	}()
	return nil
}

// teller writes progress to the FIFO. What does not fit is dropped: there may be nobody
// who reads.
type teller struct {
	fd   int
	mu   sync.Mutex
	pace engine.Pace
}

func (w *teller) tell(p engine.Progress) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.pace.Due(p) {
		return
	}
	if data, err := json.Marshal(p); err == nil {
		_, _ = unix.Write(w.fd, append(data, '\n'))
	}
}
