package storage

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"sealfleet/internal/phases"
	"sealfleet/internal/throttle"
)

// Receipt tells what lies on a storage node, as read back from it.
type Receipt struct {
	Node  string `json:"node"`
	Path  string `json:"path"` // the node's directory or s3:// address, as the copying host has it
	Files []File `json:"files"`
}

// File is one file of a receipt.
type File struct {
	Name   string `json:"name"` // relative to the node's directory
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	// Root is the root of the hash tree over the file's chunks of Chunk bytes (see
	// treeRoot). Receipts of earlier releases lack both.
	Chunk int64  `json:"chunk,omitempty"`
	Root  string `json:"root,omitempty"`
}

// Bytes returns the size of all files together.
func (r Receipt) Bytes() int64 {
	var n int64
	for _, f := range r.Files {
		n += f.Size
	}
	return n
}

func brokenReceipt(format string, args ...any) error {
	return &Fault{Code: "receipt_broken", Class: phases.Permanent, Err: fmt.Errorf(format, args...)}
}

// check refuses a receipt that is not of this sector or lacks a file that must be kept.
func (r Receipt) check(sector string) error {
	if len(r.Files) == 0 {
		return brokenReceipt("the receipt of p5 names no files")
	}
	has := map[string]bool{}
	for _, f := range r.Files {
		sealed := f.Name == filepath.Join("sealed", sector)
		if !sealed && filepath.Dir(f.Name) != filepath.Join("cache", sector) {
			return brokenReceipt("the receipt names %q, which is not a file of sector %s", f.Name, sector)
		}
		if sum, err := hex.DecodeString(f.SHA256); err != nil || len(sum) != 32 {
			return brokenReceipt("the receipt has no SHA-256 of %s", f.Name)
		}
		if sealed {
			has["the sealed file"] = true
		} else {
			has[filepath.Base(f.Name)] = true
		}
	}
	for _, name := range []string{"the sealed file", "p_aux"} {
		if !has[name] {
			return brokenReceipt("the receipt of p5 lacks %s", name)
		}
	}
	return nil
}

// CheckReceipt tells whether the files of a receipt lie on the node, with their sizes.
// dir is the node's directory here, which may be another path than the copier's.
func CheckReceipt(dir string, r Receipt, sector string) error {
	if err := r.check(sector); err != nil {
		return err
	}
	for _, f := range r.Files {
		info, err := os.Lstat(filepath.Join(dir, f.Name))
		if errors.Is(err, fs.ErrNotExist) {
			if _, dirErr := os.Stat(filepath.Join(dir, "sealed")); dirErr != nil {
				return &Fault{Code: "storage_away", Class: phases.Transient, Err: fmt.Errorf("storage node %s in %s: %w: is it mounted?", r.Node, dir, dirErr)}
			}
		}
		if err == nil && (!info.Mode().IsRegular() || info.Size() != f.Size) {
			err = fmt.Errorf("%s has %d bytes", f.Name, info.Size())
		}
		switch {
		case err == nil:
		case errors.Is(err, fs.ErrNotExist), info != nil:
			return brokenReceipt("storage node %s no longer has what p5 copied (%s of %d bytes): %w; nothing was deleted; mend: dispatcher redo %s --phase p5",
				r.Node, f.Name, f.Size, err, sector)
		default:
			return classify(err) // hung, stale, or not to be read: that says nothing of the copy
		}
	}
	return nil
}

// smallFile is up to which size VerifyReceipt always reads a file.
const smallFile = 64 << 20

// VerifyReceipt does what CheckReceipt does, and reads files again and compares their
// hashes: all of them if all is set, else those of up to 64 MiB (p_aux, t_aux, and tree R
// of every size but for the sealed file).
func VerifyReceipt(ctx context.Context, dir string, o S3Options, r Receipt, sector string, all bool, limit *throttle.Limiter) error {
	if IsS3(dir) {
		return verifyS3Receipt(ctx, dir, o, r, sector, all, limit)
	}
	if err := CheckReceipt(dir, r, sector); err != nil {
		return err
	}
	for _, f := range r.Files {
		if !all && f.Size > smallFile {
			continue
		}
		sum, err := hashFile(ctx, filepath.Join(dir, f.Name), limit)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return classify(err)
		}
		if got := hex.EncodeToString(sum[:]); got != f.SHA256 {
			return brokenReceipt("storage node %s: %s has SHA-256 %s, p5's receipt says %s: the copy is damaged, or the receipt is forged; nothing was deleted; mend: dispatcher redo %s --phase p5",
				r.Node, f.Name, got, f.SHA256, sector)
		}
	}
	return nil
}

func hashFile(ctx context.Context, path string, limit *throttle.Limiter) (sum [32]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	dropCache(f)
	sum, _, err = pump(ctx, limit.Reader(ctx, f), func([]byte) error { return nil })
	return sum, err
}
