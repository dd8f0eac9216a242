// Package merkle holds a sector's trees: tree D (SHA-256, binary) over the data, tree C
// over the column hashes and tree R over the replica (both Poseidon, of arity 8 with a
// sub and a top tree in the larger shapes). It builds tree C and tree R, opens all
// three from their files, and makes and verifies inclusion proofs.
//
// The files are those of the reference (merkletree 0.23.0: DiskStore for tree D and
// tree C, LevelCacheStore for tree R): the rows of one base tree from the leaves to the
// root, one after the other, 32 bytes a node and nothing else. Tree R's files lack the
// leaves, which are the sealed file itself, and the lowest rows above them. Sub and top
// trees are in no file: they are hashed anew from the base trees' roots.
package merkle

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/field"
	"sealfleet/internal/sealcore/poseidon"
)

// Binary is the shape of tree D.
var Binary = sealcore.TreeShape{Base: 2}

// Step is one level of a path: the siblings without the node itself, in order, and the
// node's index among them, 0 to arity-1.
type Step struct {
	Hashes []sealcore.Domain // arity-1 siblings
	Index  uint64
}

// Proof is an inclusion proof: paths through the base tree (from the leaf upwards), the
// sub tree and the top tree. Sub and Top have one step each, or are nil where the shape
// lacks them.
type Proof struct {
	Leaf, Root sealcore.Domain
	Base       []Step
	Sub        []Step
	Top        []Step
}

// Hash is a tree's node from its children.
type Hash func(children []sealcore.Domain) (sealcore.Domain, error)

// SHA256 hashes the nodes of tree D: SHA-256 with the two topmost bits cleared, so that
// the result is a field element.
func SHA256(children []sealcore.Domain) (sealcore.Domain, error) {
	h := sha256.New()
	for i := range children {
		h.Write(children[i][:])
	}
	var d sealcore.Domain
	h.Sum(d[:0])
	d[sealcore.NodeSize-1] &= 0x3f
	return d, nil
}

// Poseidon hashes the nodes of tree C and tree R with the arity len(children), 1 to
// poseidon.MaxArity. It refuses children that are not field elements.
func Poseidon(children []sealcore.Domain) (sealcore.Domain, error) {
	if len(children) == 0 || len(children) > poseidon.MaxArity {
		return sealcore.Domain{}, fmt.Errorf("a node of %d children cannot be hashed", len(children))
	}
	var in [poseidon.MaxArity]fr.Element
	for i, c := range children {
		var err error
		if in[i], err = field.FromDomain(c); err != nil {
			return sealcore.Domain{}, fmt.Errorf("child %d is not a field element", i)
		}
	}
	return field.ToDomain(poseidon.For(len(children)).Sum(in[:len(children)])), nil
}

// Path returns the steps from the leaf to the root.
func (p *Proof) Path() []Step { return slices.Concat(p.Base, p.Sub, p.Top) }

// LeafIndex returns the leaf that the path's indices name in a tree of the given shape.
// The result has no meaning for a proof that Verify refuses for its form.
func (p *Proof) LeafIndex(shape sealcore.TreeShape) uint64 {
	var index uint64
	fold := func(steps []Step, arity int) {
		for _, s := range slices.Backward(steps) {
			index = index*uint64(arity) + s.Index
		}
	}
	fold(p.Top, shape.Top)
	fold(p.Sub, shape.Sub)
	fold(p.Base, shape.Base)
	return index
}

// ComputedRoot hashes the path from the leaf up. Its error says what is wrong with the
// path's form; it does not look at p.Root.
func (p *Proof) ComputedRoot(hash Hash) (sealcore.Domain, error) {
	node := p.Leaf
	var children []sealcore.Domain
	for level, s := range p.Path() {
		if s.Index > uint64(len(s.Hashes)) {
			return node, fmt.Errorf("step %d: index %d among %d siblings", level, s.Index, len(s.Hashes))
		}
		children = append(children[:0], s.Hashes[:s.Index]...)
		children = append(children, node)
		children = append(children, s.Hashes[s.Index:]...)
		var err error
		if node, err = hash(children); err != nil {
			return node, fmt.Errorf("step %d: %w", level, err)
		}
	}
	return node, nil
}

// ErrRoot says that a path does not lead to the proof's root.
var ErrRoot = errors.New("the path does not lead to the root")

// Verify checks that p has the form of a proof in a tree of that shape and that many
// leaves, names the given leaf, and leads from p.Leaf to p.Root. What p.Leaf and p.Root
// ought to be is the caller's to compare. For tree D use Binary and SHA256, for tree C
// and tree R the sector's shape and Poseidon.
func (p *Proof) Verify(shape sealcore.TreeShape, leaves, leaf uint64, hash Hash) error {
	rows, err := Rows(leaves/uint64(shape.BaseTrees()), shape.Base)
	if err != nil {
		return err
	}
	for _, part := range []struct {
		name  string
		steps []Step
		len   int
		arity int
	}{
		{"base", p.Base, rows - 1, shape.Base},
		{"sub", p.Sub, min(1, shape.Sub), shape.Sub},
		{"top", p.Top, min(1, shape.Top), shape.Top},
	} {
		if len(part.steps) != part.len {
			return fmt.Errorf("%s path has %d steps, want %d", part.name, len(part.steps), part.len)
		}
		for i, s := range part.steps {
			if len(s.Hashes) != part.arity-1 {
				return fmt.Errorf("%s path: step %d has %d siblings, want %d", part.name, i, len(s.Hashes), part.arity-1)
			}
			if s.Index >= uint64(part.arity) {
				return fmt.Errorf("%s path: step %d has index %d of %d", part.name, i, s.Index, part.arity)
			}
		}
	}
	if got := p.LeafIndex(shape); got != leaf {
		return fmt.Errorf("the path is that of leaf %d, not of leaf %d", got, leaf)
	}
	root, err := p.ComputedRoot(hash)
	if err != nil {
		return err
	}
	if root != p.Root {
		return fmt.Errorf("%w: it ends in %x, not in %x", ErrRoot, root, p.Root)
	}
	return nil
}

// Rows returns how many rows a tree of that many leaves has, with the leaves and the
// root. It refuses what is not a full tree: leaves must be a power of the arity.
func Rows(leaves uint64, arity int) (int, error) {
	if arity < 2 || bits.OnesCount(uint(arity)) != 1 {
		return 0, fmt.Errorf("arity %d is not a power of two", arity)
	}
	shift := bits.Len(uint(arity)) - 1
	depth := bits.Len64(leaves) - 1
	if bits.OnesCount64(leaves) != 1 || depth%shift != 0 {
		return 0, fmt.Errorf("%d leaves are no full tree of arity %d", leaves, arity)
	}
	return depth/shift + 1, nil
}

// Len returns how many nodes a full tree has, all rows counted.
func Len(leaves uint64, arity int) uint64 {
	var n uint64
	for w := leaves; ; w /= uint64(arity) {
		n += w
		if w <= 1 {
			return n
		}
	}
}
