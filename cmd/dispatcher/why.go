package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sealfleet/internal/command"
	"sealfleet/internal/dispatch"
)

func whyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "why SECTOR",
		Short: "Say what exactly a sector waits for, and what would help",
		Long: `why shows each thing that a sector waits for: a slot (and who has them), the time of its next
attempt, the chain, other steps of its own, other sectors of its group (held), an operator
(parked, with the command that mends it), or a dispatcher.`,
		Args: command.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			id, err := parseSector(a[0])
			if err != nil {
				return err
			}
			form, err := outputOf(cmd)
			if err != nil {
				return err
			}
			// A dispatcher knows what the hosts say; without one the log tells the rest.
			err = runFarm(cmd, func(ctx context.Context, c *client) error {
				c.patience = min(c.patience, farmPatience)
				var r item[dispatch.Reasons]
				if err := c.get(ctx, "/v1/sectors/"+id+"/why", nil, &r); err != nil {
					return err
				}
				if form != asTable {
					return writeJSON(cmd.OutOrStdout(), r, form == asJSON)
				}
				tellWhy(cmd, &r.V)
				return nil
			})
			if !errors.Is(err, errNoDispatcher) {
				return err
			}
			return runVerb(cmd, func(ctx context.Context, v *verb) error {
				ctx, cancel := soon(ctx)
				defer cancel()
				r, err := dispatch.Why(ctx, v.bus, v.policy, v.cfg.Policy.HoldP1, id)
				if err != nil {
					return suggest(ctx, v.bus, err, id)
				}
				if form != asTable {
					return writeJSON(cmd.OutOrStdout(), r, form == asJSON)
				}
				tellWhy(cmd, r)
				return nil
			})
		},
	}
	return withOutput(cmd)
}

func tellWhy(cmd *cobra.Command, r *dispatch.Reasons) {
	w, now := cmd.OutOrStdout(), time.Now()
	line(w, "%s  %s  %s", r.Sector, r.Group, r.State)
	if len(r.Waits) == 0 {
		line(w, "It waits for nothing: it ended %s.", stamp(r.EndedAt))
	}
	for _, wait := range r.Waits {
		head := fmt.Sprintf("%s is %s", wait.Phase, wait.State)
		if wait.State == dispatch.NowDue {
			head = "a dispatcher is due"
		}
		if !wait.Since.IsZero() {
			head += " for " + span(now.Sub(wait.Since))
		}
		if wait.Until.After(now) {
			head += ", for about " + span(wait.Until.Sub(now)) + " more"
		}
		line(w, "%s: %s", head, strings.TrimPrefix(wait.Why, "held: "))
		if wait.Mend != "" {
			line(w, "  mend: %s", wait.Mend)
		}
	}
}
