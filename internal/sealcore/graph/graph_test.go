package graph

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sync"
	"testing"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/sealtest"
)

// vector is one graph-N.json: parents of some nodes as the reference draws them.
type vector struct {
	ProofType  int    `json:"registered_seal_proof"`
	APIVersion string `json:"api_version"`
	PoRepID    string `json:"porep_id"`
	SectorSize uint64 `json:"sector_size"`
	Nodes      []struct {
		Node uint64                     `json:"node"`
		Base [sealcore.DRGDegree]uint32 `json:"base_parents"`
		Exp  [sealcore.ExpDegree]uint32 `json:"expander_parents"`
	} `json:"nodes"`
}

func loadVector(t *testing.T, proofType int) (vector, *Graph) {
	t.Helper()
	var v vector
	if err := json.Unmarshal(sealtest.Read(t, fmt.Sprintf("graph-%d.json", proofType)), &v); err != nil {
		t.Fatal(err)
	}
	var porepID sealcore.Domain
	if n, err := hex.Decode(porepID[:], []byte(v.PoRepID)); err != nil || n != len(porepID) {
		t.Fatalf("porep id %q: %v", v.PoRepID, err)
	}
	g, err := New(v.SectorSize/sealcore.NodeSize, porepID, sealcore.APIVersion(v.APIVersion))
	if err != nil {
		t.Fatal(err)
	}
	return v, g
}

func TestParentsAreTheReferences(t *testing.T) {
	for _, proofType := range []int{0, 5, 6, 7, 8, 9} {
		t.Run(fmt.Sprint(proofType), func(t *testing.T) {
			v, g := loadVector(t, proofType)
			if len(v.Nodes) == 0 {
				t.Fatal("vector without nodes")
			}
			for _, n := range v.Nodes {
				var base [sealcore.DRGDegree]uint32
				if g.BaseParents(n.Node, &base); base != n.Base {
					t.Errorf("node %d: base parents %v, want %v", n.Node, base, n.Base)
				}
				var exp [sealcore.ExpDegree]uint32
				if g.ExpParents(n.Node, &exp); exp != n.Exp {
					t.Errorf("node %d: expander parents %v, want %v", n.Node, exp, n.Exp)
				}
			}
		})
	}
}

// Every edge of the expander ends somewhere, and no two at the same place: each node of the
// layer before has exactly eight children.
func TestExpanderIsAPermutation(t *testing.T) {
	for _, nodes := range []uint64{1, 2, 5, 64, 100, 512, 1000} {
		for _, v := range []sealcore.APIVersion{sealcore.V1_0_0, sealcore.V1_1_0} {
			g, err := New(nodes, sealcore.Domain{7}, v)
			if err != nil {
				t.Fatal(err)
			}
			children := make([]int, nodes)
			for node := range nodes {
				var exp [sealcore.ExpDegree]uint32
				g.ExpParents(node, &exp)
				for _, p := range exp {
					children[p]++
				}
			}
			for node, c := range children {
				if c != sealcore.ExpDegree {
					t.Fatalf("%d nodes, version %s: node %d has %d children", nodes, v, node, c)
				}
			}
		}
	}
}

func TestBaseParentsPrecedeTheirNode(t *testing.T) {
	for _, v := range []sealcore.APIVersion{sealcore.V1_0_0, sealcore.V1_1_0} {
		g, err := New(1<<31, sealcore.Domain{1, 2, 3}, v)
		if err != nil {
			t.Fatal(err)
		}
		pred := 0
		if v == sealcore.V1_0_0 {
			pred = sealcore.DRGDegree - 1
		}
		for _, start := range []uint64{1, 1 << 20, 1<<31 - 5000} {
			for node := start; node < start+5000; node++ {
				var base [sealcore.DRGDegree]uint32
				g.BaseParents(node, &base)
				if uint64(base[pred]) != node-1 {
					t.Fatalf("version %s: node %d: predecessor is not at %d: %v", v, node, pred, base)
				}
				for _, p := range base {
					if uint64(p) >= node {
						t.Fatalf("version %s: node %d: parent %d does not precede it", v, node, p)
					}
				}
			}
		}
	}
}

// Run with -race: the tables are made on first use, by whoever comes first.
func TestConcurrentUse(t *testing.T) {
	v, _ := loadVector(t, 6)
	_, g := loadVector(t, 6)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for _, n := range v.Nodes {
				var exp [sealcore.ExpDegree]uint32
				if g.ExpParents(n.Node, &exp); exp != n.Exp {
					t.Errorf("node %d: expander parents %v, want %v", n.Node, exp, n.Exp)
				}
			}
		})
	}
	wg.Wait()
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []struct {
		nodes uint64
		v     sealcore.APIVersion
	}{{0, sealcore.V1_1_0}, {1 << 32, sealcore.V1_1_0}, {64, "1.2.0"}, {64, ""}} {
		if _, err := New(c.nodes, sealcore.Domain{}, c.v); err == nil {
			t.Errorf("%d nodes, version %q: no error", c.nodes, c.v)
		}
	}
}

func BenchmarkBaseParents(b *testing.B) {
	g, _ := New(1<<24, sealcore.Domain{7}, sealcore.V1_1_0)
	var out [sealcore.DRGDegree]uint32
	for i := uint64(0); b.Loop(); i++ {
		g.BaseParents(i&(1<<24-1), &out)
	}
}

func BenchmarkExpParents(b *testing.B) {
	g, _ := New(1<<24, sealcore.Domain{7}, sealcore.V1_1_0)
	var out [sealcore.ExpDegree]uint32
	g.ExpParents(0, &out)
	for i := uint64(0); b.Loop(); i++ {
		g.ExpParents(i&(1<<24-1), &out)
	}
}
