package seal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

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
	// Parents are anywhere: where a layer does not fit in memory, reading around them only
	// pushes out what is needed. Failure costs no more than speed.
	_ = unix.Madvise(m, unix.MADV_RANDOM)
	return m, nil
}

// populate brings a part of a mapping into memory to be written to: one call for many pages, by a
// core that has the time, instead of a fault for each on the one that hashes. Linux has it since
// 5.14; before, and if it fails for any other reason, pages come one by one.
func populate(part []byte) { _ = unix.Madvise(part, unix.MADV_POPULATE_WRITE) }

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
