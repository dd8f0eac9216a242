package groth16

import (
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"

	"sealfleet/internal/sealcore/durable"
	"sealfleet/internal/sealcore/r1cs"
)

// like512MiB has the counts of the circuit for sectors of 512 MiB, with as few values
// that are neither 0 nor 1: bits, and every fiftieth variable a square.
func like512MiB(ctx context.Context, sink r1cs.Sink) error {
	const constraints = 4_420_000
	y := fr.NewElement(3)
	last := sink.AllocInput(y)
	minus := one
	minus.Neg(&minus)
	// Like the real circuit it leaves no garbage, with which the heap would grow.
	plus := func() r1cs.LC { return r1cs.LC{{Coeff: one}} }
	a, c := plus(), plus()
	not, bit := r1cs.LC{{Var: r1cs.One, Coeff: one}, {Coeff: minus}}, plus()
	for i := range constraints {
		if i%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if i%50 == 0 {
			y.Square(&y)
			a[0].Var, last = last, sink.AllocAux(y)
			c[0].Var = last
			sink.Enforce(a, a, c)
			continue
		}
		v := sink.AllocAux(fr.NewElement(uint64(i) * 0x9e3779b97f4a7c15 >> 63))
		not[1].Var, bit[0].Var = v, v
		sink.Enforce(not, bit, nil)
	}
	return nil
}

// status reads a field of /proc/self/status in MiB.
func status(t *testing.T, name string) uint64 {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == name+":" {
			kib, err := strconv.ParseUint(f[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib >> 10
		}
	}
	t.Fatalf("no %s in /proc/self/status", name)
	return 0
}

// A proof of the size of a 512 MiB sector's stays within the written bound.
func TestMemoryOf512MiB(t *testing.T) {
	if os.Getenv("SEALFLEET_TEST_512M") != "1" {
		t.Skip("set SEALFLEET_TEST_512M=1: it takes minutes and 2 GB of disk")
	}
	path := filepath.Join(t.TempDir(), "big.params")
	f, err := durable.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if _, err := Setup(t.Context(), like512MiB, rand.Reader, Options{}, f); err != nil {
		t.Fatal(err)
	}
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	t.Logf("setup: %.0f s, peak of memory %d MiB", time.Since(start).Seconds(), status(t, "VmHWM"))
	p, err := OpenParams(path)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	debug.FreeOSMemory() // what the setup left behind is not the proof's
	start = time.Now()
	most := uint64(0)
	step := ""
	// Mapped pages of the parameters are not counted: the kernel takes them back at will.
	_, _, err = Prove(t.Context(), p, like512MiB, Options{Threads: 2, Progress: func(name string, _, _ uint64) {
		if now := status(t, "RssAnon"); now > most {
			most, step = now, name
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	bound := MemoryNeed(p.Domain(), p.Aux(), 2) >> 20
	t.Logf("proof: %.0f s, at most %d MiB (in %s) where %d are allowed for", time.Since(start).Seconds(), most, step, bound)
	if most > bound {
		t.Errorf("it took %d MiB, more than MemoryNeed's %d", most, bound)
	}
}
