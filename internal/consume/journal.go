package consume

import (
	"context"
	"errors"
	"time"

	"sealfleet/internal/bus"
	"sealfleet/internal/engine"
	"sealfleet/internal/keep"
	"sealfleet/internal/phases"
)

// Keep has the phases run in keepers, which outlive this consumer, with their journal in a
// store. It must be called before Run. Without it they run in this process, and end with
// it.
func (c *Consumer) Keep(s *keep.Store, p keep.Program) { c.store, c.program = s, p }

// begin writes a claimed task into the journal. If that can't be done the task is given
// back: a phase whose outcome could be lost is not started.
func (j *job) begin() bool {
	if j.c.store == nil {
		return true
	}
	kept, err := j.c.store.Begin(keep.Job{
		Claim: j.claimID, Reply: j.currentLease().Reply(), Task: j.task, ClaimedAt: j.since.UTC(), Cores: j.cores,
	})
	if err == nil {
		j.kept = kept
		return true
	}
	j.log.Error("cannot write the journal: the task is given back", "error", err)
	e := j.event(phases.Failed)
	e.Result = &phases.Result{Code: "journal", Class: phases.Transient, Message: err.Error() + "; mend: see that STATE_DIR can be written and has room"}
	ctx, cancel := context.WithTimeout(context.Background(), j.c.bus.AckWait()/2)
	defer cancel()
	if err := j.append(ctx, e); err == nil {
		j.release()
		j.ack(ctx)
	}
	return false
}

// forget takes the job out of the journal.
func (j *job) forget() {
	if j.kept == nil {
		return
	}
	if err := j.kept.Forget(); err != nil {
		j.log.Warn("the journal keeps a job that is over; it is looked at again at the next start", "error", err)
	}
}

// saveLease notes the lease's new delivery. The caller holds mu.
func (j *job) saveLease() {
	if j.kept == nil {
		return
	}
	j.kept.Reply = j.lease.Reply()
	if err := j.kept.Save(); err != nil {
		j.log.Warn("cannot note a task's new delivery; after a restart it is given out once more", "error", err)
	}
}

// start has a keeper do the phase.
func (j *job) start(ctx context.Context, req engine.Request) (engine.Result, time.Duration, error) {
	limits := req.Limits
	pinErr, err := j.kept.Start(j.c.program, req)
	if err != nil {
		return engine.Result{}, 0, fail("engine_start", phases.Retryable, "cannot start the phase: %v", err)
	}
	if pinErr != nil {
		j.log.Warn("the kernel does not let a phase keep to its cores", "cores", req.Cores, "error", pinErr)
	}
	return j.follow(ctx, limits)
}

// rejoin goes on with what a consumer before this one started, alive or ended.
func (j *job) rejoin(ctx context.Context) (engine.Result, time.Duration, error) {
	req, err := j.kept.Request()
	if err != nil {
		return engine.Result{}, 0, fail("journal", phases.Retryable, "%v", err)
	}
	if req.Copy == nil {
		return j.follow(ctx, nil)
	}
	j.note.moved = j.c.metrics.movedTo(req.Copy.Node)
	first, limits, leave := j.c.shares.join(req.Copy.Node, j.task.Group)
	defer leave()
	j.tellLimit(first)
	return j.follow(ctx, limits)
}

// follow waits for the keeper's end, and tells it new limits meanwhile.
func (j *job) follow(ctx context.Context, limits <-chan int64) (engine.Result, time.Duration, error) {
	over := make(chan struct{})
	defer close(over)
	go func() {
		for {
			select {
			case n := <-limits:
				j.tellLimit(n)
			case <-over:
				return
			}
		}
	}()
	r, took, err := j.kept.Wait(ctx, j.c.program, j.note.set)
	if ctx.Err() != nil {
		j.c.metrics.kills.WithLabelValues("cancelled").Inc()
	}
	var failure *engine.Error
	if errors.As(err, &failure) {
		if why, killed := killCodes[failure.Code]; killed {
			j.c.metrics.kills.WithLabelValues(why).Inc()
		}
	}
	return r, took, err
}

// killCodes are the failures for which a keeper killed its engine.
var killCodes = map[string]string{
	"engine_hung": "hung", "engine_garbage": "protocol", "engine_time": "limit", "engine_memory": "limit", "engine_output": "limit",
}

func (j *job) tellLimit(n int64) {
	if err := j.kept.Limit(n); err != nil {
		j.log.Warn("a copy could not be told its new limit", "error", err)
	}
}

// resumeAll takes up what the consumer before this one left: its claims are this host's
// from the first moment, whatever becomes of them.
func (c *Consumer) resumeAll() (jobs []*job) {
	if c.store == nil {
		return nil
	}
	kept, err := c.store.Jobs()
	if err != nil {
		c.log.Error("the journal is damaged", "error", err)
	}
	for _, k := range kept {
		j := c.job(k.Task, c.bus.Resume(k.Task, k.Reply), k.Claim)
		j.kept, j.cores, j.since = k, k.Cores, k.ClaimedAt
		if req, err := k.Request(); err == nil && req.Paths.IP != "" {
			j.ip = req.Paths.IP
		}
		if _, twice := c.running.LoadOrStore(j.key, j); twice {
			// Two claims of one chain: the earlier one was lost, and its end not yet written down.
			j.log.Warn("two journal entries for one phase; the chain decides", "claim", k.Claim)
			j.key.sector += "/" + k.Claim
			c.running.Store(j.key, j)
		}
		jobs = append(jobs, j)
	}
	return jobs
}

// resume goes on with a job of the journal, under its old claim if that still holds.
func (j *job) resume(work context.Context) {
	defer j.release()
	last, err := j.regain(work)
	if err != nil {
		return // nobody knows: it stays in the journal, and runs on
	}
	mine := last != nil && last.ClaimID == j.claimID
	if mine && (last.Type == phases.Done || last.Type == phases.Failed) {
		j.ack(work) // reported, and then the consumer died
		j.forget()
		return
	}
	if !mine || last.Type != phases.Claimed && last.Type != phases.Progress {
		ctx, cancel := context.WithCancelCause(work)
		cancel(errLost)
		_, _, _ = j.kept.Wait(ctx, j.c.program, nil) // kills what runs
		j.log.Warn("a claim of before the restart is lost: what it did is discarded", "claim", j.claimID)
		j.end(work, outcome{err: errLost})
		return
	}
	if place, err := j.c.admission.enter(work, j.task, j.ip); err == nil {
		defer place.leave() // it runs, admitted or not; what it takes is counted if it can be
	}
	defer j.c.board.begin(j, j.since)()
	j.log.Info("going on with a phase of before the restart", "claim", j.claimID, "since", j.since)
	if !j.kept.Started() {
		j.end(work, outcome{err: ErrHandedBack}) // nothing of it was begun
		return
	}
	j.end(work, j.run(work))
}

// regain reads the chain until it answers. If the claim still holds the job's next event
// follows its last one.
func (j *job) regain(work context.Context) (*phases.Event, error) {
	for {
		ctx, cancel := context.WithTimeout(work, j.c.bus.Heartbeat())
		last, err := j.c.bus.Last(ctx, j.task.Group, j.task.Sector, j.task.Step)
		cancel()
		switch {
		case err == nil && last != nil && last.ClaimID == j.claimID && (last.Type == phases.Claimed || last.Type == phases.Progress):
			j.lastID, j.lastSeq = last.ID, last.Seq
			if err := j.currentLease().Extend(); err != nil {
				j.log.Debug("could not extend a lease of before the restart", "error", err)
			}
			return last, nil
		case err == nil:
			return last, nil
		case work.Err() != nil, errors.Is(err, bus.ErrWentBack):
			return nil, err
		}
		j.log.Warn("cannot read the chain of a phase that runs since before the restart; it goes on", "error", err)
	}
}

// lookNow asks for a heartbeat now.
func (j *job) lookNow() {
	select {
	case j.poke <- struct{}{}:
	default:
	}
}
