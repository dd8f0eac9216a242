package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sealfleet/internal/host"
	"sealfleet/internal/phases"
	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/merkle"
	"sealfleet/internal/sealcore/pieces"
	"sealfleet/internal/sealcore/porepsnark"
	"sealfleet/internal/sealcore/seal"
)

// Bench runs phases of one sector in a directory of its own, without a bus: DIR/unsealed,
// DIR/sealed, DIR/cache/*, DIR/p1.json and DIR/c1.json. Phases that are not asked for are
// taken from what the directory holds, whichever engine made it.
type Bench struct {
	ProofType int    // -1 if Shape is set
	Shape     string // size of the sector under API version 1.1; 16KiB and 32KiB are toys
	PoRepID   string // hex; empty: the proof type's
	ProverID  string // hex
	Number    uint64
	Ticket    string // hex
	Seed      string // hex
	Pieces    []string
	CC        bool
	Dir       string
	Phases    []phases.Step
	Threads   int
	Proof     Proof // how p4 proves
	Engine    Engine

	params sealcore.Params
	list   []phases.Piece
}

// Report is what a bench found; its JSON is a contract.
type Report struct {
	CommD        string                   `json:"comm_d"`
	CommR        string                   `json:"comm_r"`
	CommC        string                   `json:"comm_c"`
	CommRLast    string                   `json:"comm_r_last"`
	ReplicaID    string                   `json:"replica_id"`
	C1JSONSHA256 string                   `json:"c1_json_sha256"`
	Proof        string                   `json:"proof"`
	SNARK        string                   `json:"snark,omitempty"` // p4: what the proof is, or that there is none
	Pieces       []PieceInfo              `json:"pieces"`
	Files        map[string]seal.FileFact `json:"files"`
	Seconds      map[phases.Step]float64  `json:"seconds"`
}

// benchPhases are those that a bench can run.
var benchPhases = []phases.Step{phases.P1, phases.P2, phases.P3, phases.P4}

// Check refuses before any work what can't be done. All faults are reported at once.
func (b *Bench) Check() error {
	var faults []error
	refuse := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	if err := b.readParams(); err != nil {
		faults = append(faults, err)
	}
	for _, h := range [...]struct {
		flag, value string
		optional    bool
	}{{"--porep-id", b.PoRepID, true}, {"--prover-id", b.ProverID, false}, {"--ticket", b.Ticket, false}, {"--seed", b.Seed, false}} {
		if h.value == "" && h.optional {
			continue
		}
		if _, err := domain(h.flag, h.value); err != nil {
			refuse("%w: give 32 bytes in hex", err)
		}
	}
	if err := checkBenchPhases(b.Phases); err != nil {
		faults = append(faults, err)
	}
	if b.CC && len(b.Pieces) > 0 {
		refuse("--cc (no data) and --piece exclude each other")
	}
	if !b.CC && len(b.Pieces) == 0 && (b.does(phases.P1) || b.does(phases.P3)) {
		refuse("say what is in the sector: --piece FILE (repeatable), or --cc for zeros")
	}
	if b.params.SectorSize != 0 {
		if err := b.readPieces(); err != nil {
			faults = append(faults, err)
		}
	}
	if b.Threads < 0 {
		refuse("--threads %d: must be 0 or more", b.Threads)
	}
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	return b.checkDir()
}

func (b *Bench) readParams() (err error) {
	switch {
	case b.Shape != "" && b.ProofType >= 0:
		return errors.New("--proof-type and --shape exclude each other")
	case b.Shape != "":
		b.params, err = sealcore.ForShape(b.Shape)
	default:
		b.params, err = sealcore.ForProofType(b.ProofType)
	}
	if err != nil {
		return err
	}
	if b.PoRepID != "" {
		if id, err := domain("--porep-id", b.PoRepID); err == nil {
			b.params.PoRepID = id
		}
	}
	return nil
}

func (b *Bench) does(p phases.Step) bool { return slices.Contains(b.Phases, p) }

func checkBenchPhases(list []phases.Step) error {
	for i, p := range list {
		at := slices.Index(benchPhases, p)
		if at < 0 || i > 0 && at != slices.Index(benchPhases, list[i-1])+1 {
			return fmt.Errorf("--phases %s: give some of p1,p2,p3,p4 without a gap, in this order", joinSteps(list))
		}
	}
	if len(list) == 0 {
		return errors.New("--phases is empty: give some of p1,p2,p3,p4")
	}
	return nil
}

func joinSteps(list []phases.Step) string {
	names := make([]string, len(list))
	for i, p := range list {
		names[i] = string(p)
	}
	return strings.Join(names, ",")
}

func (b *Bench) readPieces() error {
	b.list = nil
	var sizes []uint64
	for _, path := range b.Pieces {
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("--piece: %w", err)
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("--piece %s is not a regular file", path)
		}
		if err := pieces.CheckSize(uint64(info.Size())); err != nil {
			return fmt.Errorf("--piece %s: %w", path, err)
		}
		b.list = append(b.list, phases.Piece{Path: path, UnpaddedSize: uint64(info.Size())})
		sizes = append(sizes, uint64(info.Size()))
	}
	if len(sizes) == 0 {
		return nil
	}
	if err := pieces.Validate(b.params, sizes); err != nil {
		return fmt.Errorf("--piece: %w", err)
	}
	return nil
}

// checkDir makes the directory and checks that it holds what the phases before the first
// one leave.
func (b *Bench) checkDir() error {
	if b.Dir == "" {
		return errors.New("--dir is missing: name a directory with room for about 14 times the sector")
	}
	dir, err := filepath.Abs(b.Dir) // p1.json names paths
	if err != nil {
		return err
	}
	b.Dir = dir
	if b.does(phases.P1) {
		if err := host.MakeDir(filepath.Join(b.Dir, "cache")); err != nil {
			return fmt.Errorf("--dir: %w", err)
		}
	}
	if err := host.CheckDir(b.Dir); err != nil {
		return fmt.Errorf("--dir: %w", err)
	}
	if b.does(phases.P4) && !b.Proof.None {
		o := porepsnark.Options{Threads: b.Threads, SelfMadeParametersForProduction: b.Proof.SelfMade}
		if err := porepsnark.Ready(b.params, b.Proof.Parameters, o); err != nil {
			return fmt.Errorf("p4: %w", err)
		}
	}
	paths := b.paths()
	for _, need := range []struct {
		before phases.Step
		path   string
	}{
		{phases.P2, paths.P1JSON},
		{phases.P3, filepath.Join(paths.Cache, seal.PAuxName)}, {phases.P4, paths.C1JSON},
	} {
		if b.Phases[0] != need.before {
			continue
		}
		if _, err := os.Stat(need.path); err != nil {
			return fmt.Errorf("--phases %s goes on from what is in --dir: %w: run the phases before it there", joinSteps(b.Phases), err)
		}
	}
	return nil
}

func (b *Bench) paths() Paths {
	p := seal.InDir(b.Dir)
	return Paths{
		Unsealed: p.Unsealed, Sealed: p.Sealed, Cache: p.Cache,
		P1JSON: filepath.Join(b.Dir, "p1.json"), C1JSON: filepath.Join(b.Dir, "c1.json"),
	}
}

// Run runs the phases. Check must have passed. progress may be nil.
func (b *Bench) Run(ctx context.Context, progress func(phases.Step, Progress)) (*Report, error) {
	inputs := map[string]string{"ticket": strings.ToLower(b.Ticket), "seed": strings.ToLower(b.Seed)}
	seconds := map[phases.Step]float64{}
	for _, p := range b.Phases {
		if err := b.gather(ctx, p, inputs); err != nil {
			return nil, err
		}
		r := b.request(p, inputs)
		start := time.Now()
		result, err := b.Engine.Run(ctx, r, func(g Progress) {
			if progress != nil {
				progress(p, g)
			}
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		seconds[p] = time.Since(start).Seconds()
		for k, v := range result.Outputs {
			inputs[k] = v
		}
	}
	return b.report(ctx, inputs, seconds)
}

// request is what the engine gets of a phase.
func (b *Bench) request(p phases.Step, inputs map[string]string) Request {
	return Request{
		V: Version, Phase: p, Sector: phases.SectorID(0, b.Number), Attempt: 1,
		ProofType: b.ProofType, Shape: b.Shape, PoRepID: b.PoRepID, ProverID: b.ProverID, Number: b.Number,
		Pieces: b.list, Inputs: inputs, Paths: b.paths(), Threads: b.Threads, Proof: &b.Proof,
	}
}

// gather adds what a phase needs and no earlier phase of this run told.
func (b *Bench) gather(ctx context.Context, p phases.Step, inputs map[string]string) error {
	if p == phases.P1 {
		return nil
	}
	if inputs["comm_d"] == "" {
		commD, err := b.commD(ctx)
		if err != nil {
			return err
		}
		inputs["comm_d"] = commD
	}
	if p == phases.P2 {
		return nil
	}
	if inputs["comm_r"] == "" {
		if err := b.readPAux(inputs); err != nil {
			return err
		}
	}
	if p == phases.P3 && inputs["pieces"] == "" {
		list, err := b.commPs(ctx)
		if err != nil {
			return err
		}
		data, err := json.Marshal(list)
		if err != nil {
			return err
		}
		inputs["pieces"] = string(data)
	}
	return nil
}

// commD is in p1's output; if that is gone, the pieces tell it.
func (b *Bench) commD(ctx context.Context) (string, error) {
	data, err := os.ReadFile(b.paths().P1JSON)
	if err == nil {
		p1, err := seal.ParsePreCommit1(data)
		if err != nil {
			return "", fmt.Errorf("%s: %w", b.paths().P1JSON, err)
		}
		return hex.EncodeToString(p1.CommD[:]), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	list, err := b.commPs(ctx)
	if err != nil {
		return "", err
	}
	infos := make([]pieces.Info, len(list))
	for i, p := range list {
		commP, err := domain("comm_p", p.CommP)
		if err != nil {
			return "", err
		}
		infos[i] = pieces.Info{UnpaddedSize: p.UnpaddedSize, CommP: commP}
	}
	commD, err := pieces.CommD(b.params, infos)
	return hex.EncodeToString(commD[:]), err
}

func (b *Bench) commPs(ctx context.Context) ([]PieceInfo, error) {
	var list []PieceInfo
	for _, p := range SealPieces(b.params, b.list) {
		commP, err := pieces.ZeroCommP(p.UnpaddedSize)
		if p.Path != "" {
			commP, err = commPOfFile(ctx, p)
		}
		if err != nil {
			return nil, err
		}
		list = append(list, PieceInfo{p.UnpaddedSize, hex.EncodeToString(commP[:])})
	}
	return list, nil
}

func commPOfFile(ctx context.Context, p seal.Piece) (sealcore.Domain, error) {
	f, err := os.Open(p.Path)
	if err != nil {
		return sealcore.Domain{}, err
	}
	defer f.Close()
	return pieces.CommP(ctx, f, p.UnpaddedSize)
}

// readPAux takes the commitments of p2 from the cache.
func (b *Bench) readPAux(inputs map[string]string) error {
	data, err := os.ReadFile(filepath.Join(b.paths().Cache, seal.PAuxName))
	if err != nil {
		return err
	}
	aux, err := seal.ParsePAux(data)
	if err != nil {
		return err
	}
	commR, err := merkle.Poseidon([]sealcore.Domain{aux.CommC, aux.CommRLast})
	if err != nil {
		return fmt.Errorf("p_aux: %w", err)
	}
	inputs["comm_r"] = hex.EncodeToString(commR[:])
	inputs["comm_c"] = hex.EncodeToString(aux.CommC[:])
	inputs["comm_r_last"] = hex.EncodeToString(aux.CommRLast[:])
	return nil
}

func (b *Bench) report(ctx context.Context, inputs map[string]string, seconds map[phases.Step]float64) (*Report, error) {
	r := &Report{
		CommD: inputs["comm_d"], CommR: inputs["comm_r"], CommC: inputs["comm_c"], CommRLast: inputs["comm_r_last"],
		C1JSONSHA256: inputs["c1_sha256"], Proof: inputs["proof"], SNARK: inputs["snark"], Seconds: seconds,
	}
	if text := inputs["pieces"]; text != "" {
		if err := json.Unmarshal([]byte(text), &r.Pieces); err != nil {
			return nil, err
		}
	} else if b.CC || len(b.list) > 0 {
		var err error
		if r.Pieces, err = b.commPs(ctx); err != nil {
			return nil, err
		}
	}
	if r.C1JSONSHA256 == "" {
		if data, err := os.ReadFile(b.paths().C1JSON); err == nil && b.does(phases.P4) {
			sum := sha256.Sum256(data)
			r.C1JSONSHA256 = hex.EncodeToString(sum[:])
		}
	}
	commD, err := domain("comm_d", r.CommD)
	if err != nil {
		return nil, err
	}
	prover, err := domain("--prover-id", b.ProverID)
	if err != nil {
		return nil, err
	}
	ticket, err := domain("--ticket", b.Ticket)
	if err != nil {
		return nil, err
	}
	id := sealcore.ReplicaID(prover, b.Number, ticket, commD, b.params.PoRepID)
	r.ReplicaID = hex.EncodeToString(id[:])
	r.Files, err = seal.FileFacts(ctx, seal.InDir(b.Dir))
	return r, err
}
