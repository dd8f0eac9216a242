package consume

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"sealfleet/internal/bus"
	"sealfleet/internal/logs"
	"sealfleet/internal/phases"
)

// pool is one entry of WORKERS: its slots, and the (group, phase) queues that feed them.
//
// A queue is asked in two ways. A probe asks for a task that is there now; it is sent only
// with a free slot set aside for its answer. When the probes of a queue come back empty,
// one long poll waits at the server, so that the next task is handed over at once. A
// queue's long poll stays out while the slots fill up from other queues: the server can't
// be told to forget it. What it then brings is given back at once, to go to another host
// or to wait for a slot here.
//
// Queues of later phases are probed before those of earlier ones, which get the slots that
// are left: what is nearly done gets done, and disks empty. Queues of one phase take turns
// by group.
type pool struct {
	c       *Consumer
	worker  Worker
	queues  []*queue // later phases first
	free    int
	probing int // free slots that are set aside
	answers chan answer
	freed   chan struct{}
	changed chan struct{} // what operators set is another thing now
	jobs    sync.WaitGroup
	out     int // answers that are still to come
	resumed []*job
}

type queue struct {
	group   string
	step    phases.Step
	probes  int       // out
	polling bool      // a long poll is out
	empty   bool      // the last probe or poll brought nothing
	retryAt time.Time // after an error
	errors  int
}

type answer struct {
	q     *queue
	probe bool
	lease *bus.Lease
	err   error
}

const maxProbes = 8 // of one queue at once: enough to hide the way to the server and back

func newPool(c *Consumer, w Worker) *pool {
	p := &pool{c: c, worker: w, free: w.Num, answers: make(chan answer), freed: make(chan struct{}), changed: make(chan struct{}, 1)}
	for _, step := range slices.Backward(w.Phases) {
		for _, g := range c.cfg.Groups {
			p.queues = append(p.queues, &queue{group: g, step: step})
		}
	}
	c.metrics.slots.WithLabelValues(w.String()).Add(float64(w.Num))
	return p
}

// run feeds the slots until ctx ends, and then waits for the running jobs, whose context
// is work.
func (p *pool) run(ctx, work context.Context) {
	for _, j := range p.resumed {
		p.occupy(func() { j.resume(work) })
	}
	for ctx.Err() == nil {
		wake := p.pump(ctx)
		select {
		case a := <-p.answers:
			p.take(ctx, work, a)
		case <-p.freed:
			p.free++
		case <-p.changed:
		case <-wake:
		case <-ctx.Done():
		}
	}
	p.drain(ctx, work)
}

// pump sends the requests that are due. The channel tells when a resting queue is due
// again; it is nil if none rests.
func (p *pool) pump(ctx context.Context) <-chan time.Time {
	var next time.Time
	for _, q := range p.queues {
		if p.free <= p.probing {
			break
		}
		due := q.retryAt
		if rests := p.c.admission.rests(q.group, q.step); rests.After(due) {
			due = rests
		}
		if p.c.holdsBack(q.group, q.step) {
			continue // it wakes us when that changes
		}
		if wait := time.Until(due); wait > 0 {
			if next.IsZero() || due.Before(next) {
				next = due
			}
			continue
		}
		if q.polling {
			continue // a long poll that waits: the queue is empty
		}
		if !q.empty {
			for q.probes < maxProbes && p.free > p.probing {
				q.probes++
				p.probing++
				p.request(ctx, q, true)
			}
			// Earlier phases get what is left. If nothing is, they wait until this queue is
			// known to be empty.
			continue
		}
		if q.probes == 0 {
			q.polling = true
			p.request(ctx, q, false)
		}
	}
	if next.IsZero() {
		return nil
	}
	return time.After(time.Until(next))
}

func (p *pool) request(ctx context.Context, q *queue, probe bool) {
	p.out++
	wait := p.c.cfg.FetchWait
	if probe {
		wait = 0
	}
	go func() {
		lease, err := p.c.bus.Fetch(ctx, q.group, q.step, wait)
		p.answers <- answer{q, probe, lease, err}
	}()
}

// take deals with an answer.
func (p *pool) take(ctx, work context.Context, a answer) {
	p.out--
	q := a.q
	if a.probe {
		q.probes--
		p.probing--
	} else {
		q.polling = false
	}
	switch {
	case a.lease != nil && (ctx.Err() != nil || p.free <= p.probing || p.c.holdsBack(q.group, q.step)):
		p.giveBack(a.lease)
		q.empty = false
	case a.lease != nil:
		q.empty, q.errors = false, 0
		p.turn(q)
		p.start(work, a.lease)
	case ctx.Err() != nil: // cancelled: nothing failed
	case a.err != nil:
		p.failed(q, a.err)
	default:
		q.empty, q.errors = true, 0
		p.c.clearProblem(q)
	}
}

// failed has a queue rest for a while.
func (p *pool) failed(q *queue, err error) {
	const first, most = 100 * time.Millisecond, 10 * time.Second
	rest := min(first<<min(q.errors, 10), most)
	rest += rand.N(rest / 4)
	q.errors++
	q.retryAt = time.Now().Add(rest)
	if errors.Is(err, bus.ErrNoConsumer) || errors.Is(err, bus.ErrNoStream) {
		p.c.setProblem(q, err)
	}
	if q.errors == 1 || rest >= most {
		p.c.log.Warn("cannot ask for tasks, trying again", logs.Group, q.group, logs.Phase, q.step, "error", err, "in", rest.Round(time.Millisecond))
	}
}

// turn lets the other groups of the queue's phase go first next time.
func (p *pool) turn(q *queue) {
	i := slices.Index(p.queues, q)
	for i+1 < len(p.queues) && p.queues[i+1].step == q.step {
		p.queues[i], p.queues[i+1] = p.queues[i+1], p.queues[i]
		i++
	}
}

func (p *pool) giveBack(l *bus.Lease) {
	if err := l.Nak(0); err != nil { // AckWait gives it back
		p.c.log.Debug("could not hand a task back", logs.Sector, l.Task.Sector, logs.Phase, l.Task.Step, "error", err)
	}
}

func (p *pool) start(work context.Context, l *bus.Lease) {
	p.occupy(func() { p.c.do(work, l) })
}

// occupy has a job run in a slot. A resumed one may take a slot that is not there, after
// WORKERS was changed: then nothing new begins until there are fewer again.
func (p *pool) occupy(job func()) {
	p.free--
	busy := p.c.metrics.busy.WithLabelValues(p.worker.String())
	busy.Inc()
	p.jobs.Go(func() {
		job()
		busy.Dec()
		p.freed <- struct{}{}
	})
}

// drain waits until the jobs have ended and the requests, which run has cancelled, have
// been answered. The bus hands back what comes for a cancelled request.
func (p *pool) drain(ctx, work context.Context) {
	for p.out > 0 || p.free < p.worker.Num {
		select {
		case a := <-p.answers:
			p.take(ctx, work, a)
		case <-p.freed:
			p.free++
		}
	}
	p.jobs.Wait()
}

func (c *Consumer) setProblem(q *queue, err error) {
	text := q.group + " " + string(q.step) + ": " + err.Error()
	c.problem.Store(&text)
}

func (c *Consumer) clearProblem(q *queue) {
	if p := c.problem.Load(); p != nil && len(*p) > len(q.group) && (*p)[:len(q.group)+1+len(q.step)] == q.group+" "+string(q.step) {
		c.problem.CompareAndSwap(p, nil)
	}
}
