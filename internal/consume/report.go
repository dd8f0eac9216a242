package consume

import (
	"context"
	"errors"
	"time"

	"sealfleet/internal/bus"
	"sealfleet/internal/engine"
	"sealfleet/internal/phases"
	"sealfleet/internal/trace"
)

// end brings the outcome to the chain. It tries for as long as it takes: the work is done,
// and only the chain can say that somebody else's counts. When it returns, the job is out
// of the journal, unless the consumer stops before the bus is back: then the next one of
// this host reports.
func (j *job) end(work context.Context, o outcome) {
	code := o.String()
	j.c.board.ended(j)
	j.c.metrics.attempts.WithLabelValues(string(j.task.Step), j.c.metrics.codes.Known(code)).Inc()
	var settled bool
	switch code {
	case "lost": // never ack: the task is another's
		settled = j.confirmStopped(work)
	case "handed_back":
		settled = j.handBack(work)
	default:
		settled = j.report(work, j.last(o))
	}
	if settled {
		j.forget()
	}
	j.trace(o, code)
	if j.c.hooks.outcome != nil {
		j.c.hooks.outcome(j, code)
	}
}

// trace tells of the attempt as a span, if anybody collects them.
func (j *job) trace(o outcome, code string) {
	a := trace.Attempt{
		Header: j.currentLease().Trace, ClaimID: j.claimID, From: j.since, To: time.Now(), Code: code, Bytes: o.result.Bytes,
	}
	var failure *engine.Error
	if errors.As(o.err, &failure) {
		a.Message = failure.Message
	}
	j.c.bus.Tracer().Attempted(j.task, a)
}

// last is the chain's last event: done or failed.
func (j *job) last(o outcome) phases.Event {
	e := j.event(phases.Done)
	e.Result = &phases.Result{
		Code: "ok", Message: o.result.Message, Outputs: o.result.Outputs, Digest: digest(o.result.Outputs),
		Seconds: o.took.Seconds(), Bytes: o.result.Bytes,
	}
	var failure *engine.Error
	if errors.As(o.err, &failure) {
		e.Type = phases.Failed
		e.Result = &phases.Result{Code: failure.Code, Class: failure.Class, Message: failure.Message, Seconds: o.took.Seconds()}
		if phases.FallsBack(j.task.Step, e.Result) {
			e.V = phases.VersionStops
		}
		j.log.Error("phase failed", "code", failure.Code, "class", failure.Class, "error", failure.Message, "took", o.took.Round(time.Millisecond))
		return e
	}
	j.log.Info("phase done", "took", o.took.Round(time.Millisecond))
	j.c.metrics.runSeconds.WithLabelValues(string(j.task.Step)).Observe(o.took.Seconds())
	switch j.task.Step {
	case phases.P5:
		j.c.metrics.copied.Add(float64(o.result.Bytes))
	case phases.P6:
		j.c.metrics.freed.Add(float64(o.result.Bytes))
	}
	return e
}

// report appends the last event and acknowledges the task. settled is false if the
// consumer stops waiting for its jobs before the bus is back.
func (j *job) report(work context.Context, e phases.Event) (settled bool) {
	err := j.insist(work, e, "the outcome")
	switch {
	case err == nil:
		if j.c.hooks.reported != nil {
			j.c.hooks.reported(e)
		}
		j.forget()
		j.release() // the next issue may come to this host before our ack is answered
		j.ack(context.Background())
		return true
	case errors.Is(err, errLost):
		return j.confirmStopped(work)
	case work.Err() != nil && j.kept != nil:
		j.log.Warn("the outcome waits in the journal: stopped before NATS came back", "error", err)
		return false
	}
	j.log.Error("the outcome cannot be reported", "error", err)
	return false
}

// insist appends an event after our last one, until that is done, the claim turns out to
// be lost (errLost), or nobody waits any more.
func (j *job) insist(work context.Context, e phases.Event, what string) error {
	j.telling = e.ID
	for {
		// A heartbeat may have found progress of ours that nobody had said was written.
		e.PrevID = j.lastID
		ctx, cancel := context.WithTimeout(context.Background(), j.c.bus.Heartbeat())
		err := j.append(ctx, e)
		cancel()
		switch {
		case err == nil:
			return nil
		case errors.Is(err, bus.ErrConflict):
			j.log.Warn("the claim was lost before "+what+" could be told: discarded", "error", err)
			return errLost
		case !errors.Is(err, bus.ErrUnreachable) || errors.Is(err, bus.ErrWentBack):
			return err
		}
		if work.Err() != nil {
			return err
		}
		j.log.Warn(what+" cannot be told yet, trying again", "error", err)
		// It extends the lease. Whether the claim is lost only appending again can tell.
		_ = j.heartbeat(work, time.Now())
	}
}

// handBack says on the chain that the claim is given up, so that whoever gets the task
// need not ask this host, and gives the task back at once.
func (j *job) handBack(work context.Context) (settled bool) {
	e := j.event(phases.Released)
	e.V = phases.VersionStops
	err := j.insist(work, e, "the hand-back")
	if errors.Is(err, errLost) {
		return j.confirmStopped(work)
	}
	if err != nil {
		// The lease runs out, and whoever asks hears that we do not hold the claim.
		j.log.Warn("handed back, but the chain was not told", "error", err)
	} else {
		j.log.Info("handed back")
	}
	j.release()
	j.nak(0)
	return true
}

// confirmStopped tells the chain that nothing of a cancelled claim runs here any more: who
// cleans waits for that. It says nothing if the claim was lost to another host.
func (j *job) confirmStopped(work context.Context) (settled bool) {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), j.c.bus.Heartbeat())
		err := j.confirmOnce(ctx)
		cancel()
		if err == nil || !errors.Is(err, bus.ErrUnreachable) || errors.Is(err, bus.ErrWentBack) {
			return true
		}
		if work.Err() != nil {
			return j.kept == nil // the next consumer of this host finds out, and says so
		}
	}
}

func (j *job) confirmOnce(ctx context.Context) error {
	last, err := j.c.bus.Last(ctx, j.task.Group, j.task.Sector, j.task.Step)
	if err != nil {
		return err
	}
	if last == nil || last.Type != phases.Cancelled || last.Issue != j.task.Issue || !phases.IsDispatcher(last.Host) {
		// Only dispatchers cancel. To answer a forger would put an event that is not believed
		// behind our own done, and hide it from whoever reads our last word.
		return nil
	}
	j.lastID, j.lastSeq = last.ID, last.Seq
	e := j.event(phases.Stopped)
	e.V = phases.VersionStops
	if err := j.append(ctx, e); err != nil && !errors.Is(err, bus.ErrConflict) {
		return err
	}
	j.log.Info("cancelled: nothing of it runs here any more")
	return nil
}
