package phases

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// story is a sector's life as a test tells it: a log to which events are appended as
// dispatchers and hosts would do it.
type story struct {
	t     testing.TB
	s     *Sector
	p     Policy
	log   []Event
	clock time.Time
	ids   int
}

const disp = "dispatcher-a"

func newStory(t testing.TB) *story {
	y := &story{t: t, s: NewSector(), p: DefaultPolicy(), clock: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)}
	y.must(y.event(Submitted, SectorEnd, disp, func(e *Event) { e.Spec = &Spec{Miner: 1000, Number: 7, ProofType: 5} }))
	return y
}

// event makes an event that chains to the step's last one.
func (y *story) event(typ EventType, step Step, by string, change func(*Event)) Event {
	y.clock = y.clock.Add(time.Minute)
	y.ids++
	t := y.s.Step(step)
	e := Event{
		V: Version, ID: fmt.Sprintf("e%d", y.ids), Type: typ, Group: "group1", Sector: "s-t01000-7", Step: step,
		Issue: t.Issue, Attempt: t.Attempt, ClaimID: t.ClaimID, PrevID: t.LastID, Host: by, At: y.clock,
	}
	if step == SectorEnd {
		e.Issue, e.Attempt, e.ClaimID = 0, 0, ""
	}
	if change != nil {
		change(&e)
	}
	return e
}

func (y *story) append(e Event) error {
	e.Seq = uint64(len(y.log) + 1)
	y.log = append(y.log, e)
	return y.s.Apply(e)
}

func (y *story) must(e Event) {
	y.t.Helper()
	if err := y.append(e); err != nil {
		y.t.Fatal(err)
	}
}

// refused appends an event that must not be believed, for this reason.
func (y *story) refused(e Event, why Reason) {
	y.t.Helper()
	var r *Rejected
	if err := y.append(e); !errors.As(err, &r) || r.Reason != why {
		y.t.Fatalf("%s %s by %s: %v, want %s", e.Type, e.Step, e.Host, err, why)
	}
}

// decide returns what dispatchers would do, in words.
func (y *story) decide() string {
	var words []string
	for _, a := range Decide(y.s, y.p) {
		switch a.Kind {
		case DoIssue:
			words = append(words, fmt.Sprintf("%s#%d.%d", a.Step, a.Issue, a.Attempt))
		case DoRevoke:
			words = append(words, "revoke "+string(a.Step))
		case DoFinish:
			words = append(words, string(a.Outcome))
		}
	}
	return strings.Join(words, " ")
}

// act carries out what Decide says, and checks that it was this.
func (y *story) act(want string) {
	y.t.Helper()
	if got := y.decide(); got != want {
		y.t.Fatalf("dispatchers would do %q, want %q", got, want)
	}
	for _, a := range Decide(y.s, y.p) {
		if a.ExpectSeq != y.s.Step(a.Step).LastSeq {
			y.t.Fatalf("%+v expects the wrong sequence", a)
		}
		y.clock = y.clock.Add(time.Minute)
		y.ids++
		y.must(a.Event(fmt.Sprintf("e%d", y.ids), disp, y.clock))
	}
}

func actorOf(step Step) string {
	if step.IsGate() {
		return disp
	}
	return "host1"
}

func (y *story) claim(step Step) {
	y.t.Helper()
	y.must(y.event(Claimed, step, actorOf(step), func(e *Event) { e.ClaimID = "claim" + e.ID }))
}

func (y *story) done(step Step, outputs ...string) {
	y.t.Helper()
	if y.s.Step(step).Status == StatusIssued {
		y.claim(step)
	}
	y.must(y.event(Done, step, actorOf(step), func(e *Event) {
		e.Result = &Result{Code: "ok", Outputs: map[string]string{"by_" + string(step): e.ID}}
		for i := 0; i < len(outputs); i += 2 {
			e.Result.Outputs[outputs[i]] = outputs[i+1]
		}
	}))
}

func (y *story) fail(step Step, class Class) {
	y.t.Helper()
	if y.s.Step(step).Status == StatusIssued {
		y.claim(step)
	}
	y.must(y.event(Failed, step, actorOf(step), func(e *Event) {
		e.Result = &Result{Code: "broken", Class: class, Message: "it broke"}
	}))
}

func (y *story) operator(typ EventType, target Step) {
	y.t.Helper()
	y.must(y.event(typ, SectorEnd, disp, func(e *Event) { e.Target, e.Reason = target, "an operator's" }))
}

// through does steps one after the other, and checks that each is due alone.
func (y *story) through(steps ...Step) {
	y.t.Helper()
	for _, step := range steps {
		y.act(string(step) + "#1.1")
		y.done(step)
	}
}

func (y *story) is(status Status) {
	y.t.Helper()
	if got := y.s.Status(y.p); got != status {
		y.t.Fatalf("the sector is %s, want %s", got, status)
	}
}

func TestFromP1ToP6(t *testing.T) {
	y := newStory(t)
	y.is(StatusSealing)
	y.through(P1, P2, Precommit, P3)
	y.act("p4#1.1 p5#1.1")
	y.claim(P5)
	y.done(P4)
	y.act("commit#1.1")
	y.done(P5)
	y.act("") // p6 waits for the landed proof
	y.done(Commit)
	y.act("p6#1.1")
	task, ok := y.s.TaskFor(P6)
	if !ok || task.Inputs["by_p1"] == "" || task.Inputs["by_commit"] == "" || task.IssuedSeq == 0 || task.IssuedID == "" || task.Issue != 1 || task.Spec.Miner != 1000 {
		t.Fatalf("task %+v", task)
	}
	y.done(P6)
	y.act("finished")
	y.is(StatusFinished)
	y.act("")
	if y.s.Ended().IsZero() || y.s.Submitted().IsZero() {
		t.Fatal("no times")
	}
}

func TestP6WaitsForBothP4AndP5(t *testing.T) {
	for _, first := range []Step{P4, P5} {
		y := newStory(t)
		y.p.CleanBeforeCommit = true
		y.through(P1, P2, Precommit, P3)
		y.act("p4#1.1 p5#1.1")
		second := P5
		y.done(first)
		if first == P5 {
			second = P4
			y.act("")
		} else {
			y.act("commit#1.1")
		}
		y.refused(y.event(Issued, P6, disp, func(e *Event) { e.Issue, e.Attempt = 1, 1 }), Early)
		y.done(second)
		if got := y.decide(); !strings.Contains(got, "p6#2.1") { // the number of the early issue is spent
			t.Fatalf("after p4 and p5: %q", got)
		}
	}
}

func TestPrecommitFailedGoesStraightToP6(t *testing.T) {
	y := newStory(t)
	y.through(P1, P2)
	y.act("precommit#1.1")
	y.fail(Precommit, Permanent)
	y.is(StatusFailed)
	for _, step := range []Step{P3, P4, P5, Commit} {
		y.refused(y.event(Issued, step, disp, func(e *Event) { e.Issue, e.Attempt = 1, 1 }), Early)
	}
	y.act("p6#1.1")
	y.done(P6)
	y.act("failed")
	y.is(StatusFailed)
	for _, step := range []Step{P3, P4, P5, Commit} {
		if st := y.s.Step(step).Status; st != StatusSkipped {
			t.Errorf("%s is %s", step, st)
		}
	}
}

func TestAttempts(t *testing.T) {
	y := newStory(t)
	y.act("p1#1.1")
	y.fail(P1, Retryable)
	y.is(StatusSealing)
	y.act("p1#2.2")
	for i := range 4 { // somebody else's fault, however often, spends none
		y.fail(P1, Transient)
		y.act(fmt.Sprintf("p1#%d.2", 3+i))
	}
	y.fail(P1, Retryable)
	y.act("p1#7.3")
	y.fail(P1, Retryable)
	y.act("")
	y.is(StatusParked)
	if parked := y.s.Parked(y.p); len(parked) != 1 || parked[0].Step != P1 || parked[0].Result.Message != "it broke" {
		t.Fatalf("parked: %+v", parked)
	}
	y.operator(Redo, P1)
	y.is(StatusSealing)
	y.act("p1#8.1")
	y.fail(P1, Permanent)
	y.act("")
	y.is(StatusParked)
	y.refused(y.event(Issued, P1, disp, func(e *Event) { e.Issue, e.Attempt = 9, 2 }), Stale)
}

func TestDelaysGrowAndDifferBetweenSectors(t *testing.T) {
	y := newStory(t)
	y.act("p1#1.1")
	last := time.Duration(0)
	for range 12 {
		y.fail(P1, Transient)
		a := Decide(y.s, y.p)[0]
		delay := a.NotBefore.Sub(y.s.Step(P1).EndedAt)
		if delay < last*3/4 || delay < y.p.TransientDelay || delay > y.p.MaxDelay*5/4 {
			t.Fatalf("delay %s after %s", delay, last)
		}
		if again := Decide(y.s, y.p)[0]; again != a {
			t.Fatalf("decided %+v, then %+v", a, again)
		}
		last = delay
		y.act(y.decide())
	}
	if last < y.p.MaxDelay {
		t.Errorf("the delay only grew to %s", last)
	}
}

func TestCancelRevokesWhatRunsAndThenCleans(t *testing.T) {
	y := newStory(t)
	y.through(P1, P2, Precommit, P3)
	y.act("p4#1.1 p5#1.1")
	y.claim(P4)
	y.operator(Cancelled, "")
	y.is(StatusCancelled)
	y.refused(y.event(Done, P4, "host1", nil), Over)
	y.refused(y.event(Issued, P6, disp, func(e *Event) { e.Issue, e.Attempt = 1, 1 }), Early)
	claim := y.s.Step(P4).ClaimID
	y.act("revoke p4 revoke p5")
	y.act("") // p6 deletes: not before p4's holder is known to be dead
	y.refused(y.stopped(P4, "host1", "another"), Stale)
	y.must(y.stopped(P4, "host1", claim))
	y.refused(y.stopped(P4, "host1", claim), Early)
	y.act("p6#2.1")
	y.done(P6)
	y.act("cancelled")
	y.is(StatusCancelled)

	y = newStory(t)
	y.operator(Cancelled, "")
	y.act("cancelled") // nothing to clean
}

func TestCancelIsRefusedWhenThereIsASectorToKeep(t *testing.T) {
	y := newStory(t)
	y.through(P1, P2, Precommit, P3)
	y.act("p4#1.1 p5#1.1")
	y.done(P4)
	y.act("commit#1.1")
	y.done(Commit)
	if err := CheckCancel(y.s); err == nil || !strings.Contains(err.Error(), "on chain") {
		t.Fatalf("got %v", err)
	}
	y.refused(y.event(Cancelled, SectorEnd, disp, nil), Over)
	y.is(StatusSealing)
}

func TestRedoDoesAgainWhatRestsOnTheStep(t *testing.T) {
	y := newStory(t)
	y.through(P1)
	y.act("p2#1.1")
	y.claim(P2)
	y.operator(Redo, P1) // p1 gives p2 something new: p2's holder must stop
	y.refused(y.event(Done, P2, "host1", nil), Over)
	claim := y.s.Step(P2).ClaimID
	y.act("p1#2.1 revoke p2")
	y.done(P1)
	y.act("") // p2's old holder may still run
	y.must(y.stopped(P2, disp, claim))
	y.act("p2#2.1")
	y.done(P2)
	y.act("precommit#1.1")
	for _, step := range []Step{P1, P2} {
		if err := CheckRedo(y.s, step); err == nil || !strings.Contains(err.Error(), "on its way") {
			t.Fatalf("%s: %v", step, err)
		}
	}
	y.done(Precommit)
	for _, step := range []Step{P1, P2, Precommit} {
		if err := CheckRedo(y.s, step); err == nil || !strings.Contains(err.Error(), "on chain") {
			t.Fatalf("%s: %v", step, err)
		}
		y.refused(y.event(Redo, SectorEnd, disp, func(e *Event) { e.Target = step }), Early)
	}
	y.act("p3#1.1")
	y.done(P3)
	y.act("p4#1.1 p5#1.1")
	y.done(P4)
	y.done(P5)
	y.act("commit#1.1")
	y.fail(Commit, Permanent)
	y.is(StatusParked)
	y.operator(Redo, P3)
	y.act("p3#2.1")
	y.done(P3)
	y.act("p4#2.1") // p5 copied what p2 made: it stays
	y.done(P4)
	y.act("commit#2.1")
	y.done(Commit)
	y.act("p6#1.1")
	for _, step := range []Step{P1, P2, P3, P4, P5, Commit} {
		if err := CheckRedo(y.s, step); err == nil {
			t.Fatalf("%s can be done again while p6 deletes", step)
		}
	}
	y.fail(P6, Permanent)
	y.is(StatusParked)
	y.operator(Redo, P6)
	y.act("p6#2.1")
	y.done(P6)
	y.act("finished")
	if err := CheckRedo(y.s, P6); err == nil {
		t.Fatal("p6 of an ended sector can be done again")
	}
}

func TestRedoOfARunningStepStopsItsHolder(t *testing.T) {
	y := newStory(t)
	y.act("p1#1.1")
	y.claim(P1)
	old := y.event(Done, P1, "host1", nil)
	y.operator(Redo, P1)
	claim := y.s.Step(P1).ClaimID
	y.act("revoke p1")
	y.act("")
	y.must(y.stopped(P1, "host1", claim))
	y.act("p1#2.1")
	y.refused(old, Stale)
	y.done(P1)
	if rows, _ := Attempts(y.log); len(rows) != 2 || rows[0].Status != StatusCancelled || rows[1].Status != StatusDone {
		t.Fatalf("history %+v", rows)
	}
}

func TestAClaimMayBeTakenOver(t *testing.T) {
	y := newStory(t)
	y.act("p1#1.1")
	y.claim(P1)
	first := y.event(Done, P1, "host1", nil)
	y.must(y.event(Claimed, P1, "host2", func(e *Event) { e.ClaimID = "another" }))
	if st := y.s.Step(P1); st.Host != "host2" || st.ClaimID != "another" {
		t.Fatalf("holder %+v", st)
	}
	y.refused(first, Stale)
	y.refused(y.event(Done, P1, "host1", func(e *Event) { e.ClaimID = first.ClaimID }), Stale)
	y.must(y.event(Progress, P1, "host2", func(e *Event) { e.Note, e.Fraction = "layer 1/2", .5 }))
	if st := y.s.Step(P1); st.Note != "layer 1/2" || st.Fraction != .5 {
		t.Fatalf("progress %+v", st)
	}
	y.act("") // the holder went on over what was not believed
}

func TestWhatIsNotBelieved(t *testing.T) {
	y := newStory(t)
	y.refused(y.event(Claimed, P1, "host1", func(e *Event) { e.ClaimID = "c" }), Stale) // not issued
	y.act("p1#1.1")
	y.claim(P1)
	for why, events := range map[Reason][]Event{
		NewerFormat: {},
		Malformed: {
			y.event(Done, P1, "host1", func(e *Event) { e.Group = "group2" }),
			y.event(Done, P1, "host1", func(e *Event) { e.Sector = "s-t01000-8" }),
			y.event(Claimed, P1, "host2", func(e *Event) { e.ClaimID = "" }),
			y.event(Failed, P1, "host1", nil),
			y.event(Failed, P1, "host1", func(e *Event) { e.Result = &Result{Class: "strange"} }),
			y.event(Submitted, P1, "host1", nil),
			{V: 1, ID: "x", Step: "p9"},
		},
		Stale: {
			y.event(Done, P1, "host1", func(e *Event) { e.PrevID = "forged" }),
			y.event(Done, P1, "host1", func(e *Event) { e.ClaimID = "forged" }),
			y.event(Done, P1, "host1", func(e *Event) { e.Issue = 2 }),
			y.event(Done, P2, "host1", nil),
			y.event(Issued, P2, disp, func(e *Event) { e.Issue, e.Attempt = 7, 1 }),
		},
		Early: {
			y.event(Issued, P2, disp, func(e *Event) { e.Issue, e.Attempt = 1, 1 }),
			y.event(Cancelled, P1, disp, nil),
			y.event(Finished, SectorEnd, disp, func(e *Event) { e.Result = &Result{Code: "finished"} }),
			y.event(Redo, SectorEnd, disp, func(e *Event) { e.Target = P2 }),
			y.event(Redo, SectorEnd, disp, func(e *Event) { e.Target = "p9" }),
		},
		Forbidden: {
			y.event(Issued, P2, "host1", func(e *Event) { e.Issue, e.Attempt = 1, 1 }),
			y.event(Cancelled, SectorEnd, "host1", nil),
			y.event(Redo, SectorEnd, "host1", func(e *Event) { e.Target = P1 }),
			y.event(Done, Precommit, "host1", nil),
			y.event(Done, P1, disp, nil),
		},
		Unreadable: {{Group: "group1", Sector: "s-t01000-7", Step: P1, Host: "host1"}},
		Duplicate:  {y.log[0], y.log[len(y.log)-1]},
	} {
		for i, e := range events {
			if why != Duplicate || i > 0 {
				e.ID = fmt.Sprintf("%s%d", why, i)
			}
			if why == Unreadable {
				e.ID = ""
			}
			if why == Duplicate {
				e.ID = events[i].ID
			}
			before := y.s.summary()
			y.refused(e, why)
			if e.Step == P2 && why == Early {
				continue // its issue number is spent
			}
			if after := y.s.summary(); after != before {
				t.Fatalf("%s changed the state from\n%s\nto\n%s", why, before, after)
			}
		}
	}
	y.act("p1#2.1") // the chain's end is not believed: hosts need a new event to go on from
	y.done(P1)
	y.act("p2#2.1")
	y.refused(y.event(Claimed, P2, "host1", func(e *Event) { e.V = Newest + 1; e.ClaimID = "c" }), NewerFormat)
	y.act("") // a newer release has taken over
}

// summary is the state without the sequences of the chains' ends.
func (s *Sector) summary() string {
	var b strings.Builder
	fmt.Fprintln(&b, s.Group, s.ID, s.outcome, s.ended)
	for _, t := range s.steps {
		fmt.Fprintln(&b, t.Step, t.Status, t.Issue, t.Attempt, t.Host, t.ClaimID, t.LastID, t.Result, t.revoke, t.redo)
	}
	return b.String()
}

func TestHistory(t *testing.T) {
	y := newStory(t)
	y.act("p1#1.1")
	y.fail(P1, Retryable)
	y.act("p1#2.2")
	y.claim(P1)
	y.must(y.event(Claimed, P1, "host2", func(e *Event) { e.ClaimID = "another" }))
	y.must(y.event(Progress, P1, "host2", func(e *Event) { e.Note = "layer 1/2" }))
	y.done(P1)
	y.refused(y.event(Done, P1, "host1", nil), Stale)
	y.act("p2#1.1")
	rows, rejected := Attempts(append(slices.Clone(y.log), y.log[0]))
	if len(rows) != 3 || len(rejected) != 1 || rejected[0].Event.Host != "host1" {
		t.Fatalf("rows %+v, rejected %v", rows, rejected)
	}
	if r := rows[0]; r.Step != P1 || r.Issue != 1 || r.Status != StatusFailed || r.Host != "host1" || r.Took != 60 || r.Waited != 60 || r.Result.Message != "it broke" {
		t.Errorf("first %+v", r)
	}
	if r := rows[1]; r.Attempt != 2 || r.Claims != 2 || r.Host != "host2" || r.Note != "layer 1/2" || r.Status != StatusDone || r.Took != 120 {
		t.Errorf("second %+v", r)
	}
	if r := rows[2]; r.Step != P2 || r.Status != StatusIssued || !r.EndedAt.IsZero() {
		t.Errorf("third %+v", r)
	}
}

// stopped makes the event with which a claim's holder, or a dispatcher for it, says that
// nothing of it runs any more.
func (y *story) stopped(step Step, by, claim string) Event {
	return y.event(Stopped, step, by, func(e *Event) { e.V, e.ClaimID = VersionStops, claim })
}

func TestAPausedSectorBeginsNothingNew(t *testing.T) {
	y := newStory(t)
	y.through(P1, P2, Precommit, P3)
	y.act("p4#1.1 p5#1.1")
	y.claim(P4)
	pause := func(typ EventType) Event {
		return y.event(typ, SectorEnd, disp, func(e *Event) { e.V, e.Reason = VersionStops, "disks are exchanged" })
	}
	y.refused(pause(Resumed), Early)
	y.must(pause(Paused))
	y.refused(pause(Paused), Early)
	if !y.s.Paused() || y.s.PauseReason != "disks are exchanged" {
		t.Fatal("not paused")
	}
	y.act("revoke p5") // nobody had begun it
	y.done(P4)         // what runs goes on
	y.act("")
	y.must(pause(Resumed))
	y.act("p5#2.1 commit#1.1")
	y.done(P5)
	y.done(Commit)
	y.act("p6#1.1")
}

func TestAnExpiredTicketFallsBackToP1AndSpendsItsAttempts(t *testing.T) {
	y := newStory(t)
	expire := func(step Step) {
		t.Helper()
		if step.IsPhase() {
			y.claim(step)
		}
		y.must(y.event(Failed, step, actorOf(step), func(e *Event) {
			e.V, e.Result = VersionStops, &Result{Code: CodeTicketExpired, Class: Retryable, Message: "too old"}
		}))
	}
	y.through(P1)
	y.act("p2#1.1")
	expire(P2)
	y.act("p1#2.2")
	y.done(P1)
	y.act("p2#2.1")
	y.done(P2)
	y.act("precommit#1.1")
	expire(Precommit)
	y.act("p1#3.3")
	y.done(P1)
	y.act("p2#3.1")
	expire(P2)
	y.is(StatusParked)
	y.act("")
	y.operator(Redo, P1)
	y.act("p1#4.1")
	y.done(P1)
	y.act("p2#4.1")
	y.done(P2)
	y.act("precommit#2.1")
	y.done(Precommit, InputCommitBy, "2026-12-01T00:00:00Z")
	if d := y.s.Deadline(); d.Code != CodeCommitExpired || d.At.Format("2006-01-02") != "2026-12-01" || !d.Passed(d.At.Add(time.Second)) {
		t.Fatalf("deadline %+v", d)
	}
	if task, ok := y.s.TaskFor(P3); ok {
		t.Fatalf("p3 is not issued yet: %+v", task)
	}
	y.act("p3#1.1")
	if task, _ := y.s.TaskFor(P3); DeadlineOf(P3, task.Inputs).At.IsZero() || !DeadlineOf(P6, task.Inputs).At.IsZero() {
		t.Fatalf("p3's deadline is not among its inputs: %+v", task.Inputs)
	}
}

// A host that hands a phase back leaves an issue that anybody may claim, and spends nothing.
func TestAReleasedPhaseIsAnybodys(t *testing.T) {
	y := newStory(t)
	y.act("p1#1.1")
	y.claim(P1)
	release := func(claim string) Event {
		return y.event(Released, P1, "host1", func(e *Event) { e.V, e.ClaimID = VersionStops, claim })
	}
	y.refused(release("another"), Stale)
	y.must(release(y.s.Step(P1).ClaimID))
	if p1 := y.s.Step(P1); p1.Status != StatusIssued || p1.ClaimID != "" || p1.Attempt != 1 {
		t.Fatalf("%+v", p1)
	}
	y.act("") // the task is still out
	y.refused(release(""), Early)
	y.claim(P1)
	y.done(P1)
	y.act("p2#1.1")
}

// p6 of a sector whose p1 never got done must know where p1 had begun to write.
func TestP6KnowsWhereAnUnfinishedP1Worked(t *testing.T) {
	y := newStory(t)
	y.act("p1#1.1")
	y.must(y.event(Claimed, P1, "host1", func(e *Event) { e.ClaimID, e.Inputs = "c1", map[string]string{InputIP: "10.0.0.7"} }))
	y.operator(Cancelled, "")
	y.act("revoke p1")
	y.must(y.stopped(P1, "host1", "c1"))
	y.act("p6#1.1")
	if task, open := y.s.TaskFor(P6); !open || task.Inputs[InputIP] != "10.0.0.7" {
		t.Fatalf("p6 does not know where: %+v, %v", task, open)
	}
}
