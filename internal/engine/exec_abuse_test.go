package engine

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"sealfleet/internal/phases"
	"sealfleet/internal/sealcore/porepsnark"
	"sealfleet/internal/sealcore/sealtest"
)

// More engines that the test binary plays, see TestMain.
var _ = func() bool {
	for name, run := range map[string]func([]string) int{
		"flood": func([]string) int { // every line is of the protocol
			for {
				if _, err := fmt.Println(`{"type":"progress","step":"x","done":1,"total":2}`); err != nil {
					return 1
				}
			}
		},
		"floodstderr": func([]string) int {
			for {
				if _, err := fmt.Fprintln(os.Stderr, strings.Repeat("noise ", 100)); err != nil {
					return 1
				}
			}
		},
		"hang":      func([]string) int { return hang() },
		"leak":      func([]string) int { return leak() },
		"leakchild": func([]string) int { return start("leak", false) },
		// It leaves the process group, so that only the watch over descendants finds it.
		"stray":     func(args []string) int { return start("strayleak", true, args...) },
		"strayleak": func(args []string) int { go hold(args[0], true); awaitUp(args[0]); return leak() },
		"secrets": func([]string) int {
			for _, entry := range os.Environ() {
				if (strings.HasPrefix(entry, "NATS_") || strings.HasPrefix(entry, "AWS_")) && !strings.HasSuffix(entry, "=") {
					say(`{"type":"error","code":"leaked","class":"permanent","message":"` + entry + `"}`)
					return 1
				}
			}
			return Serve(os.Stdin, os.Stdout, Builtin{})
		},
		// It dies in the middle of its work.
		"litter": func([]string) int {
			var r struct{ Scratch string }
			if err := json.NewDecoder(os.Stdin).Decode(&r); err != nil {
				return 1
			}
			inside := filepath.Join(r.Scratch, "cache")
			if err := errors.Join(os.MkdirAll(inside, 0o755), os.WriteFile(filepath.Join(inside, "layer"), []byte("half"), 0o600)); err != nil {
				say("hello, " + err.Error())
			}
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		},
		"liar":   func(args []string) int { return Serve(os.Stdin, os.Stdout, liar{how: args[0]}) },
		"replay": func(args []string) int { return Serve(os.Stdin, os.Stdout, replay{proof: args[0]}) },
		"chatty": func([]string) int {
			say(`{"type":"error","code":"x","class":"permanent","message":"` + strings.Repeat("a", 1<<20) + `"}`)
			return 1
		},
	} {
		engines[name] = run
	}
	return true
}()

// leak takes memory, all of it in use, until it is killed or has far more than any limit.
func leak() int {
	debug.SetGCPercent(-1)
	var kept [][]byte
	for range 128 {
		kept = append(kept, bytes.Repeat([]byte{1}, 8<<20))
	}
	defer func() { _ = kept[0][0] }()
	return hang()
}

func awaitUp(path string) {
	for {
		if _, err := os.Stat(path + ".up"); err == nil {
			return
		}
		time.Sleep(time.Millisecond) // in a child; nothing to wait on across processes
	}
}

// start plays an engine in a child of its own and stays.
func start(name string, leaves bool, args ...string) int {
	self, _ := os.Executable()
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), "SEALFLEET_TEST_ENGINE="+name)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, os.Stdout, os.Stderr
	in, _, err := os.Pipe() // whose end stays open
	if err != nil {
		return 1
	}
	cmd.Stdin = in
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: leaves}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return hang()
}

// execEngine plays an engine of this binary under guards that suit a test.
func execEngine(t *testing.T, name string, args ...string) *Exec {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &Exec{
		Path: self, Args: args, Env: []string{"SEALFLEET_TEST_ENGINE=" + name}, Grace: 20 * time.Second,
		Limits:  Limits{Memory: MemoryBytes(2 << 30), Poll: 5 * time.Millisecond},
		Samples: 500, // every node of the smallest sectors
	}
}

// sectorRequest is a request over a vector's sector in a directory of its own, all phases
// before p done by Builtin.
func sectorRequest(t *testing.T, name string, p phases.Step) Request {
	t.Helper()
	v := sealtest.LoadVector(t, name)
	b := benchOf(t, v, t.TempDir())
	b.Phases = []phases.Step{phases.P1, phases.P2, phases.P3}
	if err := b.Check(); err != nil {
		t.Fatal(err)
	}
	r := Request{
		V: Version, Sector: "s-t01000-7", Attempt: 1, ProofType: b.ProofType, Shape: b.Shape, PoRepID: b.PoRepID,
		ProverID: b.ProverID, Number: b.Number, Pieces: b.list, Paths: b.paths(),
		Inputs: map[string]string{"ticket": b.Ticket, "seed": b.Seed},
	}
	for _, before := range benchPhases {
		if r.Phase = before; before == p {
			break
		}
		result, err := Builtin{}.Run(t.Context(), r, nil)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range result.Outputs {
			r.Inputs[k] = v
		}
	}
	return r
}

func wantCode(t *testing.T, result Result, err error, code, message string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Message, message) {
		t.Errorf("got %+v, %v; want %s with %q", result, err, code, message)
		return
	}
	if e.Class != phases.Retryable {
		t.Errorf("%s is %s", code, e.Class)
	}
	if len(result.Outputs) != 0 {
		t.Errorf("outputs of a failed attempt: %v", result.Outputs)
	}
}

// Programs that abuse their host, each in a real process, are told by code and leave
// nothing running.
func TestExecAbuse(t *testing.T) {
	t.Parallel()
	small := MemoryBytes(200 << 20)
	soon := TimeLimit{phases.P1: 300 * time.Millisecond}
	for name, test := range map[string]struct {
		limits        Limits
		code, message string
	}{
		"garbage":     {Limits{}, "engine_garbage", "hello, world"},
		"silent":      {Limits{}, "engine_no_result", "without a result"},
		"endless":     {Limits{}, "engine_garbage", "bytes"},
		"exit3":       {Limits{}, "engine_exit", "the disk sings"},
		"hang":        {Limits{Time: soon}, "engine_time", "ENGINE_TIME_LIMIT"},
		"flood":       {Limits{Output: 1 << 20}, "engine_output", "1.0 MiB"},
		"floodstderr": {Limits{Output: 1 << 20}, "engine_output", "1.0 MiB"},
		"leak":        {Limits{Memory: small}, "engine_memory", "ENGINE_MEMORY_LIMIT"},
		"leakchild":   {Limits{Memory: small}, "engine_memory", "with all that it started"},
		"good":        {Limits{}, "engine_wrong_output", "nothing of it is accepted"}, // success, and not a file
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := execEngine(t, name)
			test.limits.Poll = 5 * time.Millisecond
			e.Limits = test.limits
			result, err := e.Run(t.Context(), sectorRequest(t, "2k", phases.P1), nil)
			wantCode(t, result, err, test.code, test.message)
		})
	}
}

func TestExecKillsDescendantsThatLeftTheGroup(t *testing.T) {
	t.Parallel()
	lock := filepath.Join(t.TempDir(), "lock")
	e := execEngine(t, "stray", lock)
	e.Limits.Memory = MemoryBytes(200 << 20) // the stray one passes it, so it was seen
	var killed []string
	e.Killed = func(why string) { killed = append(killed, why) }
	result, err := e.Run(t.Context(), sectorRequest(t, "2k", phases.P1), nil)
	wantCode(t, result, err, "engine_memory", "killed with all that it started")
	if len(killed) != 1 || killed[0] != "limit" {
		t.Errorf("killed %v", killed)
	}
	dead(t, lock)
}

func TestExecCancelled(t *testing.T) {
	t.Parallel()
	lock := filepath.Join(t.TempDir(), "lock")
	errLost := errors.New("claim lost")
	ctx, cancel := context.WithCancelCause(t.Context())
	e := execEngine(t, "family", lock, "stubborn")
	e.Grace = 50 * time.Millisecond
	_, err := e.Run(ctx, sectorRequest(t, "2k", phases.P1), func(p Progress) {
		if p.Step == "up" {
			cancel(errLost)
		}
	})
	if !errors.Is(err, errLost) {
		t.Error(err)
	}
	dead(t, lock)
}

func TestExecThatCannotStart(t *testing.T) {
	t.Parallel()
	script := filepath.Join(t.TempDir(), "engine")
	// What another test forks meanwhile would have the file open, and it could not be started.
	syscall.ForkLock.RLock()
	err := os.WriteFile(script, []byte("#!/absent/interpreter\n"), 0o755)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(t.TempDir(), "engine")
	if err := os.WriteFile(plain, []byte("#!/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for path, message := range map[string]string{"/absent/engine": "does not exist", plain: "not executable", script: "no such file", t.TempDir(): "no file"} {
		result, err := (&Exec{Path: path}).Run(t.Context(), sectorRequest(t, "2k", phases.P1), nil)
		wantCode(t, result, err, "engine_start", message)
	}
	for _, p := range []phases.Step{phases.P5, phases.P6} {
		r := request()
		r.Phase = p
		var e *Error
		if _, err := execEngine(t, "good").Run(t.Context(), r, nil); !errors.As(err, &e) || e.Code != "bad_request" {
			t.Errorf("%s: %v", p, err)
		}
	}
}

// What a killed program leaves is removed: by its own host, or by the next attempt if that
// died too.
func TestExecScratchIsRemoved(t *testing.T) {
	t.Parallel()
	r := sectorRequest(t, "2k", phases.P2)
	outside := filepath.Join(t.TempDir(), "outside")
	dead := filepath.Join(r.Paths.Cache, scratchPrefix+"ofadeadhost")
	if err := errors.Join(os.WriteFile(outside, []byte("x"), 0o600), os.Mkdir(dead, 0o755), os.Symlink(filepath.Dir(outside), filepath.Join(dead, "link"))); err != nil {
		t.Fatal(err)
	}
	result, err := execEngine(t, "litter").Run(t.Context(), r, nil)
	wantCode(t, result, err, "engine_signal", "killed")
	if left, _ := filepath.Glob(filepath.Join(r.Paths.Cache, ".*")); len(left) > 0 {
		t.Error("left behind:", left)
	}
	if _, err := os.Stat(outside); err != nil {
		t.Error("followed a link:", err)
	}
	if _, err := execEngine(t, "builtin").Run(t.Context(), r, nil); err != nil {
		t.Error("the next attempt:", err)
	}
}

func TestExecTextIsBounded(t *testing.T) {
	t.Parallel()
	_, err := execEngine(t, "chatty").Run(t.Context(), sectorRequest(t, "2k", phases.P1), nil)
	var e *Error
	if !errors.As(err, &e) || e.Code != "x" || len(e.Message) > maxText {
		t.Errorf("%.100v", err)
	}
}

func TestExecGetsNoSecrets(t *testing.T) {
	t.Setenv("NATS_PASSWORD", "hunter2")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
	if _, err := execEngine(t, "secrets").Run(t.Context(), sectorRequest(t, "2k", phases.P1), nil); err != nil {
		t.Error(err)
	}
}

// liar does the phase well, spoils something, and claims success.
type liar struct{ how string }

// spoils are the lies of each phase. The outputs may be changed too.
var spoils = map[phases.Step]map[string]func(r Request, out map[string]string) error{
	phases.P1: {
		"claims another CommD":      func(_ Request, out map[string]string) error { out["comm_d"] = strings.Repeat("0", 64); return nil },
		"claims another replica id": func(_ Request, out map[string]string) error { out["replica_id"] = out["comm_d"]; return nil },
		"claims no CommD":           func(_ Request, out map[string]string) error { delete(out, "comm_d"); return nil },
		"claims other pieces":       func(_ Request, out map[string]string) error { out["pieces"] = "[]"; return nil },
		"claims garbage for pieces": func(_ Request, out map[string]string) error { out["pieces"] = "{"; return nil },
		"a label":                   func(r Request, _ map[string]string) error { return flip(r, "sc-02-data-layer-1.dat", 32*17) },
		"the first label":           func(r Request, _ map[string]string) error { return flip(r, "sc-02-data-layer-2.dat", 0) },
		"the last label":            func(r Request, _ map[string]string) error { return flip(r, "sc-02-data-layer-2.dat", -32) },
		"tree D's leaf":             func(r Request, _ map[string]string) error { return flip(r, "sc-02-data-tree-d.dat", 64) },
		"tree D's row":              func(r Request, _ map[string]string) error { return flip(r, "sc-02-data-tree-d.dat", 32*70) },
		"tree D's root":             func(r Request, _ map[string]string) error { return flip(r, "sc-02-data-tree-d.dat", -1) },
		"no tree D": func(r Request, _ map[string]string) error {
			return os.Remove(filepath.Join(r.Paths.Cache, "sc-02-data-tree-d.dat"))
		},
		"no labels": func(r Request, _ map[string]string) error {
			return os.Remove(filepath.Join(r.Paths.Cache, "sc-02-data-layer-1.dat"))
		},
		"unsealed":   func(r Request, _ map[string]string) error { return flipFile(r.Paths.Unsealed, 700) },
		"padding":    func(r Request, _ map[string]string) error { return flipBits(r.Paths.Unsealed, 31, 0x80) },
		"sealed":     func(r Request, _ map[string]string) error { return flipFile(r.Paths.Sealed, 700) },
		"sealed cut": func(r Request, _ map[string]string) error { return os.Truncate(r.Paths.Sealed, 100) },
		"no sealed":  func(r Request, _ map[string]string) error { return os.Remove(r.Paths.Sealed) },
		"a pipe": func(r Request, _ map[string]string) error {
			return errors.Join(os.Remove(r.Paths.Unsealed), syscall.Mkfifo(r.Paths.Unsealed, 0o600))
		},
		"no JSON":      func(r Request, _ map[string]string) error { return os.Remove(r.Paths.P1JSON) },
		"garbage JSON": func(r Request, _ map[string]string) error { return os.WriteFile(r.Paths.P1JSON, []byte("{}"), 0o600) },
		"huge JSON":    func(r Request, _ map[string]string) error { return os.Truncate(r.Paths.P1JSON, 1<<40) },
		"other CommD in the JSON": func(r Request, _ map[string]string) error {
			data, err := os.ReadFile(r.Paths.P1JSON)
			at := bytes.Index(data, []byte(`"comm_d":[`))
			return errors.Join(err, os.WriteFile(r.Paths.P1JSON, append(data[:at:at], []byte(`"comm_d":[`+strings.Repeat("1,", 31)+`1]}`)...), 0o600))
		},
	},
	phases.P2: {
		"claims another CommR": func(_ Request, out map[string]string) error { out["comm_r"] = out["comm_c"]; return nil },
		"claims another CommC": func(_ Request, out map[string]string) error { out["comm_c"] = out["comm_r_last"]; return nil },
		"the replica":          func(r Request, _ map[string]string) error { return flipFile(r.Paths.Sealed, 700) },
		"the replica cut":      func(r Request, _ map[string]string) error { return os.Truncate(r.Paths.Sealed, 1024) },
		"not encoded at all": func(r Request, _ map[string]string) error {
			data, err := os.ReadFile(r.Paths.Unsealed)
			return errors.Join(err, os.WriteFile(r.Paths.Sealed, data, 0o600))
		},
		"a column":      func(r Request, _ map[string]string) error { return flip(r, "sc-02-data-tree-c.dat", 32*5) },
		"tree C's root": func(r Request, _ map[string]string) error { return flip(r, "sc-02-data-tree-c.dat", -1) },
		"tree R's root": func(r Request, _ map[string]string) error { return flip(r, "sc-02-data-tree-r-last.dat", -1) },
		"no tree R": func(r Request, _ map[string]string) error {
			return os.Remove(filepath.Join(r.Paths.Cache, "sc-02-data-tree-r-last.dat"))
		},
		"no p_aux":      func(r Request, _ map[string]string) error { return os.Remove(filepath.Join(r.Paths.Cache, "p_aux")) },
		"no t_aux":      func(r Request, _ map[string]string) error { return os.Remove(filepath.Join(r.Paths.Cache, "t_aux")) },
		"garbage t_aux": func(r Request, _ map[string]string) error { return flip(r, "t_aux", 0) },
		"p1's labels":   func(r Request, _ map[string]string) error { return flip(r, "sc-02-data-layer-1.dat", 32*17) },
		"p_aux and CommR": func(r Request, out map[string]string) error {
			// What it says holds together, and is of no replica.
			if err := flip(r, "p_aux", 3); err != nil {
				return err
			}
			b := Bench{Dir: filepath.Dir(r.Paths.Cache)}
			return b.readPAux(out)
		},
	},
	phases.P3: {
		"claims another hash": func(_ Request, out map[string]string) error { out["c1_sha256"] = strings.Repeat("0", 64); return nil },
		"claims another size": func(_ Request, out map[string]string) error { out["c1_bytes"] = "1"; return nil },
		"no JSON":             func(r Request, _ map[string]string) error { return os.Remove(r.Paths.C1JSON) },
		"cut JSON":            func(r Request, _ map[string]string) error { return os.Truncate(r.Paths.C1JSON, 5000) },
		"another seed": func(r Request, out map[string]string) error {
			r.Inputs["seed"] = strings.Repeat("03", 32)
			result, err := Builtin{}.Run(context.Background(), r, nil)
			for k, v := range result.Outputs {
				out[k] = v
			}
			return err
		},
		"a digit": func(r Request, _ map[string]string) error {
			data, err := os.ReadFile(r.Paths.C1JSON)
			at := bytes.Index(data, []byte(`"data":[`)) + len(`"data":[`)
			if at < 10 {
				at = bytes.IndexAny(data[2000:], "123456789") + 2000
			}
			data[at] = '0' + (data[at]-'0'+1)%2
			return errors.Join(err, os.WriteFile(r.Paths.C1JSON, data, 0o600))
		},
	},
}

func (l liar) Run(ctx context.Context, r Request, progress func(Progress)) (Result, error) {
	result, err := Builtin{}.Run(ctx, r, progress)
	if err == nil {
		err = spoils[r.Phase][l.how](r, result.Outputs)
	}
	return result, err
}

func flip(r Request, name string, at int64) error {
	return flipFile(filepath.Join(r.Paths.Cache, name), at)
}

func flipFile(path string, at int64) error { return flipBits(path, at, 1) }

// flipBits changes bits of one byte; at counts from the end if it is negative.
func flipBits(path string, at int64, bits byte) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if at < 0 {
		at += int64(len(data))
	}
	data[at] ^= bits
	return os.WriteFile(path, data, 0o600)
}

// Each lie is found, and its attempt fails with a code of its own.
func TestExecLies(t *testing.T) {
	t.Parallel()
	for p, lies := range spoils {
		for how := range lies {
			t.Run(fmt.Sprintf("%s %s", p, how), func(t *testing.T) {
				t.Parallel()
				result, err := execEngine(t, "liar", how).Run(t.Context(), sectorRequest(t, "2k-pieces", p), nil)
				wantCode(t, result, err, "engine_wrong_output", "nothing of it is accepted")
			})
		}
	}
}

// replay gives a proof that somebody made earlier.
type replay struct{ proof string }

func (p replay) Run(context.Context, Request, func(Progress)) (Result, error) {
	raw, _ := hex.DecodeString(p.proof)
	return Result{Outputs: map[string]string{
		"proof": p.proof, "snark": "groth16", "proof_bytes": fmt.Sprint(len(raw)), "proof_sha256": sha256Hex(raw), "params": "mine",
	}}, nil
}

// The reference's own proof of a sector is accepted under its key, and nothing else.
func TestExecProofIsVerified(t *testing.T) {
	t.Parallel()
	v := sealtest.LoadVector(t, "2k")
	key, err := os.ReadFile("../sealcore/groth16/testdata/groth16-2k.vk")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	name := strings.TrimSuffix(porepsnark.ParametersName(v.Params(t)), ".params")
	if err := os.WriteFile(filepath.Join(dir, name+".vk"), key, 0o600); err != nil {
		t.Fatal(err)
	}
	r := sectorRequest(t, "2k", phases.P4)
	r.Proof = &Proof{Parameters: dir}
	proof := hex.EncodeToString(v.Proof)
	result, err := execEngine(t, "replay", proof).Run(t.Context(), r, nil)
	if err != nil || result.Outputs["proof"] != proof || result.Outputs["params"] == "mine" {
		t.Errorf("%v, %v", result, err)
	}
	for _, bad := range []string{"", "00", proof[:len(proof)-2] + "00", proof + proof, "zz", strings.Repeat("0", len(proof))} {
		result, err := execEngine(t, "replay", bad).Run(t.Context(), r, nil)
		wantCode(t, result, err, "engine_wrong_output", "nothing of it is accepted")
	}
	other := sectorRequest(t, "2k-pieces", phases.P4)
	other.Proof = r.Proof
	result, err = execEngine(t, "replay", proof).Run(t.Context(), other, nil)
	wantCode(t, result, err, "engine_wrong_output", "nothing of it is accepted")

	// What can't be verified is not begun.
	r.Proof = &Proof{Parameters: t.TempDir()}
	var e *Error
	if _, err := execEngine(t, "replay", proof).Run(t.Context(), r, nil); !errors.As(err, &e) || e.Code != "parameters_missing" {
		t.Error(err)
	}
}

// A fault that is the file system's is no lie of the engine's.
func TestExecFaultOfTheFileSystem(t *testing.T) {
	t.Parallel()
	e := execEngine(t, "good")
	err := e.why(t.Context(), fmt.Errorf("read: %w", syscall.ESTALE))
	var got *Error
	if !errors.As(err, &got) || got.Class != phases.Transient || got.Code != "storage_away" {
		t.Error(err)
	}
}

// What the engine is told of its limits is what it is killed for.
func TestRequestTellsLimits(t *testing.T) {
	t.Parallel()
	c := Command{Limits: &Limits{Time: TimeLimit{phases.P2: time.Hour}, Memory: MemoryBytes(5), Output: 7}}
	r := request()
	r.Phase = phases.P2
	data, err := c.marshal(r)
	var got struct {
		Phase  string
		Limits Bounds
	}
	if err != nil || json.Unmarshal(data, &got) != nil || got.Phase != "p2" || got.Limits != (Bounds{3600, 5, 7}) {
		t.Errorf("%s, %v", data, err)
	}
}
