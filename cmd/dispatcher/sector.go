package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sealfleet/internal/command"
	"sealfleet/internal/dispatch"
	"sealfleet/internal/phases"
)

// detail is one sector with its history, for people.
type detail struct{ *dispatch.Detail }

func sectorCommand() *cobra.Command {
	withLog := false
	cmd := &cobra.Command{
		Use:   "sector ID",
		Short: "Show one sector's history and what it made",
		Long: `sector shows each attempt of each phase with its host, how long it waited and ran, what it moved, and
how it failed; the gates and deadlines of the chain; what operators did; and what the sector made.
--log adds every event, one a line: the whole can be pasted into a report.`,
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
			return runVerb(cmd, func(ctx context.Context, v *verb) error {
				ctx, cancel := soon(ctx)
				defer cancel()
				s, events, err := dispatch.Load(ctx, v.bus, id)
				if err != nil {
					return suggest(ctx, v.bus, err, id)
				}
				d := detail{dispatch.DetailOf(s, events, v.policy, time.Now())}
				if d.State == phases.StatusSealing && len(d.Attempts) == 0 {
					// Only the other sectors of its group tell whether it is held back.
					why, err := dispatch.Why(ctx, v.bus, v.policy, v.cfg.Policy.HoldP1, id)
					if err != nil {
						return err
					}
					d.Row = why.Row
				}
				if form != asTable {
					return writeJSON(cmd.OutOrStdout(), d.Detail, form == asJSON)
				}
				if err := d.table(cmd); err != nil || !withLog {
					return err
				}
				line(cmd.OutOrStdout(), "")
				log := &eventWriter{w: cmd.OutOrStdout(), form: asTable}
				for _, e := range events {
					if err := log.take(e); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&withLog, "log", false, "every event, too (in a table; for JSON see: dispatcher events --sector ID)")
	return withOutput(cmd)
}

func (d *detail) table(cmd *cobra.Command) error {
	w := cmd.OutOrStdout()
	line(w, "%s  %s  %s (proof type %d)  %s", d.Sector, d.Group, d.Size, d.ProofType, d.State)
	if d.Reason != "" {
		line(w, "reason: %s", d.Reason)
	}
	for _, o := range d.Operator {
		line(w, "%s %s by %s %s %s", stamp(o.At), o.Type, o.By, o.Target, o.Reason)
	}
	if !d.EndedAt.IsZero() {
		line(w, "%s ended, after %s", stamp(d.EndedAt), span(d.EndedAt.Sub(d.SubmittedAt)))
	}
	line(w, "")
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "PHASE\tATTEMPT\tSTATE\tHOST\tISSUED\tWAITED\tTOOK\tBYTES\tWHAT")
	for _, a := range d.Attempts {
		fmt.Fprintf(t, "%s\t%d.%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", a.Step, a.Issue, a.Attempt, stateOf(a), dash(a.Host),
			stamp(a.IssuedAt), waited(a), took(a), bytesOf(copied(a)), what(a))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	line(w, "")
	for _, g := range d.Gates {
		line(w, "%-18s %s  opened %s, ended %s  %s", "gate "+string(g.Phase), g.State, stamp(g.OpenedAt), stamp(g.EndedAt), g.Note)
	}
	for _, x := range d.Deadlines {
		left := "met"
		if until := time.Until(x.At); !x.Met && until > 0 {
			left = "in " + span(until)
		} else if !x.Met {
			left = "over for " + span(-until)
		}
		line(w, "%-18s %s  %s", strings.ReplaceAll(x.Name, "_", " "), stamp(x.At), left)
	}
	d.made(cmd)
	for _, r := range d.Doubted {
		line(w, "not believed: %s", r)
	}
	return nil
}

// made prints what the sector's steps made.
func (d *detail) made(cmd *cobra.Command) {
	w := cmd.OutOrStdout()
	line(w, "")
	for _, key := range []string{"comm_d", "comm_r", "ticket", "seed", "precommit_message", "commit_message"} {
		if v := d.Outputs[key]; v != "" {
			line(w, "%-18s %s", strings.ReplaceAll(key, "_", " "), v)
		}
	}
	switch p := d.Proof; {
	case p.Bytes > 0:
		line(w, "%-18s %d bytes, SHA-256 %s, in %s", "proof", p.Bytes, p.SHA256, seconds(p.Seconds))
	case p.Snark != "":
		line(w, "%-18s no SNARK was made (%s)", "proof", p.Snark)
	}
	if note := d.Outputs["commit_note"]; note != "" {
		line(w, "%-18s %s", "the chain says", note)
	}
	var receipt struct {
		Node  string `json:"node"`
		Path  string `json:"path"`
		Files []struct {
			Name   string `json:"name"`
			Size   int64  `json:"size"`
			SHA256 string `json:"sha256"`
		} `json:"files"`
	}
	if d.Receipt != nil && json.Unmarshal(d.Receipt, &receipt) == nil {
		line(w, "%-18s %s %s", "stored on", receipt.Node, receipt.Path)
		for _, f := range receipt.Files {
			line(w, "  %s  %10s  %s", f.SHA256, bytesOf(f.Size), f.Name)
		}
	}
	if d.Freed > 0 {
		line(w, "%-18s %s", "freed by p6", bytesOf(d.Freed))
	}
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// stateOf tells waiting from running.
func stateOf(a phases.Attempt) string {
	switch {
	case a.Status == phases.StatusIssued && a.Step.IsGate():
		return dispatch.NowOnChain
	case a.Status == phases.StatusIssued && time.Now().Before(a.NotBefore):
		return dispatch.NowDelayed
	case a.Status == phases.StatusIssued:
		return dispatch.NowWaiting
	}
	return string(a.Status)
}

func waited(a phases.Attempt) string {
	switch {
	case a.Step.IsGate():
		return "-"
	case a.ClaimedAt.IsZero() && a.EndedAt.IsZero():
		return span(time.Since(a.IssuedAt)) + "…"
	}
	return span(time.Duration(a.Waited * float64(time.Second)))
}

func took(a phases.Attempt) string {
	switch {
	case a.Step.IsGate() && !a.EndedAt.IsZero():
		return span(a.EndedAt.Sub(a.IssuedAt))
	case a.Step.IsGate():
		return span(time.Since(a.IssuedAt)) + "…"
	case a.ClaimedAt.IsZero():
		return "-"
	case a.EndedAt.IsZero():
		return span(time.Since(a.ClaimedAt)) + "…"
	}
	return span(time.Duration(a.Took * float64(time.Second)))
}

func copied(a phases.Attempt) int64 {
	if a.Result == nil {
		return 0
	}
	return a.Result.Bytes
}

// what is the error of a failed attempt, or how far a running one is.
func what(a phases.Attempt) string {
	switch {
	case a.Result != nil && a.Status == phases.StatusFailed:
		return fmt.Sprintf("%s (%s): %s", a.Result.Code, a.Result.Class, a.Result.Message)
	case a.Result != nil:
		return a.Result.Message
	case a.Fraction > 0:
		return fmt.Sprintf("%s %.0f%%", a.Note, 100*a.Fraction)
	}
	return a.Note
}
