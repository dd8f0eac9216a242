package vanilla

import (
	"fmt"
	"math/bits"

	"sealfleet/internal/sealcore"
)

// baseSteps returns how many steps a path has in one base tree of the given shape over
// all nodes of a sector. Paths in sub and top trees have one step each.
func baseSteps(p sealcore.Params, shape sealcore.TreeShape) int {
	return log2(p.Nodes()/uint64(shape.BaseTrees())) / log2(uint64(shape.Base))
}

// log2 returns the logarithm of a power of two.
func log2(n uint64) int { return bits.Len64(n) - 1 }

// checkShape tells what is wrong with the number of proofs and of their parts. After it
// only the lengths of paths are left to check, which merkle.Proof.Verify does.
func checkShape(p sealcore.Params, partitions [][]Proof) error {
	if len(partitions) != p.Partitions {
		return &ProofError{Partition: -1, Err: ErrShape, Detail: fmt.Sprintf("there are %d partitions instead of %d", len(partitions), p.Partitions)}
	}
	for k, proofs := range partitions {
		if len(proofs) != p.Challenges {
			return &ProofError{Partition: k, Challenge: -1, Err: ErrShape, Detail: fmt.Sprintf("there are proofs of %d challenges instead of %d", len(proofs), p.Challenges)}
		}
		for i := range proofs {
			if part, err := proofs[i].checkShape(p); err != nil {
				return &ProofError{Partition: k, Challenge: i, Part: part, Err: ErrShape, Detail: err.Error()}
			}
		}
	}
	return nil
}

// checkShape returns the part of the proof whose shape is wrong, and what is wrong.
func (p *Proof) checkShape(params sealcore.Params) (part string, err error) {
	if n := len(p.Columns.DRGParents); n != sealcore.DRGDegree {
		return partColumns, fmt.Errorf("there are %d base parents instead of %d", n, sealcore.DRGDegree)
	}
	if n := len(p.Columns.ExpParents); n != sealcore.ExpDegree {
		return partColumns, fmt.Errorf("there are %d expander parents instead of %d", n, sealcore.ExpDegree)
	}
	for i := range 1 + sealcore.Degree {
		if n := len(p.Columns.at(i).Rows); n != params.Layers {
			return columnName(i), fmt.Errorf("the column has %d rows instead of %d", n, params.Layers)
		}
	}
	if n := len(p.Labels); n != params.Layers {
		return partLabels, fmt.Errorf("there are labels of %d layers instead of %d", n, params.Layers)
	}
	for i := range p.Labels {
		if n := len(p.Labels[i].Parents); n != sealcore.LabelParents {
			return labelName(i + 1), fmt.Errorf("there are %d parents instead of %d", n, sealcore.LabelParents)
		}
	}
	if n := len(p.Encoding.Parents); n != sealcore.LabelParents {
		return partEncoding, fmt.Errorf("there are %d parents instead of %d", n, sealcore.LabelParents)
	}
	return "", nil
}

// at returns the challenged node's column for 0, then those of the base and expander parents.
func (c *ColumnProofs) at(i int) *ColumnProof {
	switch {
	case i == 0:
		return &c.Challenged
	case i <= sealcore.DRGDegree:
		return &c.DRGParents[i-1]
	default:
		return &c.ExpParents[i-1-sealcore.DRGDegree]
	}
}
