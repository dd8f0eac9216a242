package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"sealfleet/internal/command"
	"sealfleet/internal/consume"
	"sealfleet/internal/engine"
	"sealfleet/internal/phases"
	"sealfleet/internal/settings"
)

// engineFlags are bench's flags for engines.
type engineFlags struct {
	engine, compare string

	choice, other engine.Choice
	exec          engine.Exec
}

func (e *engineFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&e.engine, "engine", "builtin", "what does the phases: builtin, exec:/path, or p2=exec:/path,p4=exec:/path")
	cmd.Flags().StringVar(&e.compare, "compare", "", "do the same with this engine too, in DIR/engine and DIR/compare, and say whether they agree and how long each took")
}

// parse reads the flags, and the limits of programs from the environment.
func (e *engineFlags) parse() error {
	var faults []error
	var err error
	if e.choice, err = parseEngine("--engine", e.engine); err != nil {
		faults = append(faults, err)
	}
	if e.compare != "" {
		if e.other, err = parseEngine("--compare", e.compare); err != nil {
			faults = append(faults, err)
		}
	}
	var limits consume.ExecConfig
	if err := settings.Load(&limits); err != nil {
		faults = append(faults, err)
	}
	e.exec = limits.Settings(nil)
	return errors.Join(faults...)
}

func parseEngine(flag, text string) (engine.Choice, error) {
	c, err := engine.ParseChoice(text)
	if err == nil && c.Noop() {
		err = errors.New("noop does nothing that could be measured here")
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", flag, err)
	}
	return c, err
}

// errDisagree makes bench --compare end with exit code 1.
var errDisagree = errors.New("the two engines do not agree: see what is different above")

// runCompare is bench with --compare.
func runCompare(cmd *cobra.Command, b engine.Bench, e *engineFlags, output outputFormat) error {
	c := &engine.Compare{Bench: b, Engines: [2]engine.Choice{e.choice, e.other}, Builtin: engine.Builtin{}, Settings: e.exec}
	if err := c.Check(); err != nil {
		return command.UsageError{Err: err}
	}
	bars := newBars(cmd.ErrOrStderr())
	found, err := c.Run(cmd.Context(), func(name string, p phases.Step, g engine.Progress) {
		bars.show(name+" "+string(p), g.Step, g.Done, g.Total)
	})
	bars.end()
	if err != nil {
		if cmd.Context().Err() != nil {
			return errors.New("interrupted; what was complete stays in the directory")
		}
		return err
	}
	if err := output.print(cmd.OutOrStdout(), found, func(w io.Writer) error { return compareTable(w, found) }); err != nil {
		return err
	}
	if !found.Agree {
		return errDisagree
	}
	return nil
}

func compareTable(w io.Writer, c *engine.Comparison) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintf(tw, "phase\t%s\t%s\tratio\t\n", c.Engine.Name, c.Compare.Name)
	for _, p := range phases.Phases() {
		if _, done := c.Engine.Report.Seconds[p]; !done {
			continue
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%.2f\t\n", p, secondsOf(c.Engine, p), secondsOf(c.Compare, p), c.Ratio[p])
	}
	for _, list := range []map[string]engine.Verdict{c.Outputs, c.Files} {
		fmt.Fprintln(tw, "\t\t\t")
		for _, name := range sortedKeys(list) {
			fmt.Fprintf(tw, "%s\t%s\t\t\t\n", name, list[name])
		}
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	verdict := "they agree in every output and file"
	if !c.Agree {
		verdict = "THEY DO NOT AGREE"
	}
	_, err := fmt.Fprintf(w, "\n%s\n", verdict)
	return err
}

func secondsOf(c engine.Contender, p phases.Step) string {
	text := fmt.Sprintf("%.3f s", c.Report.Seconds[p])
	if s, checked := c.CheckSeconds[p]; checked {
		text += fmt.Sprintf(" (+ %.3f s to verify it)", s)
	}
	return text
}
