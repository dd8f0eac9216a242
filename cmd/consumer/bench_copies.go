package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"sealfleet/internal/command"
	"sealfleet/internal/engine"
	"sealfleet/internal/phases"
)

// runCopies benches several sectors at once.
func runCopies(cmd *cobra.Command, b engine.Bench, n int, output outputFormat) error {
	b.Engine = engine.Builtin{}
	copies, err := b.Copies(n)
	if err != nil {
		return command.UsageError{Err: err}
	}
	bars := newBars(cmd.ErrOrStderr())
	report, err := engine.RunCopies(cmd.Context(), copies, func(sector uint64, p phases.Step, g engine.Progress) {
		bars.show(fmt.Sprintf("%s of %d", p, sector), g.Step, g.Done, g.Total)
	})
	bars.end()
	if err != nil {
		if cmd.Context().Err() != nil {
			return errors.New("interrupted; what was complete stays in the directory")
		}
		return err
	}
	return output.print(cmd.OutOrStdout(), report, func(w io.Writer) error {
		tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		for _, p := range phases.Phases() {
			if s, done := report.Seconds[p]; done {
				fmt.Fprintf(tw, "%s\t%.3f s\t%.3f s a sector\t%.1f sectors an hour\n", p, s, s/float64(n), 3600*float64(n)/s)
			}
		}
		return tw.Flush()
	})
}
