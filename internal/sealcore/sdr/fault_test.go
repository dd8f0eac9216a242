//go:build linux

package sdr

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"sealfleet/internal/sealcore"
)

// A layer is a mapped file. If the file system fails under it, the process must not die: the
// fault comes back as an error. Here the file is cut behind the mapping's back.
func TestLayerReportsFaults(t *testing.T) {
	p, err := sealcore.ForShape("8MiB")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(t.TempDir() + "/layer")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(int64(p.SectorSize)); err != nil {
		t.Fatal(err)
	}
	out, err := unix.Mmap(int(f.Fd()), 0, int(p.SectorSize), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(out)
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	for _, threads := range []int{1, 2} {
		err := Layer(t.Context(), newGraph(t, p), sealcore.Domain{}, 1, nil, out, Options{Threads: threads})
		if !errors.Is(err, ErrFault) {
			t.Errorf("%d threads: %v, want %v", threads, err, ErrFault)
		}
	}
}
