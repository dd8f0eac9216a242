package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"sealfleet/internal/chain"
	"sealfleet/internal/phases"
)

func TestSubmitRefusesBeforeAnyWork(t *testing.T) {
	f := newFleet(t)
	f.dispatch(impatient("d", chain.NewDev(instant(), nil, nil)))
	f.hosts("h1")
	f.submit(1, 1)
	f.ended(1)
	f.archived("s-t01000-1")
	check := func(_ context.Context, s *phases.Spec) error {
		if s.Number == 13 {
			return errors.New("piece of 100 bytes: a piece has to be 127·2^k bytes")
		}
		return nil
	}
	before, err := f.bus.Replay(f.ctx, func(phases.Event) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		group string
		specs []phases.Spec
		want  error
		says  string
	}{
		{"one of three is bad", group, specs(12, 3), ErrBadSpec, "s-t01000-13"},
		{"archived", group, specs(0, 2), ErrExists, "finished"},
		{"unknown group", "group2", specs(20, 1), ErrBadSpec, "SEAL_GROUPS"},
		{"malformed group", "Group 1", specs(20, 1), ErrBadSpec, "Group 1"},
		{"twice in one", group, append(specs(20, 1), specs(20, 1)...), ErrBadSpec, "twice"},
		{"none", group, nil, ErrBadSpec, "no sector"},
	} {
		got, err := Submit(f.ctx, f.bus, test.group, "test", test.specs, check)
		if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) || len(got) > 0 {
			t.Errorf("%s: %v, %v", test.name, got, err)
		}
	}
	after, err := f.bus.Replay(f.ctx, func(phases.Event) error { return nil })
	if err != nil || after != before {
		t.Errorf("refused submissions wrote %d events (%v)", after-before, err)
	}
}

// Of many who submit the same sector, to whatever group, one succeeds.
func TestSubmitRace(t *testing.T) {
	f := newFleet(t)
	if _, err := f.bus.Apply(f.ctx, []string{group, "group2"}); err != nil {
		t.Fatal(err)
	}
	const racers = 8
	results := make(chan error, racers)
	for i := range racers {
		go func() {
			_, err := Submit(f.ctx, f.bus, fmt.Sprint("group", i%2+1), "test", specs(7, 1), nil)
			results <- err
		}()
	}
	won := 0
	for range racers {
		switch err := <-results; {
		case err == nil:
			won++
		case !errors.Is(err, ErrExists):
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d submissions succeeded", won)
	}
}

func TestListAndMetrics(t *testing.T) {
	f := newFleet(t)
	d, _ := f.dispatch(impatient("d", chain.NewDev(instant(), nil, nil)))
	f.host = func(task phases.Task) *phases.Result {
		if task.Spec.Number == 2 && task.Step == phases.P2 {
			return &phases.Result{Code: "corrupt", Class: phases.Permanent, Message: "p1's labels do not verify"}
		}
		return nil
	}
	f.hosts("h1")
	f.submit(1, 2)
	p := impatient("", nil).Policy
	f.until("one finished, one parked", func(m map[string]*phases.Sector) bool {
		a, b := m["s-t01000-1"], m["s-t01000-2"]
		return a != nil && b != nil && a.Status(p) == phases.StatusFinished && b.Status(p) == phases.StatusParked
	})
	rows, err := List(f.ctx, f.bus, p, 0, Filter{})
	if err != nil || len(rows) != 2 || rows[0].Sector != "s-t01000-1" {
		t.Fatalf("%+v, %v", rows, err)
	}
	parked, err := List(f.ctx, f.bus, p, 0, Filter{States: []string{"parked"}})
	if err != nil || len(parked) != 1 || parked[0].Sector != "s-t01000-2" || !strings.Contains(parked[0].Reason, "labels") {
		t.Fatalf("%+v, %v", parked, err)
	}
	if none, _ := List(f.ctx, f.bus, p, 0, Filter{Groups: []string{"group9"}}); len(none) != 0 {
		t.Fatalf("%+v", none)
	}

	// What the list saw must have reached the dispatcher's own board.
	pos, _ := f.bus.Replay(f.ctx, func(phases.Event) error { return nil })
	if err := d.board.await(f.ctx, pos); err != nil {
		t.Fatal(err)
	}
	problems, err := testutil.CollectAndLint(d.Metrics)
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		t.Errorf("%s: %s", problem.Metric, problem.Text)
	}
	want := `
		# HELP sealfleet_sectors Sectors by where they stand.
		# TYPE sealfleet_sectors gauge
		sealfleet_sectors{group="group1",state="finished"} 1
		sealfleet_sectors{group="group1",state="parked"} 1
	`
	if err := testutil.CollectAndCompare(d.Metrics, strings.NewReader(want), "sealfleet_sectors"); err != nil {
		t.Error(err)
	}
	for step, n := range map[phases.Step]float64{phases.P1: 2, phases.P6: 1, phases.Commit: 1} {
		if got := testutil.ToFloat64(d.Metrics.events.WithLabelValues("done", string(step))); got != n {
			t.Errorf("%v done events of %s were counted, want %v", got, step, n)
		}
	}
}
