package seal

import (
	"context"
	"errors"
	"fmt"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/vanilla"
)

// Reasons for which a sector's commit-phase-1 JSON or files are refused.
var (
	// ErrMalformed: it is not commit-phase-1 JSON, or is cut short. Do p3 again.
	ErrMalformed = errors.New("the JSON is malformed")
	// ErrOtherSector: it is of another sector, ticket, data or proof type.
	ErrOtherSector = errors.New("it belongs to another sector")
	// ErrOtherSeed: it is of this sector, but answers the challenges of another seed, as
	// after a reorganisation of the chain. Do p3 again.
	ErrOtherSeed = errors.New("it was made for another seed")
	// ErrCommR: it is of another replica than the one that the chain knows.
	ErrCommR = errors.New("its CommR does not match")
	// ErrProofFails: a vanilla proof does not hold.
	ErrProofFails = errors.New("a vanilla proof fails")
)

// VerifyCommit1 reads the commit-phase-1 JSON of a sector and checks all that can be
// checked before a SNARK is made of it: that it is of this sector, ticket and seed and of
// the commitments that the precommit named, and every vanilla proof in full. It takes
// seconds at most, the SNARK minutes.
//
// An error wraps one of ErrMalformed, ErrOtherSector, ErrOtherSeed, ErrCommR and
// ErrProofFails, and below it what the vanilla package says; or it is ctx's.
func VerifyCommit1(ctx context.Context, s Sector, commD, commR, seed sealcore.Domain, data []byte, o Options) (*vanilla.Commit1, error) {
	c, err := vanilla.ParseCommit1(s.Params, data)
	if kind := (*vanilla.KindError)(nil); errors.As(err, &kind) {
		return nil, fmt.Errorf("%w: %w", ErrOtherSector, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: do p3 again: %w", ErrMalformed, err)
	}
	for _, f := range []struct {
		name      string
		got, want sealcore.Domain
		reason    error
	}{
		{"ticket", c.Ticket, s.Ticket, ErrOtherSector},
		{"CommD", c.CommD, commD, ErrOtherSector},
		{"replica id", c.ReplicaID, sealcore.ReplicaID(s.ProverID, s.Number, s.Ticket, commD, s.Params.PoRepID), ErrOtherSector},
		{"CommR", c.CommR, commR, ErrCommR},
		{"seed", c.Seed, seed, ErrOtherSeed},
	} {
		if f.got != f.want {
			return nil, fmt.Errorf("commit-phase-1 JSON: %w: its %s is %x, not %x", f.reason, f.name, f.got, f.want)
		}
	}
	err = vanilla.Verify(ctx, s.Params, c.PublicInputs(), c.Partitions, o.threads())
	switch {
	case err == nil:
		return c, nil
	case ctx.Err() != nil:
		return nil, err
	case errors.Is(err, vanilla.ErrCommR):
		return nil, fmt.Errorf("commit-phase-1 JSON: %w: %w", ErrCommR, err)
	default:
		return nil, fmt.Errorf("commit-phase-1 JSON: %w: %w", ErrProofFails, err)
	}
}
