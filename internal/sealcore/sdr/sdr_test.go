package sdr

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/graph"
	"sealfleet/internal/sealcore/sealtest"
)

func newGraph(t testing.TB, p sealcore.Params) *graph.Graph {
	t.Helper()
	g, err := graph.New(p.Nodes(), p.PoRepID, p.APIVersion)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestLabelsAreTheReferences(t *testing.T) {
	for _, name := range []string{"2k", "2k-pieces", "2k-v1", "16k", "32k", "8m"} {
		for _, threads := range []int{1, 2, 4} {
			t.Run(fmt.Sprintf("%s on %d threads", name, threads), func(t *testing.T) {
				if threads != 2 && name == "8m" && testing.Short() {
					t.Skip("the large one once is enough")
				}
				v := sealtest.LoadVector(t, name)
				p := v.Params(t)
				g := newGraph(t, p)
				var prev []byte
				for layer := 1; layer <= p.Layers; layer++ {
					out := make([]byte, p.SectorSize)
					var done uint64
					err := Layer(t.Context(), g, sealcore.Domain(v.ReplicaID), layer, prev, out, Options{
						Threads: threads, Progress: func(d, _ uint64) { done = d },
					})
					if err != nil {
						t.Fatal(err)
					}
					want := v.CacheAfterP1[fmt.Sprintf("sc-02-data-layer-%d.dat", layer)]
					if got := sha256.Sum256(out); string(got[:]) != string(want.SHA256) {
						t.Fatalf("layer %d has SHA-256 %x, want %x", layer, got, want.SHA256)
					}
					if done != p.Nodes() {
						t.Errorf("progress ended at node %d of %d", done, p.Nodes())
					}
					prev = out
				}
			})
		}
	}
}

func TestLayerStopsWhenCancelled(t *testing.T) {
	p, err := sealcore.ForShape("8MiB")
	if err != nil {
		t.Fatal(err)
	}
	g := newGraph(t, p)
	for _, threads := range []int{1, 2} {
		ctx, cancel := context.WithCancel(t.Context())
		var last uint64
		err = Layer(ctx, g, sealcore.Domain{}, 1, nil, make([]byte, p.SectorSize), Options{
			Threads: threads,
			Progress: func(done, total uint64) {
				last = done
				cancel()
			},
		})
		if !errors.Is(err, context.Canceled) || last != progressNodes {
			t.Errorf("%d threads: cancelled at node %d, stopped after %d with %v", threads, progressNodes, last, err)
		}
		cancel()
	}
}

func TestLayerRefuses(t *testing.T) {
	p, err := sealcore.ForShape("2KiB")
	if err != nil {
		t.Fatal(err)
	}
	g := newGraph(t, p)
	b := func(n int) []byte { return make([]byte, n) }
	for _, c := range []struct {
		layer     int
		prev, out []byte
	}{
		{0, nil, b(2048)}, {1, b(2048), b(2048)}, {2, nil, b(2048)}, {1, nil, b(2047)}, {2, b(2047), b(2048)},
	} {
		if err := Layer(t.Context(), g, sealcore.Domain{}, c.layer, c.prev, c.out, Options{}); err == nil {
			t.Errorf("layer %d of %d bytes from %d: no error", c.layer, len(c.out), len(c.prev))
		}
	}
}

func BenchmarkLayer(b *testing.B) {
	p, err := sealcore.ForShape("8MiB")
	if err != nil {
		b.Fatal(err)
	}
	g := newGraph(b, p)
	out, next := make([]byte, p.SectorSize), make([]byte, p.SectorSize)
	for _, threads := range []int{1, 2} {
		b.Run(fmt.Sprintf("first/threads=%d", threads), func(b *testing.B) {
			for b.Loop() {
				if err := Layer(b.Context(), g, sealcore.Domain{}, 1, nil, out, Options{Threads: threads}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(p.Nodes()), "ns/label")
		})
		b.Run(fmt.Sprintf("second/threads=%d", threads), func(b *testing.B) {
			for b.Loop() {
				if err := Layer(b.Context(), g, sealcore.Domain{}, 2, out, next, Options{Threads: threads}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(p.Nodes()), "ns/label")
		})
	}
}
