package circuit_test

import (
	"context"
	"encoding/json"
	"os"
	"testing"
	"time"

	"sealfleet/internal/sealcore/circuit"
)

// referenceDigests are those of whole circuits that the reference (storage-proofs-porep
// 19.1.0) wrote into a sink of the same digest.
var referenceDigests = map[string]string{
	"32KiB": "2f47d57564fd171c1a48adb357f57f37a4d983da87c4176b8d8c3ee1cf6d5f6a",
	"32GiB": "86a77ddcb20e46c8f18866c40276b89d63bc6524e68562b81c6e6961cffff756",
	"64GiB": "28a13587099a74ab07b1de25e3c930e083ca814b2636eaaf9d1973944ce49b0b",
}

// TestFactsOfOtherSizes digests 32KiB, or the circuit that SEALFLEET_TEST_CIRCUIT names:
// "32GiB" and "64GiB" take a minute.
func TestFactsOfOtherSizes(t *testing.T) {
	shape := os.Getenv("SEALFLEET_TEST_CIRCUIT")
	if shape == "" {
		shape = "32KiB"
	}
	if raceDetector {
		t.Skip("too slow under the race detector")
	}
	begin := time.Now()
	facts, err := circuit.Facts(context.Background(), params(t, shape), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d constraints in %v", facts.Constraints, time.Since(begin).Round(time.Millisecond))
	if want, ok := referenceDigests[shape]; !ok || facts.SHA256 != want {
		out, _ := json.MarshalIndent(facts, "", "  ")
		t.Errorf("digest %s, want %s; the circuit's facts are %s", facts.SHA256, want, out)
	}
}
