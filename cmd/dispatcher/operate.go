package main

import (
	"context"

	"github.com/spf13/cobra"

	"sealfleet/internal/command"
	"sealfleet/internal/dispatch"
	"sealfleet/internal/phases"
)

func redoCommand() *cobra.Command {
	var phase, reason string
	cmd := &cobra.Command{
		Use:   "redo SECTOR --reason TEXT",
		Short: "Have a phase of a sector done again",
		Long: `redo issues a phase again: without --phase the one at which the sector is parked. The phases
that work on its results are done again after it; what is on chain is not. Who asked, when
and why is an event of the sector.`,
		Args: command.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			id, err := parseSector(a[0])
			if err != nil {
				return err
			}
			if reason == "" {
				return command.Usagef("--reason is needed: it is kept with the sector (example: --reason \"bad memory in host3, replaced\")")
			}
			var step phases.Step
			if phase != "" {
				if step, err = parseStep(phase); err != nil {
					return err
				}
			}
			return runVerb(cmd, func(ctx context.Context, v *verb) error { return redo(ctx, cmd, v, id, step, reason) })
		},
	}
	cmd.Flags().StringVar(&phase, "phase", "", "phase or gate to do again: p1 to p6, precommit, commit")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	return cmd
}

func redo(ctx context.Context, cmd *cobra.Command, v *verb, id string, step phases.Step, reason string) error {
	ctx, cancel := soon(ctx)
	defer cancel()
	if step == "" {
		s, _, err := dispatch.Load(ctx, v.bus, id)
		if err != nil {
			return suggest(ctx, v.bus, err, id)
		}
		for _, candidate := range phases.Steps() {
			if s.Step(candidate).Parked(v.policy) {
				step = candidate
			}
		}
		if step == "" {
			return command.Usagef("%s is not parked (it is %s): say with --phase what to do again", id, s.Status(v.policy))
		}
	}
	if err := dispatch.Redo(ctx, v.bus, id, step, v.who, reason); err != nil {
		return suggest(ctx, v.bus, err, id)
	}
	line(cmd.OutOrStdout(), "%s of %s is done again", step, id)
	return nil
}

func cancelCommand() *cobra.Command {
	var (
		reason string
		yes    bool
	)
	cmd := &cobra.Command{
		Use:   "cancel SECTOR --reason TEXT --yes",
		Short: "Give a sector up: stop its phases, and clean what they left",
		Long: `cancel stops what runs for a sector, and then has p6 remove its files. It cannot be undone,
and its sector number is used up. A sector whose proof is on chain cannot be cancelled.`,
		Args: command.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			id, err := parseSector(a[0])
			if err != nil {
				return err
			}
			switch {
			case reason == "":
				return command.Usagef("--reason is needed: it is kept with the sector")
			case !yes:
				return command.Usagef("this removes the files of %s, and cannot be undone: add --yes to do it", id)
			}
			return runVerb(cmd, func(ctx context.Context, v *verb) error {
				ctx, cancel := soon(ctx)
				defer cancel()
				if err := dispatch.Cancel(ctx, v.bus, id, v.who, reason); err != nil {
					return suggest(ctx, v.bus, err, id)
				}
				line(cmd.OutOrStdout(), "%s is cancelled; its phases are being stopped (see: dispatcher sector %s)", id, id)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	cmd.Flags().BoolVar(&yes, "yes", false, "do it without asking")
	return cmd
}
