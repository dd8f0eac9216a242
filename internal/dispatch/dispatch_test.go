package dispatch

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"sealfleet/internal/chain"
	"sealfleet/internal/phases"
)

func TestSectorsGoThrough(t *testing.T) {
	for _, dispatchers := range []int{1, 3} {
		t.Run(fmt.Sprint(dispatchers, " dispatchers"), func(t *testing.T) {
			f := newFleet(t)
			for i := range dispatchers {
				f.dispatch(impatient(fmt.Sprint("d", i), chain.NewDev(instant(), nil, nil)))
			}
			f.hosts("h1", "h2")
			const n = 30
			f.submit(0, n)
			states := f.ended(n)
			f.onceEach(states)
			for id, s := range states {
				if s.Status(phases.DefaultPolicy()) != phases.StatusFinished {
					t.Errorf("%s ended as %s", id, s.Status(phases.DefaultPolicy()))
				}
				stone := f.archived(id)
				if stone.Outcome != phases.StatusFinished || stone.Outputs["comm_r"] == "" || stone.Outputs["commit_note"] != chain.NoteWithoutSnark {
					t.Errorf("tombstone %+v", stone)
				}
			}
		})
	}
}

func TestGateInputsAndOutputs(t *testing.T) {
	f := newFleet(t)
	cfg := instant()
	cfg.Epoch, cfg.PrecommitEpochs, cfg.SeedEpochs, cfg.CommitEpochs = 2_000_000, 2, 5, 2 // 2 ms
	f.dispatch(impatient("d", chain.NewDev(cfg, nil, nil)))
	tasks := make(chan phases.Task, 10)
	f.host = func(task phases.Task) *phases.Result { tasks <- task; return nil }
	f.hosts("h1")
	f.submit(7, 1)
	states := f.ended(1)
	close(tasks)
	got := map[phases.Step]phases.Task{}
	for task := range tasks {
		got[task.Step] = task
	}
	if p1 := got[phases.P1]; len(p1.Inputs["ticket"]) != 64 || p1.Inputs["ticket_epoch"] == "" {
		t.Errorf("p1 got %v", p1.Inputs)
	}
	for _, key := range []string{"ticket", "ticket_epoch", "comm_d", "comm_r", "seed", "seed_epoch", "precommit_message", "precommit_epoch"} {
		if got[phases.P3].Inputs[key] == "" {
			t.Errorf("p3 got no %s: %v", key, got[phases.P3].Inputs)
		}
	}
	if got[phases.P6].Inputs["commit_message"] == "" {
		t.Errorf("p6 got no commit_message: %v", got[phases.P6].Inputs)
	}
	s := states["s-t01000-7"]
	gate, p3 := s.Step(phases.Precommit), s.Step(phases.P3)
	if wait := gate.EndedAt.Sub(gate.IssuedAt); wait < 6*cfg.Epoch {
		t.Errorf("the precommit landed and had its seed after %v, want more than 6 epochs of %v", wait, cfg.Epoch)
	}
	if p3.IssuedAt.Before(gate.EndedAt) {
		t.Error("p3 was issued before the seed was there")
	}
}

func TestFailedPrecommitGoesStraightToP6(t *testing.T) {
	f := newFleet(t)
	cfg := instant()
	if err := cfg.FailPrecommit.UnmarshalText([]byte("7")); err != nil {
		t.Fatal(err)
	}
	f.dispatch(impatient("d", chain.NewDev(cfg, nil, nil)))
	f.hosts("h1")
	f.submit(7, 2)
	states := f.ended(2)
	s := states["s-t01000-7"]
	if s.Status(phases.DefaultPolicy()) != phases.StatusFailed || s.Reason == "" {
		t.Fatalf("%s, reason %q", s.Status(phases.DefaultPolicy()), s.Reason)
	}
	for _, step := range []phases.Step{phases.P3, phases.P4, phases.P5, phases.Commit} {
		if st := s.Step(step); st.Issue != 0 {
			t.Errorf("%s was issued", step)
		}
	}
	f.did("s-t01000-7", phases.P6, 1)
	if stone := f.archived("s-t01000-7"); stone.Outcome != phases.StatusFailed || stone.Reason == "" {
		t.Errorf("tombstone %+v", stone)
	}
	if other := states["s-t01000-8"]; other.Status(phases.DefaultPolicy()) != phases.StatusFinished {
		t.Errorf("its neighbour ended as %s", other.Status(phases.DefaultPolicy()))
	}
}

func TestRefusedCommitParksTheSectorAndP4CanBeRedone(t *testing.T) {
	f := newFleet(t)
	verifier := chain.VerifierFunc(func(_ context.Context, p chain.Proof) error {
		if p.Proof[0] == 1 {
			return nil
		}
		return fmt.Errorf("%w: pairing is not one", chain.ErrInvalidProof)
	})
	f.dispatch(impatient("d", chain.NewDev(instant(), verifier, nil)))
	proof := "00"
	f.host = func(task phases.Task) *phases.Result {
		if task.Step != phases.P4 {
			return nil
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		return &phases.Result{Code: "ok", Outputs: map[string]string{"proof": proof, "snark": "groth16"}}
	}
	f.hosts("h1")
	f.submit(7, 1)
	const id = "s-t01000-7"
	p := impatient("", nil).Policy
	states := f.until("the refusal", func(m map[string]*phases.Sector) bool {
		return m[id] != nil && m[id].Status(p) == phases.StatusParked
	})
	row := RowOf(states[id], p, states[id].Submitted())
	if r := states[id].Step(phases.Commit).Result; r == nil || r.Code != chain.CodeBadProof || row.Reason == "" {
		t.Fatalf("result %+v, row %+v", r, row)
	}
	if states[id].Step(phases.P6).Issue != 0 {
		t.Fatal("p6 was issued although the proof was refused")
	}
	f.mu.Lock()
	proof = "01"
	f.mu.Unlock()
	if err := Redo(f.ctx, f.bus, id, phases.P4, "test", "the prover had a bad card"); err != nil {
		t.Fatal(err)
	}
	if s := f.ended(1)[id]; s.Status(p) != phases.StatusFinished {
		t.Fatalf("after the redo: %s", s.Status(p))
	}
	for step, want := range map[phases.Step]int{phases.P1: 1, phases.P2: 1, phases.P3: 1, phases.P4: 2, phases.P5: 1, phases.P6: 1} {
		f.did(id, step, want)
	}
	if err := Redo(f.ctx, f.bus, id, phases.P4, "test", "again"); !errors.Is(err, ErrRefused) {
		t.Errorf("redo of an ended sector: %v", err)
	}
	if err := Cancel(f.ctx, f.bus, "s-t01000-99", "test", "why"); !errors.Is(err, ErrUnknown) {
		t.Errorf("cancel of an unknown sector: %v", err)
	}
}
