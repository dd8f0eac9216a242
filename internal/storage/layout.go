// Package storage knows where a sector's files live, copies a sealed sector to its
// storage node and gives its cache back.
//
// On the share of a group a sector has
//
//	<local_dir>/nfs/<ip>/unsealed/<sector>   file
//	<local_dir>/nfs/<ip>/sealed/<sector>     file
//	<local_dir>/nfs/<ip>/cache/<sector>/     directory
//
// where ip is the address of the P1 host that exports the share: the layout of the system
// before this one, so that its groups can be migrated in place. On a storage node it has
// lotus's layout:
//
//	<node>/sealed/<sector>
//	<node>/cache/<sector>/{p_aux,t_aux,sc-02-data-tree-r-last*.dat}
package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"syscall"

	"sealfleet/internal/host"
	"sealfleet/internal/phases"
)

// Layout names one sector's places on the share of its group.
type Layout struct {
	LocalDir string // /sealer
	IP       string // of the P1 host
	Sector   string // s-t01000-7
}

var (
	sectorName = regexp.MustCompile(`^s-t0[0-9]{1,20}-[0-9]{1,20}$`)
	ipName     = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.:_-]{0,63}$`) // an address, or a host's name
)

// Validate refuses names that could lead out of the layout.
func (l Layout) Validate() error {
	switch {
	case !filepath.IsAbs(l.LocalDir):
		return fmt.Errorf("local directory %q is not an absolute path", l.LocalDir)
	case !ipName.MatchString(l.IP):
		return fmt.Errorf("address %q of the P1 host is not an address", l.IP)
	case !sectorName.MatchString(l.Sector):
		return fmt.Errorf("sector %q is not of the form s-t01000-7", l.Sector)
	}
	return nil
}

func (l Layout) dir(kind string) string { return filepath.Join(l.LocalDir, "nfs", l.IP, kind) }

// Cache returns the sector's directory of intermediate files.
func (l Layout) Cache() string { return filepath.Join(l.dir("cache"), l.Sector) }

// Sealed returns the path of the replica.
func (l Layout) Sealed() string { return filepath.Join(l.dir("sealed"), l.Sector) }

// Unsealed returns the path of the padded data.
func (l Layout) Unsealed() string { return filepath.Join(l.dir("unsealed"), l.Sector) }

// P1JSON returns the path of what p1 tells p2.
func (l Layout) P1JSON() string { return filepath.Join(l.Cache(), "p1.json") }

// C1JSON returns the path of what p3 tells p4.
func (l Layout) C1JSON() string { return filepath.Join(l.Cache(), "commit-phase1-output.json") }

// Make makes the directories that the phases write into.
func (l Layout) Make() error {
	if err := l.Validate(); err != nil {
		return &Fault{Code: "bad_path", Class: phases.Permanent, Err: err}
	}
	for _, dir := range []string{l.dir("unsealed"), l.dir("sealed"), l.Cache()} {
		if err := host.MakeDir(dir); err != nil {
			return classify(fmt.Errorf("failed to create out dir: %w", err))
		}
	}
	return nil
}

// Fault is an error of storage with the code and class that a phase fails with.
//
//	no_space         transient   the disk is full: waiting helps
//	storage_away     transient   the node or share is not mounted, stale or doesn't answer
//	not_permitted    retryable   another host, or a chown, may do better
//	input_missing    retryable   a file of an earlier phase is not there
//	copy_corrupt     retryable   what was read back is not what was written
//	receipt_broken   permanent   the copy is gone or has another size: nothing is deleted
//	bad_path         permanent   a name would lead out of the sector's places
//	io               retryable   anything else
type Fault struct {
	Code  string
	Class phases.Class
	Err   error
}

func (f *Fault) Error() string { return f.Err.Error() }

// Unwrap returns the cause.
func (f *Fault) Unwrap() error { return f.Err }

func classify(err error) error {
	if err == nil {
		return nil
	}
	return Classify(err)
}

// Classify gives an error of the file system its code and class.
func Classify(err error) *Fault {
	var fault *Fault
	if errors.As(err, &fault) {
		return &Fault{Code: fault.Code, Class: fault.Class, Err: err} // with what was said around it
	}
	code, class := "io", phases.Retryable
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		code, class = "no_space", phases.Transient
	case errors.Is(err, syscall.ESTALE), errors.Is(err, syscall.ENOTCONN), errors.Is(err, syscall.EHOSTDOWN),
		errors.Is(err, syscall.ETIMEDOUT), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EREMOTEIO):
		code, class = "storage_away", phases.Transient
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		code = "not_permitted"
	case errors.Is(err, fs.ErrNotExist):
		code = "input_missing"
	}
	return &Fault{Code: code, Class: class, Err: err}
}
