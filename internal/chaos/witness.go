package chaos

import (
	"fmt"
	"slices"
	"strings"
	"sync"

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
