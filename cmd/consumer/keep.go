package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

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
		if most := os.Getenv("P1_BATCH"); most != "" && most != "1" {
			builtin = sized{batched(dir, builtin)}
		}
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

// batchCommand is the hidden subcommand that a keeper of p1 starts to do it together with the p1
// of others. It is followed by the socket, and ends when they all have.
const batchCommand = "p1-batch"

// batched is the engine of a keeper that does p1 in a batch: one socket for all of a consumer.
func batched(dir string, alone engine.Engine) engine.Engine {
	socket := filepath.Join(filepath.Dir(filepath.Dir(dir)), batchCommand)
	return engine.Batched{
		Engine: alone, Socket: socket,
		Start: func() error {
			cmd := exec.Command("/proc/self/exe", batchCommand, socket)
			cmd.Stderr = os.Stderr
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it outlives this keeper
			if err := cmd.Start(); err != nil {
				return err
			}
			go cmd.Wait() //nolint:errcheck // what it does, its members see
			return nil
		},
		Alone: func(err error) { fmt.Fprintln(os.Stderr, "p1 goes on without a batch:", err) },
	}
}

func runBatch(socket string) int {
	var cfg consume.Config
	err := load(&cfg)
	if err == nil {
		err = engine.Batch{Most: cfg.P1Batch.Most, Wait: cfg.P1Batch.Wait}.Serve(context.Background(), socket)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "p1-batch:", err)
		return 1
	}
	return 0
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
