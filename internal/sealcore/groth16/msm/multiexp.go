package msm

import (
	"context"
	"errors"
	"sync"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"
)

// chunk is how many points are loaded and sorted at a time. The buckets stay between
// chunks, so the size costs no additions; 2^16 points of G1 are 6 MiB, which the caches
// still hold.
const chunk = 1 << 16

// Terms are the points and scalars of a multi-exponentiation: Σ Scalar(i)·P(Index(i))
// for i < N. Index may be nil, then it is i itself. Both are called from many goroutines.
type Terms struct {
	N      int
	Index  func(i int) int
	Scalar func(i int) *fr.Element
}

// MultiExp computes a sum of multiples by Pippenger's method: for each window of c bits
// of the scalars, a point is added to the bucket of its digit; then the buckets are
// added up with their weights.
//
// Memory: at most 48 MiB of buckets for G1 (96 MiB for G2) for each 16 threads, and some
// 12 MiB (24 MiB) for each thread, whatever N is. It stops within a second when ctx is done.
func MultiExp[E any, PE Coord[E]](ctx context.Context, src Source[E], terms Terms, opts Options) (Point[E], error) {
	if terms.N == 0 {
		return Point[E]{}, nil
	}
	c := windowBits(terms.N)
	threads := opts.threads()
	chunks := (terms.N + chunk - 1) / chunk
	// A group works on one chunk at a time, a goroutine on one window of it. More threads
	// than windows make more groups, each with buckets of its own.
	groups := min((threads+windows(c)-1)/windows(c), chunks)
	all := make([]*group[E, PE], groups)
	errs := make([]error, groups)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	next, done := 0, 0
	take := func() (from, to int, ok bool) {
		mu.Lock()
		defer mu.Unlock()
		from, to = span(next, chunk, terms.N)
		next++
		return from, to, from < terms.N
	}
	var wg sync.WaitGroup
	for i := range all {
		g := newGroup[E, PE](c, min(chunk, terms.N), max(1, threads/groups))
		all[i] = g
		wg.Go(func() {
			for from, to, ok := take(); ok; from, to, ok = take() {
				if errs[i] = g.chunk(ctx, src, terms, from, to); errs[i] != nil {
					cancel()
					return
				}
				mu.Lock()
				done += to - from
				opts.report(done, terms.N)
				mu.Unlock()
			}
			errs[i] = g.reduce(ctx)
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return Point[E]{}, err
		}
	}
	for _, err := range errs {
		if err != nil {
			return Point[E]{}, err
		}
	}
	total := all[0].total
	for _, g := range all[1:] {
		all[0].sorters[0].add(&total, &g.total)
	}
	return total, nil
}

// group holds the buckets of all windows and the scratch memory of its threads.
type group[E any, PE Coord[E]] struct {
	c       uint
	buckets [][]Point[E] // per window
	sorters []*sorter[E, PE]
	points  []Point[E] // of the chunk in work
	digits  []int16    // window-major
	total   Point[E]   // after reduce
}

func newGroup[E any, PE Coord[E]](c uint, size, threads int) *group[E, PE] {
	g := &group[E, PE]{
		c: c, points: make([]Point[E], size), digits: make([]int16, windows(c)*size),
		buckets: make([][]Point[E], windows(c)), sorters: make([]*sorter[E, PE], min(threads, windows(c))),
	}
	for w := range g.buckets {
		g.buckets[w] = make([]Point[E], 1<<(c-1))
	}
	for i := range g.sorters {
		g.sorters[i] = newSorter[E, PE](1<<(c-1), size)
	}
	return g
}

// chunk adds the terms from … to−1 to the buckets.
func (g *group[E, PE]) chunk(ctx context.Context, src Source[E], terms Terms, from, to int) error {
	const step = 1 << 11
	n := to - from
	err := each(ctx, len(g.sorters), (n+step-1)/step, func(_, task int) error {
		lo, hi := span(task, step, n)
		for i := lo; i < hi; i++ {
			index := from + i
			if terms.Index != nil {
				index = terms.Index(from + i)
			}
			if err := src.Load(index, &g.points[i]); err != nil {
				return err
			}
			scalar := terms.Scalar(from + i).Bits()
			digitsOf(&scalar, g.c, g.digits[i:], len(g.points))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return each(ctx, len(g.sorters), len(g.buckets), func(worker, w int) error {
		g.sorters[worker].put(g.buckets[w], g.points[:n], g.digits[w*len(g.points):][:n])
		return nil
	})
}

// reduce adds up the buckets of all windows.
func (g *group[E, PE]) reduce(ctx context.Context) error {
	sums := make([]Point[E], len(g.buckets))
	err := each(ctx, len(g.sorters), len(g.buckets), func(worker, w int) error {
		sums[w] = g.sorters[worker].weigh(g.buckets[w])
		return nil
	})
	if err != nil {
		return err
	}
	s := g.sorters[0].adder
	for w := len(sums) - 1; w >= 0; w-- {
		for range g.c {
			s.add(&g.total, &g.total)
		}
		s.add(&g.total, &sums[w])
	}
	return nil
}

// weigh returns Σ (k+1)·buckets[k]; the number of buckets is a power of two.
//
// The usual running sums (S += B, T += S, from the last bucket to the first) are a chain
// of dependent additions. So the buckets are cut into lanes of m buckets that run side by
// side and share inversions: lane l gives S_l and T_l, and the result is
// Σ T_l + m·Σ l·S_l, where the last sum is a smaller problem of the same kind.
func (s *adder[E, PE]) weigh(buckets []Point[E]) Point[E] {
	lanes := 1
	if len(buckets) >= 64 {
		lanes = min(batch, len(buckets)/32)
	}
	m := len(buckets) / lanes
	sum, weighted := make([]Point[E], lanes), make([]Point[E], lanes)
	for j := m - 1; j >= 0; j-- {
		copy(s.a, sum)
		for l := range lanes {
			s.b[l] = buckets[l*m+j]
		}
		s.run(lanes)
		copy(sum, s.a)
		copy(s.b, weighted)
		s.run(lanes)
		copy(weighted, s.a)
	}
	total := s.sum(weighted)
	if lanes > 1 {
		// Shift by one lane: weigh counts its first point once, lane 1 is to count once.
		copy(sum, sum[1:])
		sum[lanes-1] = Point[E]{}
		rest := s.weigh(sum)
		for ; m > 1; m /= 2 {
			s.add(&rest, &rest)
		}
		s.add(&total, &rest)
	}
	return total
}
