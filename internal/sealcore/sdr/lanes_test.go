package sdr

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/graph"
)

// Side by side or one by one, with the assembly or without, labels are the same: for any number
// of lanes, in batches of any length, at the start of a layer and within it, whatever the labels
// before are.
func TestLanesAreTheGeneric(t *testing.T) {
	const nodes = 3 * batchNodes
	g, err := graph.New(nodes, sealcore.Domain{9}, sealcore.V1_1_0)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		var seed [32]byte
		copy(seed[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "seed"))
		random := rand.NewChaCha8(seed)
		layer := rapid.Uint32().Draw(t, "layer")
		expander := rapid.Bool().Draw(t, "expander")
		prefixes := make([]prefix, rapid.IntRange(1, 7).Draw(t, "lanes"))
		var got, want []*hasher
		for i := range prefixes {
			prefixes[i].layer = layer
			random.Read(prefixes[i].replicaID[:])
			out, prev := make([]byte, nodes*sealcore.NodeSize), make([]byte, nodes*sealcore.NodeSize)
			random.Read(out)
			random.Read(prev)
			if !expander {
				prev = nil
			}
			got = append(got, newHasher(prefixes[i], prev, bytes.Clone(out)))
			got[i].number = i
			want = append(want, newHasher(prefixes[i], prev, out))
		}
		s := newStream(context.Background(), g, prefixes, expander, 1, 0, func(*batch) {})
		b := s.newBatch()
		s.draw(b, rapid.SampledFrom([]uint64{0, 1, 2, 1000, nodes - 7}).Draw(t, "first"))
		b.count = min(b.count, rapid.IntRange(1, 40).Draw(t, "count"))
		hashLanes(b, got)
		for i, h := range want {
			h.hashGeneric(b)
			if !bytes.Equal(got[i].out, h.out) {
				t.Fatalf("lane %d of %d has other labels", i, len(want))
			}
		}
	})
}

// All lanes of Layers, on any number of threads, are as Layer's. One that is cancelled, and one
// whose sizes are wrong, don't disturb the others.
func TestLayersAreEachLayers(t *testing.T) {
	const nodes = 18 * batchNodes // more than lie between two reports of progress
	g, err := graph.New(nodes, sealcore.Domain{5}, sealcore.V1_1_0)
	if err != nil {
		t.Fatal(err)
	}
	lane := func(id byte) Lane {
		return Lane{ReplicaID: sealcore.Domain{id}, Out: make([]byte, nodes*sealcore.NodeSize)}
	}
	const most = 7
	var want [most][2][]byte
	for i := range want {
		for layer := range 2 {
			want[i][layer] = lane(0).Out
			var prev []byte
			if layer == 1 {
				prev = want[i][0]
			}
			if err := Layer(t.Context(), g, sealcore.Domain{byte(i)}, layer+1, prev, want[i][layer], Options{Threads: 2}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, n := range []int{1, 2, 3, 4, most} {
		for _, threads := range []int{1, 2, 4} {
			ctx, cancel := context.WithCancel(t.Context())
			var last uint64
			for layer := range 2 {
				var lanes []Lane
				for i := range n {
					l := lane(byte(i))
					if layer == 1 {
						l.Prev = want[i][0]
					}
					lanes = append(lanes, l)
				}
				if n > 2 && layer == 1 {
					lanes[0].Out = nil
					lanes[1].Context = ctx
					lanes[1].Progress = func(uint64, uint64) { cancel() }
				}
				var telling sync.Mutex
				errs := Layers(t.Context(), g, lanes, layer+1, Options{Threads: threads, Progress: func(done, _ uint64) {
					telling.Lock() // from any goroutine, so not always in order
					last = max(last, done)
					telling.Unlock()
				}})
				for i, err := range errs {
					switch {
					case n > 2 && layer == 1 && i == 0:
						if err == nil {
							t.Errorf("%d lanes: one without memory went through", n)
						}
					case n > 2 && layer == 1 && i == 1:
						if !errors.Is(err, context.Canceled) {
							t.Errorf("%d lanes: cancelled: %v", n, err)
						}
					case err != nil:
						t.Errorf("%d lanes on %d threads, lane %d: %v", n, threads, i, err)
					case !bytes.Equal(lanes[i].Out, want[i][layer]):
						t.Errorf("%d lanes on %d threads, lane %d has other labels in layer %d", n, threads, i, layer+1)
					}
				}
				if last != nodes {
					t.Errorf("%d lanes on %d threads: progress ended at %d", n, threads, last)
				}
			}
			cancel()
		}
	}
}

func BenchmarkLanes(b *testing.B) {
	p, err := sealcore.ForShape("8MiB")
	if err != nil {
		b.Fatal(err)
	}
	g := newGraph(b, p)
	for n := 1; n <= maxLanes; n++ {
		s := newStream(b.Context(), g, make([]prefix, n), true, 1, 0, func(*batch) {})
		batch := s.newBatch()
		s.draw(batch, 100*batchNodes)
		var group []*hasher
		for i := range n {
			h := newHasher(prefix{}, make([]byte, p.SectorSize), make([]byte, p.SectorSize))
			h.number = i
			group = append(group, h)
		}
		b.Run(fmt.Sprintf("hash/lanes=%d", n), func(b *testing.B) {
			for b.Loop() {
				hashLanes(batch, group)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n*batchNodes), "ns/label")
		})
	}
	b.Run("draw", func(b *testing.B) {
		s := newStream(b.Context(), g, nil, true, 1, 0, func(*batch) {})
		batch := s.newBatch()
		for b.Loop() {
			s.draw(batch, 100*batchNodes)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(batchNodes), "ns/node")
	})
}
