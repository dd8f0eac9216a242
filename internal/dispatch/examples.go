package dispatch

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"sealfleet/internal/phases"
)

// mostExamples is how many sectors an alarm names: enough to begin with.
const mostExamples = 5

// Examples names sectors that an alarm is about, with the reason, the oldest first. what is
// parked, overdue, deadline or waiting; the labels are the alarm's.
func (d *Dispatcher) Examples(what string, labels map[string]string) []string {
	return d.board.examples(what, labels["group"], phases.Step(labels["phase"]), labels["deadline"], d.bus.Now())
}

func (b *board) examples(what, group string, step phases.Step, deadline string, now time.Time) []string {
	type example struct {
		at   time.Time
		text string
	}
	var list []example
	for _, s := range b.all() {
		state, _, gone := s.view()
		if gone || state.Group != group {
			continue
		}
		if what == "deadline" {
			d := state.Deadline()
			kind := phases.Precommit
			if d.Code == phases.CodeCommitExpired {
				kind = phases.Commit
			}
			if !d.At.IsZero() && string(kind) == deadline {
				list = append(list, example{d.At, fmt.Sprintf("%s by %s", s.id, d.At.Format(time.RFC3339))})
			}
			continue
		}
		if stepIndex(step) < 0 {
			continue
		}
		n, ok := nowOf(state.Step(step), b.policy, now)
		switch {
		case !ok:
		case what == "parked" && n.State == NowParked:
			r := state.Step(step).Result
			list = append(list, example{n.Since, fmt.Sprintf("%s on %s: %s: %s", s.id, cmp.Or(n.Host, "?"), r.Code, clip(r.Message))})
		case what == "overdue" && (n.State == NowRunning || n.State == NowOnChain) && now.Sub(n.Since) > b.meters.limit(station{group, step}):
			list = append(list, example{n.Since, fmt.Sprintf("%s on %s for %s", s.id, cmp.Or(n.Host, "chain"), people(now.Sub(n.Since)))})
		case what == "waiting" && n.State == NowWaiting:
			list = append(list, example{n.Since, fmt.Sprintf("%s for %s", s.id, people(now.Sub(n.Since)))})
		}
	}
	slices.SortFunc(list, func(a, b example) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.text, b.text)) })
	var texts []string
	for _, e := range list[:min(len(list), mostExamples)] {
		texts = append(texts, e.text)
	}
	if more := len(list) - mostExamples; more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return texts
}

// clip shortens a message to what a line of an alarm can hold.
func clip(text string) string {
	const longest = 160
	if r := []rune(text); len(r) > longest {
		return string(r[:longest]) + "…"
	}
	return text
}
