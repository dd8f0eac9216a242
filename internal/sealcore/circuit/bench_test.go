package circuit_test

import (
	"context"
	"testing"

	"sealfleet/internal/sealcore/circuit"
	"sealfleet/internal/sealcore/r1cs"
)

// BenchmarkSynthesize writes the 2 KiB circuit to a sink that only counts, so the time
// is that of the gadgets.
func BenchmarkSynthesize(b *testing.B) {
	p := params(b, "2KiB")
	in := circuit.Blank(p)
	constraints := 0
	for b.Loop() {
		var c r1cs.Counter
		if err := circuit.Synthesize(context.Background(), &c, p, in); err != nil {
			b.Fatal(err)
		}
		constraints += c.Constraints
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(constraints), "ns/constraint")
}

// BenchmarkFacts digests the 2 KiB circuit.
func BenchmarkFacts(b *testing.B) {
	p := params(b, "2KiB")
	for b.Loop() {
		if _, err := circuit.Facts(context.Background(), p, nil); err != nil {
			b.Fatal(err)
		}
	}
}
