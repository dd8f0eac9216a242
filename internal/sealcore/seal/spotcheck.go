package seal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/vanilla"
)

// ErrSpotCheck says that the files of a sector contradict each other or its commitments.
var ErrSpotCheck = errors.New("the spot check failed")

// SpotCheck recomputes some nodes of a sector from the files that p1 and p2 left, right
// after p2: the node's label in every layer from its parents' labels, the column's hash
// and its path in tree C, the data's path in tree D, the encoding, and the replica's path
// in tree R, all against commD and commR. It is what p3 will do days of chain time later
// for the nodes that the chain draws, so that a bad disk or bad memory is known before the
// precommit is sent. It changes no file.
//
// The nodes follow from the seed, so that a check can be repeated; node 0, which has no
// parents, is never among them. An error wraps ErrSpotCheck, names the node and says what
// is wrong with it; or it is one of reading the files, or ctx's.
func SpotCheck(ctx context.Context, s Sector, commD, commR, seed sealcore.Domain, nodes int, p Paths, o Options) error {
	if nodes <= 0 {
		return nil
	}
	params := s.Params
	params.Partitions, params.Challenges = 1, nodes
	r, err := openReplica(params, commD, commR, p)
	// What can be read and makes no sense is p2's fault; what cannot be read is the disk's.
	if unreadable := new(fs.PathError); err != nil && !errors.As(err, &unreadable) {
		return fmt.Errorf("%w: %w", ErrSpotCheck, err)
	}
	if err != nil {
		return fmt.Errorf("spot check: %w", err)
	}
	defer r.Close() // only read: nothing can be lost
	pi := vanilla.PublicInputs{
		CommR: commR, CommD: commD, Seed: seed,
		ReplicaID: sealcore.ReplicaID(s.ProverID, s.Number, s.Ticket, commD, s.Params.PoRepID),
	}
	o.Progress = spotProgress(o.Progress, uint64(nodes))
	// A proof that can't even be made names files which do not belong together.
	proofs, err := r.proveAll(ctx, pi, o)
	if err == nil {
		err = vanilla.Verify(ctx, params, pi, proofs, o.Threads)
	}
	switch bad := (*vanilla.ProofError)(nil); {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return err
	case errors.As(err, &bad):
		return fmt.Errorf("%w: node %d: %w", ErrSpotCheck, pi.Challenges(params, 0)[bad.Challenge], err)
	default:
		return fmt.Errorf("%w: %w", ErrSpotCheck, err)
	}
}

// spotProgress renames the step.
func spotProgress(tell func(string, uint64, uint64), total uint64) func(string, uint64, uint64) {
	if tell == nil {
		return nil
	}
	return func(_ string, done, _ uint64) { tell("spot check", done, total) }
}
