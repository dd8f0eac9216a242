package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"sealfleet/internal/command"
	"sealfleet/internal/phases"
)

// numbered is an event with its sequence, as it is shown.
type numbered struct {
	Seq uint64 `json:"sequence"`
	phases.Event
}

func eventsCommand() *cobra.Command {
	var (
		follow bool
		sector string
		from   uint64
	)
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show the log of events",
		Long: `events prints the log: every event of every sector, in order. --follow goes on until it
is interrupted, from now on unless --from says where to begin.`,
		Args: command.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			form, err := outputOf(cmd)
			if err != nil {
				return err
			}
			if follow && form == asJSON {
				return command.Usagef("--follow never ends, so it cannot be one JSON value: use --output ndjson")
			}
			id := ""
			if sector != "" {
				if id, err = parseSector(sector); err != nil {
					return err
				}
			}
			return runVerb(cmd, func(ctx context.Context, v *verb) error {
				out := &eventWriter{w: cmd.OutOrStdout(), form: form, sector: id, from: from}
				if follow {
					return out.follow(ctx, v, cmd.Flags().Changed("from"))
				}
				return out.past(ctx, v)
			})
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new events")
	cmd.Flags().StringVar(&sector, "sector", "", "only this sector's events")
	cmd.Flags().Uint64Var(&from, "from", 1, "sequence to begin with")
	return withOutput(cmd)
}

type eventWriter struct {
	w      io.Writer
	form   string
	sector string
	from   uint64
	all    []numbered // for JSON, which is one value
}

func (o *eventWriter) past(ctx context.Context, v *verb) error {
	ctx, cancel := soon(ctx)
	defer cancel()
	var err error
	if o.sector != "" {
		var events []phases.Event
		events, err = v.bus.History(ctx, o.sector)
		for _, e := range events {
			if werr := o.take(e); werr != nil {
				return werr
			}
		}
	} else {
		_, err = v.bus.Replay(ctx, o.take)
	}
	if err != nil {
		return err
	}
	if o.form == asJSON {
		if o.all == nil {
			o.all = []numbered{}
		}
		return writeJSON(o.w, o.all, true)
	}
	return nil
}

func (o *eventWriter) follow(ctx context.Context, v *verb, fromGiven bool) error {
	if !fromGiven {
		short, cancel := soon(ctx)
		last, err := v.bus.Replay(short, func(phases.Event) error { return nil })
		cancel()
		if err != nil {
			return err
		}
		o.from = last + 1
	}
	err := v.bus.Follow(ctx, o.from, o.take)
	if ctx.Err() != nil || errors.Is(err, context.Canceled) {
		return nil //nolint:nilerr // interrupted, as it must be
	}
	return err
}

func (o *eventWriter) take(e phases.Event) error {
	if e.Seq < o.from || o.sector != "" && e.Sector != o.sector {
		return nil
	}
	n := numbered{e.Seq, e}
	switch o.form {
	case asJSON:
		o.all = append(o.all, n)
		return nil
	case asNDJSON:
		return writeJSON(o.w, n, false)
	}
	issue := ""
	if e.Issue > 0 {
		issue = fmt.Sprintf("%d.%d", e.Issue, e.Attempt)
	}
	_, err := fmt.Fprintf(o.w, "%8d  %s  %-10s %-16s %-9s %-4s %-9s %-20s %s\n", e.Seq, e.At.Local().Format(time.DateTime),
		e.Group, e.Sector, e.Step, issue, e.Type, e.Host, short(tellMore(e)))
	return err
}

// tellMore is tell without the host, which has its own column.
func tellMore(e phases.Event) string {
	switch {
	case e.V == 0:
		return "cannot be read: " + e.Note
	case e.Result != nil && e.Type == phases.Failed:
		return fmt.Sprintf("%s (%s): %s", e.Result.Code, e.Result.Class, e.Result.Message)
	case e.Result != nil && e.Result.Seconds > 0:
		return "in " + seconds(e.Result.Seconds) + "  " + e.Result.Message
	case e.Result != nil:
		return e.Result.Message
	case e.Spec != nil:
		return phases.SizeName(e.Spec.ProofType) + " by " + e.Spec.SubmittedBy
	case e.Type == phases.Issued && !e.NotBefore.IsZero():
		return "not before " + stamp(e.NotBefore)
	}
	return string(e.Target) + " " + e.Reason + e.Note
}

// MarshalJSON puts the sequence beside the event's own fields.
func (n numbered) MarshalJSON() ([]byte, error) {
	event, err := json.Marshal(n.Event)
	if err != nil {
		return nil, err
	}
	return append(fmt.Appendf(nil, `{"sequence":%d,`, n.Seq), event[1:]...), nil
}
