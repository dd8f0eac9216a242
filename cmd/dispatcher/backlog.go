package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"sealfleet/internal/command"
	"sealfleet/internal/dispatch"
	"sealfleet/internal/phases"
)

func backlogCommand() *cobra.Command {
	var groups []string
	cmd := &cobra.Command{
		Use:   "backlog",
		Short: "Say which phase of which group falls behind, and how many slots it needs",
		Long: `backlog shows, for each phase of each group, what waits and runs, how long it takes (P50 and
P95 of the last 256 attempts), how many tasks come in an hour, and the slots that hosts were
seen to use at once. NEED is how many more slots it takes to keep up and to work off what
waits within an hour (or twice the P95 of a long phase).

It asks a dispatcher; if none answers, it reads the log itself, which takes longer.`,
		Args: command.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := filterOf(groups, nil, nil)
			if err != nil {
				return err
			}
			err = backlogOfFarm(cmd, f.Groups)
			if errors.Is(err, errNoDispatcher) {
				return backlogOfLog(cmd, f.Groups)
			}
			return err
		},
	}
	cmd.Flags().StringSliceVar(&groups, "group", nil, "only these groups")
	return withOutput(cmd)
}

// backlogOfFarm asks a dispatcher, which has worked it out already.
func backlogOfFarm(cmd *cobra.Command, groups []string) error {
	return runFarm(cmd, func(ctx context.Context, c *client) error {
		c.patience = min(c.patience, farmPatience)
		q := url.Values{}
		set(q, "group", groups)
		var answer struct {
			Items []item[dispatch.Advice] `json:"items"`
		}
		if err := c.get(ctx, "/v1/backlog", q, &answer); err != nil {
			return err
		}
		return show(cmd, answer.Items, adviceHeader, func(i item[dispatch.Advice]) []string { return adviceCells(&i.V) })
	})
}

func backlogOfLog(cmd *cobra.Command, groups []string) error {
	return runVerb(cmd, func(ctx context.Context, v *verb) error {
		ctx, cancel := soon(ctx)
		defer cancel()
		advice, err := dispatch.ReadBacklog(ctx, v.bus, v.policy, v.cfg.Policy.HoldP1)
		if err != nil {
			return err
		}
		if len(groups) > 0 {
			advice = slices.DeleteFunc(advice, func(a dispatch.Advice) bool { return !slices.Contains(groups, a.Group) })
		}
		return show(cmd, advice, adviceHeader, func(a dispatch.Advice) []string { return adviceCells(&a) })
	})
}

var adviceHeader = []string{"GROUP", "PHASE", "WAITING", "RUNNING", "SLOTS", "OLDEST", "P50", "P95", "PER HOUR", "NEED", "WHY"}

func adviceCells(a *dispatch.Advice) []string {
	waiting, need := fmt.Sprint(a.Waiting), "-"
	if a.Phase == phases.P1 && a.Held > 0 {
		waiting += fmt.Sprintf(" +%d held", a.Held)
	}
	if a.Need > 0 {
		need = fmt.Sprintf("+%d", a.Need)
	}
	return []string{
		a.Group, string(a.Phase), waiting, fmt.Sprint(a.Running), fmt.Sprint(a.Slots), age(a.Oldest),
		seconds(a.P50), seconds(a.P95), fmt.Sprintf("%.3g", a.PerHour), need, a.Why,
	}
}

func age(s float64) string {
	if s <= 0 {
		return "-"
	}
	return span(time.Duration(s * float64(time.Second)))
}
