package seal

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/merkle"
)

func randomSeed(t *testing.T) (d sealcore.Domain) {
	n := rand.Uint64()
	t.Log("seed", n)
	binary.LittleEndian.PutUint64(d[:], n)
	return d
}

// spoil changes one bit of a file and returns what undoes it.
func spoil(t *testing.T, path string, bit int64) func() {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[bit/8] ^= 1 << (bit % 8)
	write(t, path, data)
	return func() {
		data[bit/8] ^= 1 << (bit % 8)
		write(t, path, data)
	}
}

func TestSpotCheckTakesGoodSectors(t *testing.T) {
	for _, name := range []string{"2k", "2k-v1", "16k", "32k"} {
		c := newChain(t, name)
		if err := c.run(t.Context(), 1, 2, Options{}); err != nil {
			t.Fatal(err)
		}
		var told uint64
		err := SpotCheck(t.Context(), c.s, c.p1.CommD, c.p2.CommR, randomSeed(t), 20, c.paths, Options{Progress: func(step string, done, total uint64) {
			if step != "spot check" || total != 20 {
				t.Errorf("step %q of %d", step, total)
			}
			told = max(told, done)
		}})
		if err != nil || told != 20 {
			t.Errorf("%s: %v, told %d", name, err, told)
		}
		if err := SpotCheck(t.Context(), c.s, c.p1.CommD, sealcore.Domain{1}, sealcore.Domain{}, 1, c.paths, Options{}); !errors.Is(err, ErrSpotCheck) {
			t.Errorf("%s with another CommR: %v", name, err)
		}
	}
}

// Enough nodes to be drawn so that every one of the 64 is among them or their parents.
func TestSpotCheckFindsAFlippedBitInAnyFile(t *testing.T) {
	c := newChain(t, "2k")
	if err := c.run(t.Context(), 1, 2, Options{}); err != nil {
		t.Fatal(err)
	}
	seed := randomSeed(t)
	check := func() error {
		return SpotCheck(t.Context(), c.s, c.p1.CommD, c.p2.CommR, seed, 1000, c.paths, Options{})
	}
	if err := check(); err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(c.paths.Cache, name) }
	for _, path := range []string{
		c.paths.Sealed, at(merkle.FileName("layer-1")), at(merkle.FileName("layer-2")), at(merkle.FileName(merkle.TreeDID)),
		at(merkle.FileName(merkle.TreeCID)), at(merkle.FileName(merkle.TreeRID)), at(PAuxName),
	} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		// The last bit of a file makes its last node no field element.
		for _, bit := range []int64{rand.Int64N(info.Size() * 8), info.Size()*8 - 1} {
			mend := spoil(t, path, bit)
			if err := check(); !errors.Is(err, ErrSpotCheck) {
				t.Errorf("bit %d of %s: %v", bit, filepath.Base(path), err)
			}
			mend()
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := SpotCheck(ctx, c.s, c.p1.CommD, c.p2.CommR, seed, 1000, c.paths, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestAudit(t *testing.T) {
	for _, name := range []string{"2k", "16k", "32k"} {
		c := newChain(t, name)
		if err := c.run(t.Context(), 1, 2, Options{}); err != nil {
			t.Fatal(err)
		}
		// Another host has what p5 copies, and nothing else.
		stored := t.TempDir()
		cache := filepath.Join(stored, "cache")
		if err := os.Mkdir(cache, 0o755); err != nil {
			t.Fatal(err)
		}
		keep := map[string]string{c.paths.Sealed: filepath.Join(stored, "sealed"), filepath.Join(c.paths.Cache, PAuxName): filepath.Join(cache, PAuxName)}
		for _, path := range merkle.Files(c.paths.Cache, merkle.TreeRID, c.s.Params.Shape) {
			keep[path] = filepath.Join(cache, filepath.Base(path))
		}
		for from, to := range keep {
			data, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			write(t, to, data)
		}
		seed := randomSeed(t)
		audit := func(samples int) error {
			return Audit(t.Context(), c.s.Params, c.p2.CommR, seed, samples, filepath.Join(stored, "sealed"), cache)
		}
		if err := audit(50); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := Audit(t.Context(), c.s.Params, c.p2.CommC, seed, 1, filepath.Join(stored, "sealed"), cache); !errors.Is(err, ErrAudit) {
			t.Errorf("%s: another CommR: %v", name, err)
		}
		// A flipped bit anywhere is found once its part of the file is drawn: here every part is.
		for _, path := range keep {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			bit := rand.Int64N(info.Size() * 8)
			mend := spoil(t, path, bit)
			if err := audit(2000); !errors.Is(err, ErrAudit) {
				t.Errorf("%s: bit %d of %s: %v", name, bit, filepath.Base(path), err)
			}
			mend()
		}
		if err := os.Truncate(filepath.Join(stored, "sealed"), 1024); err != nil {
			t.Fatal(err)
		}
		if err := audit(1); !errors.Is(err, ErrAudit) || !strings.Contains(err.Error(), "1024 bytes") {
			t.Errorf("%s: cut short: %v", name, err)
		}
		if err := os.Remove(filepath.Join(stored, "sealed")); err != nil {
			t.Fatal(err)
		}
		if err := audit(1); errors.Is(err, ErrAudit) || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: gone: %v", name, err)
		}
	}
}
