package phases

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// world is a fleet in memory with one sector: a log with compare-and-set, dispatchers
// that lag, repeat and crash, hosts that crash and overtake each other, operators, and a
// forger that writes without compare-and-set. A seeded scheduler decides who does what.
type world struct {
	rnd         *rand.Rand
	log         []Event
	tail        map[Step]uint64 // a chain's last sequence
	truth       *Sector         // the fold over the whole log
	believed    []Event
	deliveries  []uint64 // events that a dispatcher has still to act on, by sequence
	dispatchers []*dispatcher
	tasks       map[string]Task // the queue, by subject
	holders     []*holder
	redos       int
	ids         int
	clock       time.Time
}

type dispatcher struct {
	s  *Sector
	at int // events of the log that it has folded
}

// holder is a host that got a task and works on it.
type holder struct {
	task  Task
	claim Event // its own last event
}

func newWorld(seed uint64) *world {
	w := &world{
		rnd: rand.New(rand.NewPCG(seed, 1)), tail: map[Step]uint64{}, truth: NewSector(), tasks: map[string]Task{},
		clock: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC),
	}
	for range 1 + w.rnd.IntN(3) {
		w.dispatchers = append(w.dispatchers, &dispatcher{s: NewSector()})
	}
	return w
}

func (w *world) chance(percent int) bool { return w.rnd.IntN(100) < percent }

func (w *world) id() string { w.ids++; return fmt.Sprintf("id%d", w.ids) }

// append is the server: compare-and-set on the chain, or none for the forger.
func (w *world) append(e Event, expect uint64, cas bool) (uint64, bool) {
	if cas && w.tail[e.Step] != expect {
		return 0, false
	}
	e.Seq = uint64(len(w.log) + 1)
	w.log = append(w.log, e)
	w.tail[e.Step] = e.Seq
	w.deliveries = append(w.deliveries, e.Seq)
	if w.truth.Apply(e) == nil {
		w.believed = append(w.believed, e)
	}
	return e.Seq, true
}

func (w *world) event(typ EventType, step Step, host, prev string) Event {
	w.clock = w.clock.Add(time.Second)
	return Event{V: Version, ID: w.id(), Type: typ, Group: "group1", Sector: "s-t01000-7", Step: step, Host: host, PrevID: prev, At: w.clock}
}

// catchUp folds the log up to a sequence, and perhaps further.
func (d *dispatcher) catchUp(w *world, seq uint64) {
	to := int(seq)
	if to < len(w.log) && w.chance(50) {
		to += w.rnd.IntN(len(w.log) - to + 1)
	}
	for ; d.at < to; d.at++ {
		_ = d.s.Apply(w.log[d.at]) // refusals are part of the game
	}
}

// act is a dispatcher's rule: on one event, or as a sweeper on none. False: it crashed.
func (d *dispatcher) act(w *world) bool {
	for _, step := range Steps() {
		t, open := d.s.TaskFor(step)
		if !open {
			continue
		}
		key := fmt.Sprintf("%s.%d", step, t.Issue)
		if _, there := w.tasks[key]; !there && w.truth.Step(step).Status != StatusDone {
			w.tasks[key] = t // a stale one may come back, for a step that goes on meanwhile
		}
		if w.chance(3) {
			return false
		}
	}
	for _, a := range Decide(d.s, DefaultPolicy()) {
		w.clock = w.clock.Add(time.Second)
		w.append(a.Event(w.id(), DispatcherName("d"), w.clock), a.ExpectSeq, true)
		if w.chance(3) {
			return false
		}
	}
	return true
}

// deliver gives one event, in any order, to any dispatcher. It comes again if that one
// crashes, and sometimes for no reason.
func (w *world) deliver() {
	if len(w.deliveries) == 0 {
		return
	}
	i := w.rnd.IntN(len(w.deliveries))
	seq := w.deliveries[i]
	d := w.dispatchers[w.rnd.IntN(len(w.dispatchers))]
	d.catchUp(w, seq)
	if d.act(w) && !w.chance(5) {
		w.deliveries = slices.Delete(w.deliveries, i, i+1)
	}
	if w.chance(2) {
		*d = dispatcher{s: NewSector()} // restarted, with nothing in its memory
	}
}

// take gives a task to a host: it reads the chain's last event, and claims.
func (w *world) take() {
	keys := make([]string, 0, len(w.tasks))
	for k := range w.tasks {
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return
	}
	slices.Sort(keys)
	key := keys[w.rnd.IntN(len(keys))]
	t := w.tasks[key]
	var last Event
	if seq := w.tail[t.Step]; seq > 0 {
		last = w.log[seq-1]
	}
	if w.chance(5) { // a copy of the stream that is behind: it claims after what was the end once
		for seq := int(last.Seq) - 1; seq > 0; seq-- {
			if w.log[seq-1].Step == t.Step {
				last = w.log[seq-1]
				break
			}
		}
	}
	mine := last.Type == Issued && last.ID == t.IssuedID || last.Type == Released && last.Issue == t.Issue
	takeover := (last.Type == Claimed || last.Type == Progress) && last.Issue == t.Issue
	if takeover && !w.chance(10) {
		return // the lease has not run out
	}
	if !mine && !takeover {
		if last.Issue > t.Issue || last.Type == Done || last.Type == Failed || last.Type == Cancelled || w.chance(20) {
			delete(w.tasks, key) // it is over; were it not, the sweeper makes it again
		}
		return
	}
	host := fmt.Sprintf("host%d", w.rnd.IntN(5))
	if t.Step.IsGate() {
		host = DispatcherName("d")
	}
	e := w.event(Claimed, t.Step, host, last.ID)
	e.Issue, e.ClaimID = t.Issue, e.ID
	if seq, won := w.append(e, last.Seq, true); won {
		e.Seq = seq
		w.holders = append(w.holders, &holder{task: t, claim: e})
	}
}

// work lets a holder go on: progress, done, failed, or a crash.
func (w *world) work() {
	if len(w.holders) == 0 {
		return
	}
	i := w.rnd.IntN(len(w.holders))
	h := w.holders[i]
	typ := Done
	switch n := w.rnd.IntN(100); {
	case n < 10:
		w.holders = slices.Delete(w.holders, i, i+1) // it crashed; the task is still there
		return
	case n < 25:
		typ = Progress
	case n < 40:
		typ = Failed
	case n < 45:
		typ = Released
	}
	e := w.event(typ, h.task.Step, h.claim.Host, h.claim.ID)
	e.Issue, e.ClaimID = h.task.Issue, h.claim.ClaimID
	if typ == Failed {
		e.Result = &Result{Class: []Class{Transient, Transient, Retryable, Retryable, Permanent}[w.rnd.IntN(5)]}
		if e.Result.Class == Retryable && w.chance(30) {
			e.V, e.Result.Code = VersionStops, CodeTicketExpired
		}
	}
	if typ == Released {
		if h.task.Step.IsGate() {
			return
		}
		e.V = VersionStops
	}
	seq, won := w.append(e, h.claim.Seq, true)
	switch {
	case !won:
		w.holders = slices.Delete(w.holders, i, i+1) // overtaken or revoked: it stops, and never acks
		if w.chance(80) {
			w.stopped(h.task.Step, h.claim.ClaimID, h.claim.Host)
		}
	case typ == Progress:
		e.Seq = seq
		h.claim = e
	case typ == Released:
		w.holders = slices.Delete(w.holders, i, i+1) // its message comes again
	default:
		w.holders = slices.Delete(w.holders, i, i+1)
		delete(w.tasks, fmt.Sprintf("%s.%d", h.task.Step, h.task.Issue))
	}
}

// forge writes something that is not true, in a place where a host may write.
func (w *world) forge() {
	step := Steps()[w.rnd.IntN(8)]
	types := []EventType{Issued, Claimed, Progress, Done, Failed, Cancelled, Submitted, Finished, Redo}
	e := w.event(types[w.rnd.IntN(len(types))], step, "forger", "")
	t := w.truth.Step(step)
	if w.chance(50) {
		e.PrevID = t.LastID
	}
	e.Issue, e.Attempt = t.Issue+w.rnd.IntN(3)-1, 1
	e.ClaimID = "forged"
	e.Result = &Result{Class: Permanent, Code: "finished"}
	if len(w.log) > 0 && w.chance(30) {
		e = w.log[w.rnd.IntN(len(w.log))] // an old one again
	}
	if e.Type == Claimed && e.PrevID == t.LastID && e.Issue == t.Issue {
		e.PrevID = "forged" // a host may claim: that would be no forgery
	}
	w.append(e, 0, false)
}

// operate is an operator who has a step done again, or gives the sector up.
func (w *world) operate(cancel bool) {
	t := w.truth.Step(SectorEnd)
	e := w.event(Cancelled, SectorEnd, DispatcherName("cli"), t.LastID)
	if !cancel && w.chance(30) {
		e.V, e.Type = VersionStops, Paused
		if CheckPause(w.truth, true) != nil {
			return
		}
	} else if !cancel {
		step := Steps()[w.rnd.IntN(8)]
		if CheckRedo(w.truth, step) != nil {
			return
		}
		e.Type, e.Target = Redo, step
		w.redos++
	} else if CheckCancel(w.truth) != nil {
		return
	}
	w.append(e, t.LastSeq, true)
}

// stopped tells that a revoked claim's holder is dead, if the log's end asks for that.
func (w *world) stopped(step Step, claim, by string) {
	t := w.truth.Step(step)
	if claim == "" || t.Stopping() != claim {
		return
	}
	e := w.event(Stopped, step, by, t.LastID)
	e.V, e.ClaimID = VersionStops, claim
	w.append(e, t.LastSeq, true)
}

// strayAck is somebody with a command line, or a host that lost its claim and does not
// know it: one task is gone, whoever works on it.
func (w *world) strayAck() {
	keys := slices.Sorted(maps.Keys(w.tasks))
	if len(keys) > 0 {
		delete(w.tasks, keys[w.rnd.IntN(len(keys))])
	}
}

// sweep has one dispatcher look at everything; now and then it gives a silent holder up.
func (w *world) sweep() {
	if w.chance(10) {
		for _, step := range Steps() {
			t := w.truth.Step(step)
			w.stopped(step, t.Stopping(), DispatcherName("d"))
		}
	}
	d := w.dispatchers[w.rnd.IntN(len(w.dispatchers))]
	d.catchUp(w, uint64(w.rnd.IntN(len(w.log)+1)))
	d.act(w)
}

// run lets the world go on until the sector ends; faults stop after a while.
func (w *world) run(t interface{ Fatalf(string, ...any) }) {
	e := w.event(Submitted, SectorEnd, DispatcherName("cli"), "")
	e.Spec = &Spec{Miner: 1000, Number: 7}
	w.append(e, 0, true)
	const faulty, atMost = 400, 20_000
	for round := 0; w.truth.Ended().IsZero(); round++ {
		switch n := w.rnd.IntN(100); {
		case round < faulty && n < 4:
			w.forge()
		case round < faulty && n < 9:
			w.operate(w.chance(5))
		case round < faulty && n < 10:
			clear(w.tasks) // somebody purged the queue
		case round < faulty && n < 11:
			w.strayAck()
		case n < 25:
			w.sweep()
		case n < 55:
			w.deliver()
		case n < 80:
			w.take()
		default:
			w.work()
		}
		if w.truth.Paused() && w.chance(5) {
			s := w.truth.Step(SectorEnd)
			e := w.event(Resumed, SectorEnd, DispatcherName("cli"), s.LastID)
			e.V = VersionStops
			w.append(e, s.LastSeq, true)
		}
		if w.truth.Status(DefaultPolicy()) == StatusParked { // an operator mends it
			for _, p := range w.truth.Parked(DefaultPolicy()) {
				s := w.truth.Step(SectorEnd)
				r := w.event(Redo, SectorEnd, DispatcherName("cli"), s.LastID)
				r.Target = p.Step
				if CheckRedo(w.truth, p.Step) == nil {
					w.redos++
					w.append(r, s.LastSeq, true)
				}
			}
		}
		if round > atMost {
			t.Fatalf("the sector never ended:\n%s\n%s", w.truth.summary(), tell(w.log))
		}
	}
}

func tell(log []Event) string {
	var b strings.Builder
	const enough = 150
	for _, e := range log[max(0, len(log)-enough):] {
		fmt.Fprintf(&b, "%d %s %s %s prev %s issue %d claim %s by %s\n", e.Seq, e.ID, e.Type, e.Step, e.PrevID, e.Issue, e.ClaimID, e.Host)
	}
	return b.String()
}

// checkOrder checks what was believed against the rules, which are written here a second
// time and in another way.
func checkOrder(believed []Event, p Policy) error {
	done, open, issues := map[Step]bool{}, map[Step]string{}, map[string]bool{}
	var failed, cancelled, ended, started bool
	for _, e := range believed {
		if ended {
			return fmt.Errorf("%s %s after the end", e.Type, e.Step)
		}
		switch e.Type {
		case Issued:
			ok := map[Step]bool{
				P1: true, P2: done[P1], Precommit: done[P2], P3: done[Precommit], P4: done[P3], P5: done[P3], Commit: done[P4],
				P6: done[P4] && done[P5] && (done[Commit] || p.CleanBeforeCommit),
			}[e.Step]
			if failed || cancelled {
				ok = e.Step == P6 && started
				for step, claim := range open {
					ok = ok && (claim == "" || step == P6)
				}
			}
			key := fmt.Sprintf("%s.%d", e.Step, e.Issue)
			if !ok || done[e.Step] || issues[key] {
				return fmt.Errorf("%s issue %d came early or twice", e.Step, e.Issue)
			}
			issues[key], open[e.Step], started = true, "issued", true
		case Claimed:
			if open[e.Step] == "" {
				return fmt.Errorf("%s was claimed but not issued", e.Step)
			}
			open[e.Step] = e.ClaimID
		case Done, Failed:
			if open[e.Step] != e.ClaimID || cancelled && e.Step != P6 {
				return fmt.Errorf("%s %s by %q, the holder is %q", e.Step, e.Type, e.ClaimID, open[e.Step])
			}
			done[e.Step], open[e.Step] = e.Type == Done, ""
			failed = failed || e.Step == Precommit && e.Type == Failed && e.Result.Class == Permanent
			if e.Type == Failed && done[P1] && FallsBack(e.Step, e.Result) {
				for _, step := range append(dependents(P1), P1) {
					delete(done, step)
				}
			}
		case Cancelled:
			if e.Step == SectorEnd {
				cancelled = true
			} else {
				open[e.Step] = ""
			}
		case Redo:
			for _, step := range append(dependents(e.Target), e.Target) {
				delete(done, step)
			}
		case Finished:
			ended = true
			want := StatusFinished
			if cancelled {
				want = StatusCancelled
			} else if failed {
				want = StatusFailed
			}
			if Status(e.Result.Code) != want || started && !done[P6] || want == StatusFinished && !done[Commit] {
				return fmt.Errorf("it ended %s, want %s", e.Result.Code, want)
			}
		}
	}
	return nil
}

// verify holds the world's end against what was promised: order, one effect of each issue,
// an end, and dispatchers that agree.
func (w *world) verify() error {
	if err := checkOrder(w.believed, DefaultPolicy()); err != nil {
		return err
	}
	doneOf, again := map[Step]int{}, w.redos
	for _, e := range w.believed {
		if e.Type == Done {
			doneOf[e.Step]++
		}
		if e.Type == Failed && FallsBack(e.Step, e.Result) {
			again++
		}
	}
	for _, step := range Steps() {
		if again == 0 && doneOf[step] > 1 || w.truth.Status(DefaultPolicy()) == StatusFinished && doneOf[step] == 0 {
			return fmt.Errorf("%s was done %d times, with %d redos", step, doneOf[step], again)
		}
	}
	for _, d := range w.dispatchers {
		for ; d.at < len(w.log); d.at++ {
			_ = d.s.Apply(w.log[d.at]) // refusals are part of the log
		}
		if got, want := d.s.summary(), w.truth.summary(); got != want {
			return fmt.Errorf("dispatchers disagree:\n%s\n%s", got, want)
		}
	}
	return nil
}

// No order of arrival, no crash and no forgery may start a phase early, twice, or never.
func TestNoPhaseStartsEarlyTwiceOrNever(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.Uint64().Draw(t, "seed"))
		w.run(t)
		if err := w.verify(); err != nil {
			t.Fatalf("%v\n%s", err, tell(w.log))
		}
	})
}

// The fold is for events in stream order; out of order it may miss some, but it never
// believes a step's start before what must come first.
func TestShuffledEventsNeverStartAPhaseEarly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.Uint64().Draw(t, "seed"))
		w.run(t)
		events := append(slices.Clone(w.log), w.log[:len(w.log)/2]...)
		// Shuffled only a little, or nearly nothing is believed.
		for range rapid.IntRange(0, len(events)).Draw(t, "swaps") {
			i := w.rnd.IntN(len(events) - 1)
			events[i], events[i+1] = events[i+1], events[i]
		}
		s := NewSector()
		var believed []Event
		for _, e := range events {
			e.Seq = 0
			look := w.chance(10) // it takes long
			before := ""
			if look {
				before = s.summary()
			}
			err := s.Apply(e)
			var r *Rejected
			switch {
			case err == nil:
				believed = append(believed, e)
			case !errors.As(err, &r):
				t.Fatalf("a strange error: %v", err)
			case look && s.summary() != before && r.Reason != Early:
				t.Fatalf("%v, but it changed the state", err)
			}
		}
		// That p6 waits for the landed proof is the dispatchers' policy, not the fold's.
		if err := checkOrder(believed, Policy{CleanBeforeCommit: true}); err != nil {
			t.Fatalf("%v\n%s", err, tell(believed))
		}
	})
}
