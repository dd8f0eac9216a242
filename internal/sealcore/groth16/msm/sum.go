package msm

import "context"

// sumChunk is how many points a worker loads at a time for a plain sum.
const sumChunk = 1 << 13

// Sum adds up the points of src with the given indices. Memory: 8192 points per thread.
func Sum[E any, PE Coord[E]](ctx context.Context, src Source[E], indices []uint32, opts Options) (Point[E], error) {
	threads := opts.threads()
	tasks := (len(indices) + sumChunk - 1) / sumChunk
	type worker struct {
		*adder[E, PE]
		points []Point[E]
		total  Point[E]
	}
	workers := make([]worker, min(threads, max(tasks, 1)))
	for i := range workers {
		workers[i] = worker{adder: newAdder[E, PE](), points: make([]Point[E], min(sumChunk, len(indices)))}
	}
	err := each(ctx, len(workers), tasks, func(w, task int) error {
		me := &workers[w]
		from, to := span(task, sumChunk, len(indices))
		points := me.points[:to-from]
		for i, index := range indices[from:to] {
			if err := src.Load(int(index), &points[i]); err != nil {
				return err
			}
		}
		part := me.sum(points)
		me.add(&me.total, &part)
		opts.report(to, len(indices))
		return nil
	})
	if err != nil {
		return Point[E]{}, err
	}
	total := workers[0].total
	for i := 1; i < len(workers); i++ {
		workers[0].add(&total, &workers[i].total)
	}
	return total, nil
}
