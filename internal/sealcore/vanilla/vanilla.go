// Package vanilla holds what a sector's replica has to show before a SNARK is made of
// it: which nodes are challenged, the openings of those nodes in tree D, tree C and
// tree R, their parents' columns, the labels and the encoding; the JSON in which p3
// hands them to p4; and their verification.
//
// Sources: Filecoin spec, "Stacked DRG Proof of Replication"; the reference's
// storage-proofs-porep 19.1.0, stacked/vanilla/{params,proof,challenges}.rs, and
// filecoin-proofs-api 19.1.0, SealCommitPhase1Output.
package vanilla

import (
	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/merkle"
)

// ColumnProof opens one column of the labels: a node's label in every layer, and the
// path of the column's hash in tree C.
type ColumnProof struct {
	Node      uint32            // the node, that is the column's index
	Rows      []sealcore.Domain // its label in layer 1, 2, …; one for each layer
	Inclusion merkle.Proof      // the leaf is the column's Poseidon hash, the root is CommC
}

// ColumnProofs opens the columns that a challenge needs.
type ColumnProofs struct {
	Challenged ColumnProof   // the challenged node's own
	DRGParents []ColumnProof // sealcore.DRGDegree of them, in the graph's order
	ExpParents []ColumnProof // sealcore.ExpDegree of them, in the graph's order
}

// LabelingProof shows how one label is made: the SHA-256 over replica id, layer, node
// and the parents' labels.
type LabelingProof struct {
	Parents []sealcore.Domain // sealcore.LabelParents of them: the parents' labels, repeated
	Layer   uint32            // from 1
	Node    uint64
}

// Proof is the answer to one challenge.
type Proof struct {
	CommD    merkle.Proof    // the data's node in tree D (binary, SHA-256)
	CommR    merkle.Proof    // the replica's node in tree R; its root is CommRLast
	Columns  ColumnProofs    // in tree C
	Labels   []LabelingProof // the challenged node's, one for each layer
	Encoding LabelingProof   // the last layer's label, the key that turned data into replica
}

// CommC returns the root of tree C that the proof claims.
func (p *Proof) CommC() sealcore.Domain { return p.Columns.Challenged.Inclusion.Root }

// CommRLast returns the root of tree R that the proof claims.
func (p *Proof) CommRLast() sealcore.Domain { return p.CommR.Root }

// Commit1 is the outcome of p3, the input of p4: the reference's SealCommitPhase1Output.
type Commit1 struct {
	Partitions [][]Proof // one list of proofs for each partition, in the order of its challenges
	CommR      sealcore.Domain
	CommD      sealcore.Domain
	ReplicaID  sealcore.Domain
	Seed       sealcore.Domain // interactive randomness, of the precommit's epoch + 150
	Ticket     sealcore.Domain
}

// PublicInputs returns what the proofs of c are checked against.
func (c *Commit1) PublicInputs() PublicInputs {
	return PublicInputs{ReplicaID: c.ReplicaID, CommD: c.CommD, CommR: c.CommR, Seed: c.Seed}
}
