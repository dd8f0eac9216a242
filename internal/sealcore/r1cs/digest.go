package r1cs

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"
)

// Facts describe a circuit well enough to tell it from any other.
type Facts struct {
	Aux         int      `json:"aux"`                  // private variables
	Constraints int      `json:"constraints"`          // of the circuit itself, without those that a prover adds for its inputs
	Inputs      int      `json:"inputs_including_one"` // public inputs, with the constant one
	NonzerosA   uint64   `json:"nonzeros_a"`           // terms of all A, after those of one variable are summed
	NonzerosB   uint64   `json:"nonzeros_b"`
	NonzerosC   uint64   `json:"nonzeros_c"`
	Prefixes    []Prefix `json:"prefixes"` // of the first 1, 2, 3, … constraints
	SHA256      string   `json:"sha256"`   // of all constraints, in hex
}

// Prefix describes the first constraints of a circuit, and how many variables there
// were when the last of them was added.
type Prefix struct {
	Aux         int    `json:"aux"`
	Constraints int    `json:"constraints"`
	Inputs      int    `json:"inputs"` // with the constant one
	SHA256      string `json:"sha256"`
}

// prefixCounts are the numbers of constraints after which Digest keeps a prefix, closer
// where a circuit's first gadgets begin and end; from 1,000,000 on every power of ten
// and its double and quintuple.
var prefixCounts = []int{
	1, 2, 3, 10, 100, 255, 256, 257, 300, 500, 514, 520, 777, 800, 1000, 1100, 1200, 1500, 2000, 3000,
	5000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000,
	10_000_000, 20_000_000, 50_000_000, 100_000_000, 200_000_000, 500_000_000, 1_000_000_000,
}

// Digest is a sink that hashes a circuit's constraints: for each constraint in order,
// for A, B and C in order, the number of terms (uint32, little-endian) and each term: a
// byte that is 0 for a public input and 1 for an auxiliary variable, the index (uint32,
// little-endian), and the coefficient (32 bytes, little-endian). Terms are sorted by
// byte and index, terms of one variable are summed, and zeros dropped.
//
// It streams: a second goroutine hashes while the circuit is still being written.
type Digest struct {
	facts Facts
	next  int // index into prefixCounts

	out   []byte // encoded, not yet handed over
	order []uint64
	terms LC

	full  chan chunk // to the hashing goroutine
	empty chan []byte
	sums  chan []string // its result, once full is closed
}

// chunk is encoded constraints; prefix asks for the hash up to and with them.
type chunk struct {
	data   []byte
	prefix bool
}

const (
	chunkSize = 1 << 20
	termSize  = 1 + 4 + fr.Bytes
)

// NewDigest starts a digest. It must be ended by Facts or Close, or else its goroutine
// stays.
func NewDigest() *Digest {
	d := &Digest{
		facts: Facts{Inputs: 1},
		full:  make(chan chunk, 2),
		empty: make(chan []byte, 4),
		sums:  make(chan []string, 1),
	}
	for range cap(d.empty) {
		d.empty <- make([]byte, 0, chunkSize+chunkSize/4)
	}
	d.out = <-d.empty
	go hash(d.full, d.empty, d.sums)
	return d
}

// hash consumes what Enforce encodes. Its last sum is that of everything.
func hash(full <-chan chunk, empty chan<- []byte, result chan<- []string) {
	h := sha256.New()
	var sums []string
	sum := func() { sums = append(sums, hex.EncodeToString(h.Sum(nil))) }
	for c := range full {
		h.Write(c.data)
		if c.prefix {
			sum()
		}
		empty <- c.data[:0]
	}
	sum()
	result <- sums
}

// AllocInput counts a public input.
func (d *Digest) AllocInput(fr.Element) Var {
	d.facts.Inputs++
	return Input(d.facts.Inputs - 1)
}

// AllocAux counts an auxiliary variable.
func (d *Digest) AllocAux(fr.Element) Var {
	d.facts.Aux++
	return Aux(d.facts.Aux - 1)
}

// Enforce adds a constraint.
func (d *Digest) Enforce(a, b, c LC) {
	d.facts.NonzerosA += d.encode(a)
	d.facts.NonzerosB += d.encode(b)
	d.facts.NonzerosC += d.encode(c)
	d.facts.Constraints++
	prefix := d.next < len(prefixCounts) && d.facts.Constraints == prefixCounts[d.next]
	if prefix {
		d.next++
		d.facts.Prefixes = append(d.facts.Prefixes, Prefix{
			Aux: d.facts.Aux, Constraints: d.facts.Constraints, Inputs: d.facts.Inputs,
		})
	}
	if prefix || len(d.out) >= chunkSize {
		d.full <- chunk{d.out, prefix}
		d.out = <-d.empty
	}
}

// Constraints returns how many constraints there were so far.
func (d *Digest) Constraints() int { return d.facts.Constraints }

// Close ends the digest without a result. It may be called after Facts.
func (d *Digest) Close() {
	if d.full == nil {
		return
	}
	close(d.full)
	<-d.sums
	d.full = nil
}

// Facts ends the digest and returns its result.
func (d *Digest) Facts() Facts {
	d.full <- chunk{data: d.out}
	close(d.full)
	d.full = nil
	sums := <-d.sums
	for i := range d.facts.Prefixes {
		d.facts.Prefixes[i].SHA256 = sums[i]
	}
	d.facts.SHA256 = sums[len(sums)-1]
	return d.facts
}

// encode appends one linear combination and returns how many terms it has.
func (d *Digest) encode(lc LC) uint64 {
	if !normal(lc) {
		lc = d.normalise(lc)
	}
	out := binary.LittleEndian.AppendUint32(d.out, uint32(len(lc)))
	for i := range lc {
		t := &lc[i]
		kind := byte(0)
		if t.Var.IsAux() {
			kind = 1
		}
		out = append(out, kind)
		out = binary.LittleEndian.AppendUint32(out, uint32(t.Var.Index()))
		switch t.Coeff {
		case one:
			out = append(out, oneBytes[:]...)
		case minusOne:
			out = append(out, minusOneBytes[:]...)
		default:
			for _, w := range t.Coeff.Bits() {
				out = binary.LittleEndian.AppendUint64(out, w)
			}
		}
	}
	d.out = out
	return uint64(len(lc))
}

// The two coefficients that most terms have, with their encodings.
var (
	one           = fr.One()
	minusOne      = negative(one)
	oneBytes      = littleEndian(one)
	minusOneBytes = littleEndian(minusOne)
)

func negative(x fr.Element) fr.Element { return *x.Neg(&x) }

func littleEndian(x fr.Element) (b [fr.Bytes]byte) {
	fr.LittleEndian.PutElement(&b, x)
	return b
}

// normal tells whether a combination is sorted, names no variable twice, and has no
// zeros.
func normal(lc LC) bool {
	for i := range lc {
		if i > 0 && lc[i-1].Var >= lc[i].Var || lc[i].Coeff.IsZero() {
			return false
		}
	}
	return true
}

// normalise returns a sorted copy with the terms of one variable summed and zeros
// dropped. Variables compare as the digest sorts them, public inputs first. The copy
// lasts until the next call.
func (d *Digest) normalise(lc LC) LC {
	out := d.terms[:0]
	if len(lc) <= 12 {
		out = append(out, lc...)
		slices.SortFunc(out, func(a, b Term) int { return cmp.Compare(a.Var, b.Var) })
	} else {
		order := d.order[:0]
		for i := range lc {
			order = append(order, uint64(lc[i].Var)<<32|uint64(i))
		}
		slices.Sort(order)
		for _, o := range order {
			out = append(out, lc[uint32(o)])
		}
		d.order = order
	}
	d.terms = out
	n := 0 // terms that are settled
	for i := range out {
		if n > 0 && out[n-1].Var == out[i].Var {
			out[n-1].Coeff.Add(&out[n-1].Coeff, &out[i].Coeff)
			continue
		}
		if n > 0 && out[n-1].Coeff.IsZero() {
			n--
		}
		out[n] = out[i]
		n++
	}
	if n > 0 && out[n-1].Coeff.IsZero() {
		n--
	}
	return out[:n]
}
