package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/agnivade/levenshtein"
	"github.com/spf13/cobra"

	"sealfleet/docs/runbooks"
	"sealfleet/internal/alerts"
	"sealfleet/internal/bus"
	"sealfleet/internal/command"
	"sealfleet/internal/phases"
)

func alertsCommand() *cobra.Command {
	all := false
	cmd := &cobra.Command{
		Use:   "alerts",
		Short: "Say what is wrong with the farm, since when, and what mends it",
		Long: `alerts lists the alarms that stand, the most severe and oldest first; --all adds those that are
over. A dispatcher raises them within a minute, by the same conditions as the Prometheus rules,
and tells ALERT_WEBHOOK and the bus (nats sub 'alert.>'). "dispatcher alerts explain NAME" prints
an alarm's runbook.`,
		Example: "  dispatcher alerts\n  dispatcher alerts explain SectorParked\n  dispatcher mute HostSilent --for 2h --reason \"rack 3 is being moved\"",
		Args:    command.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runVerb(cmd, func(ctx context.Context, v *verb) error {
				ctx, cancel := soon(ctx)
				defer cancel()
				list, err := alerts.List(ctx, v.bus, all)
				if err != nil {
					return err
				}
				return showAlerts(cmd, list)
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "those that are over, too")
	cmd.AddCommand(explainCommand(), rulesCommand())
	return withOutput(cmd)
}

func showAlerts(cmd *cobra.Command, list []alerts.Alert) error {
	if form, err := outputOf(cmd); err == nil && form == asTable && len(list) == 0 {
		line(cmd.OutOrStdout(), "nothing is wrong that a dispatcher looks for (dispatcher alerts --all: what was)")
		return nil
	}
	return show(cmd, list, []string{"SEVERITY", "ALERT", "GROUP", "AGE", "STATE", "WHAT"}, func(a alerts.Alert) []string {
		state, age := a.State, time.Since(a.StartsAt)
		if a.State == alerts.Resolved {
			age = a.EndsAt.Sub(a.StartsAt)
		}
		if a.MutedBy != "" {
			state = "muted"
		}
		what := a.Annotations["summary"]
		if e := a.Annotations["examples"]; e != "" {
			what += " (" + e + ")"
		}
		if a.State == alerts.Firing {
			what += "\n\t\t\t\t\tmend: " + a.Annotations["mend"]
		}
		return []string{string(a.Severity), a.Name, dash(a.Group()), span(age), state, what}
	})
}

func explainCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "explain NAME",
		Short:             "Print an alarm's runbook: what it means, how to look, the mend",
		Args:              command.Args(cobra.ExactArgs(1)),
		ValidArgsFunction: cobra.FixedCompletions(alerts.Names(), cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, a []string) error {
			name, err := alertName(a[0])
			if err != nil {
				return err
			}
			page, err := runbooks.Pages.ReadFile(alerts.Page(name))
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(page)
			return err
		},
	}
}

func rulesCommand() *cobra.Command {
	base := "docs/runbooks/"
	cmd := &cobra.Command{
		Use:   "rules",
		Short: "Print the alarms as a rule file for Prometheus",
		Args:  command.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			file, err := alerts.PrometheusRules(base)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(file)
			return err
		},
	}
	cmd.Flags().StringVar(&base, "runbooks", base, "what stands before a runbook's file name in a rule's link")
	return cmd
}

// alertName finds the alarm that somebody means; case does not matter.
func alertName(text string) (string, error) {
	near, best := "", 4
	for _, name := range alerts.Names() {
		if strings.EqualFold(name, text) {
			return name, nil
		}
		if d := levenshtein.ComputeDistance(strings.ToLower(name), strings.ToLower(text)); d < best || strings.HasPrefix(strings.ToLower(name), strings.ToLower(text)) {
			near, best = name, d
		}
	}
	hint := "they are " + strings.Join(alerts.Names(), ", ")
	if near != "" {
		hint = "did you mean " + near + "?"
	}
	return "", command.Usagef("no alarm is called %q: %s", text, hint)
}

func muteCommand() *cobra.Command {
	var group, reason string
	duration := 4 * time.Hour
	cmd := &cobra.Command{
		Use:   "mute ALERT --reason TEXT",
		Short: "Do not tell of an alarm for a while (ALERT all: of none)",
		Long: `mute keeps an alarm, or all, from being posted and repeated; it still shows in "dispatcher alerts".
Who muted what, until when and why is kept on the bus. It ends by itself after --for, or with unmute;
an alarm that then still stands is told.`,
		Args:              command.Args(cobra.ExactArgs(1)),
		ValidArgsFunction: cobra.FixedCompletions(append(alerts.Names(), alerts.All), cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, a []string) error {
			switch {
			case reason == "":
				return command.Usagef("--reason is needed: whoever wonders why nobody was told will look for it")
			case duration <= 0:
				return command.Usagef("--for %s: use a time from now on, such as 4h", duration)
			}
			return setMute(cmd, a[0], group, bus.Control{On: true, Reason: reason, Until: time.Now().Add(duration).UTC()})
		},
	}
	cmd.Flags().StringVar(&group, "group", alerts.All, "only alarms of this group")
	cmd.Flags().DurationVar(&duration, "for", duration, "for how long")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	return cmd
}

func unmuteCommand() *cobra.Command {
	var group, reason string
	cmd := &cobra.Command{
		Use:               "unmute ALERT",
		Short:             "Tell of an alarm again",
		Args:              command.Args(cobra.ExactArgs(1)),
		ValidArgsFunction: cobra.FixedCompletions(append(alerts.Names(), alerts.All), cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, a []string) error {
			return setMute(cmd, a[0], group, bus.Control{Reason: reason})
		},
	}
	cmd.Flags().StringVar(&group, "group", alerts.All, "as it was muted")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	return cmd
}

// errNotMuted is of somebody who ends what is not.
var errNotMuted = errors.New("is not muted")

func setMute(cmd *cobra.Command, alert, group string, c bus.Control) error {
	name := alerts.All
	var err error
	if alert != alerts.All {
		if name, err = alertName(alert); err != nil {
			return err
		}
	}
	if group != alerts.All {
		if group, err = phases.ParseGroup(group); err != nil {
			return command.UsageError{Err: err}
		}
	}
	return runVerb(cmd, func(ctx context.Context, v *verb) error {
		ctx, cancel := soon(ctx)
		defer cancel()
		c.Key, c.By = alerts.MuteKey(name, group), v.who
		if !c.On {
			list, err := v.bus.Controls(ctx, bus.ControlMute)
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(list, func(o bus.Control) bool { return o.Key == c.Key && o.InForce(time.Now()) }) {
				return command.Usagef("%s of group %s %w (muted now: %s)", name, group, errNotMuted, dash(mutedNow(list)))
			}
		}
		if _, err := v.bus.SetControl(ctx, c); err != nil {
			return err
		}
		if c.On {
			line(cmd.OutOrStdout(), "%s of group %s is muted until %s", name, group, c.Until.Local().Format(time.DateTime))
		} else {
			line(cmd.OutOrStdout(), "%s of group %s is told again", name, group)
		}
		return nil
	})
}

func mutedNow(list []bus.Control) string {
	var names []string
	for _, c := range list {
		if c.InForce(time.Now()) {
			name, group, _ := strings.Cut(c.Name(), ".")
			names = append(names, fmt.Sprintf("%s --group %s", name, group))
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
