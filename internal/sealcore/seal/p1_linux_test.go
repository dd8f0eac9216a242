package seal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"sealfleet/internal/sealcore"
)

// A file system that is too small for some file: the error says so, and no file has its name that
// is not whole. It needs to mount a small one, which takes privileges.
func TestP1OnAFullDisk(t *testing.T) {
	params, err := sealcore.ForShape("8MiB")
	if err != nil {
		t.Fatal(err)
	}
	s := Sector{Params: params, ProverID: sealcore.ProverID(1000), Number: 1}
	file := filepath.Join(t.TempDir(), "piece")
	if err := os.WriteFile(file, bytes.Repeat([]byte{0x55}, int(params.UnpaddedSize())), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mib := range []int{4, 28, 36, 44} { // of 48: unsealed, tree D, sealed, layers
		dir := t.TempDir()
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mib)); err != nil {
			t.Skipf("cannot mount a small file system: %v", err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
		p := InDir(dir)
		_, err := P1(t.Context(), s, []Piece{{file, params.UnpaddedSize()}}, p, Options{})
		if !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%d MiB: %v, want %v", mib, err, unix.ENOSPC)
		}
		want := map[string]int64{
			"unsealed": 8 << 20, "sealed": 8 << 20, "cache/sc-02-data-tree-d.dat": 16<<20 - 32,
			"cache/sc-02-data-layer-1.dat": 8 << 20,
		}
		for _, name := range namesBelow(t, dir) {
			if filepath.Base(name) == RecordName {
				continue
			}
			info, err := os.Stat(filepath.Join(dir, name))
			if err != nil || info.Size() != want[name] {
				t.Errorf("%d MiB: left %s with %d bytes, %v", mib, name, info.Size(), err)
			}
		}
	}
}

// copyFile copies data and leaves holes, by each of the ways that a file system may allow.
func TestCopyFile(t *testing.T) {
	dir := t.TempDir()
	src, err := os.Create(filepath.Join(dir, "src"))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	const size = 40 << 20
	want := make([]byte, size)
	for i := range 100000 {
		want[i], want[size-1-i], want[size/2+i] = byte(i), byte(i*7), byte(i*13)
	}
	for _, part := range [][2]int{{0, 1 << 20}, {size / 2, size/2 + 1<<20}, {size - 1<<20, size}} {
		if _, err := src.WriteAt(want[part[0]:part[1]], int64(part[0])); err != nil {
			t.Fatal(err)
		}
	}
	dst, err := os.Create(filepath.Join(dir, "dst"))
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	if err := dst.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if err := copyFile(t.Context(), dst, src); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dst.Name()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the copy differs, %v", err)
	}
	if n, err := copyBytes(dst, src, 5, 1000); err != nil || n != 1000 {
		t.Errorf("copied %d bytes by hand, %v", n, err)
	}
	if got, err := os.ReadFile(dst.Name()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the copy by hand differs, %v", err)
	}
}

// writeZeros stands in where blocks cannot be allocated.
func TestWriteZeros(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := writeZeros(t.Context(), f, 100, 3<<20+1); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(f.Name())
	if err != nil || len(got) != 3<<20+1 || len(bytes.Trim(got, "\x00")) != 0 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
