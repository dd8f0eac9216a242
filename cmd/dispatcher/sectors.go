package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"sealfleet/internal/command"
	"sealfleet/internal/dispatch"
	"sealfleet/internal/phases"
)

// sectorsAsked is what sectors was asked for.
type sectorsAsked struct {
	groups, states, steps, hosts []string
	text, sort                   string
	limit                        int
	watch                        bool
	filter                       dispatch.Filter
}

func sectorsCommand() *cobra.Command {
	var a sectorsAsked
	var sorts []string
	for _, s := range dispatch.Sorts() {
		sorts = append(sorts, s, "-"+s)
	}
	cmd := &cobra.Command{
		Use:   "sectors",
		Short: "List sectors, and where they stand",
		Long: `sectors lists what was submitted. A sector is sealing, parked (waiting for an operator),
failed, cancelled or finished. While it is sealing, NOW says for each phase it is at whether
it is waiting for a host, delayed until its next attempt, running, on chain, held (not started,
until others of its group are cleaned: BACKLOG_P1_HOLD), or paused.

It asks a dispatcher; if none answers, it reads the log itself, which takes longer and knows
no --host, --find, --sort and --limit.`,
		Example: "  dispatcher sectors --state parked --sort wait\n  dispatcher sectors --group group1 --phase p1 --watch",
		Args:    command.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if a.filter, err = filterOf(a.groups, a.states, a.steps); err != nil {
				return err
			}
			if a.sort != "" && !slices.Contains(sorts, a.sort) {
				return command.Usagef("--sort %q is unknown: use %s", a.sort, strings.Join(sorts, ", "))
			}
			return a.run(cmd)
		},
	}
	cmd.Flags().StringSliceVar(&a.groups, "group", nil, "only these groups")
	cmd.Flags().StringSliceVar(&a.states, "state", nil, "only these states: "+strings.Join(dispatch.States(), ", "))
	cmd.Flags().StringSliceVar(&a.steps, "phase", nil, "only sectors that are at these phases: p1 to p6, precommit, commit")
	cmd.Flags().StringSliceVar(&a.hosts, "host", nil, "only what is at these hosts")
	cmd.Flags().StringVar(&a.text, "find", "", "only sectors with this text in their id, group, hosts or reason")
	cmd.Flags().StringVar(&a.sort, "sort", "", "number, age (oldest first), ended, state or wait (longest first); - in front reverses")
	cmd.Flags().IntVar(&a.limit, "limit", 0, "at most so many (default: all)")
	cmd.Flags().BoolVarP(&a.watch, "watch", "w", false, "show them again every two seconds, until interrupted")
	_ = cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(dispatch.States(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions(sorts, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("host", completeHosts)
	return withOutput(cmd)
}

const (
	watchEvery    = 2 * time.Second
	farmPatience  = 500 * time.Millisecond // before the log is read instead
	clearTerminal = "\x1b[H\x1b[2J"
)

func (a *sectorsAsked) run(cmd *cobra.Command) error {
	list := a.fromFarm
	for {
		err := list(cmd)
		if errors.Is(err, errNoDispatcher) && len(a.hosts) == 0 && a.text == "" && a.sort == "" && a.limit == 0 {
			list = a.fromLog
			err = list(cmd)
		}
		if err != nil || !a.watch {
			return err
		}
		select {
		case <-time.After(watchEvery):
		case <-cmd.Context().Done():
			return nil
		}
		if out, is := cmd.OutOrStdout().(*os.File); is && isatty.IsTerminal(out.Fd()) {
			fmt.Fprint(out, clearTerminal)
		}
	}
}

// fromFarm asks a dispatcher, which has them in its memory.
func (a *sectorsAsked) fromFarm(cmd *cobra.Command) error {
	q := url.Values{}
	if err := putFilter(q, a.groups, a.steps); err != nil {
		return err
	}
	set(q, "state", a.filter.States)
	set(q, "host", a.hosts)
	for name, value := range map[string]string{"q": a.text, "sort": a.sort} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return runFarm(cmd, func(ctx context.Context, c *client) error {
		c.patience = min(c.patience, farmPatience)
		rows, err := pages[dispatch.Row](ctx, c, "/v1/sectors", q, a.limit)
		if err != nil {
			return err
		}
		now := time.Now()
		return show(cmd, rows, sectorsHeader, func(i item[dispatch.Row]) []string { return sectorCells(&i.V, now) })
	})
}

// fromLog reads the log.
func (a *sectorsAsked) fromLog(cmd *cobra.Command) error {
	return runVerb(cmd, func(ctx context.Context, v *verb) error {
		ctx, cancel := soon(ctx)
		defer cancel()
		rows, err := dispatch.List(ctx, v.bus, v.policy, v.cfg.Policy.HoldP1, a.filter)
		if err != nil {
			return err
		}
		now := time.Now()
		return show(cmd, rows, sectorsHeader, func(r dispatch.Row) []string { return sectorCells(&r, now) })
	})
}

func filterOf(groups, states, steps []string) (f dispatch.Filter, err error) {
	for _, g := range groups {
		name, err := phases.ParseGroup(g)
		if err != nil {
			return f, command.UsageError{Err: err}
		}
		f.Groups = append(f.Groups, name)
	}
	for _, s := range states {
		if !slices.Contains(dispatch.States(), s) {
			return f, command.Usagef("--state %q is unknown: use %s", s, strings.Join(dispatch.States(), ", "))
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
		return "", command.Usagef("%w; or a gate: precommit, commit", err)
	}
	return s, nil
}

var sectorsHeader = []string{"SECTOR", "GROUP", "SIZE", "STATE", "PHASE", "NOW", "HOST", "ATTEMPT", "FOR", "AGE", "REASON"}

func sectorCells(r *dispatch.Row, now time.Time) []string {
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
	name := string(r.State)
	if r.Paused {
		name += " (paused)"
	}
	return []string{
		r.Sector, r.Group, phases.SizeName(r.ProofType), name, join(phase), join(state), join(host),
		join(attempt), join(since), span(age), dash(short(r.Reason)),
	}
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
