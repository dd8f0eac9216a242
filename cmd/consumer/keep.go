package main

import (
	"context"
	"errors"
	"os"
	"runtime"

	"sealfleet/internal/consume"
	"sealfleet/internal/engine"
	"sealfleet/internal/keep"
	"sealfleet/internal/logs"
	"sealfleet/internal/phases"
)

// keepCommand is the hidden subcommand that serve starts for each phase. It is followed
// by the job's directory, and outlives serve: see package keep.
const keepCommand = "keep"

// phaseCommand is the hidden subcommand that serves the builtin engine as a program: it does
// one phase as the request on stdin says (see package engine), and ends when its parent
// does. A wrapper of it can be compared with, or stand in for, another engine.
const phaseCommand = "phase"

func runPhase() int { return engine.Serve(os.Stdin, os.Stdout, sized{childEngine()}) }

func runKeeper(dir string) int {
	return keep.Serve(dir, func(started func(group int)) (engine.Engine, error) {
		builtin := sized{childEngine()}
		if kind := os.Getenv("ENGINE"); kind == "" || kind == string(consume.EngineBuiltin) {
			return builtin, nil // most of us: nothing else is to be read
		}
		var cfg consume.Config
		if err := load(&cfg); err != nil {
			return nil, err
		}
		if cfg.Engine.Choice().Noop() {
			return nil, errors.New("ENGINE is noop now: this phase was begun by another engine")
		}
		programs := cfg.Exec.Settings(logs.New(os.Stderr, cfg.Log))
		programs.Started = started
		return cfg.Engine.Choice().Engine(builtin, programs), nil
	})
}

// sized keeps to the threads that it was given.
type sized struct{ engine.Engine }

// Run sets the runtime's threads before the work.
func (c sized) Run(ctx context.Context, r engine.Request, progress func(engine.Progress)) (engine.Result, error) {
	threads := r.Threads
	if tiny := r.ProofType == 0 || r.ProofType == 5; tiny && r.Phase != phases.P4 {
		threads = 1 // 2 KiB: milliseconds, but hundreds side by side
	}
	if threads > 0 {
		runtime.GOMAXPROCS(threads)
	}
	return c.Engine.Run(ctx, r, progress)
}
