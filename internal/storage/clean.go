package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"golang.org/x/sys/unix"

	"sealfleet/internal/host"
	"sealfleet/internal/phases"
)

// Clean removes files of one sector and tells how many bytes that freed.
//
// What it may remove is a fixed list of names, those that the phases (and the reference's)
// write. A list that p1 wrote into the directory would be no better: it would lie where
// the damage is, a crash could leave it behind what it lists, and a sector of an earlier
// release has none. A name that is not on the list stays, and its directory with it, and
// is told: whoever put it there knows what it is for.
type Clean struct {
	Of       Layout
	Cache    bool // the sector's own directory of intermediate files
	Unsealed bool
	Sealed   bool // the local replica
	// DryRun only tells what would be removed.
	DryRun bool
	// CheckDevice, if set, tells whether the sector's cache lies on the file system that p1
	// wrote to; it is called before anything is removed, if there is a cache.
	CheckDevice func(share, cache string) error
}

// Cleaned is what a Clean removed, or would remove.
type Cleaned struct {
	Freed   int64     `json:"freed"`   // bytes
	Removed []Removal `json:"removed"` // by path
	// Kept are names in the sector's directory that are none of the phases'.
	Kept []string `json:"kept,omitempty"`
}

// Removal is a name that is removed.
type Removal struct {
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"` // that it frees; 0 for a link, or if another name keeps the bytes
}

// cacheNames are the files that the phases write into a sector's cache: the labels and
// trees (of the reference's later and earlier names), p_aux and t_aux, what p1 tells p2
// and p3 tells p4, the fleet's own records, and each of these under the temporary name
// that a killed phase leaves. Lotus keeps two more, and so may a migrated sector.
var cacheNames = regexp.MustCompile(`^\.{0,2}(` +
	`sc-0[0-9]-data-(layer-[0-9]+|tree-(c|d|r-last|q|r)(-[0-9]+)?)\.dat(\.json|\.part|\.hash)?` +
	`|p_aux|t_aux|p1[a-z0-9-]*\.json|layers[a-z0-9-]*\.json|commit-phase1-output(\.json)?|unsealed|c1\.json` +
	`|sealfleet-[a-z0-9-]+(\.[a-z0-9]+)?` +
	`)(\.tmp|\.tmp-[A-Za-z0-9]+|\.part|\.part\.chunks)?[0-9]*$`)

// Known tells whether a name in a sector's cache is one of the phases'.
func Known(name string) bool { return cacheNames.MatchString(name) }

// Run deletes what is asked for. It walks down from the local directory one name at a
// time without ever following a link, deletes nothing but the sector's own places, and
// refuses a cache that reaches over to another file system. What is already gone is no
// error, so that a clean that was interrupted can be done again; it counts only what this
// run removed. Of a sealed or unsealed file that is removed, what a killed phase left of
// it under its temporary name goes too.
//
// Errors are *Fault, or the context's; what was removed until then is returned with them.
func (c Clean) Run(ctx context.Context) (Cleaned, error) {
	out := Cleaned{Removed: []Removal{}}
	if err := c.Of.Validate(); err != nil {
		return out, &Fault{Code: "bad_path", Class: phases.Permanent, Err: err}
	}
	if err := c.sameDevice(); err != nil {
		return out, classify(err)
	}
	for _, part := range []struct {
		wanted bool
		kind   string
		isDir  bool
	}{{c.Cache, "cache", true}, {c.Unsealed, "unsealed", false}, {c.Sealed, "sealed", false}} {
		if !part.wanted {
			continue
		}
		err := c.part(ctx, &out, part.kind, part.isDir)
		if ctxErr := ctx.Err(); ctxErr != nil {
			return out, ctxErr
		}
		if err != nil {
			return out, classify(err)
		}
	}
	return out, nil
}

func (c Clean) sameDevice() error {
	if c.CheckDevice == nil {
		return nil
	}
	if _, err := os.Lstat(c.Of.Cache()); err != nil {
		return nil // nothing there, or the walk will say what is wrong
	}
	err := c.CheckDevice(filepath.Join(c.Of.LocalDir, "nfs", c.Of.IP), c.Of.Cache())
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist): // a sector of an earlier release has no record
		return nil
	}
	return &Fault{Code: "other_device", Class: phases.Permanent, Err: fmt.Errorf("%w: nothing was deleted; mend: mount what p1 wrote to, or look why it is not there", err)}
}

func (c Clean) part(ctx context.Context, out *Cleaned, kind string, isDir bool) error {
	l := c.Of
	dir, err := openBelow(l.LocalDir, "nfs", l.IP, kind)
	if errors.Is(err, fs.ErrNotExist) {
		if _, statErr := os.Stat(l.LocalDir); statErr != nil {
			return &Fault{Code: "storage_away", Class: phases.Transient, Err: fmt.Errorf("local directory: %w: is it mounted?", statErr)}
		}
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return &fs.PathError{Op: "stat", Path: dir.Name(), Err: err}
	}
	r := remover{ctx: ctx, device: uint64(st.Dev), out: out, dry: c.DryRun} //nolint:unconvert // the types differ between platforms
	if isDir {
		err = r.removeDir(dir, l.Sector)
	} else {
		for _, name := range []string{l.Sector, "." + l.Sector + ".tmp"} {
			if err = r.removeFile(dir, name); err != nil {
				break
			}
		}
	}
	if err == nil && !c.DryRun {
		err = syncDir(dir.Name())
	}
	return err
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
	out    *Cleaned
	dry    bool
}

// stat looks at a name in an open directory without following it; found is false if it is
// not there. It refuses what lies on another file system.
func (r *remover) stat(parent *os.File, name string) (st unix.Stat_t, found bool, err error) {
	if err := r.ctx.Err(); err != nil {
		return st, false, err
	}
	path := filepath.Join(parent.Name(), name)
	err = unix.Fstatat(int(parent.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return st, false, nil
	}
	if err != nil {
		return st, false, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if uint64(st.Dev) != r.device { //nolint:unconvert // the types differ between platforms
		return st, false, &Fault{Code: "bad_path", Class: phases.Permanent,
			Err: fmt.Errorf("%s lies on another file system than the sector's cache: nothing there is deleted; mend: unmount it", path)}
	}
	return st, true, nil
}

// removeDir removes the known names of a sector's directory, and it itself if nothing else
// is left.
func (r *remover) removeDir(parent *os.File, name string) error {
	st, found, err := r.stat(parent, name)
	if !found || err != nil {
		return err
	}
	path := filepath.Join(parent.Name(), name)
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return &Fault{Code: "bad_path", Class: phases.Permanent, Err: fmt.Errorf("%s is a link or no directory: not deleted", path)}
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
	slices.Sort(entries)
	kept := 0
	for _, entry := range entries {
		st, found, err := r.stat(dir, entry)
		switch {
		case err != nil:
			return err
		case !found:
			continue
		case !Known(entry) || st.Mode&unix.S_IFMT == unix.S_IFDIR:
			r.out.Kept = append(r.out.Kept, filepath.Join(path, entry))
			kept++
			continue
		}
		if err := r.unlink(dir, entry, &st); err != nil {
			return err
		}
	}
	if kept > 0 || r.dry {
		return nil
	}
	if err := unix.Unlinkat(int(parent.Fd()), name, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		return host.Mend(path, &fs.PathError{Op: "rmdir", Path: path, Err: err})
	}
	return nil
}

// removeFile removes a file, or a link itself.
func (r *remover) removeFile(parent *os.File, name string) error {
	st, found, err := r.stat(parent, name)
	if !found || err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return &Fault{Code: "bad_path", Class: phases.Permanent,
			Err: fmt.Errorf("%s is a directory, not a file: not deleted", filepath.Join(parent.Name(), name))}
	}
	return r.unlink(parent, name, &st)
}

func (r *remover) unlink(parent *os.File, name string, st *unix.Stat_t) error {
	path := filepath.Join(parent.Name(), name)
	if !r.dry {
		err := unix.Unlinkat(int(parent.Fd()), name, 0)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return host.Mend(path, &fs.PathError{Op: "unlink", Path: path, Err: err})
		}
	}
	gone := Removal{Path: path}
	if st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 1 { // another name keeps the bytes
		gone.Bytes = st.Size
	}
	r.out.Freed += gone.Bytes
	r.out.Removed = append(r.out.Removed, gone)
	return nil
}
