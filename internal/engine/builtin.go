package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"

	"sealfleet/internal/phases"
	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/durable"
	"sealfleet/internal/sealcore/groth16"
	"sealfleet/internal/sealcore/pieces"
	"sealfleet/internal/sealcore/porepsnark"
	"sealfleet/internal/sealcore/seal"
	"sealfleet/internal/storage"
)

// Builtin does all phases by sealcore and by package storage, in this process.
type Builtin struct{}

// NoSNARK is p4's output "snark" when it was told to make none.
const NoSNARK = "none: every vanilla proof verified, no SNARK made"

// Run does the phase.
func (b Builtin) Run(ctx context.Context, r Request, progress func(Progress)) (Result, error) {
	result, err := b.run(ctx, r, progress)
	switch {
	case err == nil:
		return result, nil
	case ctx.Err() != nil:
		return Result{}, context.Cause(ctx)
	default:
		return Result{}, explain(err)
	}
}

func (b Builtin) run(ctx context.Context, r Request, progress func(Progress)) (Result, error) {
	if err := r.check(); err != nil {
		return Result{}, err
	}
	if progress == nil {
		progress = func(Progress) {}
	}
	switch r.Phase {
	case phases.P5:
		return runCopy(ctx, r, progress)
	case phases.P6:
		return runClean(ctx, r)
	}
	j, err := newJob(r, progress)
	if err != nil {
		return Result{}, err
	}
	switch r.Phase {
	case phases.P1:
		return j.p1(ctx)
	case phases.P2:
		return j.p2(ctx)
	case phases.P3:
		return j.p3(ctx)
	default:
		return j.p4(ctx)
	}
}

// job is a request of p1 to p4 with its fields parsed.
type job struct {
	Request
	sector seal.Sector
	paths  seal.Paths
	opts   seal.Options
}

func newJob(r Request, progress func(Progress)) (*job, error) {
	s, err := r.sealSector()
	if err != nil {
		return nil, failf("bad_request", phases.Permanent, "%v", err)
	}
	return &job{
		Request: r, sector: s,
		paths: seal.Paths{Unsealed: r.Paths.Unsealed, Sealed: r.Paths.Sealed, Cache: r.Paths.Cache},
		opts: seal.Options{Threads: r.Threads, Progress: func(step string, done, total uint64) {
			progress(Progress{step, done, total})
		}},
	}, nil
}

// sealSector reads whose sector it is.
func (r Request) sealSector() (s seal.Sector, err error) {
	if r.Shape != "" {
		s.Params, err = sealcore.ForShape(r.Shape)
	} else {
		s.Params, err = sealcore.ForProofType(r.ProofType)
	}
	if err != nil {
		return s, err
	}
	if r.PoRepID != "" {
		if s.Params.PoRepID, err = domain("porep_id", r.PoRepID); err != nil {
			return s, err
		}
	}
	s.Number = r.Number
	if s.ProverID, err = domain("prover_id", r.ProverID); err != nil {
		return s, err
	}
	s.Ticket, err = domain("ticket", r.Inputs["ticket"])
	return s, err
}

func domain(name, text string) (d sealcore.Domain, err error) {
	data, err := hex.DecodeString(text)
	if err == nil && len(data) != len(d) {
		err = fmt.Errorf("%d bytes, want %d", len(data), len(d))
	}
	if err != nil {
		return d, fmt.Errorf("%s %q: %w", name, text, err)
	}
	return sealcore.Domain(data), nil
}

func (j *job) input(name string) (sealcore.Domain, error) {
	d, err := domain(name, j.Inputs[name])
	if err != nil {
		return d, failf("bad_request", phases.Permanent, "input of %s: %v", j.Phase, err)
	}
	return d, nil
}

// PieceInfo is one element of the output "pieces".
type PieceInfo struct {
	UnpaddedSize uint64 `json:"unpadded_size"`
	CommP        string `json:"comm_p"`
}

// SealPieces returns the pieces as sealcore takes them: committed capacity is one piece
// of zeros as large as the sector.
func SealPieces(p sealcore.Params, list []phases.Piece) []seal.Piece {
	if len(list) == 0 {
		return []seal.Piece{{UnpaddedSize: p.UnpaddedSize()}}
	}
	out := make([]seal.Piece, len(list))
	for i, piece := range list {
		out[i] = seal.Piece(piece)
	}
	return out
}

func (j *job) p1(ctx context.Context) (Result, error) {
	if err := os.MkdirAll(j.paths.Cache, 0o755); err != nil {
		return Result{}, err
	}
	out, err := seal.P1(ctx, j.sector, SealPieces(j.sector.Params, j.Pieces), j.paths, j.opts)
	if err != nil {
		return Result{}, err
	}
	return j.p1Result(out)
}

// p1Result writes p1's output for p2, and tells what was found.
func (j *job) p1Result(out *seal.PreCommit1) (Result, error) {
	data, err := out.JSON()
	if err != nil {
		return Result{}, err
	}
	if err := durable.Write(j.Paths.P1JSON, data); err != nil {
		return Result{}, err
	}
	infos := make([]PieceInfo, len(out.Pieces))
	for i, p := range out.Pieces {
		infos[i] = PieceInfo{p.UnpaddedSize, hex.EncodeToString(p.CommP[:])}
	}
	list, err := json.Marshal(infos)
	if err != nil {
		return Result{}, err
	}
	return Result{Outputs: map[string]string{
		"comm_d": hex.EncodeToString(out.CommD[:]), "replica_id": hex.EncodeToString(out.ReplicaID[:]), "pieces": string(list),
	}}, nil
}

func (j *job) p2(ctx context.Context) (Result, error) {
	data, err := os.ReadFile(j.Paths.P1JSON)
	if err != nil {
		return Result{}, err
	}
	p1, err := seal.ParsePreCommit1(data)
	if err != nil {
		return Result{}, failf("p1_malformed", phases.Permanent, "%s: %v: do p1 again", j.Paths.P1JSON, err)
	}
	if err := p1.Bind(j.sector); err != nil {
		return Result{}, failf("other_sector", phases.Permanent, "%s: %v", j.Paths.P1JSON, err)
	}
	if want := j.Inputs["comm_d"]; want != "" && want != hex.EncodeToString(p1.CommD[:]) {
		return Result{}, failf("other_sector", phases.Permanent, "%s has CommD %x, this sector's p1 found %s: do p1 again", j.Paths.P1JSON, p1.CommD, want)
	}
	out, err := seal.P2(ctx, p1, j.paths, j.opts)
	if err != nil {
		return Result{}, err
	}
	if err := j.spotCheck(ctx, p1.CommD, out.CommR); err != nil {
		return Result{}, err
	}
	return Result{Outputs: map[string]string{
		"comm_r": hex.EncodeToString(out.CommR[:]), "comm_c": hex.EncodeToString(out.CommC[:]), "comm_r_last": hex.EncodeToString(out.CommRLast[:]),
	}}, nil
}

func (j *job) p3(ctx context.Context) (Result, error) {
	commD, errD := j.input("comm_d")
	commR, errR := j.input("comm_r")
	seed, errS := j.input("seed")
	if err := errors.Join(errD, errR, errS); err != nil {
		return Result{}, err
	}
	var infos []PieceInfo
	if err := json.Unmarshal([]byte(j.Inputs["pieces"]), &infos); err != nil {
		return Result{}, failf("bad_request", phases.Permanent, "input of p3: pieces: %v", err)
	}
	list := make([]seal.PieceInfo, len(infos))
	for i, p := range infos {
		commP, err := domain("comm_p", p.CommP)
		if err != nil {
			return Result{}, failf("bad_request", phases.Permanent, "input of p3: pieces: %v", err)
		}
		list[i] = seal.PieceInfo{UnpaddedSize: p.UnpaddedSize, CommP: commP}
	}
	out, err := seal.P3(ctx, j.sector, commD, commR, seed, list, j.paths, j.opts)
	if err != nil {
		return Result{}, err
	}
	if err := durable.Write(j.Paths.C1JSON, out.JSON); err != nil {
		return Result{}, err
	}
	return Result{Outputs: map[string]string{
		"c1_sha256": hex.EncodeToString(out.SHA256[:]), "c1_bytes": strconv.Itoa(len(out.JSON)),
	}}, nil
}

func (j *job) p4(ctx context.Context) (Result, error) {
	commD, errD := j.input("comm_d")
	commR, errR := j.input("comm_r")
	seed, errS := j.input("seed")
	if err := errors.Join(errD, errR, errS); err != nil {
		return Result{}, err
	}
	data, err := os.ReadFile(j.Paths.C1JSON)
	if err != nil {
		return Result{}, err
	}
	sum := sha256.Sum256(data)
	if want := j.Inputs["c1_sha256"]; want != "" && want != hex.EncodeToString(sum[:]) {
		return Result{}, failf("c1_changed", phases.Permanent, "%s has SHA-256 %x, p3 wrote %s: do p3 again", j.Paths.C1JSON, sum, want)
	}
	var how Proof
	if j.Proof != nil {
		how = *j.Proof
	}
	if how.None {
		if _, err := seal.VerifyCommit1(ctx, j.sector, commD, commR, seed, data, j.opts); err != nil {
			return Result{}, err
		}
		return Result{
			Outputs: map[string]string{"proof": "", "snark": NoSNARK, "proof_bytes": "0"},
			Message: "no SNARK was made: every vanilla proof was verified in full instead",
		}, nil
	}
	proof, err := porepsnark.Commit2(ctx, j.sector, commD, commR, seed, data, how.Parameters, porepsnark.Options{
		Threads: j.opts.Threads, Progress: j.opts.Progress, SelfMadeParametersForProduction: how.SelfMade,
	})
	if err != nil {
		return Result{}, err
	}
	proofSum := sha256.Sum256(proof)
	return Result{Outputs: map[string]string{
		"proof": hex.EncodeToString(proof), "snark": "groth16", "proof_bytes": strconv.Itoa(len(proof)),
		"proof_sha256": hex.EncodeToString(proofSum[:]), "params": porepsnark.ParametersName(j.sector.Params),
	}}, nil
}

// explain gives an error its code and class.
func explain(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return asError(e)
	}
	for _, kind := range []struct {
		is    error
		code  string
		class phases.Class
	}{
		{seal.ErrMalformed, "c1_malformed", phases.Permanent},
		{seal.ErrOtherSector, "other_sector", phases.Permanent},
		{seal.ErrOtherSeed, "other_seed", phases.Permanent},
		{seal.ErrCommR, "comm_r_mismatch", phases.Permanent},
		{seal.ErrProofFails, "proof_fails", phases.Permanent},
		{pieces.ErrNone, "bad_piece", phases.Permanent},
		{pieces.ErrSize, "bad_piece", phases.Permanent},
		{pieces.ErrTooLarge, "bad_piece", phases.Permanent},
		{pieces.ErrOverflow, "bad_piece", phases.Permanent},
	} {
		if errors.Is(err, kind.is) {
			return failf(kind.code, kind.class, "%v", err)
		}
	}
	if e := explainSNARK(err); e != nil {
		return e
	}
	fault := storage.Classify(err)
	if fault.Code == "io" {
		return failf("phase_failed", fault.Class, "%v", err)
	}
	return failf(fault.Code, fault.Class, "%v", err)
}

// explainSNARK gives an error of p4's parameters or memory its code and class; nil if it
// is none. What this host lacks another host, or this one after a download, may have:
// the sector waits and spends no attempt.
func explainSNARK(err error) *Error {
	var missing *groth16.MissingError
	var memory *porepsnark.MemoryError
	switch {
	case errors.As(err, &missing):
		return failf("parameters_missing", phases.Transient, "%v", err)
	case errors.As(err, &memory):
		return failf("no_memory", phases.Transient, "%v", err)
	case errors.Is(err, groth16.ErrOtherCircuit), errors.Is(err, groth16.ErrMalformed):
		return failf("parameters_damaged", phases.Retryable, "%v", err)
	case errors.Is(err, porepsnark.ErrDevelopmentParameters):
		return failf("parameters_not_published", phases.Retryable, "%v", err)
	}
	return nil
}
