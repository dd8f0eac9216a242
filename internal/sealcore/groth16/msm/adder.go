package msm

// batch is how many additions share an inversion. An inversion costs about sixty
// multiplications, so it is under two percent of a batch's work; the batch's scratch
// memory (300 KiB for G1) still fits the second-level cache.
const batch = 1024

// How one addition of a batch has to be done.
const (
	generic = iota // two different points that are not each other's negative
	double         // the same point twice
	takeA          // b is infinity
	takeB          // a is infinity
	cancel         // a = −b
)

// adder adds pairs of points in batches. Fill a[i] and b[i] for i < n (at most batch of
// them), call run, and find the sums in a.
type adder[E any, PE Coord[E]] struct {
	a, b []Point[E]
	den  []E     // denominators of the slopes
	pre  []E     // products of all denominators before
	kind []uint8 //
	inv  E       // these live here, not on the stack, since calls through PE make them escape
	t    E
	x    E

	fast func(n int) bool // does all of run, or nothing; for wide coordinates
	wide *wideScratch
}

func newAdder[E any, PE Coord[E]]() *adder[E, PE] {
	s := &adder[E, PE]{
		a: make([]Point[E], batch), b: make([]Point[E], batch),
		den: make([]E, batch), pre: make([]E, batch+8), kind: make([]uint8, batch),
	}
	if wide, ok := any(s).(*adder[Wide, *Wide]); ok && HasWide() {
		wide.wide = newWideScratch()
		wide.fast = func(n int) bool { return runWide(wide, n) }
	}
	return s
}

// run sets a[i] += b[i] for all i < n.
func (s *adder[E, PE]) run(n int) {
	if n == 0 || s.fast != nil && s.fast(n) {
		return
	}
	a, b, den, pre, kind := s.a[:n], s.b[:n], s.den[:n], s.pre[:n], s.kind[:n]
	special := false
	for i := range n {
		d := PE(&den[i]).Sub(&b[i].X, &a[i].X)
		kind[i] = generic
		if PE(d).IsZero() || PE(&a[i].X).IsZero() || PE(&b[i].X).IsZero() {
			kind[i] = s.classify(i)
			special = special || kind[i] != generic
		}
		if i == 0 {
			pre[0] = den[0]
		} else {
			PE(&pre[i]).Mul(&pre[i-1], &den[i])
		}
	}
	inv, t, x := &s.inv, &s.t, &s.x
	PE(inv).Inverse(&pre[n-1])
	for i := n - 1; i >= 0; i-- {
		// den[i] becomes its own inverse, inv the inverse of the product of all before it.
		if i > 0 {
			PE(t).Mul(inv, &pre[i-1])
			PE(inv).Mul(inv, &den[i])
			den[i] = *t
		} else {
			den[0] = *inv
		}
		if special && kind[i] != generic {
			if s.finishSpecial(i) {
				continue
			}
		} else {
			PE(t).Sub(&b[i].Y, &a[i].Y)
		}
		// slope λ = t/den; x₃ = λ² − x₁ − x₂; y₃ = λ(x₁ − x₃) − y₁
		PE(t).Mul(t, &den[i])
		PE(x).Square(t)
		PE(x).Sub(x, &a[i].X)
		PE(x).Sub(x, &b[i].X)
		PE(&b[i].X).Sub(&a[i].X, x)
		a[i].X = *x
		PE(t).Mul(t, &b[i].X)
		PE(&a[i].Y).Sub(t, &a[i].Y)
	}
}

// classify decides on a pair whose denominator is zero or that has a zero coordinate,
// and leaves a denominator that can be inverted.
func (s *adder[E, PE]) classify(i int) uint8 {
	a, b, d := &s.a[i], &s.b[i], PE(&s.den[i])
	kind := uint8(generic)
	switch {
	case isInfinity[E, PE](b):
		kind = takeA
	case isInfinity[E, PE](a):
		kind = takeB
	case d.IsZero():
		if PE(&s.t).Sub(&a.Y, &b.Y); PE(&s.t).IsZero() && !PE(&a.Y).IsZero() {
			d.Double(&a.Y)
			return double
		}
		kind = cancel
	}
	if kind != generic {
		d.SetOne()
	}
	return kind
}

// finishSpecial ends the pair, or for a doubling leaves the slope's numerator in t.
func (s *adder[E, PE]) finishSpecial(i int) (done bool) {
	switch s.kind[i] {
	case takeA:
	case takeB:
		s.a[i] = s.b[i]
	case cancel:
		s.a[i] = Point[E]{}
	case double: // 3x²
		PE(&s.x).Square(&s.a[i].X)
		PE(&s.t).Double(&s.x)
		PE(&s.t).Add(&s.t, &s.x)
		return false
	}
	return true
}

// add sets p += q.
func (s *adder[E, PE]) add(p, q *Point[E]) {
	s.a[0], s.b[0] = *p, *q
	s.run(1)
	*p = s.a[0]
}

// sum adds up points, which it overwrites.
func (s *adder[E, PE]) sum(points []Point[E]) (total Point[E]) {
	for len(points) > 1 {
		// Add the second half to the first; the middle one waits if the number is odd.
		half := len(points) / 2
		keep := len(points) - half
		for from := 0; from < half; from += batch {
			n := min(batch, half-from)
			copy(s.a, points[from:from+n])
			copy(s.b, points[keep+from:keep+from+n])
			s.run(n)
			copy(points[from:from+n], s.a)
		}
		points = points[:keep]
	}
	if len(points) == 1 {
		total = points[0]
	}
	return total
}
