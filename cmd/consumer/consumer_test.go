package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sealfleet/internal/sealcore/sealtest"
)

// The test binary is also the program.
func TestMain(m *testing.M) {
	if os.Getenv("SEALFLEET_TEST_CONSUMER") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type ran struct {
	stdout, stderr string
	code           int
}

func consumer(t *testing.T, env []string, args ...string) ran {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append([]string{"SEALFLEET_TEST_CONSUMER=1", "PATH=" + os.Getenv("PATH"), "STATE_DIR=" + t.TempDir(), "HOME=" + t.TempDir(), "HTTP_LISTEN=off", "DOCTOR_LIMIT=60s"}, env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return ran{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// benchReport is the contract of bench, written down a second time.
type benchReport struct {
	CommD        string `json:"comm_d"`
	CommR        string `json:"comm_r"`
	CommC        string `json:"comm_c"`
	CommRLast    string `json:"comm_r_last"`
	ReplicaID    string `json:"replica_id"`
	C1JSONSHA256 string `json:"c1_json_sha256"`
	Proof        string `json:"proof"`
	SNARK        string `json:"snark"`
	Pieces       []struct {
		UnpaddedSize uint64 `json:"unpadded_size"`
		CommP        string `json:"comm_p"`
	} `json:"pieces"`
	Files map[string]struct {
		Size   int64  `json:"size"`
		SHA256 string `json:"sha256"`
	} `json:"files"`
	Seconds map[string]float64 `json:"seconds"`
}

func TestBenchContract(t *testing.T) {
	t.Parallel()
	v := sealtest.LoadVector(t, "2k-pieces")
	dir := filepath.Join(t.TempDir(), "made")
	args := []string{
		"bench", "--proof-type", "5", "--porep-id", hex.EncodeToString(v.PoRepID[:]), "--miner", "1000", "--sector", "4",
		"--ticket", hex.EncodeToString(v.Ticket[:]), "--seed", strings.ToUpper(hex.EncodeToString(v.Seed[:])),
		"--dir", dir, "--engine", "builtin", "--output", "json",
	}
	for _, p := range v.WritePieces(t, t.TempDir()) {
		args = append(args, "--piece", p)
	}
	run := func(phases string) benchReport {
		t.Helper()
		r := consumer(t, []string{"SNARK=none"}, append(slices.Clone(args), "--phases", phases)...)
		if r.code != 0 || r.stderr != "" {
			t.Fatalf("exit %d: %s", r.code, r.stderr)
		}
		d := json.NewDecoder(strings.NewReader(r.stdout))
		d.DisallowUnknownFields()
		var report benchReport
		if err := d.Decode(&report); err != nil || d.More() {
			t.Fatalf("stdout is not one JSON object: %v\n%s", err, r.stdout)
		}
		return report
	}
	check := func(r benchReport) {
		t.Helper()
		for _, f := range []struct {
			name, got string
			want      []byte
		}{
			{"comm_d", r.CommD, v.CommD[:]}, {"comm_r", r.CommR, v.CommR[:]}, {"comm_c", r.CommC, v.CommC[:]},
			{"comm_r_last", r.CommRLast, v.CommRLast[:]}, {"replica_id", r.ReplicaID, v.ReplicaID[:]}, {"c1", r.C1JSONSHA256, v.C1SHA256},
			{"sealed", r.Files["sealed"].SHA256, v.SealedSHA256}, {"comm_p", r.Pieces[2].CommP, v.Pieces[2].CommP[:]},
		} {
			if f.got != hex.EncodeToString(f.want) {
				t.Errorf("%s is %s, want %x", f.name, f.got, f.want)
			}
		}
	}
	all := run("p1,p2,p3")
	check(all)
	if len(all.Seconds) != 3 || all.Seconds["p1"] <= 0 || all.Seconds["p3"] <= 0 || len(all.Pieces) != 3 {
		t.Errorf("%+v", all)
	}
	for _, name := range []string{"unsealed", "sealed", "p1.json", "c1.json", "cache/p_aux", "cache/t_aux", "cache/sc-02-data-tree-r-last.dat"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	sealtest.CheckFile(t, filepath.Join(dir, "c1.json"), sealtest.File{Size: v.C1Bytes, SHA256: v.C1SHA256})
	check(run("p2,p3")) // over what is there
	p3 := run("p3,p4")
	check(p3)
	if p3.SNARK == "" || len(p3.Seconds) != 2 {
		t.Errorf("%+v", p3)
	}

	table := consumer(t, nil, append(slices.Clone(args), "--phases", "p3", "-o", "table")...)
	if table.code != 0 || !strings.Contains(table.stdout, hex.EncodeToString(v.CommR[:])) {
		t.Errorf("table: %+v", table)
	}
}

func TestToyShapeByProverID(t *testing.T) {
	t.Parallel()
	v := sealtest.LoadVector(t, "32k")
	args := []string{
		"bench", "--shape", "32KiB", "--porep-id", hex.EncodeToString(v.PoRepID[:]), "--prover-id", hex.EncodeToString(v.ProverID[:]),
		"--sector", strconv.FormatUint(v.SectorNumber, 10), "--ticket", hex.EncodeToString(v.Ticket[:]), "--seed", hex.EncodeToString(v.Seed[:]), "--dir", t.TempDir(),
	}
	for _, p := range v.WritePieces(t, t.TempDir()) {
		args = append(args, "--piece", p)
	}
	r := consumer(t, nil, args...)
	var report benchReport
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
		t.Fatal(err, r.stderr)
	}
	if report.CommR != hex.EncodeToString(v.CommR[:]) || report.C1JSONSHA256 != hex.EncodeToString(v.C1SHA256) {
		t.Errorf("%+v", report)
	}
}

func TestBadInputExitsWithTwoBeforeAnyWork(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, test := range map[string]struct {
		env  []string
		args []string
		want []string
	}{
		"no kind":         {nil, []string{"bench", "--cc", "--dir", dir}, []string{"--proof-type"}},
		"both kinds":      {nil, []string{"bench", "--cc", "--dir", dir, "--proof-type", "5", "--shape", "2KiB"}, []string{"exclude"}},
		"proof type":      {nil, []string{"bench", "--cc", "--dir", dir, "--proof-type", "12"}, []string{"proof type 12 is unknown"}},
		"all at once":     {nil, []string{"bench", "--cc", "--dir", dir, "--proof-type", "5", "--phases", "p9", "--engine", "cuda", "--output", "xml"}, []string{"p9", "cuda", "xml"}},
		"ticket":          {nil, []string{"bench", "--cc", "--dir", dir, "--proof-type", "5", "--ticket", "ab"}, []string{"--ticket", "32 bytes in hex"}},
		"miner twice":     {nil, []string{"bench", "--cc", "--dir", dir, "--proof-type", "5", "--miner", "1", "--prover-id", strings.Repeat("00", 32)}, []string{"exclude"}},
		"no data":         {nil, []string{"bench", "--dir", dir, "--proof-type", "5"}, []string{"--cc"}},
		"not a number":    {nil, []string{"bench", "--sector", "seven"}, []string{"--sector", "seven"}},
		"unknown flag":    {nil, []string{"bench", "--sectors", "7"}, []string{"--sectors"}},
		"unknown command": {nil, []string{"seal"}, []string{"seal"}},
		"argument":        {nil, []string{"bench", "x"}, []string{"x"}},
		"circuit":         {nil, []string{"circuit", "--shape", "33KiB"}, []string{"33KiB"}},
		"workers":         {[]string{"WORKERS=1:p7"}, []string{"serve"}, []string{"WORKERS", "p7", "example"}},
		"misspelt":        {[]string{"LOCALDIR=/x"}, []string{"serve"}, []string{"did you mean LOCAL_DIR"}},
		"local dir":       {[]string{"LOCAL_DIR=/absent/dir", "WORKERS=1:p1"}, []string{"serve"}, []string{"/absent/dir does not exist", "mkdir -p"}},
		"storage node":    {[]string{"LOCAL_DIR=" + dir, "WORKERS=1:p5", "STORAGE_NODES=n1=/absent/n1"}, []string{"serve"}, []string{"n1", "/absent/n1 does not exist"}},
		"no storage node": {[]string{"LOCAL_DIR=" + dir, "WORKERS=1:p5"}, []string{"serve"}, []string{"STORAGE_NODES", "example"}},
		"listen":          {[]string{"LOCAL_DIR=" + dir, "WORKERS=1:p1", "HTTP_LISTEN=0.0.0.0:0"}, []string{"serve"}, []string{"0.0.0.0"}},
	} {
		r := consumer(t, test.env, test.args...)
		if r.code != exitUsage || r.stdout != "" {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", name, r.code, r.stdout, r.stderr)
		}
		for _, want := range test.want {
			if !strings.Contains(r.stderr, want) {
				t.Errorf("%s: %q lacks %q", name, r.stderr, want)
			}
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "cache", "*")); len(left) > 0 {
		t.Errorf("work was begun: %v", left)
	}
}

func TestCircuitPrintsFacts(t *testing.T) {
	t.Parallel()
	r := consumer(t, nil, "circuit", "--shape", "16KiB", "--output", "json")
	var got, want map[string]any
	if err := json.Unmarshal([]byte(r.stdout), &got); err != nil || r.code != 0 {
		t.Fatal(err, r)
	}
	facts, err := os.ReadFile("../../internal/sealcore/circuit/testdata/circuit-16k.json")
	if err == nil {
		err = json.Unmarshal(facts, &want)
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range want {
		a, _ := json.Marshal(got[name])
		b, _ := json.Marshal(value)
		if !bytes.Equal(a, b) {
			t.Errorf("%s is %.200s, want %.200s", name, a, b)
		}
	}
}

func TestHelpListsEveryVariable(t *testing.T) {
	t.Parallel()
	r := consumer(t, nil, "serve", "--help")
	for _, name := range []string{"WORKERS", "SEAL_GROUPS", "HOST_NAME", "IP", "LOCAL_DIR", "STORAGE_NODES", "COPY_LIMIT_MB_PER_SEC", "FETCH_WAIT", "NATS_URL", "NATS_CREDS", "FIL_PROOFS_PARAMETER_CACHE", "LOG_LEVEL", "BELLMAN_PROOF_THREADS"} {
		if !strings.Contains(r.stdout, "\n"+name+" ") {
			t.Errorf("--help lacks %s", name)
		}
	}
	if v := consumer(t, nil, "version"); !strings.HasPrefix(v.stdout, "consumer ") {
		t.Errorf("version: %+v", v)
	}
}
