package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"sealfleet/internal/host"
	"sealfleet/internal/phases"
)

// Clean removes files of one sector and tells how many bytes that freed.
type Clean struct {
	Of       Layout
	Cache    bool // the sector's own directory of intermediate files
	Unsealed bool
	Sealed   bool // the local replica
}

// Run deletes what is asked for. It walks down from the local directory one name at a
// time without ever following a link, deletes nothing but the sector's own places, and
// refuses a cache that reaches over to another file system. What is already gone is no
// error, so that a clean that was interrupted can be done again; freed counts only what
// this run removed.
//
// Errors are *Fault, or the context's.
func (c Clean) Run(ctx context.Context) (freed int64, err error) {
	if err := c.Of.Validate(); err != nil {
		return 0, &Fault{Code: "bad_path", Class: phases.Permanent, Err: err}
	}
	for _, part := range []struct {
		wanted bool
		kind   string
		isDir  bool
	}{{c.Cache, "cache", true}, {c.Unsealed, "unsealed", false}, {c.Sealed, "sealed", false}} {
		if !part.wanted {
			continue
		}
		n, err := c.part(ctx, part.kind, part.isDir)
		freed += n
		if ctxErr := ctx.Err(); ctxErr != nil {
			return freed, ctxErr
		}
		if err != nil {
			return freed, classify(err)
		}
	}
	return freed, nil
}

func (c Clean) part(ctx context.Context, kind string, isDir bool) (int64, error) {
	l := c.Of
	dir, err := openBelow(l.LocalDir, "nfs", l.IP, kind)
	if errors.Is(err, fs.ErrNotExist) {
		if _, statErr := os.Stat(l.LocalDir); statErr != nil {
			return 0, &Fault{Code: "storage_away", Class: phases.Transient, Err: fmt.Errorf("local directory: %w: is it mounted?", statErr)}
		}
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return 0, &fs.PathError{Op: "stat", Path: dir.Name(), Err: err}
	}
	r := remover{ctx: ctx, device: uint64(st.Dev)} //nolint:unconvert // the types differ between platforms
	err = r.remove(dir, l.Sector, isDir)
	if err == nil {
		err = syncDir(dir.Name())
	}
	return r.freed, err
}

// openBelow opens a directory below another, refusing links on the way.
func openBelow(top string, names ...string) (*os.File, error) {
	dir, err := os.Open(top)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		next, err := openDir(dir, name)
		dir.Close()
		if err != nil {
			return nil, err
		}
		dir = next
	}
	return dir, nil
}

func openDir(parent *os.File, name string) (*os.File, error) {
	path := filepath.Join(parent.Name(), name)
	fd, err := unix.Openat(int(parent.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR):
		return nil, &Fault{Code: "bad_path", Class: phases.Permanent,
			Err: fmt.Errorf("%s is a link or no directory: deleting never follows links; mend: mount or bind-mount it there", path)}
	case err != nil:
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

type remover struct {
	ctx    context.Context
	device uint64
	freed  int64
}

// remove deletes a name in an open directory, and what is below it if it is a directory.
// A link is removed itself; what it points to is never touched.
func (r *remover) remove(parent *os.File, name string, wantDir bool) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	path := filepath.Join(parent.Name(), name)
	var st unix.Stat_t
	err := unix.Fstatat(int(parent.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if uint64(st.Dev) != r.device { //nolint:unconvert // the types differ between platforms
		return &Fault{Code: "bad_path", Class: phases.Permanent,
			Err: fmt.Errorf("%s lies on another file system than the sector's cache: nothing there is deleted; mend: unmount it", path)}
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if wantDir && !isDir {
		return &Fault{Code: "bad_path", Class: phases.Permanent, Err: fmt.Errorf("%s is a link or no directory: not deleted", path)}
	}
	if !isDir {
		return r.unlink(parent, name, &st)
	}
	dir, err := openDir(parent, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	entries, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := r.remove(dir, entry, false); err != nil {
			return err
		}
	}
	if err := unix.Unlinkat(int(parent.Fd()), name, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		return host.Mend(path, &fs.PathError{Op: "rmdir", Path: path, Err: err})
	}
	return nil
}

func (r *remover) unlink(parent *os.File, name string, st *unix.Stat_t) error {
	path := filepath.Join(parent.Name(), name)
	err := unix.Unlinkat(int(parent.Fd()), name, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return host.Mend(path, &fs.PathError{Op: "unlink", Path: path, Err: err})
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 1 { // another name keeps the bytes
		r.freed += st.Size
	}
	return nil
}
