package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"sealfleet/internal/api"
	"sealfleet/internal/command"
	"sealfleet/internal/phases"
)

// order is why and for how long something is asked for.
type order struct {
	reason string
	lasts  time.Duration
}

func (o *order) flags(cmd *cobra.Command, lasts bool) {
	cmd.Flags().StringVar(&o.reason, "reason", "", "why, for the record")
	if lasts {
		cmd.Flags().DurationVar(&o.lasts, "for", 0, "how long it is to last (default: until it is ended)")
	}
}

// body checks what is asked for, and makes the request's body.
func (o *order) body(example string) (map[string]any, error) {
	switch {
	case o.reason == "":
		return nil, command.Usagef("--reason is needed: it is kept for whoever wonders later (example: --reason %q)", example)
	case o.lasts < 0:
		return nil, command.Usagef("--for %s: use a time from now on, such as 4h", o.lasts)
	}
	body := map[string]any{"reason": o.reason}
	if o.lasts > 0 {
		body["until"] = time.Now().Add(o.lasts).UTC()
	}
	return body, nil
}

func (c *client) doIt(ctx context.Context, cmd *cobra.Command, path string, body map[string]any) (d item[api.Done], err error) {
	if err = c.post(ctx, path, body, &d); err != nil {
		return d, err
	}
	return d, tellDone(cmd, d)
}

func tellDone(cmd *cobra.Command, d item[api.Done]) error {
	if form, _ := outputOf(cmd); form != asTable {
		return writeJSON(cmd.OutOrStdout(), d, form == asJSON)
	}
	line(cmd.OutOrStdout(), "%s", d.V.Message)
	return nil
}

const stopArgs = `SECTOR | GROUP [PHASE]`

func pauseCommand() *cobra.Command {
	var o order
	cmd := &cobra.Command{
		Use:   "pause " + stopArgs + " --reason TEXT",
		Short: "Begin nothing new of a sector, a group, or a phase of a group",
		Long: `pause has nothing new begun; what runs goes on to its end, and other sectors pass. Of a sector no
phase is issued any more; of a group, or of one of its phases, no host takes a task. Who asked,
when and why is kept: as an event of the sector, or on the bus. "dispatcher resume" ends it.`,
		Example: `  dispatcher pause 1000/7 --reason "its piece is being looked at"
  dispatcher pause group1 --reason "switch is exchanged" --for 2h
  dispatcher pause group1 p1 --reason "cleaning must catch up"`,
		Args: command.Args(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, a []string) error { return stopOrGo(cmd, "pause", a, &o) },
	}
	o.flags(cmd, true)
	return withOutput(cmd)
}

func resumeCommand() *cobra.Command {
	var o order
	cmd := &cobra.Command{
		Use:     "resume " + stopArgs + " --reason TEXT",
		Short:   "End a pause",
		Long:    `resume ends what "dispatcher pause" with the same arguments began.`,
		Example: "  dispatcher resume group1 p1 --reason \"cleaning is done\"",
		Args:    command.Args(cobra.RangeArgs(1, 2)),
		RunE:    func(cmd *cobra.Command, a []string) error { return stopOrGo(cmd, "resume", a, &o) },
	}
	o.flags(cmd, false)
	return withOutput(cmd)
}

func stopOrGo(cmd *cobra.Command, verb string, a []string, o *order) error {
	path, isSector, err := stopPath(verb, a)
	if err != nil {
		return err
	}
	if isSector && o.lasts != 0 {
		return command.Usagef("--for is for groups and phases: a sector is paused until somebody resumes it")
	}
	body, err := o.body("the switch is exchanged")
	if err != nil {
		return err
	}
	return runFarm(cmd, func(ctx context.Context, c *client) error {
		_, err := c.doIt(ctx, cmd, path, body)
		return err
	})
}

// stopPath is where the API pauses what the arguments name.
func stopPath(verb string, a []string) (path string, isSector bool, err error) {
	if _, err := phases.ParseSector(a[0]); !errors.Is(err, phases.ErrNoSector) {
		if len(a) > 1 {
			return "", false, command.Usagef("a sector is paused as a whole: leave out %q", a[1])
		}
		id, err := parseSector(a[0])
		return "/v1/sectors/" + url.PathEscape(id) + "/" + verb, true, err
	}
	group, err := phases.ParseGroup(a[0])
	if err != nil {
		return "", false, command.Usagef("%q is neither a sector (1000/7) nor a group: %w", a[0], err)
	}
	path = "/v1/groups/" + url.PathEscape(group)
	if len(a) > 1 {
		step, err := phases.ParsePhase(a[1])
		if err != nil {
			return "", false, command.Usagef("%w (only p1 to p6 can be paused: hosts do them)", err)
		}
		path += "/phases/" + string(step)
	}
	return path + "/" + verb, false, nil
}

func drainCommand() *cobra.Command {
	var o order
	wait := false
	cmd := &cobra.Command{
		Use:   "drain HOST --reason TEXT",
		Short: "Let a host finish what it runs, and give it nothing new",
		Long: `drain has a host take no task any more; what runs there goes on to its end. It holds through restarts
of the host, until --for is over or "dispatcher undrain". It shows how long it will be until
nothing runs, and with --wait waits until then (exit code 0), or until the host falls silent (1).`,
		Example:           "  dispatcher drain p1-host-3 --reason \"new memory\" --wait && ssh p1-host-3 poweroff",
		Args:              command.Args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeHosts,
		RunE: func(cmd *cobra.Command, a []string) error {
			body, err := o.body("new memory")
			if err != nil {
				return err
			}
			return runFarm(cmd, func(ctx context.Context, c *client) error {
				d, err := c.doIt(ctx, cmd, "/v1/hosts/"+url.PathEscape(a[0])+"/drain", body)
				if err != nil {
					return err
				}
				if form, _ := outputOf(cmd); form == asTable && d.V.Running != nil && d.V.QuietIn != nil {
					line(cmd.OutOrStdout(), "quiet %s", quiet(*d.V.Running, *d.V.QuietIn))
				}
				if !wait {
					return nil
				}
				return c.awaitQuiet(ctx, cmd, a[0])
			})
		},
	}
	o.flags(cmd, true)
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until nothing runs there any more")
	return withOutput(cmd)
}

func undrainCommand() *cobra.Command {
	var o order
	cmd := &cobra.Command{
		Use:               "undrain HOST --reason TEXT",
		Short:             "Give a drained host work again",
		Args:              command.Args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeHosts,
		RunE: func(cmd *cobra.Command, a []string) error {
			body, err := o.body("the memory is in")
			if err != nil {
				return err
			}
			return runFarm(cmd, func(ctx context.Context, c *client) error {
				_, err := c.doIt(ctx, cmd, "/v1/hosts/"+url.PathEscape(a[0])+"/undrain", body)
				return err
			})
		},
	}
	o.flags(cmd, false)
	return withOutput(cmd)
}

// errNotQuiet says that it cannot be told whether a host that was drained is quiet.
var errNotQuiet = errors.New("it cannot be told whether the host is quiet")

// awaitQuiet waits until a host that is drained has ended what it ran, and tells on the
// standard error output how that goes.
func (c *client) awaitQuiet(ctx context.Context, cmd *cobra.Command, name string) error {
	const look = time.Second
	tick := time.NewTicker(look)
	defer tick.Stop()
	last, drained := "", false // the API hears of our own order a moment after it was given
	for {
		got, err := c.host(ctx, name)
		if err != nil {
			return err
		}
		h := &got.V
		switch {
		case h.Drain == nil && drained:
			return fmt.Errorf("%w: somebody has ended the drain of %s meanwhile", errNotQuiet, name)
		case h.State == api.HostAway:
			return fmt.Errorf("%w: %s was last heard %s, when %d phases ran", errNotQuiet, name, heard(h.SeenAt), h.Running)
		case h.Running == 0 && h.Drain != nil && (h.Status == nil || h.Status.Draining):
			line(cmd.ErrOrStderr(), "%s is quiet", name)
			return nil
		}
		drained = h.Drain != nil
		in := -1.0
		if h.QuietIn != nil {
			in = *h.QuietIn
		}
		if now := fmt.Sprintf("%s: quiet %s", name, quiet(h.Running, in)); now != last && h.Running > 0 {
			last = now
			line(cmd.ErrOrStderr(), "%s", now)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("stopped waiting; %s stays drained (dispatcher undrain %s ends it)", name, name)
		}
	}
}
