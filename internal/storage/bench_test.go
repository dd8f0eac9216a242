package storage

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// BenchmarkCopyAgainstCp copies 1 GiB as p5 does, without its reading back, and as cp
// followed by fsync does, by turns; ratio is the copy's rate over cp's, the median of the turns.
func BenchmarkCopyAgainstCp(b *testing.B) {
	const size = 1 << 30 // large enough for the disk to count, and not only the memory before it
	dir := b.TempDir()
	from := filepath.Join(dir, "from")
	f, err := os.Create(from)
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 1<<20)
	for i := range size / len(buf) {
		buf[0] = byte(i)
		if _, err := f.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	f.Close()
	drop := func(path string) {
		f, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		dropCache(f)
		f.Close()
	}
	asCp := func() time.Duration {
		start := time.Now()
		out, err := os.Create(filepath.Join(dir, "cp"))
		if err != nil {
			b.Fatal(err)
		}
		in, err := os.Open(from)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{in}, buf); err != nil {
			b.Fatal(err)
		}
		if err := out.Sync(); err != nil {
			b.Fatal(err)
		}
		took := time.Since(start)
		in.Close()
		out.Close()
		return took
	}
	asP5 := func() time.Duration {
		var synced time.Time
		start := time.Now()
		c := Copy{Node: "node1", Dir: dir, synced: func() { synced = time.Now() }}
		if _, err := c.file(b.Context(), source{from, "to"}, &counter{}); err != nil {
			b.Fatal(err)
		}
		return synced.Sub(start)
	}
	// Both begin with the source on the disk, no copy there, and memory that was in use a moment
	// ago: a virtual machine gives free memory back, and to get it again costs more than the copy.
	fresh := func(do func() time.Duration) time.Duration {
		for _, name := range []string{"cp", "to"} {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				b.Fatal(err)
			}
		}
		drop(from)
		warm := filepath.Join(dir, "warm")
		f, err := os.Create(warm)
		if err != nil {
			b.Fatal(err)
		}
		for range 2 * size / len(buf) { // the source is read into memory, too
			if _, err := f.Write(buf); err != nil {
				b.Fatal(err)
			}
		}
		f.Close()
		if err := os.Remove(warm); err != nil {
			b.Fatal(err)
		}
		return do()
	}
	var ours, cp, ratio []float64
	b.SetBytes(2 * size)
	for b.Loop() {
		cp = append(cp, fresh(asCp).Seconds())
		ours = append(ours, fresh(asP5).Seconds())
		ratio = append(ratio, cp[len(cp)-1]/ours[len(ours)-1])
	}
	median := func(list []float64) float64 { slices.Sort(list); return list[len(list)/2] }
	b.ReportMetric(size/median(cp)/1e6, "cp-MB/s")
	b.ReportMetric(size/median(ours)/1e6, "p5-MB/s")
	b.ReportMetric(median(ratio), "ratio")
}
