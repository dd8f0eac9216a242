package engine

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealfleet/internal/phases"
	"sealfleet/internal/sealcore/sealtest"
	"sealfleet/internal/storage"
)

// flipBit changes one bit of a file at a random place.
func flipBit(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Log(filepath.Base(path), "seed", seed)
	at := rand.New(rand.NewPCG(seed, 0)).IntN(8 * len(data))
	data[at/8] ^= 1 << (at % 8)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func wantFailure(t *testing.T, err error, code string, class phases.Class) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Code != code || e.Class != class {
		t.Errorf("got %v, want %s (%s)", err, code, class)
	}
}

// onShare does p1 and p2 of a sector in the group's layout and returns a request for what
// follows.
func onShare(t *testing.T) Request {
	t.Helper()
	v := sealtest.LoadVector(t, "2k")
	l := storage.Layout{LocalDir: t.TempDir(), IP: "10.10.13.22", Sector: "s-t01000-7"}
	if err := l.Make(); err != nil {
		t.Fatal(err)
	}
	r := Request{
		V: Version, Phase: phases.P1, Sector: l.Sector, Attempt: 1, ProofType: 5, ProverID: hexOf(v.ProverID), Number: 7,
		Inputs: map[string]string{"ticket": hexOf(v.Ticket)}, Paths: LayoutPaths(l), SpotCheck: 20,
	}
	step(t, &r, phases.P1)
	step(t, &r, phases.P2)
	return r
}

func step(t *testing.T, r *Request, p phases.Step) {
	t.Helper()
	r.Phase = p
	result, err := Builtin{}.Run(t.Context(), *r, nil)
	if err != nil {
		t.Fatalf("%s: %v", p, err)
	}
	for k, v := range result.Outputs {
		r.Inputs[k] = v
	}
}

func TestP2ChecksItself(t *testing.T) {
	r := onShare(t)
	// Labels of another p1: p2 makes consistent trees of them, and the chain would find out
	// at p3. The spot check does now.
	flipBit(t, filepath.Join(r.Paths.Cache, "sc-02-data-layer-1.dat"))
	r.Phase, r.SpotCheck = phases.P2, 1000
	_, err := Builtin{}.Run(t.Context(), r, nil)
	var e *Error
	if !errors.As(err, &e) || e.Code != "spot_check_failed" && !strings.Contains(e.Message, "not a field element") {
		t.Errorf("got %v", err)
	}
}

func TestP5AndP6ChallengeTheCopy(t *testing.T) {
	r := onShare(t)
	node := t.TempDir()
	r.Copy = &Copy{Node: "node1", Dir: node, Samples: 200}
	step(t, &r, phases.P5)
	var receipt storage.Receipt
	if err := json.Unmarshal([]byte(r.Inputs["receipt"]), &receipt); err != nil || receipt.Files[0].Root == "" {
		t.Fatalf("receipt %+v: %v", receipt, err)
	}
	stored := filepath.Join(node, "sealed", r.Sector)
	good, err := os.ReadFile(stored)
	if err != nil {
		t.Fatal(err)
	}
	clean := func(c Clean) error {
		r.Phase, r.Clean = phases.P6, &c
		_, err := Builtin{}.Run(t.Context(), r, nil)
		return err
	}
	intact := func() {
		t.Helper()
		if _, err := os.Stat(filepath.Join(r.Paths.Cache, "p_aux")); err != nil {
			t.Error("deleted all the same:", err)
		}
	}
	flipBit(t, stored)
	wantFailure(t, clean(Clean{Receipt: true, NodeDir: node, Samples: 200}), "receipt_broken", phases.Permanent) // small enough to be read in full
	intact()
	// A receipt that was forged along with the copy is right in all it says; CommR is not.
	damaged, err := os.ReadFile(stored)
	if err != nil {
		t.Fatal(err)
	}
	was := r.Inputs["receipt"]
	r.Inputs["receipt"] = strings.Replace(was, receipt.Files[len(receipt.Files)-1].SHA256, fmt.Sprintf("%x", sha256.Sum256(damaged)), 1)
	wantFailure(t, clean(Clean{Receipt: true, NodeDir: node, Samples: 200}), "audit_failed", phases.Permanent)
	intact()
	r.Inputs["receipt"] = was
	wantFailure(t, clean(Clean{Receipt: true, NodeDir: node, Sealed: true}), "receipt_broken", phases.Permanent)
	intact()
	if err := os.WriteFile(stored, good, 0o644); err != nil {
		t.Fatal(err)
	}
	forged := r.Inputs["receipt"]
	r.Inputs["receipt"] = strings.Replace(forged, receipt.Files[0].SHA256, strings.Repeat("0", 64), 1)
	wantFailure(t, clean(Clean{Receipt: true, NodeDir: node}), "receipt_broken", phases.Permanent)
	intact()
	r.Inputs["receipt"] = forged

	// The source itself is bad: p5 says so, instead of blaming the storage.
	local, err := os.ReadFile(r.Paths.Sealed)
	if err != nil {
		t.Fatal(err)
	}
	flipBit(t, r.Paths.Sealed)
	r.Phase = phases.P5
	_, err = Builtin{}.Run(t.Context(), r, nil)
	wantFailure(t, err, "audit_failed", phases.Permanent)
	if err == nil || !strings.Contains(err.Error(), "--phase p2") {
		t.Errorf("the mend is p2: %v", err)
	}
	if err := os.WriteFile(r.Paths.Sealed, local, 0o644); err != nil {
		t.Fatal(err)
	}
	step(t, &r, phases.P5)
	if err := clean(Clean{Receipt: true, NodeDir: node, Samples: 16, Unsealed: true, Sealed: true}); err != nil {
		t.Error(err)
	}
	if err := clean(Clean{Receipt: true, NodeDir: node, Samples: 16, Unsealed: true, Sealed: true}); err != nil {
		t.Error("a second time:", err)
	}
	// Nothing of p1 and p2 is a name that p6 does not know.
	if left, err := os.ReadDir(r.Paths.Cache); err == nil {
		t.Errorf("left in the cache: %v", left)
	}
}
