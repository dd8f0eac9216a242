package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sealfleet/internal/command"
	"sealfleet/internal/dispatch"
	"sealfleet/internal/phases"
)

func limitCommand() *cobra.Command {
	var reason string
	var lasts time.Duration
	cmd := &cobra.Command{
		Use:   "limit [GROUP [MB_PER_S|none]]",
		Short: "Show or change how fast all copies of a group may be together",
		Long: `limit bounds how many MB (10^6 bytes) per second p5 moves on all hosts of a group together, reading
back included. The hosts that copy divide it among them evenly, and anew whenever one begins or
ends; what one can't use because of its own limit the others get. It is taken at once, for copies
under way too. Who set it, when and why is kept on the bus.

Without a number it shows what is set, and who copies now with which part of it. The limits of a
single host and of storage nodes are the host's own: see consumer limit.`,
		Example: `  dispatcher limit
  dispatcher limit group1 500 --reason "the others need the network, too"
  dispatcher limit group1 200 --for 8h --reason "backup of the file server"
  dispatcher limit group1 none --reason "the new switch is in"`,
		Args: command.Args(cobra.MaximumNArgs(2)),
		RunE: func(cmd *cobra.Command, a []string) error {
			if _, err := outputOf(cmd); err != nil {
				return err
			}
			var groups []string
			if len(a) > 0 {
				g, err := phases.ParseGroup(a[0])
				if err != nil {
					return command.Usagef("%w", err)
				}
				groups = []string{g}
			}
			if len(a) < 2 {
				if reason != "" || lasts != 0 {
					return command.Usagef("say what to set: a number of MB per second, or none")
				}
				return runVerb(cmd, func(ctx context.Context, v *verb) error { return showLimits(ctx, cmd, v, groups) })
			}
			rate, err := parseRate(a[1])
			switch {
			case err != nil:
				return err
			case reason == "":
				return command.Usagef("--reason is needed: it is kept with the limit (example: --reason \"backup of the file server\")")
			case lasts < 0 || lasts > 0 && rate == 0:
				return command.Usagef("--for %s: give how long a limit lasts, such as 8h", lasts)
			}
			return runVerb(cmd, func(ctx context.Context, v *verb) error {
				var until time.Time
				if lasts > 0 {
					until = time.Now().Add(lasts).UTC()
				}
				short, cancel := soon(ctx)
				defer cancel()
				if err := dispatch.SetLimit(short, v.bus, groups[0], rate, until, v.who, reason); err != nil {
					return err
				}
				return showLimits(ctx, cmd, v, groups)
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	cmd.Flags().DurationVar(&lasts, "for", 0, "how long it is to last (default: until it is changed)")
	return withOutput(cmd)
}

// parseRate reads MB (10^6 bytes) per second as bytes per second; none is 0.
func parseRate(text string) (int64, error) {
	const most = 1 << 30 // MB/s
	if strings.EqualFold(text, "none") {
		return 0, nil
	}
	mb, err := strconv.ParseFloat(strings.TrimSuffix(text, "MB/s"), 64)
	if err != nil || !(mb >= 0.001 && mb <= most) {
		return 0, command.Usagef("%q: use a number of MB per second above 0, or none (example: 500)", text)
	}
	return int64(mb * 1e6), nil
}

func showLimits(ctx context.Context, cmd *cobra.Command, v *verb, groups []string) error {
	ctx, cancel := soon(ctx)
	defer cancel()
	list, err := dispatch.Limits(ctx, v.bus, groups)
	if err != nil {
		return err
	}
	header := []string{"GROUP", "LIMIT", "UNTIL", "COPYING NOW", "SET BY", "AT", "WHY"}
	return show(cmd, list, header, func(l dispatch.GroupLimit) []string {
		at, until := "", ""
		if !l.At.IsZero() {
			at = l.At.Local().Format(time.DateTime)
		}
		if !l.Until.IsZero() && l.BytesPerSec > 0 {
			until = l.Until.Local().Format(time.DateTime)
		}
		return []string{l.Group, megabytes(l.BytesPerSec), dash(until), dash(copiers(l.Copying)), dash(l.By), dash(at), dash(l.Reason)}
	})
}

func copiers(list []dispatch.Copier) string {
	parts := make([]string, len(list))
	for i, c := range list {
		parts[i] = fmt.Sprintf("%s %d× %s", c.Host, c.Copies, megabytes(c.Share))
	}
	return strings.Join(parts, ", ")
}

// megabytes writes a rate as operators set it.
func megabytes(bytesPerSec int64) string {
	if bytesPerSec == 0 {
		return "unlimited"
	}
	return strconv.FormatFloat(float64(bytesPerSec)/1e6, 'f', -1, 64) + " MB/s"
}
