package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"sealfleet/internal/dispatch"
	"sealfleet/internal/phases"
)

// errEnough ends the reading of events.
var errEnough = errors.New("enough")

// waitFor shows how sectors get on until all have ended or are parked.
func waitFor(ctx context.Context, cmd *cobra.Command, v *verb, submitted []dispatch.Submission) error {
	w := &watch{policy: v.policy, sectors: map[string]*phases.Sector{}, over: map[string]bool{}, show: newProgress(cmd.ErrOrStderr(), len(submitted))}
	from := submitted[0].Seq
	for _, s := range submitted {
		w.sectors[s.Sector] = phases.NewSector()
		from = min(from, s.Seq)
	}
	err := v.bus.Follow(ctx, from, w.take)
	w.show.end()
	if err != nil && !errors.Is(err, errEnough) {
		if ctx.Err() != nil {
			return fmt.Errorf("stopped waiting; the sectors go on (see: dispatcher sectors): %w", err)
		}
		return err
	}
	return w.report(cmd)
}

type watch struct {
	policy  phases.Policy
	sectors map[string]*phases.Sector
	over    map[string]bool // ended or parked
	show    progress
}

func (w *watch) take(e phases.Event) error {
	s := w.sectors[e.Sector]
	if s == nil {
		return nil
	}
	if err := s.Apply(e); err != nil {
		return nil //nolint:nilerr // it is not believed, and changes nothing
	}
	status := s.Status(w.policy)
	w.over[e.Sector] = !s.Ended().IsZero() || status == phases.StatusParked
	w.show.event(e, status)
	for _, over := range w.over {
		if !over {
			return nil
		}
	}
	if len(w.over) < len(w.sectors) {
		return nil
	}
	return errEnough
}

// report shows how the sectors ended; one that did not finish is an error.
func (w *watch) report(cmd *cobra.Command) error {
	rows := []dispatch.Row{}
	unfinished := 0
	for _, s := range w.sectors {
		r := dispatch.RowOf(s, w.policy, time.Now())
		rows = append(rows, r)
		if r.State != phases.StatusFinished {
			unfinished++
		}
	}
	slices.SortFunc(rows, func(a, b dispatch.Row) int { return int(int64(a.Number) - int64(b.Number)) })
	if err := show(cmd, rows, sectorsHeader, func(r dispatch.Row) []string { return sectorCells(&r, time.Now()) }); err != nil {
		return err
	}
	if unfinished > 0 {
		return fmt.Errorf("%d of %d sectors did not finish (see: dispatcher sector ID)", unfinished, len(rows))
	}
	return nil
}

// progress tells people how far it is.
type progress interface {
	event(e phases.Event, s phases.Status)
	end()
}

// newProgress is a bar on a terminal, lines elsewhere.
func newProgress(w io.Writer, sectors int) progress {
	f, ok := w.(*os.File)
	if !ok || !isatty.IsTerminal(f.Fd()) {
		return &lines{w}
	}
	return &bar{progressbar.NewOptions(sectors*len(phases.Steps()),
		progressbar.OptionSetWriter(w), progressbar.OptionSetDescription("sealing"), progressbar.OptionShowCount(),
		progressbar.OptionSetWidth(30), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionSetPredictTime(false))}
}

type lines struct{ w io.Writer }

func (l *lines) event(e phases.Event, s phases.Status) {
	switch e.Type {
	case phases.Issued, phases.Progress:
		return // it follows from what is shown, or comes too often
	}
	fmt.Fprintf(l.w, "%s  %s  %-9s  %-9s  %s\n", e.At.Local().Format(time.TimeOnly), e.Sector, e.Step, e.Type, tell(e, s))
}

func (l *lines) end() {}

type bar struct{ *progressbar.ProgressBar }

func (b *bar) event(e phases.Event, s phases.Status) {
	if e.Type == phases.Done {
		_ = b.Add(1) // a terminal that cannot be written is no reason to stop
	}
	if e.Type == phases.Failed || s == phases.StatusParked {
		_ = b.Clear()
		(&lines{os.Stderr}).event(e, s)
	}
	b.Describe(fmt.Sprintf("%s %s %s", e.Sector, e.Step, e.Type))
}

func (b *bar) end() { fmt.Fprintln(os.Stderr) }

// tell says in a few words what an event tells.
func tell(e phases.Event, s phases.Status) string {
	switch r := e.Result; {
	case e.Type == phases.Finished && s != phases.StatusFinished:
		return string(s) + ": " + e.Result.Message
	case r != nil && e.Type == phases.Failed:
		return fmt.Sprintf("by %s: %s: %s (%s)", e.Host, r.Code, r.Message, r.Class)
	case r != nil && e.Type == phases.Done && r.Seconds > 0:
		return fmt.Sprintf("by %s in %s  %s", e.Host, seconds(r.Seconds), r.Message)
	case r != nil && r.Message != "":
		return r.Message
	case e.Reason != "":
		return fmt.Sprintf("%s %s (%s)", e.Target, e.Reason, e.Host)
	case e.Note != "":
		return e.Note
	case e.Host != "":
		return "by " + e.Host
	}
	return ""
}
