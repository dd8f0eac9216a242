package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"sealfleet/internal/api"
	"sealfleet/internal/command"
	"sealfleet/internal/dispatch"
	"sealfleet/internal/phases"
)

func legacyCommand() *cobra.Command {
	var groups, steps []string
	limit := 0
	flags := map[string]*int{"is-finished": new(int), "result-status": new(int), "is-taken": new(int)}
	cmd := &cobra.Command{
		Use:   "legacy [SECTOR]",
		Short: "List phases as the old system's table of tasks had them",
		Long: `legacy shows a line for each phase of the sectors that have not ended, with the columns of
force-remote-worker: the phase as a bit (1, 2, 4, 8, 16, 32), is_taken, is_finished, and
result_status: 0 fine, 1 not ended, 2 failed. A phase is done if is_finished is 1 and result_status
is 0. What was done there by setting result_status from 2 to 1 is "dispatcher legacy set".`,
		Example: "  dispatcher legacy --result-status 2\n  dispatcher legacy set 1000/7 32 --result-status 1 --reason \"disk was full\"",
		Args:    command.Args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			q := url.Values{}
			if len(a) == 1 {
				id, err := parseSector(a[0])
				if err != nil {
					return err
				}
				q.Set("sector", id)
			}
			for i := range steps {
				step, err := parseBit(steps[i])
				if err != nil {
					return err
				}
				steps[i] = string(step)
			}
			if err := putFilter(q, groups, steps); err != nil {
				return err
			}
			for flag, name := range map[string]string{"is-finished": "is_finished", "result-status": "result_status", "is-taken": "is_taken"} {
				if cmd.Flags().Changed(flag) {
					q.Set(name, strconv.Itoa(*flags[flag]))
				}
			}
			return runFarm(cmd, func(ctx context.Context, c *client) error {
				list, err := pages[dispatch.Legacy](ctx, c, "/v1/legacy", q, limit)
				if err != nil {
					return err
				}
				header := []string{"SECTOR", "GROUP", "PHASE", "TASK_TYPE", "IS_TAKEN", "IS_FINISHED", "RESULT_STATUS", "HOST", "REASON"}
				return show(cmd, list, header, func(i item[dispatch.Legacy]) []string {
					l := i.V
					return []string{l.Sector, l.Group, l.PhaseName, fmt.Sprint(l.TaskType), fmt.Sprint(l.IsTaken), fmt.Sprint(l.IsFinished), fmt.Sprint(l.ResultStatus), dash(l.Host), dash(short(l.Reason))}
				})
			})
		},
	}
	cmd.Flags().StringSliceVar(&groups, "group", nil, "only these groups")
	cmd.Flags().StringSliceVar(&steps, "phase", nil, "only these phases: PreCommitPhase1, p1 or 1, and so on")
	cmd.Flags().IntVar(flags["is-finished"], "is-finished", 0, "only those with this is_finished, 0 or 1")
	cmd.Flags().IntVar(flags["result-status"], "result-status", 0, "only those with this result_status, 0, 1 or 2")
	cmd.Flags().IntVar(flags["is-taken"], "is-taken", 0, "only those with this is_taken, 0 or 1")
	cmd.Flags().IntVar(&limit, "limit", 0, "at most so many (default: all)")
	cmd.AddCommand(legacySetCommand())
	return withOutput(cmd)
}

func legacySetCommand() *cobra.Command {
	var o order
	status := 0
	cmd := &cobra.Command{
		Use:   "set SECTOR PHASE --result-status 1 --reason TEXT",
		Short: "Set result_status from 2 to 1: have a phase done again",
		Long: `set does what was done in the old table by hand: it has a phase that has failed done again. It is the
same as "dispatcher redo": an event of the sector, with who asked and why.`,
		Args: command.Args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, a []string) error {
			id, err := parseSector(a[0])
			if err != nil {
				return err
			}
			step, err := parseBit(a[1])
			if err != nil {
				return err
			}
			if status != 1 {
				return command.Usagef("only --result-status 1 can be set: it has the phase done again")
			}
			body, err := o.body("disk was full")
			if err != nil {
				return err
			}
			body["result_status"] = status
			return runFarm(cmd, func(ctx context.Context, c *client) error {
				var d item[api.Done]
				if err := c.act(ctx, http.MethodPatch, "/v1/legacy/"+url.PathEscape(id)+"/"+string(step), body, &d); err != nil {
					return err
				}
				return tellDone(cmd, d)
			})
		},
	}
	cmd.Flags().IntVar(&status, "result-status", 0, "1: not ended")
	o.flags(cmd, false)
	return withOutput(cmd)
}

// parseBit reads a phase by any of its names, or by its bit in the old table.
func parseBit(text string) (phases.Step, error) {
	for _, p := range phases.Phases() {
		if text == strconv.Itoa(p.Bit()) {
			return p, nil
		}
	}
	step, err := phases.ParsePhase(text)
	if err != nil {
		return "", command.Usagef("%w; or its bit: 1, 2, 4, 8, 16, 32", err)
	}
	return step, nil
}
