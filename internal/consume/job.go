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
	lastSeq uint64

	note  progressNote
	cores []int         // to run on; none: any
	poke  chan struct{} // asks for a heartbeat now
}

// do deals with a task from its delivery to its acknowledgement. work ends when the
// consumer gives up waiting for its jobs.
func (c *Consumer) do(work context.Context, l *bus.Lease) {
	t := l.Task
	j := &job{
		c: c, task: t, lease: l, key: chain{t.Sector, t.Step}, claimID: rand.Text(), poke: make(chan struct{}, 1),
		log: c.log.With(logs.Group, t.Group, logs.Sector, t.Sector, logs.Phase, t.Step, logs.Attempt, t.Attempt),
	}
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
	place, err := c.admission.enter(work, t)
	if err != nil {
		c.admission.delay(j, err)
		return
	}
	defer place.leave()
	if !j.claim(work) {
		return
	}
	c.admission.begun(t)
	j.cores = place.cores
	defer c.board.begin(j, time.Now())()
	outcome := j.run(work)
	c.board.ended(j)
	j.end(work, outcome)
	if c.hooks.outcome != nil {
		c.hooks.outcome(j, outcome.String())
	}
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
		Host: j.c.cfg.HostName, At: time.Now().UTC(),
	}
}

// append writes the event after our last one. ErrConflict means that the claim is lost.
func (j *job) append(ctx context.Context, e phases.Event) error {
	seq, err := j.c.bus.Append(ctx, e, j.lastSeq)
	if err == nil {
		j.lastID, j.lastSeq = e.ID, seq
	}
	return err
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
	err := j.claimAfter(ctx, *last)
	switch {
	case err == nil:
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

// quickClaim is how long a claim may take that did not look at the chain first.
const quickClaim = 2 * time.Second

// claimAfter appends our claim to an event of the chain.
func (j *job) claimAfter(ctx context.Context, last phases.Event) error {
	j.lastID, j.lastSeq = last.ID, last.Seq
	e := j.event(phases.Claimed)
	e.InputDigest = digest(j.task.Inputs)
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
	case e.Issue > j.task.Issue, e.Type == phases.Done, e.Type == phases.Failed, e.Type == phases.Cancelled:
		j.log.Info("the task is over already", "last", e.Type, "by", e.Host)
		j.ack(ctx)
		return nil, false
	}
	if e.Type == phases.Claimed && e.ClaimID == j.claimID {
		// Our own quick claim landed after all, and only its answer was lost: a second
		// claim by us would need a new id.
		j.claimID = rand.Text()
	}
	if e.Type != phases.Issued {
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
	start := time.Now()
	done := make(chan outcome, 1)
	go func() {
		result, err := j.perform(ctx)
		done <- outcome{result, err, time.Since(start)}
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
			case o.err != nil && cause != nil:
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
func (j *job) perform(ctx context.Context) (result engine.Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &engine.Error{Code: "panic", Class: phases.Retryable, Message: fmt.Sprint(p)}
		}
	}()
	req, leave, err := j.c.request(ctx, j.task)
	if err != nil {
		return engine.Result{}, err
	}
	defer leave()
	if req.Copy != nil {
		j.note.moved = j.c.metrics.movedTo(req.Copy.Node)
	}
	req.Cores = j.cores
	result, err = j.c.engine.Run(ctx, req, j.note.set)
	if err == nil && j.task.Step == phases.P1 {
		// The other phases find the sector below this host's directory of the share.
		out := map[string]string{"ip": j.c.cfg.IP}
		maps.Copy(out, result.Outputs)
		result.Outputs = out
	}
	return result, err
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
	if err == nil && (last == nil || last.ID != j.lastID) {
		err = errLost
	}
	if err == nil {
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
		j.log.Warn("lost the claim: stopping the phase and discarding what it did", "last", last)
	case err != nil && ctx.Err() != context.Canceled:
		j.c.metrics.heartbeats.WithLabelValues("unreachable").Inc()
		j.log.Warn("heartbeat failed; the phase goes on", "error", err)
	}
	return err
}

// end reports the outcome. It tries for as long as it takes: the work is done, and only
// the chain can say that somebody else's counts.
func (j *job) end(work context.Context, o outcome) {
	code := o.String()
	j.c.metrics.attempts.WithLabelValues(string(j.task.Step), j.c.metrics.codes.Known(code)).Inc()
	switch code {
	case "lost":
		return // never ack: the task is another's
	case "handed_back":
		j.log.Info("handed back")
		j.nak(0)
		return
	}
	e := j.event(phases.Done)
	e.Result = &phases.Result{
		Code: "ok", Message: o.result.Message, Outputs: o.result.Outputs, Digest: digest(o.result.Outputs),
		Seconds: o.took.Seconds(), Bytes: o.result.Bytes,
	}
	var failure *engine.Error
	if errors.As(o.err, &failure) {
		e.Type = phases.Failed
		e.Result = &phases.Result{Code: failure.Code, Class: failure.Class, Message: failure.Message, Seconds: o.took.Seconds()}
		j.log.Error("phase failed", "code", failure.Code, "class", failure.Class, "error", failure.Message, "took", o.took.Round(time.Millisecond))
	} else {
		j.log.Info("phase done", "took", o.took.Round(time.Millisecond))
		j.c.metrics.runSeconds.WithLabelValues(string(j.task.Step)).Observe(o.took.Seconds())
		switch j.task.Step {
		case phases.P5:
			j.c.metrics.copied.Add(float64(o.result.Bytes))
		case phases.P6:
			j.c.metrics.freed.Add(float64(o.result.Bytes))
		}
	}
	j.report(work, e)
}

// report appends the last event and acknowledges the task. It tries until the bus is
// back, or until the consumer stops waiting for its jobs; a journal that outlives the
// process takes its place in a later release.
func (j *job) report(work context.Context, e phases.Event) {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), j.c.bus.Heartbeat())
		err := j.append(ctx, e)
		cancel()
		switch {
		case err == nil:
			if j.c.hooks.reported != nil {
				j.c.hooks.reported(e)
			}
			j.release() // the next issue may come to this host before our ack is answered
			j.ack(context.Background())
			return
		case errors.Is(err, bus.ErrConflict):
			j.log.Warn("the claim was lost before the outcome could be reported: discarded", "error", err)
			return
		case !errors.Is(err, bus.ErrUnreachable) || errors.Is(err, bus.ErrWentBack):
			j.log.Error("the outcome cannot be reported", "error", err)
			return
		}
		if work.Err() != nil {
			j.log.Error("the outcome is lost: stopped before NATS came back; the phase will be done again", "error", err)
			return
		}
		j.log.Warn("the outcome cannot be reported yet, trying again", "error", err)
		if err := j.heartbeat(work, time.Now()); errors.Is(err, errLost) {
			return
		}
	}
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
