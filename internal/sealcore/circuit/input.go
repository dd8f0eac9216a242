package circuit

import (
	"fmt"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/field"
	"sealfleet/internal/sealcore/merkle"
	"sealfleet/internal/sealcore/vanilla"
)

// PartitionInput holds the values that one partition's witness is made of.
type PartitionInput struct {
	ReplicaID, CommD, CommR sealcore.Domain
	// Proofs answer the partition's challenges in order. Their roots of tree C and tree R
	// must all be the same.
	Proofs []vanilla.Proof
}

// Partition returns the input of partition k (from 0) of a sector's commit phase 1. It
// shares the proofs with c.
func Partition(c *vanilla.Commit1, k int) (PartitionInput, error) {
	if k < 0 || k >= len(c.Partitions) {
		return PartitionInput{}, fmt.Errorf("there is no partition %d: the vanilla proofs have %d", k, len(c.Partitions))
	}
	return PartitionInput{ReplicaID: c.ReplicaID, CommD: c.CommD, CommR: c.CommR, Proofs: c.Partitions[k]}, nil
}

// Blank returns an input of zeros, for the sake of the constraints alone.
func Blank(params sealcore.Params) PartitionInput {
	blanks := func(n, arity int) []merkle.Step {
		if arity == 0 {
			return nil
		}
		s := make([]merkle.Step, n)
		for i := range s {
			s[i].Hashes = make([]sealcore.Domain, arity-1)
		}
		return s
	}
	paths := pathsOf(params)
	path := func(p pathShape) merkle.Proof {
		return merkle.Proof{Base: blanks(p.baseSteps, p.base), Sub: blanks(1, p.sub), Top: blanks(1, p.top)}
	}
	columns := func(n int) []vanilla.ColumnProof {
		c := make([]vanilla.ColumnProof, n)
		for i := range c {
			c[i] = vanilla.ColumnProof{Rows: make([]sealcore.Domain, params.Layers), Inclusion: path(paths.replica)}
		}
		return c
	}
	in := PartitionInput{Proofs: make([]vanilla.Proof, params.Challenges)}
	for i := range in.Proofs {
		in.Proofs[i] = vanilla.Proof{
			CommD: path(paths.data),
			CommR: path(paths.replica),
			Columns: vanilla.ColumnProofs{
				Challenged: columns(1)[0],
				DRGParents: columns(sealcore.DRGDegree),
				ExpParents: columns(sealcore.ExpDegree),
			},
			Labels: make([]vanilla.LabelingProof, params.Layers),
		}
	}
	return in
}

// pathShape is what a path of one tree looks like: the arity of the children at a step
// of the base tree, the sub tree and the top tree (0: no such step).
type pathShape struct {
	base, sub, top int
	baseSteps      int // in the base tree; the others have one each
}

type paths struct{ data, replica pathShape }

func pathsOf(p sealcore.Params) paths {
	return paths{
		data: pathShape{base: 2, baseSteps: steps(p.Nodes(), 2)},
		replica: pathShape{
			base: p.Shape.Base, sub: p.Shape.Sub, top: p.Shape.Top,
			baseSteps: steps(p.Nodes()/uint64(p.Shape.BaseTrees()), p.Shape.Base),
		},
	}
}

// steps returns how many rows lie above so many leaves.
func steps(leaves uint64, arity int) int {
	n := 0
	for ; leaves > 1; leaves /= uint64(arity) {
		n++
	}
	return n
}

// check refuses an input whose lengths are not those of the circuit, or that holds a
// node that is no field element, so that synthesis need not look at either.
func (in *PartitionInput) check(params sealcore.Params) error {
	for _, c := range []struct {
		name  string
		value *sealcore.Domain
	}{{"the replica id", &in.ReplicaID}, {"CommD", &in.CommD}, {"CommR", &in.CommR}} {
		if !field.Canonical(c.value) {
			return fmt.Errorf("%s is not a field element", c.name)
		}
	}
	if len(in.Proofs) != params.Challenges {
		return fmt.Errorf("the partition has proofs of %d challenges instead of %d", len(in.Proofs), params.Challenges)
	}
	first := &in.Proofs[0]
	for i := range in.Proofs {
		p := &in.Proofs[i]
		if err := checkProof(params, p); err != nil {
			return fmt.Errorf("the proof of challenge %d: %w", i, err)
		}
		if p.CommC() != first.CommC() || p.CommRLast() != first.CommRLast() {
			return fmt.Errorf("the proof of challenge %d: its trees have other roots than those of challenge 0", i)
		}
	}
	return nil
}

func checkProof(params sealcore.Params, p *vanilla.Proof) error {
	shapes := pathsOf(params)
	if err := shapes.data.check(&p.CommD); err != nil {
		return fmt.Errorf("tree D: %w", err)
	}
	if err := shapes.replica.check(&p.CommR); err != nil {
		return fmt.Errorf("tree R: %w", err)
	}
	if len(p.Labels) != params.Layers {
		return fmt.Errorf("it has labels of %d layers instead of %d", len(p.Labels), params.Layers)
	}
	c := &p.Columns
	if len(c.DRGParents) != sealcore.DRGDegree || len(c.ExpParents) != sealcore.ExpDegree {
		return fmt.Errorf("it has %d base and %d expander parents instead of %d and %d",
			len(c.DRGParents), len(c.ExpParents), sealcore.DRGDegree, sealcore.ExpDegree)
	}
	if err := shapes.replica.check(&c.Challenged.Inclusion); err != nil {
		return fmt.Errorf("tree C, the challenged node: %w", err)
	}
	for _, group := range [][]vanilla.ColumnProof{c.DRGParents, c.ExpParents} {
		for i := range group {
			column := &group[i]
			if len(column.Rows) != params.Layers {
				return fmt.Errorf("the column of node %d has %d rows instead of %d", column.Node, len(column.Rows), params.Layers)
			}
			for j := range column.Rows {
				if !field.Canonical(&column.Rows[j]) {
					return fmt.Errorf("the column of node %d: row %d is not a field element", column.Node, j)
				}
			}
			if err := shapes.replica.check(&column.Inclusion); err != nil {
				return fmt.Errorf("tree C, node %d: %w", column.Node, err)
			}
		}
	}
	return nil
}

// check looks at one path.
func (s pathShape) check(p *merkle.Proof) error {
	if !field.Canonical(&p.Leaf) || !field.Canonical(&p.Root) {
		return fmt.Errorf("the leaf or the root is not a field element")
	}
	for _, part := range []struct {
		name         string
		steps        []merkle.Step
		count, arity int
	}{
		{"base tree", p.Base, s.baseSteps, s.base},
		{"sub tree", p.Sub, min(1, s.sub), s.sub},
		{"top tree", p.Top, min(1, s.top), s.top},
	} {
		if len(part.steps) != part.count {
			return fmt.Errorf("the path has %d steps in the %s instead of %d", len(part.steps), part.name, part.count)
		}
		for i := range part.steps {
			step := &part.steps[i]
			if len(step.Hashes) != part.arity-1 || step.Index >= uint64(part.arity) {
				return fmt.Errorf("step %d in the %s has %d siblings and index %d, where a node has %d children",
					i, part.name, len(step.Hashes), step.Index, part.arity)
			}
			for j := range step.Hashes {
				if !field.Canonical(&step.Hashes[j]) {
					return fmt.Errorf("step %d in the %s: sibling %d is not a field element", i, part.name, j)
				}
			}
		}
	}
	return nil
}
