package circuit_test

import (
	"context"
	"encoding/json"
	"os"
	"testing"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/circuit"
)

func params(t testing.TB, shape string) sealcore.Params {
	t.Helper()
	p, err := sealcore.ForShape(shape)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestFacts compares whole circuits with those of the reference. Of circuits that differ
// it names the first prefix that does.
func TestFacts(t *testing.T) {
	for _, c := range []struct{ file, shape string }{
		{"circuit-2k.json", "2KiB"},
		{"circuit-16k.json", "16KiB"},
		{"circuit-8m.json", "8MiB"},
		{"circuit-512m.json", "512MiB"},
	} {
		t.Run(c.shape, func(t *testing.T) {
			t.Parallel()
			if raceDetector && c.shape != "2KiB" {
				t.Skip("too slow under the race detector")
			}
			raw, err := os.ReadFile("testdata/" + c.file)
			if err != nil {
				t.Fatal(err)
			}
			var want circuit.Description
			if err := json.Unmarshal(raw, &want); err != nil {
				t.Fatal(err)
			}
			got, err := circuit.Facts(context.Background(), params(t, c.shape), nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Prefixes) != len(want.Prefixes) {
				t.Errorf("%d prefixes, want %d", len(got.Prefixes), len(want.Prefixes))
			}
			for i := range min(len(got.Prefixes), len(want.Prefixes)) {
				if got.Prefixes[i] != want.Prefixes[i] {
					t.Fatalf("prefix %d\n got %+v\nwant %+v", i, got.Prefixes[i], want.Prefixes[i])
				}
			}
			got.Prefixes, want.Prefixes = nil, nil
			g, _ := json.MarshalIndent(got, "", " ")
			w, _ := json.MarshalIndent(want, "", " ")
			if string(g) != string(w) {
				t.Errorf("got %s\nwant %s", g, w)
			}
		})
	}
}
