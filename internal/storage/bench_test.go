package storage

import (
	"io"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// BenchmarkCopyAgainstCp copies 1 GiB as p5 does, without its reading back, and as cp
// followed by fsync does, by turns; ratio is the copy's rate over cp's, of the best of each:
// whatever else the machine does only ever makes one slower.
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
	ours, cp := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64)
	b.SetBytes(size)
	for i := 0; b.Loop(); i++ {
		settle := func(path string) {
			in, err := os.Open(path)
			if err != nil {
				b.Fatal(err)
			}
			dropCache(in)
			in.Close()
		}
		settle(from)
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
		in.Close()
		out.Close()
		cp = min(cp, time.Since(start))
		settle(from)
		var synced time.Time
		start = time.Now()
		c := Copy{Node: "node1", Dir: dir, synced: func() { synced = time.Now() }}
		if _, err := c.file(b.Context(), source{from, "to"}, &counter{}); err != nil {
			b.Fatal(err)
		}
		ours = min(ours, synced.Sub(start))
	}
	b.ReportMetric(size/cp.Seconds()/1e6, "cp-MB/s")
	b.ReportMetric(size/ours.Seconds()/1e6, "p5-MB/s")
	b.ReportMetric(cp.Seconds()/ours.Seconds(), "ratio")
}
