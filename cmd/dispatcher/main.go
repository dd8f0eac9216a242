// Command dispatcher publishes the phases of sectors to the fleet, and is the operator's
// tool: submit, look, redo, cancel.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sealfleet/internal/bus"
	"sealfleet/internal/command"
	"sealfleet/internal/dispatch"
)

// Exit codes. They are part of the interface: scripts rely on them.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2 // flags, arguments or settings that make no sense
	exitNotFound    = 3
	exitConflict    = 4 // it is there already, or its state does not allow it
	exitUnreachable = 5
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	root := newRoot()
	err := root.ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "dispatcher: "+err.Error())
	}
	os.Exit(exitCode(err))
}

func exitCode(err error) int {
	var usage command.UsageError
	var refused *refusal
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage), errors.Is(err, dispatch.ErrBadSpec):
		return exitUsage
	case errors.Is(err, dispatch.ErrUnknown), errors.Is(err, bus.ErrNoAside):
		return exitNotFound
	case errors.Is(err, dispatch.ErrExists), errors.Is(err, dispatch.ErrRefused), errors.Is(err, bus.ErrNoRetry):
		return exitConflict
	case errors.Is(err, bus.ErrUnreachable), errors.Is(err, errNoDispatcher):
		return exitUnreachable
	case errors.As(err, &refused):
		return refused.exit()
	}
	return exitFailure
}

const rootHelp = `dispatcher runs the Filecoin sealing fleet's side that hands out work, and the verbs of its operators.

Exit codes: 0 done; 1 failure; 2 bad flags, arguments or settings; 3 no such sector,
host or group; 4 it exists already, or its state does not allow that; 5 the bus, or a dispatcher,
cannot be reached.

A sector is written s-t01000-7, 1000/7 or f01000-7: sector 7 of miner f01000.`

func newRoot() *cobra.Command {
	root := command.Root("dispatcher", "Hand out the phases of sealing, and look after them", rootHelp)
	root.PersistentFlags().Duration("timeout", 4*time.Second, "how long to try to reach the bus or a dispatcher")
	root.AddCommand(
		serveCommand(), submitCommand(), sectorsCommand(), sectorCommand(), eventsCommand(),
		backlogCommand(), whyCommand(), jobsCommand(), hostsCommand(), groupsCommand(), statsCommand(), legacyCommand(),
		redoCommand(), cancelCommand(), pauseCommand(), resumeCommand(), drainCommand(), undrainCommand(), limitCommand(), alertsCommand(), muteCommand(), unmuteCommand(), asideCommand(),
		busCommand(),
	)
	withTable(root)
	return root
}
