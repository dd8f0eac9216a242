package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sealfleet/internal/dispatch"
	"sealfleet/internal/phases"
	"sealfleet/internal/sealcore"
)

func sectorsCommand() *cobra.Command {
	var groups, states, steps []string
	cmd := &cobra.Command{
		Use:   "sectors",
		Short: "List sectors, and where they stand",
		Long: `sectors lists what was submitted. A sector is sealing, parked (waiting for an operator),
failed, cancelled or finished. While it is sealing, NOW says for each phase it is at whether
it is waiting for a host, delayed until its next attempt, running, on chain, or held: not
started, until others of its group are cleaned (BACKLOG_P1_HOLD).`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := filterOf(groups, states, steps)
			if err != nil {
				return err
			}
			return runVerb(cmd, func(ctx context.Context, v *verb) error {
				ctx, cancel := soon(ctx)
				defer cancel()
				rows, err := dispatch.List(ctx, v.bus, v.policy, v.cfg.Policy.HoldP1, f)
				if err != nil {
					return err
				}
				return showRows(cmd, rows)
			})
		},
	}
	cmd.Flags().StringSliceVar(&groups, "group", nil, "only these groups")
	cmd.Flags().StringSliceVar(&states, "state", nil, "only these states: "+strings.Join(dispatch.States(), ", "))
	cmd.Flags().StringSliceVar(&steps, "phase", nil, "only sectors that are at these phases: p1 to p6, precommit, commit")
	_ = cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(dispatch.States(), cobra.ShellCompDirectiveNoFileComp))
	return withOutput(cmd)
}

func filterOf(groups, states, steps []string) (f dispatch.Filter, err error) {
	for _, g := range groups {
		name, err := phases.ParseGroup(g)
		if err != nil {
			return f, errUsage{err}
		}
		f.Groups = append(f.Groups, name)
	}
	for _, s := range states {
		if !slices.Contains(dispatch.States(), s) {
			return f, usagef("--state %q is unknown: use %s", s, strings.Join(dispatch.States(), ", "))
		}
		f.States = append(f.States, s)
	}
	for _, s := range steps {
		step, err := parseStep(s)
		if err != nil {
			return f, err
		}
		f.Phases = append(f.Phases, step)
	}
	return f, nil
}

// parseStep reads a phase, by any of its names, or a gate.
func parseStep(text string) (phases.Step, error) {
	if s := phases.Step(text); s.IsGate() {
		return s, nil
	}
	s, err := phases.ParsePhase(text)
	if err != nil {
		return "", usagef("%w; or a gate: precommit, commit", err)
	}
	return s, nil
}

func showRows(cmd *cobra.Command, rows []dispatch.Row) error {
	now := time.Now()
	header := []string{"SECTOR", "GROUP", "SIZE", "STATE", "PHASE", "NOW", "HOST", "ATTEMPT", "FOR", "AGE", "REASON"}
	return show(cmd, rows, header, func(r dispatch.Row) []string {
		age := now.Sub(r.SubmittedAt)
		if !r.EndedAt.IsZero() {
			age = r.EndedAt.Sub(r.SubmittedAt)
		}
		var phase, state, host, attempt, since []string
		for _, n := range r.Now {
			phase = append(phase, string(n.Phase))
			state = append(state, n.State)
			host = append(host, dash(n.Host))
			attempt = append(attempt, fmt.Sprint(n.Attempt))
			since = append(since, span(now.Sub(n.Since)))
		}
		join := func(s []string) string { return dash(strings.Join(s, ",")) }
		return []string{
			r.Sector, r.Group, sizeName(r.ProofType), string(r.State), join(phase), join(state), join(host),
			join(attempt), join(since), span(age), dash(short(r.Reason)),
		}
	})
}

func sizeName(proofType int) string {
	p, err := sealcore.ForProofType(proofType)
	if err != nil {
		return fmt.Sprintf("type %d", proofType)
	}
	return p.Name
}

// short is the beginning of a text, on one line, for a table.
func short(text string) string {
	const most = 70
	text = strings.Join(strings.Fields(text), " ")
	if r := []rune(text); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return text
}
