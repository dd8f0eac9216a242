package circuit_test

import (
	"testing"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/circuit"
)

// TestIdentifier compares the names with those under which Filecoin publishes parameters
// (parameters.json, stacked-proof-of-replication), for both API versions.
func TestIdentifier(t *testing.T) {
	const prefix = "stacked-proof-of-replication-merkletree-poseidon_hasher-"
	for i, want := range []string{
		"8-0-0-sha256_hasher-032d3138d22506ec0082ed72b2dcba18df18477904e35bafee82b3793b06832f",
		"8-0-0-sha256_hasher-ecd683648512ab1765faa2a5f14bab48f676e633467f0aa8aad4b55dcb0652bb",
		"8-0-0-sha256_hasher-6babf46ce344ae495d558e7770a585b2382d54f225af8ed0397b8be7c3fcd472",
		"8-8-0-sha256_hasher-82a357d2f2ca81dc61bb45f4a762807aedee1b0a53fd6c4e77b46a01bfef7820",
		"8-8-2-sha256_hasher-96f1b4a04c5c51e4759bbf224bbc2ef5a42c7100f16ec0637123f16a845ddfb2",
	} {
		for _, proofType := range []int{i, i + 5} {
			p, err := sealcore.ForProofType(proofType)
			if err != nil {
				t.Fatal(err)
			}
			if got := circuit.Identifier(p); got != prefix+want {
				t.Errorf("proof type %d: %s, want %s", proofType, got, prefix+want)
			}
		}
	}
}
