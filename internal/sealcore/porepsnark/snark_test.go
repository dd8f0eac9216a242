package porepsnark

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealfleet/internal/memory"
	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/circuit"
	"sealfleet/internal/sealcore/groth16"
	"sealfleet/internal/sealcore/seal"
	"sealfleet/internal/sealcore/sealtest"
	"sealfleet/internal/sealcore/vanilla"
)

// sector is the reference's 2 KiB sector, from its commit-phase-1 JSON.
type sector struct {
	seal.Sector
	commD, commR, seed sealcore.Domain
	json               []byte
	c1                 *vanilla.Commit1
	proof              []byte // the reference's
}

func reference(t testing.TB) sector {
	t.Helper()
	params, err := sealcore.ForProofType(5)
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Proof    sealtest.Hex    `json:"proof"`
		ProverID sealtest.Domain `json:"prover_id"`
		Sector   uint64          `json:"sector_number"`
	}
	if err := json.Unmarshal(sealtest.Read(t, "seal-2k.json"), &v); err != nil {
		t.Fatal(err)
	}
	data := sealtest.Read(t, "seal-2k.c1.json")
	c1, err := vanilla.ParseCommit1(params, data)
	if err != nil {
		t.Fatal(err)
	}
	return sector{
		Sector: seal.Sector{Params: params, ProverID: sealcore.Domain(v.ProverID), Number: v.Sector, Ticket: c1.Ticket},
		commD:  c1.CommD, commR: c1.CommR, seed: c1.Seed, json: data, c1: c1, proof: v.Proof,
	}
}

func referenceKey(t testing.TB) *groth16.VerifyingKey {
	t.Helper()
	data, err := os.ReadFile("../groth16/testdata/groth16-2k.vk")
	if err != nil {
		t.Fatal(err)
	}
	key, err := groth16.ParseVerifyingKey(data)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sharedParameters makes or finds parameters of the 2 KiB circuit in the directory that
// SEALFLEET_PARAMS_DIR names. Making them takes a minute, so without that variable, or
// SEALFLEET_TEST_SNARK=1 for a directory of the test's own, the test is skipped.
func sharedParameters(t testing.TB, params sealcore.Params) string {
	t.Helper()
	dir := os.Getenv("SEALFLEET_PARAMS_DIR")
	if dir == "" && os.Getenv("SEALFLEET_TEST_SNARK") == "1" {
		dir = t.TempDir()
	}
	if dir == "" {
		t.Skip("set SEALFLEET_PARAMS_DIR (parameters are made there once) or SEALFLEET_TEST_SNARK=1: this takes minutes")
	}
	start := time.Now()
	made, err := MakeParameters(t.Context(), params, dir, "go test", Options{Progress: (&steps{t: t}).report})
	if err != nil {
		t.Fatal(err)
	}
	debug.FreeOSMemory()
	if made {
		t.Logf("parameters made in %.1f s", time.Since(start).Seconds())
	}
	return dir
}

// steps logs how long each step takes.
type steps struct {
	t     testing.TB
	mu    sync.Mutex
	name  string
	begin time.Time
	cpu   time.Duration
}

func (s *steps) report(step string, done, total uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if step == s.name {
		return
	}
	s.log()
	s.name, s.begin, s.cpu = step, time.Now(), cpuTime()
}

func (s *steps) log() {
	if s.name != "" {
		s.t.Logf("%-12s %6.2f s, %6.2f s of CPU", s.name, time.Since(s.begin).Seconds(), (cpuTime() - s.cpu).Seconds())
	}
}

func cpuTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// The whole of p4 on the smallest sector: parameters, proof, verification.
func TestCommit2(t *testing.T) {
	s := reference(t)
	dir := sharedParameters(t, s.Params)
	start := time.Now()
	watch := &steps{t: t}
	most := uint64(0) // KiB, without the mapped parameters
	var mu sync.Mutex
	proof, err := Commit2(t.Context(), s.Sector, s.commD, s.commR, s.seed, s.json, dir, Options{
		Progress: func(step string, done, total uint64) {
			watch.report(step, done, total)
			mu.Lock()
			defer mu.Unlock()
			if now, ok := memory.Field("/proc/self/status", "RssAnon:"); ok {
				most = max(most, now)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	watch.log()
	t.Logf("proved in %.1f s with %d MiB of memory", time.Since(start).Seconds(), most>>10)
	key, err := Key(s.Params, dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := Verify(s.Params, s.c1.PublicInputs(), proof, key); err != nil {
		t.Error(err)
	}
	if err := Verify(s.Params, s.c1.PublicInputs(), proof, referenceKey(t)); !errors.Is(err, groth16.ErrInvalidProof) {
		t.Errorf("under another key: %v", err)
	}
}

// Killing p4 means cancelling it: wherever it is, it has to stop soon.
func TestCommit2StopsWhenCancelled(t *testing.T) {
	s := reference(t)
	dir := sharedParameters(t, s.Params)
	for _, at := range []string{"synthesis", "fft", "msm h", "msm l"} {
		ctx, cancel := context.WithCancel(t.Context())
		seen := false
		var since time.Time
		_, err := Commit2(ctx, s.Sector, s.commD, s.commR, s.seed, s.json, dir, Options{Progress: func(step string, done, _ uint64) {
			if step == at && done > 0 && ctx.Err() == nil {
				seen, since = true, time.Now()
				cancel()
			}
		}})
		if !errors.Is(err, context.Canceled) || !seen {
			t.Errorf("cancelled in %s: %v", at, err)
		}
		t.Logf("cancelled in %s: it went on for %.2f s", at, time.Since(since).Seconds())
	}
}

func TestReferencesProofHolds(t *testing.T) {
	s := reference(t)
	if err := Verify(s.Params, s.c1.PublicInputs(), s.proof, referenceKey(t)); err != nil {
		t.Error(err)
	}
}

func TestSpoiltSectorsAreRefused(t *testing.T) {
	s := reference(t)
	key := referenceKey(t)
	good := s.c1.PublicInputs()
	for name, spoil := range map[string]func(*vanilla.PublicInputs){
		"replica": func(pi *vanilla.PublicInputs) {
			other := s.Sector
			pi.ReplicaID = sealcore.ReplicaID(other.ProverID, other.Number+1, other.Ticket, pi.CommD, other.Params.PoRepID)
		},
		"ticket": func(pi *vanilla.PublicInputs) {
			ticket := s.Ticket
			ticket[0] ^= 1
			pi.ReplicaID = sealcore.ReplicaID(s.ProverID, s.Number, ticket, pi.CommD, s.Params.PoRepID)
		},
		"seed":                      func(pi *vanilla.PublicInputs) { pi.Seed[0] ^= 1 },
		"CommD":                     func(pi *vanilla.PublicInputs) { pi.CommD[0] ^= 1 },
		"CommR":                     func(pi *vanilla.PublicInputs) { pi.CommR[0] ^= 1 },
		"CommR and CommD exchanged": func(pi *vanilla.PublicInputs) { pi.CommR, pi.CommD = pi.CommD, pi.CommR },
	} {
		pi := good
		spoil(&pi)
		if err := Verify(s.Params, pi, s.proof, key); !errors.Is(err, groth16.ErrInvalidProof) {
			t.Errorf("another %s: %v", name, err)
		}
	}
	over := good
	for i := range over.CommR {
		over.CommR[i] = 0xff
	}
	if err := Verify(s.Params, over, s.proof, key); !errors.Is(err, groth16.ErrInputs) {
		t.Errorf("CommR above the modulus: %v", err)
	}
	for name, proof := range map[string][]byte{
		"empty": nil, "cut": s.proof[:191], "padded": append(s.proof[:192:192], 0), "twice": append(s.proof[:192:192], s.proof...),
	} {
		if err := Verify(s.Params, good, proof, key); !errors.Is(err, groth16.ErrMalformed) {
			t.Errorf("proof %s: %v", name, err)
		}
	}
	big, err := sealcore.ForProofType(8)
	if err != nil {
		t.Fatal(err)
	}
	ten := []byte(strings.Repeat(string(s.proof), 10))
	if err := Verify(big, good, ten, key); !errors.Is(err, groth16.ErrInputs) {
		t.Errorf("the key of 2 KiB for a sector of 32 GiB: %v", err)
	}
}

func TestMissingParametersAreNamedAtOnce(t *testing.T) {
	s := reference(t)
	dir := t.TempDir()
	name := filepath.Join(dir, "v28-"+circuit.Identifier(s.Params))
	check := func(err error, want string) {
		t.Helper()
		var missing *groth16.MissingError
		if !errors.As(err, &missing) || missing.Path != want {
			t.Errorf("got %v, want that %s is missing", err, want)
		}
	}
	_, err := Commit2(t.Context(), s.Sector, s.commD, s.commR, s.seed, s.json, dir, Options{})
	check(err, name+".params")
	_, err = Key(s.Params, dir, Options{})
	check(err, name+".vk")
	check(Ready(s.Params, dir, Options{}), name+".params")
}

// toyParameters puts the toy circuit's parameters in the place of those of another one.
func toyParameters(t *testing.T, params sealcore.Params) string {
	dir := t.TempDir()
	id := circuit.Identifier(params)
	for from, to := range map[string]string{"params": groth16.ParamsPath(dir, id), "vk": groth16.KeyPath(dir, id)} {
		data, err := os.ReadFile("../groth16/testdata/groth16-small." + from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestForeignParametersAreRefused(t *testing.T) {
	s := reference(t)
	dir := toyParameters(t, s.Params)
	_, err := Commit2(t.Context(), s.Sector, s.commD, s.commR, s.seed, s.json, dir, Options{})
	if !errors.Is(err, groth16.ErrOtherCircuit) {
		t.Errorf("parameters of the toy circuit: %v", err)
	}
	// The verifying key of one circuit beside the parameters of another.
	key, err := os.ReadFile("../groth16/testdata/groth16-2k.vk")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(groth16.KeyPath(dir, circuit.Identifier(s.Params)), key, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Ready(s.Params, dir, Options{}); err == nil || !strings.Contains(err.Error(), "not made together") {
		t.Errorf("a key of other parameters: %v", err)
	}
}

func TestProductionRefusesUnpublishedParameters(t *testing.T) {
	for _, proofType := range []int{3, 4, 8, 9} {
		params, err := sealcore.ForProofType(proofType)
		if err != nil {
			t.Fatal(err)
		}
		dir := toyParameters(t, params)
		if err := Ready(params, dir, Options{}); !errors.Is(err, ErrDevelopmentParameters) {
			t.Errorf("%s: p4: %v", params, err)
		}
		if _, err := Key(params, dir, Options{}); !errors.Is(err, ErrDevelopmentParameters) {
			t.Errorf("%s: verifier: %v", params, err)
		}
		if _, err := Key(params, dir, Options{SelfMadeParametersForProduction: true}); err != nil {
			t.Errorf("%s: verifier, allowed by name: %v", params, err)
		}
		if _, err := MakeParameters(t.Context(), params, t.TempDir(), "test", Options{}); !errors.Is(err, ErrDevelopmentParameters) {
			t.Errorf("%s: making them: %v", params, err)
		}
	}
}

// A bad commit phase 1 must be found before the proof begins.
func TestBadCommit1IsRefusedBeforeTheProof(t *testing.T) {
	s := reference(t)
	dir := sharedParameters(t, s.Params)
	started := func(step string, _, _ uint64) {
		if step == "synthesis" {
			t.Error("the proof was begun")
		}
	}
	flip := func(d sealcore.Domain) sealcore.Domain { d[3] ^= 1; return d }
	other := s.Sector
	other.Number++
	for name, c := range map[string]struct {
		s                  seal.Sector
		commD, commR, seed sealcore.Domain
		json               []byte
		want               error
	}{
		"another sector": {other, s.commD, s.commR, s.seed, s.json, seal.ErrOtherSector},
		"another CommR":  {s.Sector, s.commD, flip(s.commR), s.seed, s.json, seal.ErrCommR},
		"another seed":   {s.Sector, s.commD, s.commR, flip(s.seed), s.json, seal.ErrOtherSeed},
		"cut short":      {s.Sector, s.commD, s.commR, s.seed, s.json[:50_000], seal.ErrMalformed},
	} {
		_, err := Commit2(t.Context(), c.s, c.commD, c.commR, c.seed, c.json, dir, Options{Progress: started})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
