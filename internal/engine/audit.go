package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"

	"sealfleet/internal/phases"
	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/merkle"
	"sealfleet/internal/sealcore/seal"
	"sealfleet/internal/storage"
)

// Audit has a stored sector below a storage node's directory, or in an object store,
// answer random challenges against its CommR (see seal.Audit). Of an object store only the
// pieces are fetched that the answers need. The error wraps seal.ErrAudit if the copy is wrong,
// and is one of the file system if it could not be read; the seed that it names repeats
// the challenges.
func Audit(ctx context.Context, params sealcore.Params, sector, commR, dir string, o storage.S3Options, samples int) error {
	want, err := domain("comm_r", commR)
	if err != nil {
		return err
	}
	seed := randomSeed()
	sealed, cache := filepath.Join("sealed", sector), filepath.Join("cache", sector)
	if storage.IsS3(dir) {
		var store *storage.Store
		if store, err = storage.OpenStore(dir, o); err != nil {
			return err
		}
		err = seal.AuditFrom(ctx, func(name string) (merkle.File, error) {
			object, err := store.Open(ctx, name)
			if err != nil {
				return nil, err
			}
			return object, nil
		}, params, want, seed, samples, sealed, cache)
	} else {
		err = seal.Audit(ctx, params, want, seed, samples, filepath.Join(dir, sealed), filepath.Join(dir, cache))
	}
	if err != nil {
		return fmt.Errorf("%w (seed %x, %d samples)", err, seed, samples)
	}
	return nil
}

func randomSeed() (seed sealcore.Domain) {
	_, _ = rand.Read(seed[:]) // never fails
	return seed
}

// auditCopy is the early proof after p5, and p6's before it deletes. It returns a note of
// what it did not do.
func (r Request) auditCopy(ctx context.Context, dir string, o storage.S3Options, samples int, class phases.Class) (note string, err error) {
	switch {
	case samples == 0:
		return "", nil
	case r.Inputs["comm_r"] == "":
		return "the stored copy was not challenged: its CommR is not known here", nil
	}
	params, err := r.params()
	if err != nil {
		return "", failf("bad_request", phases.Permanent, "%v", err)
	}
	err = Audit(ctx, params, r.Sector, r.Inputs["comm_r"], dir, o, samples)
	switch {
	case err == nil, ctx.Err() != nil:
		return fmt.Sprintf("%d random challenges answered against CommR", samples), err
	case errors.Is(err, seal.ErrAudit):
		mend := "the storage damages data; mend: look at the node, then dispatcher redo " + r.Sector + " --phase p5"
		if r.Phase == phases.P5 && r.sourceBad(ctx, params, samples) {
			class = phases.Permanent
			mend = "the local files fail too; mend: dispatcher redo " + r.Sector + " --phase p2"
		}
		return "", failf("audit_failed", class, "%v: %s", err, mend)
	}
	return "", err
}

// sourceBad tells whether what p5 copied from is itself not the sector's.
func (r Request) sourceBad(ctx context.Context, params sealcore.Params, samples int) bool {
	want, err := domain("comm_r", r.Inputs["comm_r"])
	if err != nil {
		return false
	}
	return errors.Is(seal.Audit(ctx, params, want, randomSeed(), 4*samples, r.Paths.Sealed, r.Paths.Cache), seal.ErrAudit)
}

func (r Request) params() (sealcore.Params, error) {
	if r.Shape != "" {
		return sealcore.ForShape(r.Shape)
	}
	return sealcore.ForProofType(r.ProofType)
}

// spotCheck is the early proof after p2.
func (j *job) spotCheck(ctx context.Context, commD, commR sealcore.Domain) error {
	seed := randomSeed()
	err := seal.SpotCheck(ctx, j.sector, commD, commR, seed, j.SpotCheck, j.paths, j.opts)
	if errors.Is(err, seal.ErrSpotCheck) {
		return failf("spot_check_failed", phases.Retryable,
			"%v (seed %x, %d nodes): memory or a disk damages data; p2 is done again; if that does not help: dispatcher redo %s --phase p1", err, seed, j.SpotCheck, j.Sector)
	}
	return err
}
