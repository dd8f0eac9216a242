package chaos

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// built has the programs that the runs need.
var built struct {
	sync.Once
	dir string
	err error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		if err := os.RemoveAll(built.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	os.Exit(code)
}

func programs(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds three programs and runs them for half a minute")
	}
	built.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "sealfleet-chaos-bin-"); built.err == nil {
			built.err = Programs(context.Background(), built.dir)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.dir
}

func seed(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("SEALFLEET_CHAOS_SEED")
	if text == "" {
		return 1
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("SEALFLEET_CHAOS_SEED=%q: %v (example: SEALFLEET_CHAOS_SEED=7)", text, err)
	}
	return n
}

// The short form of make chaos: the same fleet, the same faults, the same questions.
func TestNothingIsLostAndNothingRunsTwice(t *testing.T) {
	t.Parallel()
	bin := programs(t)
	o := Options{
		Dir: filepath.Join(t.TempDir(), "run"), Bin: bin, Seed: seed(t), Sectors: 40, Faults: 20,
		Every: 700 * time.Millisecond, Work: 600 * time.Millisecond, FailPerMille: 20, Log: t.Output(),
	}
	report, err := Run(t.Context(), o)
	if err != nil {
		t.Fatalf("seed %d (SEALFLEET_CHAOS_SEED): %v", o.Seed, err)
	}
	t.Logf("%+v", *report)
	if len(report.Faults) < 5 {
		t.Errorf("seed %d: only %v struck", o.Seed, report.Faults)
	}
}

func TestThePlanFollowsFromTheSeed(t *testing.T) {
	a, b := Plan(7, 200, time.Second, time.Second), Plan(7, 200, time.Second, time.Second)
	kinds, differs := map[string]bool{}, false
	for i, f := range Plan(8, 200, time.Second, time.Second) {
		if a[i] != b[i] {
			t.Fatalf("fault %d is %v and %v", i, a[i], b[i])
		}
		kinds[a[i].Kind] = true
		differs = differs || a[i] != f
	}
	if len(kinds) != len(kindNames()) || !differs {
		t.Errorf("%d of %d kinds; another seed differs: %v", len(kinds), len(kindNames()), differs)
	}
}

func kindNames() (names []string) {
	for _, k := range kinds() {
		names = append(names, k.name)
	}
	return names
}
