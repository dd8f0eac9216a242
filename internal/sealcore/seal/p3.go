package seal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/graph"
	"sealfleet/internal/sealcore/merkle"
	"sealfleet/internal/sealcore/pieces"
	"sealfleet/internal/sealcore/vanilla"
)

// Commit1 is the outcome of p3.
type Commit1 struct {
	Proofs *vanilla.Commit1
	JSON   []byte            // the reference's SealCommitPhase1Output; about 40 MB for 32 GiB
	SHA256 [sha256.Size]byte // of JSON
}

// P3 answers the challenges that the chain's seed draws: it opens the challenged nodes,
// their parents' columns and the replica from the files that p1 and p2 left (tree D, the
// labels, tree C, tree R, p_aux, the sealed file), verifies every proof that it made, and
// writes them as JSON. It changes no file.
//
// It fails at once if the files are not those of commD and commR, so that a wrong
// directory is not found out by a refused proof; such an error wraps ErrOtherSector.
//
// Progress has the steps "vanilla proofs" and "verify", both in challenges.
func P3(ctx context.Context, s Sector, commD, commR, seed sealcore.Domain, list []PieceInfo, p Paths, o Options) (*Commit1, error) {
	if seed == (sealcore.Domain{}) {
		// The reference lets it pass here and refuses it at p4.
		return nil, errors.New("p3: the seed is all zeros: wait for the chain's randomness")
	}
	if err := checkCommitments(s.Params, commD, list); err != nil {
		return nil, fmt.Errorf("p3: %w", err)
	}
	r, err := openReplica(s.Params, commD, commR, p)
	if err != nil {
		return nil, fmt.Errorf("p3: %w", err)
	}
	defer r.Close() // only read: nothing can be lost
	out := &vanilla.Commit1{
		CommR: commR, CommD: commD, Seed: seed, Ticket: s.Ticket,
		ReplicaID: sealcore.ReplicaID(s.ProverID, s.Number, s.Ticket, commD, s.Params.PoRepID),
	}
	if out.Partitions, err = r.proveAll(ctx, out.PublicInputs(), o); err != nil {
		return nil, fmt.Errorf("p3: %w", err)
	}
	total := uint64(s.Params.Partitions * s.Params.Challenges)
	o.progress("verify", 0, total)
	if err := vanilla.Verify(ctx, s.Params, out.PublicInputs(), out.Partitions, o.Threads); err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("p3: %w", err)
		}
		return nil, fmt.Errorf("p3: the files in %s give a proof that fails: do p1 and p2 again: %w", p.Cache, err)
	}
	o.progress("verify", total, total)
	var buf bytes.Buffer
	if err := out.WriteJSON(&buf, s.Params); err != nil {
		return nil, fmt.Errorf("p3: %w", err)
	}
	return &Commit1{Proofs: out, JSON: buf.Bytes(), SHA256: sha256.Sum256(buf.Bytes())}, nil
}

// progress calls o.Progress if there is one.
func (o Options) progress(step string, done, total uint64) {
	if o.Progress != nil {
		o.Progress(step, done, total)
	}
}

// threads returns how many goroutines may compute at once.
func (o Options) threads() int {
	if o.Threads > 0 {
		return o.Threads
	}
	return runtime.GOMAXPROCS(0)
}

// replica is a sealed sector, open for reading.
type replica struct {
	params sealcore.Params
	graph  *graph.Graph
	treeD  *merkle.TreeD
	treeC  *merkle.TreeC
	treeR  *merkle.TreeR
	layers []*os.File // layer 1 first
}

// openReplica opens the files of a sector and compares their roots with its commitments.
func openReplica(params sealcore.Params, commD, commR sealcore.Domain, p Paths) (_ *replica, err error) {
	r := &replica{params: params}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	if r.graph, err = graph.New(params.Nodes(), params.PoRepID, params.APIVersion); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(p.Cache, PAuxName))
	if err != nil {
		return nil, fmt.Errorf("%w: has p2 of this sector been done?", err)
	}
	aux, err := ParsePAux(data)
	if err != nil {
		return nil, err
	}
	if got, err := merkle.Poseidon([]sealcore.Domain{aux.CommC, aux.CommRLast}); err != nil {
		return nil, fmt.Errorf("p_aux is damaged: %w: do p2 again", err)
	} else if got != commR {
		return nil, fmt.Errorf("p_aux in %s gives CommR %x, not %x: %w", p.Cache, got, commR, ErrOtherSector)
	}
	if r.treeD, err = merkle.OpenTreeD(TreeDConfig(params, p.Cache).File(), params.Nodes()); err != nil {
		return nil, err
	}
	if r.treeC, err = merkle.OpenTreeC(p.Cache, params); err != nil {
		return nil, err
	}
	if r.treeR, err = merkle.OpenTreeR(p.Cache, p.Sealed, params); err != nil {
		return nil, err
	}
	for _, c := range []struct {
		tree      string
		got, want sealcore.Domain
	}{{"tree D", r.treeD.Root(), commD}, {"tree C", r.treeC.Root(), aux.CommC}, {"tree R", r.treeR.Root(), aux.CommRLast}} {
		if c.got != c.want {
			return nil, fmt.Errorf("%s in %s has the root %x, not %x: %w", c.tree, p.Cache, c.got, c.want, ErrOtherSector)
		}
	}
	for layer := 1; layer <= params.Layers; layer++ {
		f, err := openSized(LabelsConfig(params, p.Cache, layer))
		if err != nil {
			return nil, fmt.Errorf("labels of layer %d: %w: do p1 again", layer, err)
		}
		r.layers = append(r.layers, f)
	}
	return r, nil
}

// checkCommitments tells whether commD is that of the sector's pieces.
func checkCommitments(params sealcore.Params, commD sealcore.Domain, list []PieceInfo) error {
	infos := make([]pieces.Info, len(list))
	for i, piece := range list {
		infos[i] = pieces.Info(piece)
	}
	got, err := pieces.CommD(params, infos)
	if err != nil {
		return err
	}
	if got != commD {
		return fmt.Errorf("the pieces give CommD %x, not %x: %w", got, commD, ErrOtherSector)
	}
	return nil
}

// Close closes the files that are open.
func (r *replica) Close() error {
	var errs []error
	if r.treeD != nil {
		errs = append(errs, r.treeD.Close())
	}
	if r.treeC != nil {
		errs = append(errs, r.treeC.Close())
	}
	if r.treeR != nil {
		errs = append(errs, r.treeR.Close())
	}
	for _, f := range r.layers {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// proveAll makes the proofs of all partitions.
func (r *replica) proveAll(ctx context.Context, pi vanilla.PublicInputs, o Options) ([][]vanilla.Proof, error) {
	total := uint64(r.params.Partitions * r.params.Challenges)
	o.progress("vanilla proofs", 0, total)
	var mu sync.Mutex // of done, so that reports do not go backwards
	var done uint64

	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(o.threads())
	partitions := make([][]vanilla.Proof, r.params.Partitions)
	for k := range partitions {
		partitions[k] = make([]vanilla.Proof, r.params.Challenges)
		for i, challenge := range pi.Challenges(r.params, k) {
			group.Go(func() error {
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := r.prove(&partitions[k][i], challenge); err != nil {
					return fmt.Errorf("partition %d, challenge %d, node %d: %w", k, i, challenge, err)
				}
				mu.Lock()
				defer mu.Unlock()
				done++
				o.progress("vanilla proofs", done, total)
				return nil
			})
		}
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return partitions, nil
}

// prove answers one challenge.
func (r *replica) prove(out *vanilla.Proof, challenge uint64) (err error) {
	if out.CommD, err = r.treeD.Prove(challenge); err != nil {
		return err
	}
	if out.CommR, err = r.treeR.Prove(challenge); err != nil {
		return err
	}
	var base [sealcore.DRGDegree]uint32
	var exp [sealcore.ExpDegree]uint32
	r.graph.BaseParents(challenge, &base)
	r.graph.ExpParents(challenge, &exp)
	cols := &out.Columns
	if cols.Challenged, err = r.column(uint32(challenge)); err != nil {
		return err
	}
	if cols.DRGParents, err = r.columns(base[:]); err != nil {
		return err
	}
	if cols.ExpParents, err = r.columns(exp[:]); err != nil {
		return err
	}
	out.Labels = make([]vanilla.LabelingProof, r.params.Layers)
	for i := range out.Labels {
		layer := i + 1
		out.Labels[i] = vanilla.LabelingProof{Parents: cols.LabelParents(layer), Layer: uint32(layer), Node: challenge}
	}
	out.Encoding = out.Labels[r.params.Layers-1]
	return nil
}

func (r *replica) columns(nodes []uint32) ([]vanilla.ColumnProof, error) {
	out := make([]vanilla.ColumnProof, len(nodes))
	for i, node := range nodes {
		var err error
		if out[i], err = r.column(node); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// column opens a node's labels in all layers.
func (r *replica) column(node uint32) (vanilla.ColumnProof, error) {
	c := vanilla.ColumnProof{Node: node, Rows: make([]sealcore.Domain, len(r.layers))}
	for i, f := range r.layers {
		if _, err := f.ReadAt(c.Rows[i][:], int64(node)*sealcore.NodeSize); err != nil {
			return c, fmt.Errorf("read %s: %w", f.Name(), err)
		}
	}
	var err error
	c.Inclusion, err = r.treeC.Prove(uint64(node))
	return c, err
}
