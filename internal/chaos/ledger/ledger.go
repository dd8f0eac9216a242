// Package ledger is the engine of the chaos tests: the builtin one, which takes a random
// time longer, fails now and then, and writes down each start, effect and end. It is built
// into the consumer under the tag chaos only (cmd/consumer/phase_chaos.go).
package ledger

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sealfleet/internal/engine"
	"sealfleet/internal/phases"
)

// The variables by which the harness tells the engine what to do. They reach it through
// the consumer's environment.
const (
	PathVariable = "SEALFLEET_CHAOS_LEDGER" // the file; none: nothing is written down
	WorkVariable = "SEALFLEET_CHAOS_WORK"   // longest time that a phase takes longer, as 800ms; with -p1, p1 alone, and exactly this
	FailVariable = "SEALFLEET_CHAOS_FAIL"   // of a thousand runs, how many fail
)

// What a line tells.
const (
	Start  = "start"  // a child begins to work on a phase
	Effect = "effect" // its files are complete
	Failed = "failed" // it gave up, or was stopped gently
)

// Line is one line of the ledger. A run that was killed has no second line.
type Line struct {
	What string `json:"what"`
	// At is the time since the machine started, so that clocks that are set wrong on
	// purpose put nothing out of order.
	At      time.Duration `json:"at"`
	Host    string        `json:"host"`
	PID     int           `json:"pid"`
	Sector  string        `json:"sector"`
	Phase   phases.Step   `json:"phase"`
	Attempt int           `json:"attempt"`
}

// Engine writes down what another one does.
type Engine struct{ engine.Engine }

// Run does the phase.
func (e Engine) Run(ctx context.Context, r engine.Request, progress func(engine.Progress)) (engine.Result, error) {
	path := os.Getenv(PathVariable)
	if path == "" {
		return e.Engine.Run(ctx, r, progress)
	}
	l := Line{Host: os.Getenv("HOST_NAME"), PID: os.Getpid(), Sector: r.Sector, Phase: r.Phase, Attempt: r.Attempt}
	if err := l.write(path, Start); err != nil {
		return engine.Result{}, err
	}
	result, err := e.run(ctx, r, progress)
	what := Effect
	if err != nil {
		what = Failed
	}
	return result, errors.Join(err, l.write(path, what))
}

func (e Engine) run(ctx context.Context, r engine.Request, progress func(engine.Progress)) (engine.Result, error) {
	var work time.Duration
	if text := os.Getenv(WorkVariable); text != "" {
		text, exact := strings.CutSuffix(text, "-p1")
		longest, err := time.ParseDuration(text)
		if err != nil {
			return engine.Result{}, fmt.Errorf("%s: %w", WorkVariable, err)
		}
		if work = rand.N(longest + 1); exact {
			work = 0
			if r.Phase == phases.P1 {
				work = longest
			}
		}
	}
	// A part before and a part after, so that a kill strikes with files half there too.
	before := time.Duration(rand.Float64() * float64(work))
	if err := wait(ctx, before); err != nil {
		return engine.Result{}, err
	}
	result, err := e.Engine.Run(ctx, r, progress)
	if err != nil {
		return result, err
	}
	if err := wait(ctx, work-before); err != nil {
		return engine.Result{}, err
	}
	var perMille int
	if text := os.Getenv(FailVariable); text != "" {
		if _, err := fmt.Sscan(text, &perMille); err != nil {
			return engine.Result{}, fmt.Errorf("%s=%q: %w", FailVariable, text, err)
		}
	}
	if rand.IntN(1000) < perMille {
		class := []phases.Class{phases.Transient, phases.Retryable}[rand.IntN(2)]
		return engine.Result{}, &engine.Error{Code: "chaos", Class: class, Message: "the chaos engine was told to fail now and then"}
	}
	return result, nil
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// Now is the time since the machine started.
func Now() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0 // Linux always has it
	}
	return time.Duration(t.Nano())
}

// write appends one line. A write of this size to a file opened for appending is whole.
func (l Line) write(path, what string) error {
	l.What, l.At = what, Now()
	data, err := json.Marshal(l)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(data, '\n'))
	return errors.Join(err, f.Close())
}

// Read returns the lines of a ledger.
func Read(path string) ([]Line, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return read(f)
}

func read(r io.Reader) (lines []Line, err error) {
	in := bufio.NewScanner(r)
	for n := 1; in.Scan(); n++ {
		var l Line
		if err := json.Unmarshal(in.Bytes(), &l); err != nil {
			return lines, fmt.Errorf("line %d of the ledger: %w", n, err)
		}
		lines = append(lines, l)
	}
	return lines, in.Err()
}
