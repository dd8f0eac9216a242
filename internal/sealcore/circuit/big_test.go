package circuit_test

import (
	"context"
	"encoding/json"
	"os"
	"testing"
	"time"

	"sealfleet/internal/sealcore/circuit"
)

// TestFactsOfAnySize prints the facts of the circuit that SEALFLEET_TEST_CIRCUIT names
// ("32GiB"), for comparison by hand: the large ones take minutes.
func TestFactsOfAnySize(t *testing.T) {
	shape := os.Getenv("SEALFLEET_TEST_CIRCUIT")
	if shape == "" {
		t.Skip("set SEALFLEET_TEST_CIRCUIT to a size, such as 32GiB")
	}
	begin := time.Now()
	facts, err := circuit.Facts(context.Background(), params(t, shape), func(done, total uint64) {
		if done == total {
			t.Logf("%d constraints in %v", total, time.Since(begin).Round(time.Millisecond))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	out, _ := json.MarshalIndent(facts, "", "  ")
	t.Logf("%s", out)
}
