package dispatch

import (
	"sync"
	"time"

	"github.com/tidwall/btree"

	"sealfleet/internal/phases"
)

// Earliest deadline first. The task stream gives its messages out in the order in which
// they were published, so the order is made before: of the issues of a (group, phase) that
// nobody has claimed only the most urgent Options.Window have their task in the stream,
// and whenever one of them is claimed the next one follows. What comes with an earlier
// deadline waits for no more than a window of tasks, however many thousands are issued.
//
// Safety. The window is no authority: it follows from the log, dispatchers that have read
// it up to different points publish a few more, and a task too many is harmless.
//
// Liveness. Whoever's follower sees a claim publishes what enters the window; if it stops
// before, the sweeper finds an issue in the window without its task.
//
// A window must hold more tasks than all hosts together claim while an event comes to a
// dispatcher and its task comes back, which is milliseconds.

// rank is the unclaimed issues of a (group, phase), the most urgent first.
type rank = btree.BTreeG[*issue]

// issue is one of them.
type issue struct {
	s        *sector
	deadline time.Time // zero: none
	seq      uint64    // of the issued event
	waited   bool      // it was beyond the window when it came
}

func moreUrgent(a, b *issue) bool {
	if !a.deadline.Equal(b.deadline) {
		if a.deadline.IsZero() || b.deadline.IsZero() {
			return b.deadline.IsZero()
		}
		return a.deadline.Before(b.deadline)
	}
	return a.seq < b.seq
}

type lineName struct {
	group string
	step  phases.Step
}

// lines are those of all groups and phases.
type lines struct {
	window int // 0: all tasks are published at once

	mu   sync.Mutex
	seen uint64 // the follower's position
	of   map[lineName]*rank
	at   map[*sector]*[8]*issue // by the step's index
}

func newLines(window int) *lines {
	return &lines{window: window, of: map[lineName]*rank{}, at: map[*sector]*[8]*issue{}}
}

// take notes where a step stands after an event. Only the follower calls it, in the order
// of the log; seq is the event's. entered is a sector whose task is to be published now.
func (l *lines) take(s *sector, state *phases.Sector, step phases.Step, seq uint64) (entered *sector) {
	if l.window == 0 || !step.IsPhase() {
		return nil
	}
	// A retry that must wait is not in line: the bus holds its task back until its time.
	t := state.Step(step)
	waits := t.Status == phases.StatusIssued && t.NotBefore.IsZero()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = max(l.seen, seq)
	i := stepIndex(step)
	mine := l.at[s]
	if mine == nil && !waits {
		return nil
	}
	q := l.line(state.Group, step)
	left := false
	if mine == nil {
		// Nothing of it is in line yet.
	} else if was := mine[i]; was != nil && (!waits || was.seq != t.IssuedSeq) {
		q.Delete(was)
		mine[i], left = nil, true
	}
	if waits && (mine == nil || mine[i] == nil) {
		l.add(q, s, state, step)
		return nil
	}
	if *mine == ([8]*issue{}) {
		delete(l.at, s)
	}
	if last, ok := q.GetAt(l.window - 1); left && ok && last.waited {
		return last.s
	}
	return nil
}

func (l *lines) line(group string, step phases.Step) *rank {
	name := lineName{group, step}
	q := l.of[name]
	if q == nil {
		q = btree.NewBTreeGOptions(moreUrgent, btree.Options{NoLocks: true})
		l.of[name] = q
	}
	return q
}

func (l *lines) add(q *rank, s *sector, state *phases.Sector, step phases.Step) *issue {
	is := &issue{s: s, deadline: urgencyOf(state, step), seq: state.Step(step).IssuedSeq}
	q.Set(is)
	if l.at[s] == nil {
		l.at[s] = new([8]*issue)
	}
	l.at[s][stepIndex(step)] = is
	is.waited = !l.within(q, is)
	return is
}

// within tells whether an issue is, or would be, among those whose task is published.
func (l *lines) within(q *rank, is *issue) bool {
	last, full := q.GetAt(l.window - 1)
	return !full || !moreUrgent(last, is)
}

// may tells whether the task of an open issue is to be published now; waited, that it was
// not when it came. The follower need not have seen the issue yet.
func (l *lines) may(s *sector, state *phases.Sector, step phases.Step) (may, waited bool) {
	t := state.Step(step)
	if l.window == 0 || !t.NotBefore.IsZero() || t.Status == phases.StatusRunning {
		return true, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	q := l.line(state.Group, step)
	var is *issue
	if mine := l.at[s]; mine != nil {
		is = mine[stepIndex(step)]
	}
	switch {
	case is != nil && is.seq == t.IssuedSeq:
	case l.seen < t.IssuedSeq:
		// Just issued by this dispatcher: it stands in line before the follower sees it.
		if is != nil {
			q.Delete(is)
		}
		is = l.add(q, s, state, step)
	default:
		return true, false // it is over, as the log will tell
	}
	return l.within(q, is), is.waited
}

// urgencyOf is when the chain no longer takes what a step works for.
func urgencyOf(state *phases.Sector, step phases.Step) time.Time {
	if !phases.HasDeadline(step) {
		return time.Time{}
	}
	return state.Deadline().At
}
