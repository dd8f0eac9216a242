// Package circuit writes the R1CS of one partition of the stacked-DRG proof of
// replication: the circuit that Filecoin's parameters were made for, constraint for
// constraint and variable for variable.
//
// For each challenge it proves that the data's node is in tree D, that the columns of
// the node's parents are in tree C, that the node's labels are the SHA-256 hashes of
// those parents' labels, that the last label plus the data is in tree R, and that the
// labels' column is in tree C; and once that CommR is the hash of the roots of tree C
// and tree R.
//
// Source: storage-proofs-porep 19.1.0, stacked/circuit/{proof,params,create_label}.rs,
// and storage-proofs-core 19.1.0, gadgets/por.rs.
package circuit

import (
	"context"
	"errors"
	"fmt"
	"math/bits"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/field"
	"sealfleet/internal/sealcore/gadget"
	"sealfleet/internal/sealcore/merkle"
	"sealfleet/internal/sealcore/r1cs"
	"sealfleet/internal/sealcore/vanilla"
)

// Synthesize writes the circuit of one partition of a sector with the given parameters
// to sink, with the values of in as the witness. The constraints and the order of the
// variables depend on the parameters alone; only their sector size, shape, layers and
// challenges count.
//
// It checks the lengths of in and that all nodes are field elements, but not that the
// proofs hold: verify them before (vanilla.Verify), or check the constraints behind
// (r1cs.Checker). It stops soon after ctx is cancelled, with the context's error.
func Synthesize(ctx context.Context, sink r1cs.Sink, params sealcore.Params, in PartitionInput) error {
	if err := supported(params); err != nil {
		return err
	}
	if err := in.check(params); err != nil {
		return err
	}
	s := &synthesis{ctx: ctx, b: gadget.New(sink), params: params}
	s.partition(&in)
	return s.err
}

// supported refuses parameters for which there is no such circuit.
func supported(p sealcore.Params) error {
	arity := func(n int) bool { return n == 2 || n == 4 || n == 8 }
	shape := p.Shape
	switch {
	case !arity(shape.Base), shape.Sub != 0 && !arity(shape.Sub), shape.Top != 0 && !arity(shape.Top):
		return fmt.Errorf("there is no circuit for tree shape %s: nodes have 2, 4 or 8 children", shape)
	case p.Layers != 2 && p.Layers != 11:
		return fmt.Errorf("there is no circuit for %d layers: columns have 2 or 11 rows", p.Layers)
	case p.Challenges < 1:
		return errors.New("a partition needs at least one challenge")
	}
	leaves := uint64(shape.BaseTrees())
	for range pathsOf(p).replica.baseSteps {
		leaves *= uint64(shape.Base)
	}
	if leaves*sealcore.NodeSize != p.SectorSize || leaves < 2 {
		return fmt.Errorf("a sector of %d bytes does not fill trees of shape %s", p.SectorSize, shape)
	}
	return nil
}

// synthesis is one pass over the circuit.
type synthesis struct {
	ctx    context.Context
	b      *gadget.Builder
	params sealcore.Params
	err    error // the first one; whatever comes after it writes nothing

	message []gadget.Bit // of the hash that is put together
}

// stopped tells whether to give up. It looks at the context, so it is asked every few
// thousand constraints.
func (s *synthesis) stopped() bool {
	if s.err == nil {
		s.err = s.ctx.Err()
	}
	return s.err != nil
}

// num allocates a node. All nodes were checked before.
func (s *synthesis) num(d sealcore.Domain) gadget.Num {
	v, err := field.FromDomain(d)
	if err != nil && s.err == nil {
		s.err = err
	}
	return s.b.AllocNum(v)
}

// partition writes the whole circuit.
func (s *synthesis) partition(in *PartitionInput) {
	b := s.b
	replicaID := s.num(in.ReplicaID)
	b.Inputize(replicaID)
	r := roots{replicaID: b.AppendNumBits(nil, replicaID)}
	r.commD = s.num(in.CommD)
	b.Inputize(r.commD)
	commR := s.num(in.CommR)
	b.Inputize(commR)
	r.commRLast = s.num(in.Proofs[0].CommRLast())
	r.commC = s.num(in.Proofs[0].CommC())
	b.Equal(commR, b.Poseidon([]gadget.Num{r.commC, r.commRLast}))

	for i := range in.Proofs {
		s.challenge(&in.Proofs[i], &r)
	}
}

// roots are what all challenges of a partition share.
type roots struct {
	replicaID               []gadget.Bit // as a hash reads it
	commD, commRLast, commC gadget.Num
}

// challenge writes the answer to one challenge.
func (s *synthesis) challenge(p *vanilla.Proof, r *roots) {
	b := s.b
	data := s.num(p.CommD.Leaf)
	s.inclusion(&p.CommD, data, r.commD, s.hashData)

	open := func(columns []vanilla.ColumnProof) [][]gadget.Num {
		opened := make([][]gadget.Num, len(columns))
		for i := range columns {
			rows := make([]gadget.Num, len(columns[i].Rows))
			for layer, label := range columns[i].Rows {
				rows[layer] = s.num(label)
			}
			s.inclusion(&columns[i].Inclusion, b.Poseidon(rows), r.commC, s.hashNodes)
			opened[i] = rows
		}
		return opened
	}
	drg := open(p.Columns.DRGParents)
	exp := open(p.Columns.ExpParents)

	node := b.AllocUint64(p.Labels[0].Node)
	b.PackIntoInput(node)
	labels := make([]gadget.Num, s.params.Layers)
	for i := range labels {
		labels[i] = s.label(i+1, node, r.replicaID, drg, exp)
	}

	encoded := b.Add(labels[len(labels)-1], data)
	s.inclusion(&p.CommR, encoded, r.commRLast, s.hashNodes)
	s.inclusion(&p.Columns.Challenged.Inclusion, b.Poseidon(labels), r.commC, s.hashNodes)
}

// inclusion proves that a node is in the tree of that root, and makes the node's number,
// which the path spells, a public input.
func (s *synthesis) inclusion(p *merkle.Proof, node, root gadget.Num, hash func([]gadget.Num) gadget.Num) {
	b := s.b
	var number []gadget.Bit
	for _, step := range p.Path() {
		if s.stopped() {
			return
		}
		digits := bits.Len(uint(len(step.Hashes))) // as many as tell the children apart
		for i := range digits {
			number = append(number, b.AllocBit(step.Index>>i&1 == 1))
		}
		siblings := make([]gadget.Num, len(step.Hashes))
		for i, h := range step.Hashes {
			siblings[i] = s.num(h)
		}
		node = hash(b.Insert(node, number[len(number)-digits:], siblings))
	}
	b.PackIntoInput(number)
	b.Equal(node, root)
}

// hashNodes is the hash of tree C and tree R.
func (s *synthesis) hashNodes(children []gadget.Num) gadget.Num { return s.b.Poseidon(children) }

// hashData is the hash of tree D.
func (s *synthesis) hashData(children []gadget.Num) gadget.Num {
	message := s.message[:0]
	for _, c := range children {
		message = s.b.AppendNumBits(message, c)
	}
	s.message = message
	return s.b.PackDigest(s.b.SHA256(message))
}

// label computes the challenged node's label of one layer, from 1: the SHA-256 over the
// replica id, the layer (32 bits) and the node (64 bits), zeros up to 64 bytes, and the
// parents' labels, repeated until there are 37.
func (s *synthesis) label(layer int, node, replicaID []gadget.Bit, drg, exp [][]gadget.Num) gadget.Num {
	b := s.b
	if s.stopped() {
		return gadget.Num{}
	}
	// Base parents' labels are of this layer, expander parents' of the one before. Their
	// bits are allocated anew for each layer.
	var parents []gadget.Bit
	for i := range drg {
		parents = b.AppendNumBits(parents, drg[i][layer-1])
	}
	if layer > 1 {
		for i := range exp {
			parents = b.AppendNumBits(parents, exp[i][layer-2])
		}
	}

	message := append(s.message[:0], replicaID...)
	for i := 31; i >= 0; i-- {
		message = append(message, gadget.Constant(layer>>i&1 == 1))
	}
	for i := 63; i >= 0; i-- {
		message = append(message, node[i])
	}
	const nodeBits = 8 * sealcore.NodeSize
	for len(message) < 2*nodeBits {
		message = append(message, gadget.Constant(false))
	}
	for rest := sealcore.LabelParents * nodeBits; rest > 0; {
		n := min(rest, len(parents))
		message = append(message, parents[:n]...)
		rest -= n
	}
	s.message = message
	return b.PackDigest(b.SHA256(message))
}
