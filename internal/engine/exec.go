package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"sealfleet/internal/phases"
	"sealfleet/internal/storage"
)

// mix gives each phase to its engine.
type mix struct {
	builtin  Engine
	programs map[phases.Step]Engine
}

// Run does the phase by its engine.
func (m mix) Run(ctx context.Context, r Request, progress func(Progress)) (Result, error) {
	e := m.programs[r.Phase]
	if r.Phase == phases.P4 && r.Proof != nil && r.Proof.None {
		e = nil // there is nothing for a prover to do
	}
	if e != nil {
		return e.Run(ctx, r, progress)
	}
	return m.builtin.Run(ctx, r, progress)
}

// Exec is a program that somebody else wrote: it speaks the protocol, is guarded by
// Limits, and nothing of what it claims is accepted unverified. It does p1 to p4.
//
// Its errors add these codes to Command's, all retryable: engine_time, engine_memory and
// engine_output (it went over a limit and was killed with all that it started), and
// engine_wrong_output (it claimed success, and its files or outputs do not hold). p4 is not
// begun without the key to verify its proof with; that error is the one of Builtin.
type Exec struct {
	Path string
	// Args and Env are added to its command line and environment.
	Args, Env []string
	Limits    Limits
	Grace     time.Duration // as in Command

	// Samples is how many nodes of a sector are computed again to check p1 and p2. 0 stands
	// for 256.
	Samples int

	Log    *slog.Logger
	Killed func(reason string)
	// Started, if set, is told the process group of each program that runs.
	Started func(group int)
	// Timed, if set, is told after each phase how long the program took, and how long the
	// checks before and after it.
	Timed func(p phases.Step, ran, checked time.Duration)
}

const defaultSamples = 256

// Run runs the program and checks what it claims. The outputs are those that the check
// found, in the form that Builtin has.
func (e *Exec) Run(ctx context.Context, r Request, progress func(Progress)) (Result, error) {
	if err := r.check(); err != nil {
		return Result{}, err
	}
	if progress == nil {
		progress = func(Progress) {}
	}
	if err := checkProgram(e.Path); err != nil { // it may have gone since the settings were read
		return Result{}, failf("engine_start", phases.Retryable, "%v", err)
	}
	start := time.Now()
	v, err := e.verifier(ctx, r, progress)
	if err != nil {
		return Result{}, e.why(ctx, err)
	}
	before := time.Since(start)

	scratch, err := newScratch(r.Paths.Cache)
	if err != nil {
		return Result{}, explain(err)
	}
	defer func() {
		// A program that was killed could not tidy up, and the next attempt needs the room.
		if err := os.RemoveAll(scratch); err != nil && e.Log != nil {
			e.Log.Warn("an engine's scratch directory is left", "path", scratch, "error", err)
		}
	}()
	start = time.Now()
	c := &Command{
		Path: e.Path, Args: e.Args, Env: append(withoutSecrets(os.Environ()), e.Env...),
		Grace: e.Grace, Log: e.Log, Killed: e.Killed, Started: e.Started, Limits: &e.Limits,
		Scratch: scratch,
	}
	result, err := c.Run(ctx, r, progress)
	ran := time.Since(start)
	var said *Error
	if errors.As(err, &said) {
		said.Message = shortText(said.Message)
	}
	if err != nil {
		return Result{}, err
	}

	start = time.Now()
	outputs, err := v.check(ctx, result.Outputs)
	if err != nil {
		return Result{}, e.why(ctx, err)
	}
	if e.Timed != nil {
		e.Timed(r.Phase, ran, before+time.Since(start))
	}
	return Result{Outputs: outputs, Message: shortText(result.Message)}, nil
}

// scratchPrefix begins the names of programs' scratch directories. Names with a dot in
// front are no part of a sector.
const scratchPrefix = ".engine-"

// newScratch names a scratch directory in a sector's cache, and removes those of attempts
// whose host died. FAIL: a host that slept between its claim and this line, and lost the
// claim meanwhile, takes the new holder's scratch away, whose attempt then fails and is
// done again.
func newScratch(cache string) (string, error) {
	entries, err := os.ReadDir(cache)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	for _, entry := range entries {
		if entry.IsDir() && strings.HasPrefix(entry.Name(), scratchPrefix) {
			if err := os.RemoveAll(filepath.Join(cache, entry.Name())); err != nil {
				return "", err
			}
		}
	}
	return filepath.Join(cache, scratchPrefix+strings.ToLower(rand.Text())), nil
}

// why gives an error of a check its code: that the files can't be read for now says
// nothing of the engine; anything else means that what it left does not hold.
func (e *Exec) why(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if said := (*Error)(nil); errors.As(err, &said) {
		return said
	}
	if fault := storage.Classify(err); fault.Class == phases.Transient && !errors.Is(err, fs.ErrNotExist) {
		return explain(err)
	}
	return failf("engine_wrong_output", phases.Retryable,
		"engine %s claimed success, but what it left does not hold, and nothing of it is accepted: %v", e.Path, err)
}

// withoutSecrets blanks what is this program's own business with the bus, the web and
// object stores; the last of two variables of a name counts.
func withoutSecrets(environ []string) []string {
	var out []string
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		for _, prefix := range secretPrefixes {
			if strings.HasPrefix(name, prefix) {
				out = append(out, name+"=")
			}
		}
	}
	return out
}

var secretPrefixes = []string{"NATS_", "HTTP_", "SERVER_", "AWS_", "MINIO_", "LOTUS_", "FULLNODE_API_INFO"}

// maxText bounds what a program's words may add to an event.
const maxText = 2000

func shortText(text string) string {
	return strings.ToValidUTF8(text[:min(len(text), maxText)], "?")
}

func (e *Exec) samples() int {
	if e.Samples > 0 {
		return e.Samples
	}
	return defaultSamples
}

func threadsOf(r Request) int {
	if r.Threads > 0 {
		return r.Threads
	}
	return runtime.GOMAXPROCS(0)
}
