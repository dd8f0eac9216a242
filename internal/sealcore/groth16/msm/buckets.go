package msm

import "unsafe"

// A window of c bits of every scalar sends each point to the bucket of its digit.
// Digits are signed, −2^(c−1) ≤ d < 2^(c−1), so there are 2^(c−1) buckets.

// minWindow is the narrowest window: with 2 or 4 bits the topmost digit could overflow
// (the modulus starts with the bits 0111), with 5 to 16 it cannot.
const minWindow = 5

// digitsOf writes the signed digits of a scalar for windows of c bits, the lowest first,
// stride apart.
func digitsOf(scalar *[4]uint64, c uint, out []int16, stride int) {
	carry := int32(0)
	half, full := int32(1)<<(c-1), int32(1)<<c
	for w, at := 0, uint(0); at < 256; w, at = w+1, at+c {
		limb, shift := at/64, at%64
		bits := scalar[limb] >> shift
		if shift+c > 64 && limb < 3 {
			bits |= scalar[limb+1] << (64 - shift)
		}
		d := int32(bits&uint64(full-1)) + carry
		carry = 0
		if d >= half {
			d -= full
			carry = 1
		}
		out[w*stride] = int16(d)
	}
}

func windows(c uint) int { return int((256 + c - 1) / c) }

// windowBits chooses c for n points: the number of additions, in points and in buckets,
// is least there.
func windowBits(n int) uint {
	best, least := uint(minWindow), 0
	for c := uint(minWindow); c <= 16; c++ {
		// Each bucket costs two additions at the end.
		cost := windows(c) * (n + 2<<(c-1))
		if least == 0 || cost < least {
			best, least = c, cost
		}
	}
	return best
}

// sorter puts the points of a chunk into the buckets of one window. It serves one
// goroutine.
type sorter[E any, PE Coord[E]] struct {
	*adder[E, PE]
	start []uint32   // per bucket: where its items start
	order []uint32   // items sorted by bucket: index·2 + sign
	temp  []Point[E] // partial sums
	dst   []uint32   // per addition of a batch: where in temp the sum goes

	touched byte // keeps the compiler from dropping the reads ahead
}

func newSorter[E any, PE Coord[E]](buckets, chunk int) *sorter[E, PE] {
	return &sorter[E, PE]{
		adder: newAdder[E, PE](),
		start: make([]uint32, buckets+2),
		order: make([]uint32, chunk),
		temp:  make([]Point[E], chunk+buckets),
		dst:   make([]uint32, batch),
	}
}

// put adds points to the buckets that their digits name; bucket k holds digit k+1.
func (s *sorter[E, PE]) put(buckets []Point[E], points []Point[E], digits []int16) {
	// Counting sort of the items by bucket.
	start := s.start[:len(buckets)+2]
	clear(start)
	for _, d := range digits {
		if d != 0 {
			start[max(int(d), -int(d))+1]++ // of bucket |d|−1, shifted by two
		}
	}
	for k := 2; k < len(start); k++ {
		start[k] += start[k-1]
	}
	for i, d := range digits {
		if d == 0 {
			continue
		}
		k, sign := int(d), uint32(0)
		if d < 0 {
			k, sign = -k, 1
		}
		s.order[start[k]] = uint32(i)<<1 | sign
		start[k]++
	}
	// Now start[k+1] is the end of bucket k and start[k] its begin (start[0] is 0).
	s.firstRound(buckets, points, start)
	s.laterRounds(buckets, start)
}

// load sets p to the item's point.
func (s *sorter[E, PE]) load(p *Point[E], points []Point[E], item uint32) {
	*p = points[item>>1]
	if item&1 != 0 {
		PE(&p.Y).Neg(&p.Y)
	}
}

// readAhead touches the points of the next items, with nothing that waits for them, so
// that their cache misses overlap. It returns up to where.
func (s *sorter[E, PE]) readAhead(points []Point[E], from, end uint32) uint32 {
	end = min(end, from+batch)
	for _, item := range s.order[from:end] {
		p := &points[item>>1]
		s.touched ^= *(*byte)(unsafe.Pointer(&p.X)) ^ *(*byte)(unsafe.Pointer(&p.Y))
	}
	return end
}

// firstRound adds the items of each bucket in pairs, the bucket's own value among them,
// and leaves the sums in temp, with the buckets' new ends in start.
func (s *sorter[E, PE]) firstRound(buckets, points []Point[E], start []uint32) {
	n, out, from, ahead := 0, uint32(0), uint32(0), uint32(0)
	for k := range buckets {
		if from >= ahead {
			ahead = s.readAhead(points, from, start[len(buckets)])
		}
		items := s.order[from:start[k+1]]
		from = start[k+1]
		if len(items) > 0 {
			if isInfinity[E, PE](&buckets[k]) {
				if len(items)&1 != 0 {
					s.load(&s.temp[out], points, items[0])
					items, out = items[1:], out+1
				}
			} else if len(items)&1 == 0 {
				s.temp[out] = buckets[k]
				out++
			} else {
				s.a[n] = buckets[k]
				s.load(&s.b[n], points, items[0])
				items = items[1:]
				n, out = s.pair(n, out)
			}
			for ; len(items) > 0; items = items[2:] {
				s.load(&s.a[n], points, items[0])
				s.load(&s.b[n], points, items[1])
				n, out = s.pair(n, out)
			}
		}
		start[k+1] = out
	}
	s.flush(n)
}

// laterRounds halves the number of items of each bucket until one is left.
func (s *sorter[E, PE]) laterRounds(buckets []Point[E], start []uint32) {
	for more := true; more; {
		more = false
		n, out, from := 0, uint32(0), uint32(0)
		for k := range buckets {
			end := start[k+1]
			if (end-from)&1 != 0 {
				s.temp[out] = s.temp[from]
				from, out = from+1, out+1
			}
			for ; from < end; from += 2 {
				s.a[n], s.b[n] = s.temp[from], s.temp[from+1]
				n, out = s.pair(n, out)
			}
			if out > start[k]+1 {
				more = true
			}
			start[k+1] = out
		}
		s.flush(n)
	}
	for k := range buckets {
		if start[k+1] > start[k] {
			buckets[k] = s.temp[start[k]]
		}
	}
}

// pair notes where the addition just filled in goes, and runs the batch when it is full.
func (s *sorter[E, PE]) pair(n int, out uint32) (int, uint32) {
	s.dst[n] = out
	n++
	if n == batch {
		s.flush(n)
		n = 0
	}
	return n, out + 1
}

func (s *sorter[E, PE]) flush(n int) {
	s.run(n)
	for i, to := range s.dst[:n] {
		s.temp[to] = s.a[i]
	}
}
