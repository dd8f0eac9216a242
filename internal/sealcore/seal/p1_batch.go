package seal

import (
	"context"
	"fmt"
	"sync"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/graph"
	"sealfleet/internal/sealcore/sdr"
)

// BatchItem is the p1 of one sector in a batch.
type BatchItem struct {
	// Context, if set, ends the p1 of this sector alone.
	Context context.Context
	Sector  Sector
	Pieces  []Piece
	Paths   Paths
	Options Options // Threads is of no meaning: the batch has them together
	// Done, if set, is called once, from any goroutine, when this sector's p1 has ended: nothing of
	// it goes on any more, though the others' may.
	Done func(BatchResult)
}

// BatchResult is what became of one sector: Output, or Err.
type BatchResult struct {
	Output *PreCommit1
	Err    error
}

// P1Batch does the p1 of several sectors on so many cores (0: GOMAXPROCS), each as P1 does it: each
// fails, is cancelled, reports its progress and resumes on its own. Results come in the items'
// order, when all are done; BatchItem.Done hears of each as it ends.
//
// What it gains is in the labels. Sectors of the same parameters that are at the same layer share
// the parents of the graph, and up to three are interleaved in one core; six sectors on two cores
// are two groups of three. Those that lag, because others resumed, catch up first. It needs each
// sector's room on the disk, and for speed memory for two layers of each.
func P1Batch(ctx context.Context, items []BatchItem, threads int) []BatchResult {
	threads = Options{Threads: threads}.threads()
	results := make([]BatchResult, len(items))
	var runs []*p1Run
	var ending sync.WaitGroup
	for i, item := range items {
		own, cancel := joined(ctx, item.Context)
		defer cancel()
		r, err := newP1Run(own, item)
		tell := func(out *PreCommit1, err error) {
			if err != nil {
				out, err = nil, fmt.Errorf("p1 of sector %d: %w", item.Sector.Number, err)
			}
			results[i] = BatchResult{Output: out, Err: err}
			if item.Done != nil {
				item.Done(results[i])
			}
		}
		if err != nil {
			tell(nil, err)
			continue
		}
		end := sync.OnceFunc(func() { err := r.end(); tell(&r.out, err) })
		r.over = func() { ending.Go(end) }
		runs = append(runs, r)
	}
	beginAll(runs, threads)
	for {
		cohort := nextCohort(runs)
		if len(cohort) == 0 {
			break
		}
		labelCohort(ctx, cohort, threads)
		for _, r := range runs {
			if r.ctx.Err() != nil || len(r.todo) == 0 {
				r.over()
			}
		}
	}
	for _, r := range runs {
		r.over()
	}
	ending.Wait()
	return results
}

// joined is done when either of two contexts is; the second may be nil.
func joined(ctx, own context.Context) (context.Context, context.CancelFunc) {
	if own == nil {
		return context.WithCancel(ctx)
	}
	both, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(own, func() { cancel(own.Err()) })
	return both, func() { stop(); cancel(nil) }
}

// beginAll makes the data of all sectors, as many side by side as there are cores.
func beginAll(runs []*p1Run, threads int) {
	graphs := map[sealcore.Params]*graph.Graph{}
	var live []*p1Run
	for _, r := range runs {
		p := r.out.Sector.Params
		if graphs[p] == nil {
			g, err := graph.New(p.Nodes(), p.PoRepID, p.APIVersion)
			if err != nil {
				r.fail(err)
				continue
			}
			graphs[p] = g
		}
		r.graph = graphs[p]
		live = append(live, r)
	}
	if len(live) == 0 {
		return
	}
	workers := min(threads, len(live))
	next := make(chan *p1Run, len(live))
	for _, r := range live {
		r.threads = max(1, threads/workers)
		next <- r
	}
	close(next)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for r := range next {
				if err := r.begin(); err != nil {
					r.fail(err)
					r.over()
				}
			}
		})
	}
	wg.Wait()
}

// nextCohort returns the sectors that go on together: of the same graph and at the same layer,
// the lowest that any is at.
func nextCohort(runs []*p1Run) (cohort []*p1Run) {
	for _, r := range runs {
		if r.ctx.Err() != nil || len(r.todo) == 0 {
			continue
		}
		if len(cohort) > 0 && r.todo[0] < cohort[0].todo[0] {
			cohort = nil
		}
		if len(cohort) == 0 || r.todo[0] == cohort[0].todo[0] && r.graph == cohort[0].graph {
			cohort = append(cohort, r)
		}
	}
	return cohort
}

// labelCohort computes the next layer of some sectors.
func labelCohort(ctx context.Context, cohort []*p1Run, threads int) {
	var at []*p1Run
	var works []*work
	var lanes []sdr.Lane
	for _, r := range cohort {
		w, err := r.open()
		if err != nil {
			r.fail(err)
			continue
		}
		w.lane.Ended = func(err error) {
			w.ended = true
			r.fail(err) // now: it is in no cohort any more
			r.background(func() error { r.close(w, err); return nil })
			r.over()
		}
		at, works, lanes = append(at, r), append(works, w), append(lanes, w.lane)
	}
	if len(at) == 0 {
		return
	}
	errs := sdr.Layers(ctx, at[0].graph, lanes, works[0].layer, sdr.Options{Threads: threads})
	for i, r := range at {
		if !works[i].ended {
			r.close(works[i], errs[i])
		}
	}
}
