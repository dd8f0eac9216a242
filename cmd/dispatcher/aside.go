package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"sealfleet/internal/bus"
	"sealfleet/internal/command"
)

func asideCommand() *cobra.Command {
	var most uint64 = 200
	cmd := &cobra.Command{
		Use:   "aside",
		Short: "List messages that nobody could act on, and that were set aside",
		Long: `aside lists what dispatchers and hosts met and could not act on, oldest first: messages that are no
event or no task, those of a newer release, and tasks that no host is ever given. Each was copied
as it was, with the reason, to the stream SEAL_ASIDE; nothing waits behind it. (As it happens:
nats sub 'aside.>'.)

A task that was damaged is made again from its chain by itself. What is left is to find out who
wrote the message (dispatcher aside show NUMBER), and to drop it.`,
		Example: `  dispatcher aside
  dispatcher aside show 3
  dispatcher aside retry 3 --reason "the hosts have the new release"
  dispatcher aside drop 3 4 --reason "a test of the monitoring"`,
		Args: command.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := outputOf(cmd); err != nil {
				return err
			}
			return runVerb(cmd, func(ctx context.Context, v *verb) error {
				ctx, cancel := soon(ctx)
				defer cancel()
				list, err := v.bus.Asides(ctx, most)
				if err != nil {
					return err
				}
				return showAsides(cmd, list)
			})
		},
	}
	cmd.Flags().Uint64Var(&most, "last", most, "only so many, the newest; 0: all")
	cmd.AddCommand(asideShowCommand(),
		asideEndCommand("retry", "Give a task that was set aside out again", "given out again", (*bus.Bus).RetryAside),
		asideEndCommand("drop", "Take messages that were set aside out of view", "dropped", (*bus.Bus).DropAside))
	return withOutput(cmd)
}

func showAsides(cmd *cobra.Command, list []bus.Aside) error {
	if form, err := outputOf(cmd); err == nil && form == asTable && len(list) == 0 {
		line(cmd.OutOrStdout(), "nothing is set aside")
		return nil
	}
	return show(cmd, list, []string{"NUMBER", "AGE", "KIND", "GROUP", "FROM", "SUBJECT", "REASON"}, func(a bus.Aside) []string {
		return []string{
			strconv.FormatUint(a.Seq, 10), span(time.Since(a.At)), string(a.Kind), dash(a.Group),
			fmt.Sprintf("%s %d", dash(a.Stream), a.Original), dash(a.Subject), dash(a.Reason),
		}
	})
}

func asideShowCommand() *cobra.Command {
	return withOutput(&cobra.Command{
		Use:   "show NUMBER",
		Short: "Show a message that was set aside, with its headers and data",
		Args:  command.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			form, err := outputOf(cmd)
			if err != nil {
				return err
			}
			numbers, err := asideNumbers(a)
			if err != nil {
				return err
			}
			return runVerb(cmd, func(ctx context.Context, v *verb) error {
				ctx, cancel := soon(ctx)
				defer cancel()
				m, err := v.bus.Aside(ctx, numbers[0])
				if err != nil {
					return err
				}
				if form != asTable {
					return writeJSON(cmd.OutOrStdout(), m, form == asJSON)
				}
				showAside(cmd, m)
				return nil
			})
		},
	})
}

func showAside(cmd *cobra.Command, m bus.Aside) {
	w := cmd.OutOrStdout()
	for _, l := range [][2]string{
		{"number", strconv.FormatUint(m.Seq, 10)}, {"kind", string(m.Kind)}, {"group", dash(m.Group)}, {"reason", dash(m.Reason)},
		{"met by", fmt.Sprintf("%s, %s", dash(m.By), m.At.Local().Format(time.DateTime))},
		{"stream", fmt.Sprintf("%s, sequence %d, written %s", dash(m.Stream), m.Original, m.Stored.Local().Format(time.DateTime))},
		{"subject", dash(m.Subject)},
	} {
		line(w, "%-8s %s", l[0], l[1])
	}
	for _, k := range slices.Sorted(maps.Keys(m.Headers)) {
		line(w, "header   %s: %q", k, strings.Join(m.Headers[k], ", "))
	}
	switch {
	case len(m.Data) == 0:
		line(w, "data     none")
	case utf8.Valid(m.Data):
		line(w, "data     %d of %d bytes: %q", len(m.Data), m.Size, m.Data)
	default:
		line(w, "data     %d of %d bytes: %x", len(m.Data), m.Size, m.Data)
	}
}

func asideEndCommand(name, short, done string, end func(*bus.Bus, context.Context, uint64, string, string) (bus.Aside, error)) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   name + " NUMBER... --reason TEXT",
		Short: short,
		Long:  short + ". Who did it, when and why is kept on the bus (ctl.aside.<number>).",
		Args:  command.Args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			numbers, err := asideNumbers(a)
			if err != nil {
				return err
			}
			if reason == "" {
				return command.Usagef("--reason is needed: it is kept with what was done")
			}
			return runVerb(cmd, func(ctx context.Context, v *verb) error {
				ctx, cancel := soon(ctx)
				defer cancel()
				var failed []error
				for _, n := range numbers {
					m, err := end(v.bus, ctx, n, v.who, reason)
					if err != nil {
						failed = append(failed, err)
						continue
					}
					line(cmd.OutOrStdout(), "%d (%s) is %s", n, dash(m.Subject), done)
				}
				return errors.Join(failed...)
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	return cmd
}

func asideNumbers(a []string) ([]uint64, error) {
	numbers := make([]uint64, 0, len(a))
	for _, text := range a {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil || n == 0 {
			return nil, command.Usagef("%q is no number of the list (dispatcher aside)", text)
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}
