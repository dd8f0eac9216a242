// Command consumer is a host's side of the sealing fleet: it pulls the phases that it has
// slots for and runs each in a child process. Without a bus it runs phases of one sector
// for sizing a host (bench), and describes the proof's circuit (circuit).
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"sealfleet/internal/bus"
	"sealfleet/internal/command"
	"sealfleet/internal/consume"
	"sealfleet/internal/host"
	"sealfleet/internal/keep"
	"sealfleet/internal/settings"
)

// Exit codes. They are part of the interface: scripts rely on them.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2 // flags, arguments, settings or places that can't be used
	exitNotFound    = 3
	exitConflict    = 4 // another consumer has this name
	exitUnreachable = 5
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == keepCommand {
		os.Exit(runKeeper(os.Args[2])) // before anything costs memory: there may be hundreds of us
	}
	if len(os.Args) == 3 && os.Args[1] == batchCommand {
		os.Exit(runBatch(os.Args[2]))
	}
	if len(os.Args) == 2 && os.Args[1] == phaseCommand {
		os.Exit(runPhase())
	}
	if len(os.Args) == 2 && os.Args[1] == probeCommand {
		os.Exit(runProbe())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the process at once; its children follow
	}()
	err := newRoot().ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "consumer: "+err.Error())
	}
	os.Exit(exitCode(err))
}

func exitCode(err error) int {
	var usage command.UsageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, errNothing):
		return exitNotFound
	case errors.Is(err, bus.ErrNameTaken), errors.Is(err, keep.ErrInUse):
		return exitConflict
	case errors.Is(err, bus.ErrUnreachable):
		return exitUnreachable
	}
	return exitFailure
}

const rootHelp = `consumer is a host's side of the sealing fleet: one runs on each host. It pulls the phases
that WORKERS gives it slots for and runs each in a child process of its own.

Exit codes: 0 done; 1 failure; 2 bad flags, arguments or settings, or a directory that cannot be
used; 3 nothing found; 4 another consumer with this name is running; 5 the bus cannot be reached.`

func newRoot() *cobra.Command {
	root := command.Root("consumer", "Run phases of sealing on this host", rootHelp)
	root.AddCommand(serveCommand(), doctorCommand(), benchCommand(), circuitCommand(), paramsCommand(), cleanCommand(), orphansCommand(), auditCommand(), limitCommand())
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, a []string) {
		help(cmd, a)
		if cmd.Name() != "serve" && cmd.Name() != "doctor" && cmd.Name() != "consumer" {
			return
		}
		out := cmd.OutOrStdout()
		fmt.Fprintln(out, "\nEnvironment (STATE_DIR's default is ~/.local/state/sealfleet for other users than root):")
		_ = settings.Table(out, &consume.Config{}) // the terminal has gone: nobody is left to tell
	})
	return root
}

// load reads the settings of serve.
func load(cfg *consume.Config) error {
	if err := settings.Load(cfg); err != nil {
		return command.UsageError{Err: err}
	}
	if os.Getenv("STATE_DIR") == "" {
		cfg.Bus.StateDir = host.StateDir(cfg.Bus.StateDir)
	}
	cfg.Bus.Role = bus.RoleHost
	return nil
}
