// Package durable writes files that are either whole or not there: under a temporary
// name in the same directory, synced, renamed, and the directory synced.
//
// The temporary name is fixed (".NAME.tmp"), so that what a killed process left behind is
// written over by the next attempt and cannot fill the disk. A lock on it, which dies
// with its process, keeps two live ones apart.
package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// File is a file that is being written. Its methods are those of os.File until Commit.
type File struct {
	*os.File
	path      string
	published bool
	done      bool
}

// ErrBusy says that another process is writing the same file.
var ErrBusy = errors.New("another process is writing it: wait for its end or kill it")

// Create begins a file that will have the given path. It fails with ErrBusy if someone
// else is at it.
func Create(path string) (*File, error) {
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp")
	for {
		// Not truncated before it is locked: it may be another one's.
		f, err := os.OpenFile(temporary, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, err
		}
		switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
		case errors.Is(err, syscall.EWOULDBLOCK):
			return nil, errors.Join(fmt.Errorf("create %s: %w", path, ErrBusy), f.Close())
		case errors.Is(err, syscall.ENOLCK), errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOSYS):
			// A file system without locks (NFS without its lock service): go on without.
		case err != nil:
			return nil, errors.Join(fmt.Errorf("lock %s: %w", temporary, err), f.Close())
		}
		// Between open and lock the other one may have finished: then this is its file.
		ours, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if named, err := os.Stat(temporary); err != nil || !os.SameFile(ours, named) {
			f.Close() // nothing was written
			continue
		}
		if err := f.Truncate(0); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return &File{File: f, path: path}, nil
	}
}

// Publish gives the file its name before it is on the disk, for what is recognised by a
// hash: a crash of the machine may leave anything under that name. Commit makes it safe;
// Abort leaves it, and what is in the making no more.
func (f *File) Publish() error {
	if err := os.Rename(f.Name(), f.path); err != nil {
		return err
	}
	f.published = true
	return nil
}

// Commit brings the content to the disk and gives the file its name, in place of an
// older one. After an error the file is gone, as after Abort.
func (f *File) Commit() error {
	if err := f.Sync(); err != nil {
		return errors.Join(err, f.Abort())
	}
	if !f.published {
		if err := os.Rename(f.Name(), f.path); err != nil {
			return errors.Join(err, f.Abort())
		}
	}
	f.done = true
	return errors.Join(f.Close(), syncDir(filepath.Dir(f.path)))
}

// Abort drops what was written. After Commit, or a second time, it does nothing, so it
// can be deferred.
func (f *File) Abort() error {
	if f.done {
		return nil
	}
	f.done = true
	if f.published {
		return f.Close()
	}
	err := os.Remove(f.Name()) // still locked: nobody else's can be removed
	return errors.Join(err, f.Close())
}

// Write makes a file with the given content.
func Write(path string, data []byte) error {
	f, err := Create(path)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Abort())
	}
	return f.Commit()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
