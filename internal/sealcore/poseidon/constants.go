// Package poseidon is Filecoin's Poseidon hash over BLS12-381's scalar field: the
// instance that neptune 11 builds with strength "standard" and the domain tag of a
// Merkle tree, in its optimised static form.
//
// A permutation of width t = arity + 1 starts from the state (tag, in_0, …, in_{arity-1})
// with tag = 2^arity - 1, runs 8 full rounds (S-box x^5 on every element) with the
// partial rounds (S-box on element 0 only) in their midst, and yields element 1.
//
// Source: the Poseidon paper (eprint 2019/458), Filecoin's specification of Poseidon,
// and neptune 11.0.0: round_constants.rs, mds.rs, preprocessing.rs, poseidon.rs.
package poseidon

import (
	"fmt"
	"sync"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"
)

// MaxArity is the largest arity that For knows.
const MaxArity = 16

const fullRounds = 8

// partialRounds by arity, for 128 bits of security with the paper's margin.
var partialRounds = [MaxArity + 1]int{
	1: 55, 2: 55, 3: 56, 4: 56, 5: 56, 6: 56, 7: 57, 8: 57,
	9: 57, 10: 57, 11: 57, 12: 57, 13: 57, 14: 57, 15: 59, 16: 59,
}

// Sparse is the matrix of one partial round: its first column and first row are dense,
// the rest is the identity. With the state s as a row vector,
//
//	s'[0] = Σ_i s[i]·WHat[i]            (i = 0 … width-1)
//	s'[j] = s[j] + s[0]·VRest[j-1]      (j = 1 … width-1)
type Sparse struct {
	WHat  []fr.Element // first column, width elements
	VRest []fr.Element // first row without its first element, width-1 elements
}

// Constants are the numbers of one instance, in the form and order that neptune's
// optimised static hash and its circuit (circuit2) consume them:
//
//	add Compressed[0:width] to the state
//	FullRounds/2 times:    S-box and add the next width constants; multiply by MDS, but
//	                       by PreSparse in the last of them
//	PartialRounds times:   S-box element 0 and add the next one constant to it;
//	                       multiply by Sparse[round]
//	FullRounds/2 - 1 times: S-box and add the next width constants; multiply by MDS
//	once:                  S-box, nothing added; multiply by MDS
//
// Matrices multiply the state as a row vector; see Matrix. The caller must not change
// anything in it.
type Constants struct {
	Arity         int
	Width         int // Arity + 1
	FullRounds    int
	PartialRounds int
	DomainTag     fr.Element // 2^Arity - 1, the state's element 0
	MDS           Matrix     // width × width, symmetric
	PreSparse     Matrix     // width × width, of the last full round of the first half
	Sparse        []Sparse   // one per partial round, in the order of the rounds
	Compressed    []fr.Element
}

func newConstants(arity int) *Constants {
	c := &Constants{
		Arity:         arity,
		Width:         arity + 1,
		FullRounds:    fullRounds,
		PartialRounds: partialRounds[arity],
		MDS:           cauchy(arity + 1),
	}
	c.DomainTag.SetUint64(1<<arity - 1)
	c.factor()
	c.compress(c.roundConstants())
	return c
}

// roundConstants draws the constants of the plain (unoptimised) form: width for each
// round, added before its S-boxes.
func (c *Constants) roundConstants() [][]fr.Element {
	g := newGrain(c.Width, c.FullRounds, c.PartialRounds)
	keys := make([][]fr.Element, c.FullRounds+c.PartialRounds)
	for r := range keys {
		keys[r] = make([]fr.Element, c.Width)
		for i := range keys[r] {
			keys[r][i] = g.element()
		}
	}
	return keys
}

// factor splits the MDS matrices of the partial rounds, the last first, into M'·M″ with
// M″ sparse. M' leaves element 0 alone, so it commutes with the S-box of its round and
// melts into the matrix of the round before; what is left at the end is PreSparse.
func (c *Constants) factor() {
	c.Sparse = make([]Sparse, c.PartialRounds)
	current := c.MDS
	for r := c.PartialRounds - 1; r >= 0; r-- {
		w := make([]fr.Element, c.Arity) // first column without its first element
		for i := range w {
			w[i] = current[i+1][0]
		}
		hat := current.minor() // symmetric: a power of the MDS matrix's minor
		c.Sparse[r] = Sparse{
			WHat:  append([]fr.Element{current[0][0]}, hat.inverse().apply(w)...),
			VRest: append([]fr.Element(nil), current[0][1:]...),
		}
		prime := newMatrix(c.Width)
		prime[0][0].SetOne()
		for i := range hat {
			copy(prime[i+1][1:], hat[i])
		}
		current = c.MDS.mul(prime)
	}
	c.PreSparse = current
}

// compress pushes the plain round constants back through the linear layers, so that all
// but the first are added after the S-boxes, and each partial round needs only one.
func (c *Constants) compress(keys [][]fr.Element) {
	inv := c.MDS.inverse()
	half := c.FullRounds / 2
	out := append([]fr.Element(nil), keys[0]...)
	for r := 1; r < half; r++ {
		out = append(out, inv.apply(keys[r])...)
	}
	// Work backwards through the partial rounds: what was pulled through the matrix stays
	// at element 0 (behind the S-box) and joins the keys of the round before elsewhere.
	partial := make([]fr.Element, c.PartialRounds)
	acc := append([]fr.Element(nil), keys[half+c.PartialRounds]...)
	for r := c.PartialRounds - 1; r >= 0; r-- {
		acc = inv.apply(acc)
		partial[r] = acc[0]
		acc[0].SetZero()
		for i := range acc {
			acc[i].Add(&acc[i], &keys[half+r][i])
		}
	}
	out = append(out, inv.apply(acc)...)
	out = append(out, partial...)
	for r := 1; r < half; r++ {
		out = append(out, inv.apply(keys[half+c.PartialRounds+r])...)
	}
	c.Compressed = out
}

type slot struct {
	once   sync.Once
	hasher *Hasher
}

var slots [MaxArity + 1]slot

// For returns the hasher of the given arity, 1 to MaxArity. The first call for an arity
// builds its constants (milliseconds). It may be called and used from any goroutine,
// and panics for other arities.
func For(arity int) *Hasher {
	if arity < 1 || arity > MaxArity {
		panic(fmt.Sprintf("poseidon: arity %d is not in 1 to %d", arity, MaxArity))
	}
	s := &slots[arity]
	s.once.Do(func() { s.hasher = newHasher(newConstants(arity)) })
	return s.hasher
}
