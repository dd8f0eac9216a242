//go:build !linux

package seal

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// mapping is a file in memory.
type mapping []byte

// mapFile maps a file for reading and writing. The mapping outlives the open file.
func mapFile(f *os.File, size int) (mapping, error) {
	m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return m, os.NewSyscallError("mmap", err)
}

func populate(*os.File, mapping, uint64) {}

func (m mapping) unmap() error { return os.NewSyscallError("munmap", unix.Munmap(m)) }

// allocate gives a file its blocks, so that writes into it cannot run out of space.
func allocate(ctx context.Context, f *os.File, size int64) error {
	zeros := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(zeros)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-off)], off); err != nil {
			return err
		}
	}
	return nil
}

func writeOut(context.Context, *os.File) error { return nil }

func cloneFile(_, _ *os.File) error { return errors.ErrUnsupported }

func copyRange(dst, src *os.File, off, n int64) (int64, error) { return copyBytes(dst, src, off, n) }

func nextData(_ *os.File, off, size int64) (start, end int64, err error) { return off, size, nil }
