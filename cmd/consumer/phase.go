package main

import (
	"context"
	"os"
	"runtime"

	"sealfleet/internal/engine"
	"sealfleet/internal/phases"
)

// phaseCommand is the hidden subcommand that serve starts for each phase.
const phaseCommand = "phase"

// runPhase is a child: it does one phase, as the request on stdin says (see package
// engine), and ends when its parent does.
func runPhase() int { return engine.Serve(os.Stdin, os.Stdout, child{engine.Builtin{}}) }

// child keeps to the threads that it was given.
type child struct{ engine.Engine }

// Run sets the runtime's threads before the work.
func (c child) Run(ctx context.Context, r engine.Request, progress func(engine.Progress)) (engine.Result, error) {
	threads := r.Threads
	if tiny := r.ProofType == 0 || r.ProofType == 5; tiny && r.Phase != phases.P4 {
		threads = 1 // 2 KiB: milliseconds, but hundreds side by side
	}
	if threads > 0 {
		runtime.GOMAXPROCS(threads)
	}
	return c.Engine.Run(ctx, r, progress)
}
