package engine

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strconv"

	"sealfleet/internal/phases"
	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/groth16"
	"sealfleet/internal/sealcore/merkle"
	"sealfleet/internal/sealcore/porepsnark"
	"sealfleet/internal/sealcore/seal"
	"sealfleet/internal/sealcore/vanilla"
)

// verifier checks what a program claims to have done. What it checks:
//
//   - p1: CommD and the CommPs are computed from the pieces again; all of the unsealed file,
//     of tree D's leaves and of the copy in the sealed file is compared and hashed. Of tree
//     D's upper rows and of every layer's labels a sample is computed again (exec_verify_p1.go).
//   - p2: CommR from p_aux; the roots of tree C and tree R from their files; t_aux; and for a
//     sample of nodes that the program could not foresee the whole vanilla proof
//     (seal.SpotCheck): labels, columns, encoding, and the paths in all three trees.
//   - p3: the JSON in full: whose it is, and every vanilla proof.
//   - p4: the proof, by the verifying key.
//
// A sample of n finds a fault that touches a share f of the nodes with a probability of
// 1-(1-f)^n: with 256, two percent of them nearly always and a single node hardly ever.
// That one is found by p3's own check if it is challenged, and is of no consequence for
// the proof if it never is.
type verifier struct {
	*job
	engine   *Exec
	progress func(Progress)
	key      *groth16.VerifyingKey // p4
	inputs4  vanilla.PublicInputs  // p4
}

// verifier prepares the check of a request before the program works: what can't be
// verified is not begun.
func (e *Exec) verifier(ctx context.Context, r Request, progress func(Progress)) (*verifier, error) {
	switch r.Phase {
	case phases.P1, phases.P2, phases.P3, phases.P4:
	default:
		return nil, failf("bad_request", phases.Permanent, "%s is never done by another program than this", r.Phase)
	}
	j, err := newJob(r, progress)
	if err != nil {
		return nil, err
	}
	j.opts.Progress = nil
	j.opts.Threads = threadsOf(r)
	v := &verifier{job: j, engine: e, progress: progress}
	if r.Phase == phases.P4 {
		err = v.prepare4(ctx)
	}
	return v, err
}

// check returns the outputs that the phase really has.
func (v *verifier) check(ctx context.Context, claimed map[string]string) (map[string]string, error) {
	v.progress(Progress{Step: "verify", Done: 0, Total: 1})
	var out map[string]string
	var err error
	switch v.Phase {
	case phases.P1:
		out, err = v.check1(ctx)
	case phases.P2:
		out, err = v.check2(ctx)
	case phases.P3:
		out, err = v.check3(ctx)
	default:
		out, err = v.check4(claimed)
	}
	if err != nil {
		return nil, err
	}
	if err := sameOutputs(claimed, out); err != nil {
		return nil, err
	}
	v.progress(Progress{Step: "verify", Done: 1, Total: 1})
	return out, nil
}

// sameOutputs compares what a program says with what was found. It may say more.
func sameOutputs(claimed, found map[string]string) error {
	for _, name := range sortedKeys(found) {
		got, said := claimed[name]
		switch {
		case name == "params": // a name for people
			continue
		case !said:
			return fmt.Errorf("its result lacks the output %s", name)
		case name == "pieces":
			var a, b []PieceInfo
			if json.Unmarshal([]byte(got), &a) != nil || json.Unmarshal([]byte(found[name]), &b) != nil || fmt.Sprint(a) != fmt.Sprint(b) {
				return fmt.Errorf("its output pieces is %.200q, the pieces themselves give %.200q", got, found[name])
			}
		case got != found[name]:
			return fmt.Errorf("its output %s is %.200q, the files give %.200q", name, got, found[name])
		}
	}
	return nil
}

// check2 checks the replica and its trees.
func (v *verifier) check2(ctx context.Context) (map[string]string, error) {
	p := v.sector.Params
	commD, err := v.commD()
	if err != nil {
		return nil, err
	}
	cache := v.paths.Cache
	data, err := readSmall(filepath.Join(cache, seal.PAuxName))
	if err != nil {
		return nil, err
	}
	aux, err := seal.ParsePAux(data)
	if err != nil {
		return nil, err
	}
	if data, err = readSmall(filepath.Join(cache, seal.TAuxName)); err != nil {
		return nil, err
	}
	tAux, err := seal.ParseTAux(data)
	if err != nil {
		return nil, err
	}
	if err := tAux.Check(p); err != nil {
		return nil, err
	}
	commR, err := merkle.Poseidon([]sealcore.Domain{aux.CommC, aux.CommRLast})
	if err != nil {
		return nil, fmt.Errorf("p_aux: %w", err)
	}

	// What p3 would be asked for, under a seed drawn after the files were written.
	var seed sealcore.Domain
	if _, err := rand.Read(seed[:]); err != nil {
		return nil, err
	}
	o := v.opts
	o.Progress = func(_ string, done, total uint64) { v.progress(Progress{Step: "verify", Done: done, Total: total}) }
	if err := seal.SpotCheck(ctx, v.sector, commD, commR, seed, max(v.engine.samples(), v.SpotCheck), v.paths, o); err != nil {
		return nil, err
	}
	return map[string]string{
		"comm_r": hex.EncodeToString(commR[:]), "comm_c": hex.EncodeToString(aux.CommC[:]), "comm_r_last": hex.EncodeToString(aux.CommRLast[:]),
	}, nil
}

// commD returns CommD as p1 told it.
func (v *verifier) commD() (sealcore.Domain, error) {
	if v.Inputs["comm_d"] != "" {
		return v.input("comm_d")
	}
	data, err := os.ReadFile(v.Paths.P1JSON)
	if err != nil {
		return sealcore.Domain{}, err
	}
	p1, err := seal.ParsePreCommit1(data)
	if err != nil {
		return sealcore.Domain{}, err
	}
	return p1.CommD, nil
}

// check3 checks the vanilla proofs.
func (v *verifier) check3(ctx context.Context) (map[string]string, error) {
	data, _, err := v.commit1(ctx)
	if err != nil {
		return nil, err
	}
	return map[string]string{"c1_sha256": sha256Hex(data), "c1_bytes": strconv.Itoa(len(data))}, nil
}

// maxCommit1 is far more than any commit-phase-1 JSON has (64 GiB: about 45 MB).
const maxCommit1 = 512 << 20

func (v *verifier) commit1(ctx context.Context) ([]byte, *vanilla.Commit1, error) {
	commD, errD := v.input("comm_d")
	commR, errR := v.input("comm_r")
	seed, errS := v.input("seed")
	if err := errors.Join(errD, errR, errS); err != nil {
		return nil, nil, err
	}
	data, err := readBounded(v.Paths.C1JSON, maxCommit1)
	if err != nil {
		return nil, nil, err
	}
	c1, err := seal.VerifyCommit1(ctx, v.sector, commD, commR, seed, data, v.opts)
	return data, c1, err
}

// prepare4 reads what p4's proof will be verified with. Faults here are those of the input
// or of this host, not of the program.
func (v *verifier) prepare4(ctx context.Context) error {
	var how Proof
	if v.Proof != nil {
		how = *v.Proof
	}
	if how.None {
		return failf("bad_request", phases.Permanent, "no SNARK is to be made: that needs no engine")
	}
	key, err := porepsnark.Key(v.sector.Params, how.Parameters, porepsnark.Options{SelfMadeParametersForProduction: how.SelfMade})
	if err != nil {
		return explain(fmt.Errorf("the proof of engine %s could not be verified: %w", v.engine.Path, err))
	}
	data, c1, err := v.commit1(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		return explain(err)
	}
	if sum := sha256Hex(data); v.Inputs["c1_sha256"] != "" && v.Inputs["c1_sha256"] != sum {
		return failf("c1_changed", phases.Permanent, "%s has SHA-256 %s, p3 wrote %s: do p3 again", v.Paths.C1JSON, sum, v.Inputs["c1_sha256"])
	}
	v.key, v.inputs4 = key, c1.PublicInputs()
	return nil
}

// check4 verifies the SNARK.
func (v *verifier) check4(claimed map[string]string) (map[string]string, error) {
	proof, err := hex.DecodeString(claimed["proof"])
	if err != nil {
		return nil, fmt.Errorf("its proof is not hex: %w", err)
	}
	if len(proof) == 0 {
		return nil, errors.New("it gives no proof")
	}
	if err := porepsnark.Verify(v.sector.Params, v.inputs4, proof, v.key); err != nil {
		return nil, err
	}
	return map[string]string{
		"proof": hex.EncodeToString(proof), "snark": "groth16", "proof_bytes": strconv.Itoa(len(proof)),
		"proof_sha256": sha256Hex(proof), "params": porepsnark.ParametersName(v.sector.Params),
	}, nil
}

// randomNodes draws nodes that nobody could foresee; the first, second and last are
// always among them.
func randomNodes(n int, nodes uint64) ([]uint64, error) {
	if uint64(n) >= nodes {
		all := make([]uint64, nodes)
		for i := range all {
			all[i] = uint64(i)
		}
		return all, nil
	}
	out := []uint64{0, 1, nodes - 1}
	for len(out) < n {
		x, err := rand.Int(rand.Reader, new(big.Int).SetUint64(nodes))
		if err != nil {
			return nil, err
		}
		out = append(out, x.Uint64())
	}
	return out, nil
}

// readSmall reads a file of some hundred bytes.
func readSmall(path string) ([]byte, error) { return readBounded(path, 1<<20) }

// readBounded reads a regular file that a program could have made of any size or kind.
func readBounded(path string, limit int64) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return nil, fmt.Errorf("%s is no regular file of at most %d bytes", path, limit)
	}
	return os.ReadFile(path)
}

func sha256Hex(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
