package consume

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"sealfleet/internal/bus"
	"sealfleet/internal/engine"
	"sealfleet/internal/keep"
	"sealfleet/internal/logs"
	"sealfleet/internal/phases"
)

// errLost is the cause with which a phase is stopped whose claim is no longer ours.
var errLost = errors.New("another claim, or a cancellation, is on the chain: this one is lost")

// job is a task in this host's hands.
type job struct {
	c    *Consumer
	task phases.Task
	key  chain
	log  *slog.Logger

	mu    sync.Mutex // of lease: a redelivery brings a new one
	lease *bus.Lease

	// Only the goroutine that writes on the chain uses these.
	claimID string
	lastID  string // our last event
	telling string // the event that is tried again until it is answered: it may be written already
	lastSeq uint64

	note  progressNote
	cores []int         // to run on; none: any
	poke  chan struct{} // asks for a heartbeat now
	kept  *keep.Kept    // the journal's entry; nil: there is no journal
	ip    string        // of p1: the directory of the share that it works in
	since time.Time     // of the claim
}

// do deals with a task from its delivery to its acknowledgement. work ends when the
// consumer gives up waiting for its jobs.
func (c *Consumer) do(work context.Context, l *bus.Lease) {
	t := l.Task
	j := c.job(t, l, rand.Text())
	if held, mine := c.running.LoadOrStore(j.key, j); mine {
		// The server gave our own task out again (it was away for longer than the lease):
		// the running job goes on, under the new delivery.
		held.(*job).adopt(work, j)
		return
	}
	defer j.release()
	if l.Deliveries > 1 {
		c.metrics.redelivered.WithLabelValues(string(t.Step)).Inc()
	}
	if c.hooks.delivered != nil {
		c.hooks.delivered(l)
	}
	j.ip = c.whereP1(t, l.Deliveries)
	place, err := c.admission.enter(work, t, j.ip)
	if err != nil {
		c.admission.delay(j, err)
		return
	}
	defer place.leave()
	if !j.claim(work) {
		return
	}
	c.admission.begun(t)
	j.cores, j.since = place.cores, time.Now()
	if !j.begin() {
		return
	}
	defer c.board.begin(j, j.since)()
	var o outcome
	if late := lateness(t, c.bus.Now()); late != nil {
		o.err = late
	} else {
		o = j.run(work)
	}
	j.end(work, o)
}

// job makes a task this host's.
func (c *Consumer) job(t phases.Task, l *bus.Lease, claim string) *job {
	return &job{
		c: c, task: t, lease: l, key: chain{t.Sector, t.Step}, claimID: claim, poke: make(chan struct{}, 1), ip: c.cfg.IP, since: time.Now(),
		log: c.log.With(logs.Group, t.Group, logs.Sector, t.Sector, logs.Phase, t.Step, logs.Attempt, t.Attempt),
	}
}

// lateness is the failure of a task whose time is up: the chain would not take what it
// works for, so nothing of it is started.
func lateness(t phases.Task, now time.Time) error {
	d := phases.DeadlineOf(t.Step, t.Inputs)
	if !d.Passed(now) {
		return nil
	}
	if d.Code == phases.CodeTicketExpired {
		return fail(d.Code, phases.Retryable, "the chain took a precommit with this ticket until %s: p1 begins again with a new one", d.At.Format(time.RFC3339))
	}
	return fail(d.Code, phases.Permanent, "the chain took the proof until %s: the sector's number is spent; mend: dispatcher cancel it, and submit its pieces under another number", d.At.Format(time.RFC3339))
}

// release lets this host take tasks of the chain again.
func (j *job) release() { j.c.running.CompareAndDelete(j.key, j) }

// adopt takes over the delivery of another lease of the same task.
func (j *job) adopt(ctx context.Context, other *job) {
	switch {
	case other.task.Issue < j.task.Issue:
		other.look(ctx) // the chain will say that it is over
		return
	case other.task.Issue > j.task.Issue:
		// A new issue while the old one runs here: the old one was revoked. Look at once.
		select {
		case j.poke <- struct{}{}:
		default:
		}
		other.nak(min(time.Second, j.c.bus.Heartbeat()))
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lease = other.lease
	j.saveLease()
	j.log.Info("the server gave out our own running task again; going on")
}

func (j *job) currentLease() *bus.Lease {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lease
}

func (j *job) nak(delay time.Duration) {
	if err := j.currentLease().Nak(delay); err != nil {
		j.log.Debug("could not hand a task back", "error", err)
	}
}

// ack removes the task. If that fails the task comes again, and the chain will say that
// it is over.
func (j *job) ack(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, j.c.bus.AckWait()/2)
	defer cancel()
	if err := j.currentLease().Ack(ctx); err != nil {
		j.log.Debug("could not acknowledge a task", "error", err)
	}
}

// event makes the next event of this job's chain.
func (j *job) event(kind phases.EventType) phases.Event {
	return phases.Event{
		V: phases.Version, ID: ulid.Make().String(), Type: kind, Group: j.task.Group, Sector: j.task.Sector, Step: j.task.Step,
		Issue: j.task.Issue, Attempt: j.task.Attempt, ClaimID: j.claimID, PrevID: j.lastID,
		Host: j.c.cfg.HostName, At: j.c.bus.Now().UTC(),
	}
}

// append writes the event after our last one. ErrConflict means that the claim is lost.
func (j *job) append(ctx context.Context, e phases.Event) error {
	seq, err := j.c.bus.Append(ctx, e, j.lastSeq)
	var conflict *bus.ConflictError
	if errors.As(err, &conflict) && j.adoptOwn(conflict.Other) {
		e.PrevID = j.lastID
		seq, err = j.c.bus.Append(ctx, e, j.lastSeq)
	}
	if err == nil {
		j.lastID, j.lastSeq = e.ID, seq
	}
	return err
}

// adoptOwn tells whether an event is our own progress whose answer was lost, and goes on
// from it. When a server dies or comes back under many jobs, what was sent last has often
// been written although nobody said so; to take it for somebody else's would kill our work.
func (j *job) adoptOwn(e *phases.Event) bool {
	if e == nil || e.Type != phases.Progress || e.ClaimID != j.claimID || e.PrevID != j.lastID || e.Host != j.c.cfg.HostName {
		return false
	}
	j.lastID, j.lastSeq = e.ID, e.Seq
	return true
}

// unknownDelay is how long a task waits whose chain doesn't know it (yet): a copy of the
// stream that is behind, or a stray message.
const unknownDelay = 5 * time.Second

// claim tries to become the holder. If it does not, the task has been dealt with as far
// as this host is concerned.
func (j *job) claim(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, j.c.bus.AckWait()/2) // the lease runs meanwhile
	defer cancel()
	if j.currentLease().Deliveries == 1 && j.task.IssuedSeq > 0 {
		// Nobody had it before, so the chain most likely ends with the issue: one write and
		// no read. If it doesn't (revoked, or published twice) the chain tells more.
		quick, cancel := context.WithTimeout(ctx, quickClaim)
		err := j.claimAfter(quick, phases.Event{ID: j.task.IssuedID, Seq: j.task.IssuedSeq})
		cancel()
		if err == nil {
			return true
		}
	}
	last, ok := j.look(ctx)
	if !ok {
		return false
	}
	if j.adoptClaim(last) {
		return true
	}
	err := j.claimAfter(ctx, *last)
	var conflict *bus.ConflictError
	switch {
	case err == nil, errors.As(err, &conflict) && j.adoptClaim(conflict.Other):
		return true
	case errors.Is(err, bus.ErrConflict):
		j.log.Info("another host claimed the task first", "error", err)
		return false // its message is now the winner's: no ack
	default:
		j.log.Warn("cannot claim a task", "error", err)
		j.nak(time.Second)
		return false
	}
}

// adoptClaim tells whether an event is our own quick claim, which landed although nobody said
// so in time, and goes on from it: a second claim would look like a second holder, and to take
// it for somebody else's would leave the task without any until the lease ends.
func (j *job) adoptClaim(e *phases.Event) bool {
	if e == nil || e.Type != phases.Claimed || e.ClaimID != j.claimID || e.Host != j.c.cfg.HostName {
		return false
	}
	j.lastID, j.lastSeq = e.ID, e.Seq
	j.log.Info("claimed, though the server was late to say so", "claim", j.claimID)
	return true
}

// quickClaim is how long a claim may take that did not look at the chain first.
const quickClaim = 2 * time.Second

// claimAfter appends our claim to an event of the chain.
func (j *job) claimAfter(ctx context.Context, last phases.Event) error {
	j.lastID, j.lastSeq = last.ID, last.Seq
	e := j.event(phases.Claimed)
	e.InputDigest = digest(j.task.Inputs)
	if j.task.Step == phases.P1 {
		e.Inputs = map[string]string{phases.InputIP: j.ip}
	}
	if err := j.append(ctx, e); err != nil {
		return err
	}
	j.log.Info("claimed", "claim", j.claimID, "deliveries", j.currentLease().Deliveries)
	return nil
}

// look reads the chain's last event and tells whether the task is still to be done.
func (j *job) look(ctx context.Context) (*phases.Event, bool) {
	e, err := j.c.bus.Last(ctx, j.task.Group, j.task.Sector, j.task.Step)
	switch {
	case err != nil:
		j.log.Warn("cannot read a task's chain", "error", err)
		j.nak(time.Second)
		return nil, false
	case e == nil || e.V == 0 || e.V > phases.Newest || e.Issue < j.task.Issue:
		j.log.Warn("a task that its chain does not know (yet)", "issue", j.task.Issue)
		j.nak(unknownDelay)
		return nil, false
	case e.Issue > j.task.Issue, e.Type == phases.Done, e.Type == phases.Failed, e.Type == phases.Cancelled, e.Type == phases.Stopped:
		j.log.Info("the task is over already", "last", e.Type, "by", e.Host)
		j.ack(ctx)
		return nil, false
	}
	if e.Type == phases.Claimed && e.ClaimID == j.claimID {
		return e, true // our own, see adoptClaim
	}
	if e.Type != phases.Issued && e.Type != phases.Released {
		if !j.mayTakeOver(ctx, e) {
			return nil, false
		}
		j.log.Warn("taking a task over", "from", e.Host, "claimed", e.At)
	}
	return e, true
}

// outcome is how a job ended.
type outcome struct {
	result engine.Result
	err    error // *engine.Error, errLost or ErrHandedBack
	took   time.Duration
}

func (o outcome) String() string {
	var e *engine.Error
	switch {
	case o.err == nil:
		return "ok"
	case errors.Is(o.err, errLost):
		return "lost"
	case errors.As(o.err, &e):
		return e.Code
	default:
		return "handed_back"
	}
}

// run does the phase and keeps the lease meanwhile.
func (j *job) run(work context.Context) outcome {
	ctx, stop := context.WithCancelCause(work)
	defer stop(nil)
	if unwatch, err := j.c.bus.WatchChain(j.task.Group, j.task.Sector, j.task.Step, j.lookNow); err == nil {
		defer unwatch() // without it the next heartbeat sees what others write
	}
	done := make(chan outcome, 1)
	go func() {
		result, took, err := j.perform(ctx)
		done <- outcome{result, err, took}
	}()
	beatNow := func() {
		err := j.heartbeat(ctx, time.Now())
		if errors.Is(err, errLost) {
			stop(errLost)
		}
		if j.c.hooks.heartbeat != nil {
			j.c.hooks.heartbeat(j, err)
		}
	}
	beat := time.NewTicker(j.c.bus.Heartbeat())
	defer beat.Stop()
	for {
		select {
		case o := <-done:
			switch cause := context.Cause(ctx); {
			case errors.Is(cause, errLost):
				o.err = errLost
			case o.err != nil && cause != nil, errors.Is(o.err, keep.ErrStopped):
				o.err = ErrHandedBack
			}
			return o
		case <-beat.C:
			beatNow()
		case <-j.poke:
			beatNow()
		}
	}
}

// perform has the engine do the phase. A panic in this host's own code fails the attempt
// and not the host.
func (j *job) perform(ctx context.Context) (result engine.Result, took time.Duration, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &engine.Error{Code: "panic", Class: phases.Retryable, Message: fmt.Sprint(p)}
		}
	}()
	if j.kept != nil && j.kept.Started() {
		result, took, err = j.rejoin(ctx)
	} else {
		req, leave, err := j.c.request(ctx, j.task, j.ip)
		if err != nil {
			return engine.Result{}, 0, err
		}
		defer leave()
		if req.Copy != nil {
			j.note.moved = j.c.metrics.movedTo(req.Copy.Node)
		}
		req.Cores = j.cores
		result, took, err = j.engage(ctx, req)
		if err != nil {
			return result, took, err
		}
	}
	if err == nil && j.task.Step == phases.P1 {
		// The other phases find the sector below this directory of the share.
		out := map[string]string{phases.InputIP: j.ip}
		maps.Copy(out, result.Outputs)
		result.Outputs = out
	}
	return result, took, err
}

// engage has the engine do what was asked: in a keeper, which outlives this consumer, or
// without a journal in this process.
func (j *job) engage(ctx context.Context, req engine.Request) (result engine.Result, took time.Duration, err error) {
	if j.kept != nil {
		return j.start(ctx, req)
	}
	start := time.Now()
	result, err = j.c.engine.Run(ctx, req, j.note.set)
	return result, time.Since(start), err
}

// heartbeat reads the chain, and extends the lease if the chain still ends with our own
// event. FAIL: a host that stops here for longer than AckWait loses its task; the next
// heartbeat finds that out and kills.
func (j *job) heartbeat(ctx context.Context, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, j.c.bus.Heartbeat())
	defer cancel()
	last, err := j.c.bus.Last(ctx, j.task.Group, j.task.Sector, j.task.Step)
	if err == nil && last != nil && last.Seq < j.lastSeq {
		return nil // a copy of the stream that is behind; the lease has room for five more
	}
	told := false
	switch {
	case err != nil:
	case last == nil:
		last, err = &phases.Event{}, errLost
	case last.ID == j.telling:
		told = true
	case last.ID != j.lastID && !j.adoptOwn(last):
		err = errLost
	}
	if err == nil && !told {
		if note, fraction, due := j.note.due(now); due {
			e := j.event(phases.Progress)
			e.Note, e.Fraction = note, fraction
			if err = j.append(ctx, e); errors.Is(err, bus.ErrConflict) {
				err = errLost
			}
		}
	}
	if err == nil {
		err = j.currentLease().Extend()
	}
	switch {
	case errors.Is(err, errLost):
		j.c.metrics.heartbeats.WithLabelValues("lost").Inc()
		j.log.Warn("lost the claim: stopping the phase and discarding what it did", "last", last.Type, "by", last.Host)
	case err != nil && ctx.Err() != context.Canceled:
		j.c.metrics.heartbeats.WithLabelValues("unreachable").Inc()
		j.log.Warn("heartbeat failed; the phase goes on", "error", err)
	}
	return err
}

// digest is the SHA-256 over a map's JSON, whose keys are sorted; empty for none.
func digest(m map[string]string) string {
	if len(m) == 0 {
		return ""
	}
	data, err := json.Marshal(m)
	if err != nil {
		return "" // strings always marshal
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
