package storage

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"sealfleet/internal/host"
	"sealfleet/internal/phases"
	"sealfleet/internal/throttle"
)

// Receipt tells what lies on a storage node, as read back from it.
type Receipt struct {
	Node  string `json:"node"`
	Path  string `json:"path"` // the node's directory, as the copying host sees it
	Files []File `json:"files"`
}

// File is one file of a receipt.
type File struct {
	Name   string `json:"name"` // relative to the node's directory
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Bytes returns the size of all files together.
func (r Receipt) Bytes() int64 {
	var n int64
	for _, f := range r.Files {
		n += f.Size
	}
	return n
}

// Copy is a copy of one sector to one storage node.
type Copy struct {
	From    Layout
	Node    string // name of the storage node
	Dir     string // its directory here
	Limit   *throttle.Limiter
	OnBytes func(step string, done, total int64) // may be nil; step is "copy" or "verify"

	// written is called when a file's temporary copy is on disk; tests spoil it there.
	written func(path string)
}

// Run copies the sealed file, p_aux, t_aux and tree R. Each file gets a temporary name,
// is hashed while its source is read, synced, read back from the disk and hashed again,
// and only then gets its name. Both directions pass the limit. A file that an earlier
// attempt left on the node is replaced: doing p5 again gives the same files.
//
// Errors are *Fault, or the context's.
func (c Copy) Run(ctx context.Context) (Receipt, error) {
	receipt, err := c.run(ctx)
	if ctxErr := ctx.Err(); ctxErr != nil {
		return Receipt{}, ctxErr
	}
	return receipt, classify(err)
}

func (c Copy) run(ctx context.Context) (Receipt, error) {
	if err := c.From.Validate(); err != nil {
		return Receipt{}, &Fault{Code: "bad_path", Class: phases.Permanent, Err: err}
	}
	files, total, err := c.sources()
	if err != nil {
		return Receipt{}, err
	}
	if err := c.prepare(total); err != nil {
		return Receipt{}, err
	}
	receipt := Receipt{Node: c.Node, Path: c.Dir}
	progress := counter{total: total, tell: c.OnBytes}
	for _, f := range files {
		done, err := c.file(ctx, f, &progress)
		if err != nil {
			return Receipt{}, fmt.Errorf("copy of %s to storage node %s: %w", f.name, c.Node, err)
		}
		receipt.Files = append(receipt.Files, done)
	}
	return receipt, nil
}

type source struct{ path, name string }

// sources lists what has to be copied, the sealed file last: who sees it on the node
// finds the rest there too.
func (c Copy) sources() (files []source, total int64, err error) {
	cache := c.From.Cache()
	trees, err := filepath.Glob(filepath.Join(cache, "sc-02-data-tree-r-last*.dat"))
	if err != nil {
		return nil, 0, err
	}
	if len(trees) == 0 {
		return nil, 0, fmt.Errorf("%s has no tree R (sc-02-data-tree-r-last*.dat): %w", cache, fs.ErrNotExist)
	}
	for _, path := range append([]string{filepath.Join(cache, "p_aux"), filepath.Join(cache, "t_aux")}, trees...) {
		files = append(files, source{path, filepath.Join("cache", c.From.Sector, filepath.Base(path))})
	}
	files = append(files, source{c.From.Sealed(), filepath.Join("sealed", c.From.Sector)})
	for _, f := range files {
		info, err := os.Lstat(f.path)
		if err != nil {
			return nil, 0, err
		}
		if !info.Mode().IsRegular() {
			return nil, 0, &Fault{Code: "bad_path", Class: phases.Permanent, Err: fmt.Errorf("%s is not a regular file", f.path)}
		}
		total += info.Size()
	}
	return files, total, nil
}

// prepare checks the node's directory, makes the sector's places below it and removes
// what attempts that were killed left half-written.
func (c Copy) prepare(total int64) error {
	info, err := os.Stat(c.Dir)
	if err != nil || !info.IsDir() {
		if err == nil {
			err = errors.New("not a directory")
		}
		return &Fault{Code: "storage_away", Class: phases.Transient,
			Err: fmt.Errorf("directory %s of storage node %s cannot be used: is it mounted? %w", c.Dir, c.Node, err)}
	}
	sector := c.From.Sector
	for _, dir := range []string{"sealed", filepath.Join("cache", sector)} {
		if err := host.MakeDir(filepath.Join(c.Dir, dir)); err != nil {
			return err
		}
	}
	for _, pattern := range []string{
		filepath.Join(c.Dir, "sealed", "."+sector+temporary+"*"),
		filepath.Join(c.Dir, "cache", sector, ".*"+temporary+"*"),
	} {
		left, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, path := range left {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	free, err := host.FreeBytes(c.Dir)
	if err != nil {
		return err
	}
	if free < total {
		return &Fault{Code: "no_space", Class: phases.Transient,
			Err: fmt.Errorf("storage node %s has %d bytes free in %s, the sector needs %d", c.Node, free, c.Dir, total)}
	}
	return nil
}

const temporary = ".tmp-"

func (c Copy) file(ctx context.Context, f source, progress *counter) (File, error) {
	in, err := os.Open(f.path)
	if err != nil {
		return File{}, err
	}
	defer in.Close()
	target := filepath.Join(c.Dir, f.name)
	temp := filepath.Join(filepath.Dir(target), "."+filepath.Base(target)+temporary+rand.Text()[:8])
	out, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return File{}, host.Mend(temp, err)
	}
	defer os.Remove(temp) // fails, as it should, once it has its name
	sum, size, err := pump(ctx, out, c.Limit.Reader(ctx, in), func(n int) { progress.add("copy", n) })
	if err == nil {
		err = out.Sync()
	}
	if err == nil {
		// What is still in memory would hide what the disk got.
		dropCache(out)
		dropCache(in)
	}
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return File{}, err
	}
	if c.written != nil {
		c.written(temp)
	}
	back, backSize, err := c.readBack(ctx, temp, progress)
	if err != nil {
		return File{}, err
	}
	if !bytes.Equal(sum, back) || size != backSize {
		return File{}, &Fault{Code: "copy_corrupt", Class: phases.Retryable, Err: fmt.Errorf(
			"%s: wrote %d bytes with SHA-256 %x, read back %d with %x: the disk or the network of storage node %s corrupts data",
			f.name, size, sum, backSize, back, c.Node)}
	}
	if err := os.Rename(temp, target); err != nil {
		return File{}, err
	}
	if err := syncDir(filepath.Dir(target)); err != nil {
		return File{}, err
	}
	return File{Name: f.name, Size: size, SHA256: hex.EncodeToString(sum)}, nil
}

func (c Copy) readBack(ctx context.Context, path string, progress *counter) (sum []byte, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	dropCache(f)
	return pump(ctx, io.Discard, c.Limit.Reader(ctx, f), func(n int) { progress.add("verify", n) })
}

const bufferSize = 1 << 20

// pump copies and hashes: one goroutine reads and hashes while this one writes, so that
// a copy takes the time of the slower side and not of both.
func pump(ctx context.Context, w io.Writer, r io.Reader, add func(int)) (sum []byte, size int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	const buffers = 4
	free, full := make(chan []byte, buffers), make(chan []byte, buffers)
	for range buffers {
		free <- make([]byte, bufferSize)
	}
	h := sha256.New()
	readErr := make(chan error, 1)
	go func() {
		defer close(full)
		readErr <- func() error {
			for {
				var buf []byte
				select {
				case buf = <-free:
				case <-ctx.Done():
					return ctx.Err()
				}
				n, err := io.ReadFull(r, buf)
				h.Write(buf[:n])
				full <- buf[:n] // never blocks: there are as many places as buffers
				switch {
				case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
					return nil
				case err != nil:
					return err
				}
			}
		}()
	}()
	for buf := range full {
		if err != nil {
			continue // only drain
		}
		if _, err = w.Write(buf); err != nil {
			cancel()
			continue
		}
		size += int64(len(buf))
		add(len(buf))
		free <- buf[:bufferSize]
	}
	if rErr := <-readErr; err == nil {
		err = rErr
	}
	if err != nil {
		return nil, 0, err
	}
	return h.Sum(nil), size, nil
}

type counter struct {
	done  map[string]int64
	total int64
	tell  func(step string, done, total int64)
}

func (c *counter) add(step string, n int) {
	if c.tell == nil {
		return
	}
	if c.done == nil {
		c.done = map[string]int64{}
	}
	c.done[step] += int64(n)
	c.tell(step, c.done[step], c.total)
}

func dropCache(f *os.File) {
	// Advice only: a file system that doesn't take it (NFS does) is read from memory.
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) { // some network file systems can't
		return err
	}
	return nil
}

// CheckReceipt tells whether the files of a receipt lie on the node, with their sizes.
// dir is the node's directory here, which may be another path than the copier's.
func CheckReceipt(dir string, r Receipt, sector string) error {
	if len(r.Files) == 0 {
		return &Fault{Code: "receipt_broken", Class: phases.Permanent, Err: errors.New("the receipt of p5 names no files")}
	}
	hasSealed := false
	for _, f := range r.Files {
		if f.Name != filepath.Join("sealed", sector) && filepath.Dir(f.Name) != filepath.Join("cache", sector) {
			return &Fault{Code: "receipt_broken", Class: phases.Permanent, Err: fmt.Errorf("the receipt names %q, which is not a file of sector %s", f.Name, sector)}
		}
		hasSealed = hasSealed || f.Name == filepath.Join("sealed", sector)
		info, err := os.Lstat(filepath.Join(dir, f.Name))
		if errors.Is(err, fs.ErrNotExist) {
			if _, dirErr := os.Stat(filepath.Join(dir, "sealed")); dirErr != nil {
				return &Fault{Code: "storage_away", Class: phases.Transient, Err: fmt.Errorf("storage node %s in %s: %w: is it mounted?", r.Node, dir, dirErr)}
			}
		}
		if err == nil && (!info.Mode().IsRegular() || info.Size() != f.Size) {
			err = fmt.Errorf("%s has %d bytes", f.Name, info.Size())
		}
		if err != nil {
			return &Fault{Code: "receipt_broken", Class: phases.Permanent, Err: fmt.Errorf(
				"storage node %s no longer has what p5 copied (%s of %d bytes): %w; nothing was deleted; mend: dispatcher redo %s --phase p5", r.Node, f.Name, f.Size, err, sector)}
		}
	}
	if !hasSealed {
		return &Fault{Code: "receipt_broken", Class: phases.Permanent, Err: errors.New("the receipt of p5 lacks the sealed file")}
	}
	return nil
}
