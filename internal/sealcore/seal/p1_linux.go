package seal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// mapping is a file in memory.
type mapping []byte

// mapFile maps a file for reading and writing. The mapping outlives the open file.
func mapFile(f *os.File, size int) (mapping, error) {
	m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	// Parents are anywhere. Where two layers fit in memory, huge pages spare each of them a walk
	// through the page tables; where a layer does not, reading around parents only pushes out
	// what is needed. Failure costs no more than speed.
	advice := unix.MADV_HUGEPAGE
	if availableMemory() < 2*uint64(size) {
		advice = unix.MADV_RANDOM
	}
	_ = unix.Madvise(m, advice)
	return m, nil
}

// availableMemory is what the kernel could give without swapping, in bytes; 0 if it doesn't tell.
func availableMemory() uint64 {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	_, rest, found := bytes.Cut(data, []byte("MemAvailable:"))
	var kib uint64
	if _, err := fmt.Sscan(string(rest[:min(len(rest), 40)]), &kib); !found || err != nil {
		return 0
	}
	return kib << 10
}

// hugePage is the size of a huge page, and of what populate brings into memory at once.
const hugePage = 2 << 20

// noLabels is what a file is filled with to have its pages in memory. It is never written, so it
// is of no memory itself.
var noLabels = sync.OnceValue(func() []byte { return make([]byte, hugePage) })

// populate brings a part of a mapped file into memory to be written to, when it is asked for the
// beginning of a huge page: one call for many pages, by a core that has the time, instead of a
// fault for each on the one that hashes. File systems that have large folios (ext4 since Linux
// 6.16, XFS) give a write of a whole huge page one folio, which is then mapped as such; a fault
// would only ever get small ones. MADV_POPULATE_WRITE is there since 5.14; before, and if anything
// fails for any other reason, pages come one by one.
func populate(f *os.File, m mapping, from uint64) {
	if from%hugePage != 0 {
		return
	}
	to := min(from+hugePage, uint64(len(m)))
	if _, err := f.WriteAt(noLabels()[:to-from], int64(from)); err == nil {
		_ = unix.Madvise(m[from:to], unix.MADV_POPULATE_WRITE)
	}
}

func (m mapping) unmap() error { return os.NewSyscallError("munmap", unix.Munmap(m)) }

// allocate gives a file its blocks, so that writes into it, mapped or not, cannot run out of
// space. The file reads as zeros before and after.
func allocate(ctx context.Context, f *os.File, size int64) error {
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		// In steps, as some file systems take their time.
		step := min(size-off, 1<<30)
		switch err := unix.Fallocate(int(f.Fd()), 0, off, step); {
		case err == nil:
			off += step
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return writeZeros(ctx, f, off, size)
		default:
			return fmt.Errorf("%s: %w", f.Name(), os.NewSyscallError("fallocate", err))
		}
	}
	return nil
}

// writeZeros is for file systems that cannot allocate.
func writeZeros(ctx context.Context, f *os.File, off, size int64) error {
	zeros := make([]byte, 1<<20)
	for off < size {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-off)], off)
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

// writeOut writes a file's dirty pages to the disk, step by step, so that a sync after it is
// short. It is no promise that anything is on the disk.
func writeOut(ctx context.Context, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	for off := int64(0); off < info.Size(); off += copyStep {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := unix.SyncFileRange(int(f.Fd()), off, copyStep, all); err != nil {
			if errors.Is(err, unix.EIO) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
				return fmt.Errorf("write %s out: %w", f.Name(), err)
			}
			return nil // not every file system can; the sync will do it
		}
	}
	return nil
}

// cloneFile lets dst share all of src's blocks until one of them is written.
func cloneFile(dst, src *os.File) error {
	return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
}

// copyRange copies up to n bytes at an offset, in the kernel if it can. It returns how many.
func copyRange(dst, src *os.File, off, n int64) (int64, error) {
	in, out := off, off
	copied, err := unix.CopyFileRange(int(src.Fd()), &in, int(dst.Fd()), &out, int(n), 0)
	if err == nil && copied > 0 {
		return int64(copied), nil
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EIO) {
		return 0, err
	}
	return copyBytes(dst, src, off, n)
}

// nextData returns the next stretch of data from an offset on. Without any, it is empty and at
// the end.
func nextData(f *os.File, off, size int64) (start, end int64, err error) {
	if start, err = f.Seek(off, unix.SEEK_DATA); errors.Is(err, unix.ENXIO) {
		return size, size, nil
	}
	if err == nil {
		end, err = f.Seek(start, unix.SEEK_HOLE)
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return off, size, nil // the file system does not tell
	}
	if err == nil && end <= start {
		err = io.ErrNoProgress
	}
	return start, end, err
}
