package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealfleet/internal/phases"
	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/sealtest"
)

// benchOf is the bench that makes a vector's sector.
func benchOf(t *testing.T, v sealtest.Seal, dir string) *Bench {
	t.Helper()
	b := &Bench{
		ProofType: v.ProofType, PoRepID: hexOf(v.PoRepID), ProverID: hexOf(v.ProverID), Number: v.SectorNumber,
		Ticket: hexOf(v.Ticket), Seed: hexOf(v.Seed), Pieces: v.WritePieces(t, t.TempDir()), Dir: dir,
		Phases: []phases.Step{phases.P1, phases.P2, phases.P3, phases.P4}, Engine: Builtin{}, Proof: Proof{None: true},
	}
	if p := v.Params(t); p.ProofType < 0 {
		b.ProofType, b.Shape = -1, p.Name
	}
	return b
}

func hexOf(d sealtest.Domain) string { return hex.EncodeToString(d[:]) }

func run(t *testing.T, b *Bench) *Report {
	t.Helper()
	if err := b.Check(); err != nil {
		t.Fatal(err)
	}
	r, err := b.Run(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func checkReport(t *testing.T, v sealtest.Seal, r *Report) {
	t.Helper()
	for _, f := range []struct{ name, got, want string }{
		{"comm_d", r.CommD, hexOf(v.CommD)}, {"comm_r", r.CommR, hexOf(v.CommR)}, {"comm_c", r.CommC, hexOf(v.CommC)},
		{"comm_r_last", r.CommRLast, hexOf(v.CommRLast)}, {"replica_id", r.ReplicaID, hexOf(v.ReplicaID)},
		{"c1_json_sha256", r.C1JSONSHA256, hex.EncodeToString(v.C1SHA256)},
		{"sealed", r.Files["sealed"].SHA256, hex.EncodeToString(v.SealedSHA256)},
		{"unsealed", r.Files["unsealed"].SHA256, hex.EncodeToString(v.UnsealedSHA256)},
	} {
		if f.got != f.want {
			t.Errorf("%s is %s, want %s", f.name, f.got, f.want)
		}
	}
	if len(r.Pieces) != len(v.Pieces) {
		t.Fatalf("pieces %v", r.Pieces)
	}
	for i, p := range v.Pieces {
		if r.Pieces[i] != (PieceInfo{p.UnpaddedSize, hexOf(p.CommP)}) {
			t.Errorf("piece %d is %v", i, r.Pieces[i])
		}
	}
	for name, f := range v.CacheAfterP2 {
		got := r.Files[name]
		if name == "t_aux" { // holds a path of this machine
			if got.Size == 0 {
				t.Error("no t_aux")
			}
			continue
		}
		if got.Size != f.Size || got.SHA256 != hex.EncodeToString(f.SHA256) {
			t.Errorf("%s is %v, want %d bytes with %x", name, got, f.Size, f.SHA256)
		}
	}
	if len(r.Files) != len(v.CacheAfterP2)+2 {
		t.Errorf("%d files, want %d and two more", len(r.Files), len(v.CacheAfterP2))
	}
	if r.Proof != "" || r.SNARK != NoSNARK {
		t.Errorf("proof %q, snark %q", r.Proof, r.SNARK)
	}
}

func TestBenchGivesTheReferencesAnswers(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"2k", "2k-v1", "2k-pieces", "16k", "32k"} {
		t.Run(name, func(t *testing.T) {
			v := sealtest.LoadVector(t, name)
			b := benchOf(t, v, t.TempDir())
			r := run(t, b)
			checkReport(t, v, r)
			for _, p := range b.Phases {
				if r.Seconds[p] <= 0 {
					t.Errorf("seconds %v", r.Seconds)
				}
			}
			c1, err := os.ReadFile(filepath.Join(b.Dir, "c1.json"))
			sum := sha256.Sum256(c1)
			if err != nil || hex.EncodeToString(sum[:]) != r.C1JSONSHA256 {
				t.Errorf("c1.json: %v", err)
			}
			if _, err := os.Stat(filepath.Join(b.Dir, "p1.json")); err != nil {
				t.Error(err)
			}
		})
	}
}

// Each phase in a run of its own, in a child process each, gives the same as all at once.
func TestBenchGoesOnFromItsDirectory(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"2k-pieces", "16k"} {
		v := sealtest.LoadVector(t, name)
		dir := t.TempDir()
		var last *Report
		for _, p := range benchPhases {
			b := benchOf(t, v, dir)
			b.Phases = []phases.Step{p}
			b.Engine = command(t, "builtin")
			last = run(t, b)
			if len(last.Seconds) != 1 {
				t.Errorf("seconds %v", last.Seconds)
			}
		}
		checkReport(t, v, last)

		// p2 again, over what is there.
		b := benchOf(t, v, dir)
		b.Phases, b.Pieces = []phases.Step{phases.P2}, nil
		if r := run(t, b); r.CommR != hexOf(v.CommR) || r.Files["sealed"].SHA256 != hex.EncodeToString(v.SealedSHA256) {
			t.Errorf("p2 again: %+v", r)
		}
	}
}

func TestBenchOfCommittedCapacity(t *testing.T) {
	t.Parallel()
	v := sealtest.LoadVector(t, "2k")
	b := benchOf(t, v, t.TempDir())
	b.Pieces, b.CC = nil, true
	zeros := run(t, b)

	// The same as a file of zeros.
	path := filepath.Join(t.TempDir(), "zeros")
	if err := os.WriteFile(path, make([]byte, 2032), 0o644); err != nil {
		t.Fatal(err)
	}
	b = benchOf(t, v, t.TempDir())
	b.Pieces = []string{path}
	file := run(t, b)
	if zeros.CommR != file.CommR || zeros.CommD != file.CommD || zeros.Pieces[0] != file.Pieces[0] || zeros.C1JSONSHA256 != file.C1JSONSHA256 {
		t.Errorf("zeros %+v\nfile %+v", zeros, file)
	}
	if zeros.CommD == hexOf(v.CommD) {
		t.Error("CommD of zeros is that of data")
	}
}

func TestBenchRefusesBeforeAnyWork(t *testing.T) {
	t.Parallel()
	v := sealtest.LoadVector(t, "2k")
	file := func(size int) string {
		path := filepath.Join(t.TempDir(), "piece")
		if err := os.WriteFile(path, make([]byte, size), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, test := range map[string]struct {
		spoil func(*Bench)
		want  string
	}{
		"proof type":       {func(b *Bench) { b.ProofType = 10 }, "proof type 10 is unknown"},
		"shape":            {func(b *Bench) { b.ProofType, b.Shape = -1, "3KiB" }, `"3KiB" is unknown`},
		"both":             {func(b *Bench) { b.Shape = "2KiB" }, "exclude each other"},
		"ticket":           {func(b *Bench) { b.Ticket = "xyz" }, "--ticket"},
		"short seed":       {func(b *Bench) { b.Seed = "00" }, "--seed"},
		"porep id":         {func(b *Bench) { b.PoRepID = "0" }, "--porep-id"},
		"prover":           {func(b *Bench) { b.ProverID = "" }, "--prover-id"},
		"no phases":        {func(b *Bench) { b.Phases = nil }, "--phases is empty"},
		"gap":              {func(b *Bench) { b.Phases = []phases.Step{phases.P1, phases.P3} }, "without a gap"},
		"order":            {func(b *Bench) { b.Phases = []phases.Step{phases.P2, phases.P1} }, "in this order"},
		"twice":            {func(b *Bench) { b.Phases = []phases.Step{phases.P1, phases.P1} }, "in this order"},
		"p5":               {func(b *Bench) { b.Phases = []phases.Step{phases.P5} }, "p1,p2,p3,p4"},
		"cc and pieces":    {func(b *Bench) { b.CC = true }, "exclude each other"},
		"no data":          {func(b *Bench) { b.Pieces = nil }, "--cc"},
		"absent piece":     {func(b *Bench) { b.Pieces = []string{"/absent"} }, "/absent"},
		"odd piece":        {func(b *Bench) { b.Pieces = []string{file(2000)} }, "127·2^k"},
		"empty piece":      {func(b *Bench) { b.Pieces = []string{file(0)} }, "127·2^k"},
		"large piece":      {func(b *Bench) { b.Pieces = []string{file(4064)} }, "larger than the sector"},
		"too many":         {func(b *Bench) { b.Pieces = []string{file(1016), file(2032)} }, "do not fit"},
		"piece is a dir":   {func(b *Bench) { b.Pieces = []string{t.TempDir()} }, "not a regular file"},
		"no dir":           {func(b *Bench) { b.Dir = "" }, "--dir is missing"},
		"dir is a file":    {func(b *Bench) { b.Dir = file(1) }, "not a directory"},
		"nothing to go on": {func(b *Bench) { b.Phases = []phases.Step{phases.P2} }, "p1.json"},
		"no p_aux":         {func(b *Bench) { b.Phases = []phases.Step{phases.P3, phases.P4} }, "p_aux"},
		"no c1":            {func(b *Bench) { b.Phases = []phases.Step{phases.P4} }, "c1.json"},
		"threads":          {func(b *Bench) { b.Threads = -1 }, "--threads"},
	} {
		b := benchOf(t, v, t.TempDir())
		test.spoil(b)
		err := b.Check()
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

// request1 is p1 of a vector's sector, as the consumer asks for it.
func vectorRequest(t *testing.T, v sealtest.Seal, b *Bench, p phases.Step) Request {
	t.Helper()
	r := Request{
		V: Version, Phase: p, Sector: "s-t01000-5", Proof: &Proof{None: true}, ProofType: b.ProofType, Shape: b.Shape, PoRepID: b.PoRepID, ProverID: b.ProverID,
		Number: b.Number, Paths: b.paths(),
		Inputs: map[string]string{
			"ticket": b.Ticket, "seed": b.Seed, "comm_d": hexOf(v.CommD), "comm_r": hexOf(v.CommR), "c1_sha256": hex.EncodeToString(v.C1SHA256),
		},
	}
	var infos []PieceInfo
	for i, piece := range v.Pieces {
		r.Pieces = append(r.Pieces, phases.Piece{Path: b.Pieces[i], UnpaddedSize: piece.UnpaddedSize})
		infos = append(infos, PieceInfo{piece.UnpaddedSize, hexOf(piece.CommP)})
	}
	list, err := json.Marshal(infos)
	if err != nil {
		t.Fatal(err)
	}
	r.Inputs["pieces"] = string(list)
	return r
}

func TestPhasesRefuseWrongInputsByCode(t *testing.T) {
	t.Parallel()
	v := sealtest.LoadVector(t, "2k")
	b := benchOf(t, v, t.TempDir())
	run(t, b)
	other := hex.EncodeToString(append([]byte{7}, make([]byte, 31)...))
	overwrite := func(path string, change func([]byte) []byte) func(*testing.T) {
		return func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, change(append([]byte(nil), data...)), 0o644); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := os.WriteFile(path, data, 0o644); err != nil {
					t.Error(err)
				}
			})
		}
	}
	for name, test := range map[string]struct {
		phase phases.Step
		spoil func(*Request)
		files func(*testing.T)
		code  string
		class phases.Class
	}{
		"p1, piece gone":      {phases.P1, func(r *Request) { r.Pieces[0].Path = "/absent" }, nil, "input_missing", phases.Retryable},
		"p1, odd piece":       {phases.P1, func(r *Request) { r.Pieces[0].UnpaddedSize = 2000 }, nil, "bad_piece", phases.Permanent},
		"p1, no ticket":       {phases.P1, func(r *Request) { delete(r.Inputs, "ticket") }, nil, "bad_request", phases.Permanent},
		"p1, proof type":      {phases.P1, func(r *Request) { r.ProofType = 77 }, nil, "bad_request", phases.Permanent},
		"p2, no p1.json":      {phases.P2, func(r *Request) { r.Paths.P1JSON += "x" }, nil, "input_missing", phases.Retryable},
		"p2, garbage p1.json": {phases.P2, nil, overwrite(b.paths().P1JSON, func(d []byte) []byte { return d[:len(d)/2] }), "p1_malformed", phases.Permanent},
		"p2, another size":    {phases.P2, func(r *Request) { r.ProofType = 6 }, nil, "other_sector", phases.Permanent},
		"p2, another CommD":   {phases.P2, func(r *Request) { r.Inputs["comm_d"] = other }, nil, "other_sector", phases.Permanent},
		"p3, no seed":         {phases.P3, func(r *Request) { delete(r.Inputs, "seed") }, nil, "bad_request", phases.Permanent},
		"p3, another CommR":   {phases.P3, func(r *Request) { r.Inputs["comm_r"] = other }, nil, "other_sector", phases.Permanent},
		"p3, no pieces":       {phases.P3, func(r *Request) { delete(r.Inputs, "pieces") }, nil, "bad_request", phases.Permanent},
		"p4, changed c1":      {phases.P4, nil, overwrite(b.paths().C1JSON, func(d []byte) []byte { d[100] ^= 1; return d }), "c1_changed", phases.Permanent},
		"p4, no parameters":   {phases.P4, func(r *Request) { r.Proof = &Proof{Parameters: t.TempDir()} }, nil, "parameters_missing", phases.Transient},
		"p4, cut c1":          {phases.P4, func(r *Request) { delete(r.Inputs, "c1_sha256") }, overwrite(b.paths().C1JSON, func(d []byte) []byte { return d[:len(d)-9] }), "c1_malformed", phases.Permanent},
		"p4, another seed":    {phases.P4, func(r *Request) { r.Inputs["seed"] = other }, nil, "other_seed", phases.Permanent},
		"p4, another CommR":   {phases.P4, func(r *Request) { r.Inputs["comm_r"] = other }, nil, "comm_r_mismatch", phases.Permanent},
		"p4, another ticket":  {phases.P4, func(r *Request) { r.Inputs["ticket"] = other }, nil, "other_sector", phases.Permanent},
		"p4, another sector":  {phases.P4, func(r *Request) { r.Number++ }, nil, "other_sector", phases.Permanent},
		"p5, no node":         {phases.P5, nil, nil, "bad_request", phases.Permanent},
		"p6, no orders":       {phases.P6, nil, nil, "bad_request", phases.Permanent},
		"p6, no receipt":      {phases.P6, func(r *Request) { r.Clean = &Clean{Receipt: true} }, nil, "no_receipt", phases.Permanent},
	} {
		t.Run(name, func(t *testing.T) {
			r := vectorRequest(t, v, b, test.phase)
			if test.spoil != nil {
				test.spoil(&r)
			}
			if test.files != nil {
				test.files(t)
			}
			_, err := Builtin{}.Run(t.Context(), r, nil)
			var e *Error
			if !errors.As(err, &e) || e.Code != test.code || e.Class != test.class {
				t.Errorf("got %v (%+v), want %s, %s", err, e, test.code, test.class)
			}
		})
	}
	// And unspoilt it is fine, whatever the order of all that.
	for _, p := range benchPhases {
		if _, err := (Builtin{}).Run(t.Context(), vectorRequest(t, v, b, p), nil); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
}

func TestShapesAndProofTypesNeedNoFloat(t *testing.T) {
	// The child must parse what the parent writes, for every kind of sector.
	for i := range 10 {
		r := Request{V: Version, Phase: phases.P1, ProofType: i, ProverID: strings.Repeat("0", 64), Number: 1<<64 - 1, Inputs: map[string]string{"ticket": strings.Repeat("0", 64)}}
		data, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var again Request
		if err := json.Unmarshal(data, &again); err != nil {
			t.Fatal(err)
		}
		s, err := again.sealSector()
		want, _ := sealcore.ForProofType(i)
		if err != nil || s.Params != want || s.Number != 1<<64-1 {
			t.Errorf("%d: %+v, %v", i, s, err)
		}
	}
}
