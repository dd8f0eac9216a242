package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"sealfleet/internal/host"
)

// Room tells how many bytes a node's directory may still take, and how many bytes of a
// sector an attempt that was killed left there.
func Room(dir, sector string) (free, begun int64, err error) {
	if !sectorName.MatchString(sector) {
		return 0, 0, fmt.Errorf("sector %q is not of the form s-t01000-7", sector)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return 0, 0, err
	}
	if !info.IsDir() {
		return 0, 0, fmt.Errorf("%s is not a directory", dir)
	}
	if free, err = host.FreeBytes(dir); err != nil {
		return 0, 0, err
	}
	return free, partBytes(partName(filepath.Join(dir, "sealed", sector))), nil
}

// Usage returns how many bytes a file or a directory holds, and when something in it
// changed last. It follows no links.
func Usage(ctx context.Context, path string) (bytes int64, last time.Time, err error) {
	err = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil {
			return err
		}
		if info.Mode().IsRegular() {
			bytes += info.Size()
		}
		if info.ModTime().After(last) {
			last = info.ModTime()
		}
		return nil
	})
	return bytes, last, err
}

// partBytes returns how many bytes a copy under way occupies.
func partBytes(part string) int64 {
	var st unix.Stat_t
	if unix.Lstat(part, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0
	}
	return min(st.Blocks*512, st.Size)
}
