package vanilla

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/field"
	"sealfleet/internal/sealcore/graph"
	"sealfleet/internal/sealcore/merkle"
)

// Reasons for which proofs are refused; a ProofError wraps one of them.
var (
	ErrShape    = errors.New("the proof has the wrong shape")
	ErrNotField = errors.New("a node is not a field element")
	ErrNode     = errors.New("the proof opens another node than the challenge asks for")
	ErrPath     = errors.New("the path does not lead from the leaf to the root")
	ErrCommD    = errors.New("the root of tree D is not CommD")
	ErrCommR    = errors.New("CommR is not the hash of CommC and CommRLast")
	ErrRoots    = errors.New("the proofs of one partition disagree on a root")
	ErrColumn   = errors.New("the column's hash is not the leaf of tree C")
	ErrLabel    = errors.New("the label is not the hash of its parents")
	ErrParents  = errors.New("the parents' labels are not those of the opened columns")
	ErrEncoding = errors.New("the replica's node is not the data's node plus the key")
)

// ProofError says which part of which proof is refused, and why.
type ProofError struct {
	Partition int    // from 0; -1: the proofs as a whole
	Challenge int    // number within the partition, from 0; -1: the partition as a whole
	Part      string // such as "base parent 3's column"; empty: the proof as a whole
	Err       error  // one of this package's Err values
	Detail    string // may be empty
}

// Error names the place, the reason and the detail.
func (e *ProofError) Error() string {
	s := "vanilla proofs"
	if e.Partition >= 0 {
		s = fmt.Sprintf("vanilla proof of partition %d", e.Partition)
		if e.Challenge >= 0 {
			s += fmt.Sprintf(", challenge %d", e.Challenge)
		}
	}
	if e.Part != "" {
		s += ", " + e.Part
	}
	s += ": " + e.Err.Error()
	if e.Detail != "" {
		s += " (" + e.Detail + ")"
	}
	return s
}

// Unwrap returns the reason.
func (e *ProofError) Unwrap() error { return e.Err }

// Parts of a proof.
const (
	partData     = "data (tree D)"
	partReplica  = "replica (tree R)"
	partColumns  = "columns (tree C)"
	partLabels   = "labels"
	partEncoding = "encoding"
)

// columnName names the i-th column of ColumnProofs.at.
func columnName(i int) string {
	switch {
	case i == 0:
		return "the challenged node's column (tree C)"
	case i <= sealcore.DRGDegree:
		return fmt.Sprintf("base parent %d's column (tree C)", i-1)
	default:
		return fmt.Sprintf("expander parent %d's column (tree C)", i-1-sealcore.DRGDegree)
	}
}

func labelName(layer int) string { return fmt.Sprintf("label of layer %d", layer) }

// Verify checks the proofs of all partitions in full: that they open the nodes which
// replica id and seed ask for, each path in the trees D, C and R, the columns' hashes,
// each layer's label and the parents that it hashes, the encoding, and the roots against
// CommD and CommR. It is stricter than the reference's own check, which leaves the paths
// of tree D and tree R and some repeated values to the circuit: a change of any value of
// a proof is refused.
//
// It uses at most threads goroutines (0: GOMAXPROCS). It fails with a *ProofError that
// names the first bad proof, or with ctx's error.
func Verify(ctx context.Context, p sealcore.Params, pi PublicInputs, partitions [][]Proof, threads int) error {
	if err := checkShape(p, partitions); err != nil {
		return err
	}
	v, err := newVerifier(p, pi)
	if err != nil {
		return err
	}
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	var group errgroup.Group
	group.SetLimit(threads)
	// The first bad proof is named, whichever goroutine is quicker: a bad one stops only
	// those behind it.
	var first badProof
	for k, proofs := range partitions {
		if err := v.roots(k, &proofs[0]); err != nil {
			first.report(k*p.Challenges, err)
			break
		}
		for i, challenge := range pi.Challenges(p, k) {
			group.Go(func() error {
				number := k*p.Challenges + i
				if first.isBefore(number) {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := v.proof(&proofs[i], &proofs[0], challenge); err != nil {
					err.Partition, err.Challenge = k, i
					first.report(number, err)
				}
				return nil
			})
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if first.err != nil {
		return first.err
	}
	return nil
}

// badProof is the bad proof with the lowest number so far.
type badProof struct {
	mu     sync.Mutex
	number int
	err    *ProofError
}

func (b *badProof) report(number int, err *ProofError) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil || number < b.number {
		b.number, b.err = number, err
	}
}

// isBefore tells whether a bad proof with a lower number is known.
func (b *badProof) isBefore(number int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err != nil && b.number < number
}

type verifier struct {
	p     sealcore.Params
	pi    PublicInputs
	graph *graph.Graph
}

func newVerifier(p sealcore.Params, pi PublicInputs) (*verifier, error) {
	g, err := graph.New(p.Nodes(), p.PoRepID, p.APIVersion)
	if err != nil {
		return nil, err
	}
	for name, d := range map[string]sealcore.Domain{"replica id": pi.ReplicaID, "CommD": pi.CommD, "CommR": pi.CommR} {
		if !field.Canonical(&d) {
			return nil, &ProofError{Partition: -1, Part: name, Err: ErrNotField}
		}
	}
	return &verifier{p: p, pi: pi, graph: g}, nil
}

// roots checks CommR against the roots of tree C and tree R that a partition claims.
func (v *verifier) roots(k int, first *Proof) *ProofError {
	commC, commRLast := first.CommC(), first.CommRLast()
	sum, err := merkle.Poseidon([]sealcore.Domain{commC, commRLast})
	if err != nil {
		return &ProofError{Partition: k, Challenge: -1, Part: "roots", Err: ErrNotField}
	}
	if sum != v.pi.CommR {
		return &ProofError{Partition: k, Challenge: -1, Part: "roots", Err: ErrCommR,
			Detail: fmt.Sprintf("CommC %x and CommRLast %x give %x, not %x", commC, commRLast, sum, v.pi.CommR)}
	}
	return nil
}

// proof checks one challenge's proof; first is its partition's first one.
func (v *verifier) proof(p, first *Proof, challenge uint64) *ProofError {
	if err := v.path(&p.CommD, merkle.Binary, merkle.SHA256, challenge, partData); err != nil {
		return err
	}
	if p.CommD.Root != v.pi.CommD {
		return &ProofError{Part: partData, Err: ErrCommD}
	}
	if err := v.path(&p.CommR, v.p.Shape, merkle.Poseidon, challenge, partReplica); err != nil {
		return err
	}
	if p.CommRLast() != first.CommRLast() {
		return &ProofError{Part: partReplica, Err: ErrRoots}
	}

	var base [sealcore.DRGDegree]uint32
	var exp [sealcore.ExpDegree]uint32
	v.graph.BaseParents(challenge, &base)
	v.graph.ExpParents(challenge, &exp)
	nodes := slices.Concat([]uint32{uint32(challenge)}, base[:], exp[:])
	for i, node := range nodes {
		if err := v.column(p.Columns.at(i), first.CommC(), node, columnName(i)); err != nil {
			return err
		}
	}

	for layer := 1; layer <= v.p.Layers; layer++ {
		if err := v.label(p, layer, challenge); err != nil {
			return err
		}
	}
	return v.encoding(p)
}

// path checks that m opens the given leaf and leads to its root. All its nodes must be
// field elements, tree D's too: the circuit takes them as such.
func (v *verifier) path(m *merkle.Proof, shape sealcore.TreeShape, hash merkle.Hash, node uint64, part string) *ProofError {
	if len(m.Base) != baseSteps(v.p, shape) || len(m.Sub) != min(1, shape.Sub) || len(m.Top) != min(1, shape.Top) {
		return &ProofError{Part: part, Err: ErrShape, Detail: fmt.Sprintf("the path has %d, %d and %d steps in base, sub and top tree", len(m.Base), len(m.Sub), len(m.Top))}
	}
	if got := m.LeafIndex(shape); got != node {
		return &ProofError{Part: part, Err: ErrNode, Detail: fmt.Sprintf("node %d instead of %d", got, node)}
	}
	canonical := field.Canonical(&m.Leaf)
	for _, steps := range [][]merkle.Step{m.Base, m.Sub, m.Top} {
		for i := range steps {
			for j := range steps[i].Hashes {
				canonical = canonical && field.Canonical(&steps[i].Hashes[j])
			}
		}
	}
	if !canonical {
		return &ProofError{Part: part, Err: ErrNotField}
	}
	switch err := m.Verify(shape, v.p.Nodes(), node, hash); {
	case errors.Is(err, merkle.ErrRoot):
		return &ProofError{Part: part, Err: ErrPath}
	case err != nil:
		return &ProofError{Part: part, Err: ErrShape, Detail: err.Error()}
	}
	return nil
}

func (v *verifier) column(c *ColumnProof, commC sealcore.Domain, node uint32, part string) *ProofError {
	if c.Node != node {
		return &ProofError{Part: part, Err: ErrNode, Detail: fmt.Sprintf("node %d instead of %d", c.Node, node)}
	}
	hash, err := merkle.Poseidon(c.Rows)
	if err != nil {
		return &ProofError{Part: part, Err: ErrNotField}
	}
	if hash != c.Inclusion.Leaf {
		return &ProofError{Part: part, Err: ErrColumn}
	}
	if c.Inclusion.Root != commC {
		return &ProofError{Part: part, Err: ErrRoots}
	}
	return v.path(&c.Inclusion, v.p.Shape, merkle.Poseidon, uint64(node), part)
}

func (v *verifier) label(p *Proof, layer int, challenge uint64) *ProofError {
	l, part := &p.Labels[layer-1], labelName(layer)
	if l.Layer != uint32(layer) || l.Node != challenge {
		return &ProofError{Part: part, Err: ErrNode,
			Detail: fmt.Sprintf("node %d of layer %d instead of node %d of layer %d", l.Node, l.Layer, challenge, layer)}
	}
	if !slices.Equal(l.Parents, p.Columns.LabelParents(layer)) {
		return &ProofError{Part: part, Err: ErrParents}
	}
	if l.Label(v.pi.ReplicaID) != p.Columns.Challenged.Rows[layer-1] {
		return &ProofError{Part: part, Err: ErrLabel}
	}
	return nil
}

func (v *verifier) encoding(p *Proof) *ProofError {
	last := &p.Labels[v.p.Layers-1]
	if p.Encoding.Layer != last.Layer || p.Encoding.Node != last.Node {
		return &ProofError{Part: partEncoding, Err: ErrNode,
			Detail: fmt.Sprintf("node %d of layer %d instead of node %d of layer %d", p.Encoding.Node, p.Encoding.Layer, last.Node, last.Layer)}
	}
	if !slices.Equal(p.Encoding.Parents, last.Parents) {
		return &ProofError{Part: partEncoding, Err: ErrParents}
	}
	// The key is the last layer's label, which has just been recomputed: it is below 2^254.
	key, err := field.FromDomain(p.Columns.Challenged.Rows[v.p.Layers-1])
	if err != nil {
		return &ProofError{Part: partEncoding, Err: ErrNotField}
	}
	data, err := field.FromDomain(p.CommD.Leaf)
	if err != nil {
		return &ProofError{Part: partEncoding, Err: ErrNotField}
	}
	if field.ToDomain(*key.Add(&key, &data)) != p.CommR.Leaf {
		return &ProofError{Part: partEncoding, Err: ErrEncoding}
	}
	return nil
}
