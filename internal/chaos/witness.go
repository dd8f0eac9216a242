package chaos

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"sealfleet/internal/dispatch"
	"sealfleet/internal/phases"
)

// witness reads the log while it is being written, and remembers it: what it saw, and what
// was acknowledged to it, must be there in the end.
type witness struct {
	mu       sync.Mutex
	seen     map[uint64]string // sequence → the event's id
	acked    []dispatch.Submission
	sectors  map[string]*phases.Sector
	ended    int
	lastOf   []phases.Event // of late
	mismatch []string
	keep     bool // every event that was believed
	believed []phases.Event
}

const witnessKeeps = 64

func newWitness() *witness {
	return &witness{seen: map[uint64]string{}, sectors: map[string]*phases.Sector{}}
}

// see takes one event of the log.
func (w *witness) see(e phases.Event) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if id, again := w.seen[e.Seq]; again && id != e.ID {
		w.mismatch = append(w.mismatch, fmt.Sprintf("sequence %d was %s and is %s", e.Seq, id, e.ID))
	}
	w.seen[e.Seq] = e.ID
	s := w.sectors[e.Sector]
	if s == nil {
		s = phases.NewSector()
		w.sectors[e.Sector] = s
	}
	over := !s.Ended().IsZero()
	if s.Apply(e) == nil {
		if w.keep {
			w.believed = append(w.believed, e)
		}
		w.lastOf = append(w.lastOf, e)
		if len(w.lastOf) > witnessKeeps {
			w.lastOf = w.lastOf[1:]
		}
	}
	if !over && !s.Ended().IsZero() {
		w.ended++
	}
	return nil
}

// some returns one of the events that were believed of late.
func (w *witness) some(who int) (phases.Event, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.lastOf) == 0 {
		return phases.Event{}, false
	}
	return w.lastOf[who%len(w.lastOf)], true
}

func (w *witness) acknowledged(s []dispatch.Submission) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.acked = append(w.acked, s...)
}

// events returns those that were believed and are wanted.
func (w *witness) events(want func(phases.Event) bool) (list []phases.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.believed {
		if want(e) {
			list = append(list, e)
		}
	}
	return list
}

// slowestHandOff is the longest that it took from the end of a phase, within a span of
// time, to the issue of what follows, where no gate and no other phase is waited for.
func (w *witness) slowestHandOff(from, to time.Time) (slowest time.Duration) {
	follows := map[phases.Step]phases.Step{phases.P1: phases.P2, phases.P2: phases.Precommit, phases.P3: phases.P4, phases.P4: phases.Commit}
	w.mu.Lock()
	defer w.mu.Unlock()
	ended := map[string]time.Time{}
	for _, e := range w.believed {
		switch {
		case e.Type == phases.Done && follows[e.Step] != "" && e.At.After(from.Add(-time.Second)) && e.At.Before(to):
			ended[e.Sector+string(follows[e.Step])] = e.At
		case e.Type == phases.Issued:
			if at, ok := ended[e.Sector+string(e.Step)]; ok && e.At.After(from) {
				slowest = max(slowest, e.At.Sub(at))
			}
			delete(ended, e.Sector+string(e.Step))
		}
	}
	for _, at := range ended { // nobody has issued it yet
		slowest = max(slowest, to.Sub(at))
	}
	return slowest
}

// knows tells whether a sector was submitted.
func (w *witness) knows(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.sectors[id]
	return s != nil && s.Known() || slices.ContainsFunc(w.acked, func(a dispatch.Submission) bool { return a.Sector == id })
}

// count is how many sectors have ended.
func (w *witness) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ended
}

// stuck tells where the sectors stand that have not ended.
func (w *witness) stuck() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var lines []string
	for id, s := range w.sectors {
		if !s.Known() || !s.Ended().IsZero() {
			continue
		}
		text := id + ":"
		for _, step := range phases.Steps() {
			t := s.Step(step)
			if t.Status == phases.StatusDone || t.Status == phases.StatusWaiting && t.Issue == 0 {
				continue
			}
			text += fmt.Sprintf(" %s %s (issue %d, attempt %d, by %s, claims %d)", step, t.Status, t.Issue, t.Attempt, t.Host, t.Claims)
			if t.Result != nil {
				text += fmt.Sprintf(" %s: %.200s", t.Result.Code, t.Result.Message)
			}
		}
		lines = append(lines, text)
	}
	slices.Sort(lines)
	const enough = 20
	if len(lines) > enough {
		lines = append(lines[:enough], fmt.Sprintf("and %d more", len(lines)-enough))
	}
	return strings.Join(lines, "\n")
}
