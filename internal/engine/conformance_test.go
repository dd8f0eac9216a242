package engine

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"sealfleet/internal/phases"
	"sealfleet/internal/sealcore/groth16"
	"sealfleet/internal/sealcore/porepsnark"
	"sealfleet/internal/sealcore/seal"
	"sealfleet/internal/sealcore/sealtest"
	"sealfleet/internal/sealcore/vanilla"
)

// filecoinEngine is the engine of engines/filecoin-proofs, if it was built: its path is in
// SEALFLEET_ENGINE_FILECOIN.
func filecoinEngine() string { return os.Getenv("SEALFLEET_ENGINE_FILECOIN") }

// conformer is what the suite calls exec: the reference if it was built, else Builtin in a
// process of its own, which proves the path of every exec engine all the same.
func conformer(t *testing.T) (e *Exec, reference bool) {
	t.Helper()
	if path := filecoinEngine(); path != "" {
		t.Logf("exec is %s", path)
		return &Exec{Path: path, Limits: Limits{Memory: MemoryBytes(4 << 30)}, Samples: conformSamples}, true
	}
	t.Log("exec is builtin in a child process; set SEALFLEET_ENGINE_FILECOIN to bin/engine-filecoin (make engine-filecoin) for the reference")
	e = execEngine(t, "builtin")
	e.Samples = conformSamples
	return e, false
}

// conformSamples is few: that lies are found is TestExecLies' business.
const conformSamples = 8

// Every mix of builtin and exec over p1, p2 and p3, changed at each boundary, leaves the
// vector's bytes in every file and every output. The toy shapes, which the reference's API
// doesn't know, run with builtin in a child only.
func TestConformance(t *testing.T) {
	t.Parallel()
	program, reference := conformer(t)
	for _, name := range []string{"2k", "2k-v1", "2k-pieces", "16k", "32k"} {
		for mask := range 1 << 3 {
			which := func(i int) string { return [...]string{"builtin", "exec"}[mask>>i&1] }
			t.Run(fmt.Sprintf("%s/p1=%s,p2=%s,p3=%s", name, which(0), which(1), which(2)), func(t *testing.T) {
				t.Parallel()
				v := sealtest.LoadVector(t, name)
				b := benchOf(t, v, t.TempDir())
				other := program
				if reference && b.Shape != "" {
					other = execEngine(t, "builtin")
				}
				m := mix{builtin: Builtin{}, programs: map[phases.Step]Engine{}}
				for i, p := range []phases.Step{phases.P1, phases.P2, phases.P3} {
					if mask>>i&1 == 1 {
						m.programs[p] = other
					}
				}
				b.Engine = m
				checkReport(t, v, run(t, b))
				checkTAux(t, v, b)
				if left, _ := filepath.Glob(filepath.Join(b.Dir, "cache", ".*")); len(left) > 0 {
					t.Errorf("left behind: %v", left)
				}
			})
		}
	}
}

// checkTAux compares t_aux by its structure: it names the sector's own directory.
func checkTAux(t *testing.T, v sealtest.Seal, b *Bench) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(b.Dir, "cache", seal.TAuxName))
	if err != nil {
		t.Fatal(err)
	}
	got, err := seal.ParseTAux(data)
	if want := seal.NewTAux(v.Params(t), filepath.Join(b.Dir, "cache")); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("t_aux is %+v, want %+v (%v)", got, want, err)
	}
}

// An exec phase done again over what it left, or over what builtin left, gives the same.
func TestConformanceAgain(t *testing.T) {
	t.Parallel()
	v := sealtest.LoadVector(t, "2k-pieces")
	b := benchOf(t, v, t.TempDir())
	b.Engine = Builtin{}
	run(t, b)
	other, _ := conformer(t)
	for _, list := range [][]phases.Step{{phases.P2}, {phases.P2}, {phases.P1, phases.P2, phases.P3}} {
		again := benchOf(t, v, b.Dir)
		again.Phases, again.Engine = list, mix{builtin: Builtin{}, programs: map[phases.Step]Engine{phases.P1: other, phases.P2: other, phases.P3: other}}
		run(t, again)
	}
	last := benchOf(t, v, b.Dir)
	last.Phases = []phases.Step{phases.P3, phases.P4}
	checkReport(t, v, run(t, last))
	checkTAux(t, v, last)
}

// A list of pieces that doesn't fill the sector, and one with gaps: the reference asks for
// zeros to the end, which its engine adds.
func TestConformanceGaps(t *testing.T) {
	t.Parallel()
	other, _ := conformer(t)
	for _, sizes := range [][]int64{{127}, {1016, 127}, {127, 1016}, {254, 127, 508}} {
		t.Run(fmt.Sprint(sizes), func(t *testing.T) {
			t.Parallel()
			var paths []string
			for i, size := range sizes {
				path := filepath.Join(t.TempDir(), fmt.Sprint("piece-", i))
				var data bytes.Buffer
				if _, err := data.ReadFrom(sealtest.PieceData(fmt.Sprint("gap-", i), size)); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, data.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
				paths = append(paths, path)
			}
			var reports []*Report
			for _, e := range []Engine{Builtin{}, mix{builtin: Builtin{}, programs: map[phases.Step]Engine{phases.P1: other, phases.P2: other, phases.P3: other}}} {
				b := benchOf(t, sealtest.LoadVector(t, "2k"), t.TempDir())
				b.Pieces, b.Engine = paths, e
				reports = append(reports, run(t, b))
			}
			for _, r := range reports {
				delete(r.Files, "t_aux") // names its directory
				r.Seconds = nil
			}
			if !reflect.DeepEqual(reports[0], reports[1]) {
				t.Errorf("builtin %+v\nexec    %+v", reports[0], reports[1])
			}
		})
	}
}

// Each engine's proof is accepted by the other, whoever did the phases before. It takes a
// minute for each proof of the reference.
func TestConformanceProofs(t *testing.T) {
	dir := os.Getenv("SEALFLEET_PARAMS_DIR")
	if dir == "" || filecoinEngine() == "" {
		t.Skip("set SEALFLEET_PARAMS_DIR (consumer params) and SEALFLEET_ENGINE_FILECOIN (make engine-filecoin)")
	}
	v := sealtest.LoadVector(t, "2k")
	if _, err := porepsnark.MakeParameters(t.Context(), v.Params(t), dir, "go test", porepsnark.Options{}); err != nil {
		t.Fatal(err)
	}
	other, _ := conformer(t)
	for name, programs := range map[string]map[phases.Step]Engine{
		"p4=exec":             {phases.P4: other},
		"p1=exec,p2=exec":     {phases.P1: other, phases.P2: other},
		"p3=exec":             {phases.P3: other},
		"p2=exec,p4=exec":     {phases.P2: other, phases.P4: other},
		"all exec":            {phases.P1: other, phases.P2: other, phases.P3: other, phases.P4: other},
		"builtin for a check": {},
	} {
		t.Run(name, func(t *testing.T) {
			b := benchOf(t, v, t.TempDir())
			b.Proof = Proof{Parameters: dir}
			b.Engine = mix{builtin: Builtin{}, programs: programs}
			if err := b.Check(); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			report, err := b.Run(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%v in all, %v", time.Since(start).Round(time.Millisecond), report.Seconds)
			if report.SNARK != "groth16" || report.C1JSONSHA256 != fmt.Sprintf("%x", []byte(v.C1SHA256)) {
				t.Errorf("%+v", report)
			}
			ourVerdict(t, b, report, dir)
			referenceVerdict(t, b, report, dir)
		})
	}
}

// ourVerdict verifies a proof by sealcore.
func ourVerdict(t *testing.T, b *Bench, r *Report, dir string) {
	t.Helper()
	data, err := os.ReadFile(b.paths().C1JSON)
	if err != nil {
		t.Fatal(err)
	}
	c1, err := vanilla.ParseCommit1(b.params, data)
	if err != nil {
		t.Fatal(err)
	}
	key, err := porepsnark.Key(b.params, dir, porepsnark.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var proof sealtest.Hex
	if err := proof.UnmarshalText([]byte(r.Proof)); err != nil || len(proof) != groth16.ProofSize {
		t.Fatalf("proof %q: %v", r.Proof, err)
	}
	if err := porepsnark.Verify(b.params, c1.PublicInputs(), proof, key); err != nil {
		t.Error("builtin refuses it:", err)
	}
	proof[0] ^= 0x20 // the sign of A
	if err := porepsnark.Verify(b.params, c1.PublicInputs(), proof, key); err == nil {
		t.Error("builtin accepts a spoilt proof")
	}
}

// referenceVerdict verifies a proof by the reference.
func referenceVerdict(t *testing.T, b *Bench, r *Report, dir string) {
	t.Helper()
	ask := func(seed string) string {
		req, err := json.Marshal(Request{
			V: Version, Phase: phases.P4, ProofType: b.ProofType, ProverID: b.ProverID, Number: b.Number, Paths: b.paths(), Proof: &Proof{Parameters: dir},
			Inputs: map[string]string{"ticket": b.Ticket, "seed": seed, "comm_r": r.CommR, "comm_d": r.CommD, "proof": r.Proof},
		})
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(filecoinEngine(), "verify")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := in.Write(append(req, '\n')); err != nil {
			t.Fatal(err)
		}
		answer, err := bufio.NewReader(out).ReadString('\n') // stdin stays open meanwhile
		in.Close()
		cmd.Wait()
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	accepted := func(answer string) bool {
		var l struct {
			Type    string
			Outputs map[string]string
		}
		return json.Unmarshal([]byte(answer), &l) == nil && l.Type == "result" && l.Outputs["accepted"] == "true"
	}
	if answer := ask(b.Seed); !accepted(answer) {
		t.Error("the reference refuses it:", answer)
	}
	if answer := ask("09" + b.Seed[2:]); accepted(answer) {
		t.Error("the reference accepts it for another seed")
	}
}
