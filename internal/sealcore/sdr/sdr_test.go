package sdr

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

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
				if name == "8m" && (threads == 1 || testing.Short()) {
					t.Skip("the large one takes seconds")
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

// The assembly and crypto/sha256 give the same labels, for batches of any length, at the start of
// a layer and within it, whatever the labels before are.
func TestAssemblyIsTheGeneric(t *testing.T) {
	if !accelerated() {
		t.Skip("there is no assembly for this CPU")
	}
	const nodes = 3 * batchNodes
	g, err := graph.New(nodes, sealcore.Domain{9}, sealcore.V1_1_0)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		var seed [32]byte
		copy(seed[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "seed"))
		random := rand.NewChaCha8(seed)
		p := prefix{layer: rapid.Uint32().Draw(t, "layer")}
		random.Read(p.replicaID[:])
		want, prev := make([]byte, nodes*sealcore.NodeSize), make([]byte, nodes*sealcore.NodeSize)
		random.Read(want)
		random.Read(prev)
		got := bytes.Clone(want)

		expander := rapid.Bool().Draw(t, "expander")
		if !expander {
			prev = nil
		}
		s := newStream(context.Background(), g, []prefix{p}, expander, 1, 0, func(*batch) {})
		b := s.newBatch()
		s.draw(b, rapid.SampledFrom([]uint64{0, 1, 2, 1000, nodes - 7}).Draw(t, "first"))
		b.count = min(b.count, rapid.IntRange(1, 40).Draw(t, "count"))

		newHasher(p, prev, want).hashGeneric(b)
		hashLanes(b, []*hasher{newHasher(p, prev, got)})
		if !bytes.Equal(got, want) {
			for i := range nodes {
				if at := i * sealcore.NodeSize; !bytes.Equal(got[at:at+sealcore.NodeSize], want[at:at+sealcore.NodeSize]) {
					t.Fatalf("label %d is %x, want %x", i, got[at:at+sealcore.NodeSize], want[at:at+sealcore.NodeSize])
				}
			}
		}
	})
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
