package storage

import (
	"context"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"sealfleet/internal/host"
	"sealfleet/internal/phases"
	"sealfleet/internal/throttle"
)

// Copy is a copy of one sector to one storage node.
type Copy struct {
	From    Layout
	Node    string // name of the storage node
	Dir     string // its directory here, or s3://bucket/prefix
	S3      S3Options
	Limit   *throttle.Limiter
	OnBytes func(step string, done, total int64) // may be nil; step is "copy" or "verify"
	// Replica is the sector's CommR in hex: chunks of another replica are not gone on from.
	Replica string
	// OnResume, if set, hears of each file that is gone on with: how many chunks there
	// were, and how many of them had to be copied again.
	OnResume func(name string, chunks, redone int)

	chunkBytes int64 // 0: chunkSize

	// synced is called when a file's temporary copy is on disk; benchmarks take the time.
	synced func()
	// written is called when it is out of memory too; tests spoil it there.
	written func(path string)
}

// Run copies the sealed file, p_aux, t_aux and tree R. Each file is copied in chunks to a
// temporary name, with the hashes of the chunks written beside it; synced; read back from
// the disk and compared; and only then gets its name. Both directions pass the limit.
//
// An attempt that was killed is gone on with: what it left is read back first, and a chunk
// that isn't what it should be is copied again. A whole file that an earlier attempt left
// is replaced: doing p5 again gives the same files.
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
	if IsS3(c.Dir) {
		return c.runS3(ctx)
	}
	files, total, err := c.sources()
	if err != nil {
		return Receipt{}, err
	}
	if err := c.prepare(files, total); err != nil {
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
func (c Copy) prepare(files []source, total int64) error {
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
	if total -= c.copied(files); free < total {
		return &Fault{Code: "no_space", Class: phases.Transient,
			Err: fmt.Errorf("storage node %s has %d bytes free in %s, the sector still needs %d", c.Node, free, c.Dir, total)}
	}
	return nil
}

// copied returns how many bytes of the files an earlier attempt left on the node.
func (c Copy) copied(files []source) (n int64) {
	for _, f := range files {
		n += partBytes(partName(filepath.Join(c.Dir, f.name)))
	}
	return n
}

// temporary is what an earlier release put into the names of copies under way.
const temporary = ".tmp-"

// file copies one file, going on from what an earlier attempt left.
func (c Copy) file(ctx context.Context, f source, progress *counter) (File, error) {
	in, err := os.Open(f.path)
	if err != nil {
		return File{}, err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return File{}, err
	}
	// The kernel reads further ahead then. Advice only.
	_ = unix.Fadvise(int(in.Fd()), 0, 0, unix.FADV_SEQUENTIAL)
	target := filepath.Join(c.Dir, f.name)
	part := partName(target)
	out, err := openPart(part)
	if err != nil {
		return File{}, err
	}
	defer out.Close()
	of := origin{V: 1, Name: f.name, Size: info.Size(), Chunk: c.chunk(), ModTime: info.ModTime().UnixNano(), Replica: c.Replica}
	list, err := openChunks(part+listSuffix, of)
	if err != nil {
		return File{}, err
	}
	defer list.file.Close()
	p := &partial{Copy: c, in: in, out: out, list: list, whole: sha256.New(), progress: progress}
	if err := p.run(ctx); err != nil {
		var fault *Fault
		if errors.As(err, &fault) && fault.Code == "copy_corrupt" {
			// Nothing on this disk can be believed: the next attempt begins anew.
			return File{}, errors.Join(err, os.Remove(part), list.remove())
		}
		return File{}, err
	}
	if err := os.Rename(part, target); err != nil {
		return File{}, err
	}
	if err := list.remove(); err != nil {
		return File{}, err
	}
	if err := syncDir(filepath.Dir(target)); err != nil {
		return File{}, err
	}
	root := treeRoot(list.sums)
	return File{
		Name: f.name, Size: of.Size, SHA256: hex.EncodeToString(p.whole.Sum(nil)),
		Chunk: of.Chunk, Root: hex.EncodeToString(root[:]),
	}, nil
}

func (c Copy) chunk() int64 {
	if c.chunkBytes > 0 {
		return c.chunkBytes
	}
	return chunkSize
}

// partial is one file's copy under way.
type partial struct {
	Copy
	in, out  *os.File
	list     *chunkList
	whole    hash.Hash // of what has been read back, in order
	progress *counter
}

func (p *partial) run(ctx context.Context) error {
	had, err := p.resume(ctx)
	if err != nil {
		return err
	}
	if err := p.copyFrom(ctx, had); err != nil {
		return err
	}
	if err := p.out.Truncate(p.list.of.Size); err != nil {
		return err
	}
	if err := p.settle(); err != nil {
		return err
	}
	if p.written != nil {
		p.written(p.out.Name())
	}
	for i := had; i < p.list.of.chunks(); i++ {
		got, err := p.readBack(ctx, i)
		if err != nil {
			return err
		}
		if got != p.list.sums[i] {
			return p.corrupt(i, got)
		}
	}
	return p.sameSource()
}

// resume reads back the chunks that an earlier attempt left and copies the bad ones again.
// It returns how many there are now.
func (p *partial) resume(ctx context.Context) (int, error) {
	info, err := p.out.Stat()
	if err != nil {
		return 0, err
	}
	if n := int((info.Size() + p.list.of.Chunk - 1) / p.list.of.Chunk); n < len(p.list.sums) {
		p.list.sums = p.list.sums[:n]
		if err := p.list.rewrite(); err != nil {
			return 0, err
		}
	}
	had := len(p.list.sums)
	if had == 0 {
		return 0, p.out.Truncate(0)
	}
	if err := p.settle(); err != nil {
		return 0, err
	}
	redone := 0
	for i := range had {
		before, err := p.whole.(encoding.BinaryMarshaler).MarshalBinary()
		if err != nil {
			return 0, err
		}
		got, err := p.readBack(ctx, i)
		if err != nil {
			return 0, err
		}
		if got == p.list.sums[i] {
			_, n := p.list.of.span(i)
			p.progress.add("copy", int(n))
			continue
		}
		redone++
		if p.list.sums[i], err = p.copy(ctx, i, pump); err != nil {
			return 0, err
		}
		if err := errors.Join(p.list.rewrite(), p.settle(), p.whole.(encoding.BinaryUnmarshaler).UnmarshalBinary(before)); err != nil {
			return 0, err
		}
		_, n := p.list.of.span(i)
		p.progress.add("verify", -int(n))
		if got, err = p.readBack(ctx, i); err != nil {
			return 0, err
		}
		if got != p.list.sums[i] {
			return 0, p.corrupt(i, got)
		}
	}
	if p.OnResume != nil {
		p.OnResume(p.list.of.Name, had, redone)
	}
	return had, nil
}

// copyFrom copies all chunks from one on, and lists their hashes in order. Where there is no limit
// some are copied at once, each by one core from its reading to its writing: that costs less than
// to hand every piece from core to core, as one chunk alone does to be quick.
func (p *partial) copyFrom(ctx context.Context, next int) error {
	type result struct {
		sum [sha256.Size]byte
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	var begun []chan result // in order
	chunks := p.list.of.chunks()
	for i := next; i < chunks; i++ {
		width := 1
		if p.Limit.Rate() == 0 {
			width = atOnce
		}
		for next < chunks && len(begun) < width {
			one, of := make(chan result, 1), next
			begun, next = append(begun, one), next+1
			through := pump
			if width > 1 {
				through = carry
			}
			running.Go(func() {
				sum, err := p.copy(ctx, of, through)
				one <- result{sum, err}
			})
		}
		r := <-begun[0]
		begun = begun[1:]
		if r.err != nil {
			return r.err
		}
		if err := p.list.add(r.sum); err != nil {
			return err
		}
		p.writeBehind(i)
	}
	return nil
}

// atOnce is how many chunks of an unlimited copy are under way: more than it takes to keep two cores
// busy, because each waits for a disk now and then. Measured: docs/benchmarks.md.
const atOnce = 4

// copy copies one chunk and returns the hash of what was read from the source.
func (p *partial) copy(ctx context.Context, i int, through mover) (sum [sha256.Size]byte, err error) {
	off, n := p.list.of.span(i)
	to := io.NewOffsetWriter(p.out, off)
	sum, got, err := through(ctx, p.Limit.Reader(ctx, io.NewSectionReader(p.in, off, n)), func(b []byte) error {
		if _, err := to.Write(b); err != nil {
			return err
		}
		p.progress.add("copy", len(b))
		return nil
	})
	if err == nil && got != n {
		err = fmt.Errorf("%s became shorter while it was copied", p.in.Name())
	}
	return sum, err
}

// readBack reads one chunk from the node, adds it to the hash of the whole and returns its
// own hash. A chunk that is too short has another hash; that is no error of its own.
func (p *partial) readBack(ctx context.Context, i int) ([sha256.Size]byte, error) {
	off, n := p.list.of.span(i)
	sum, got, err := pump(ctx, p.Limit.Reader(ctx, io.NewSectionReader(p.out, off, n)), func(b []byte) error {
		p.whole.Write(b)
		p.progress.add("verify", len(b))
		return nil
	})
	if err == nil && got < n {
		p.progress.add("verify", int(n-got))
	}
	return sum, err
}

// writeBehind has the kernel begin to write a chunk out, and waits for one some chunks
// before. Else it would gather GiB in memory, keep the disk idle meanwhile, and then hold
// the copy up for many seconds: the disk would see bursts and no limit, and the copy not
// keep its rate. An unlimited copy leaves it to the kernel, as cp does. Failing to says
// nothing: settle tells what the disk has not got.
func (p *partial) writeBehind(i int) {
	if p.Limit.Rate() == 0 {
		return
	}
	const behind = 4
	fd := int(p.out.Fd())
	off, n := p.list.of.span(i)
	_ = unix.SyncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WRITE)
	if i >= behind {
		off, n = p.list.of.span(i - behind)
		_ = unix.SyncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
	}
}

// settle brings to the disk what was written, and what is in memory out of it: it would
// hide what the disk got.
func (p *partial) settle() error {
	if err := p.out.Sync(); err != nil {
		return err
	}
	if p.synced != nil {
		p.synced()
	}
	dropCache(p.out)
	dropCache(p.in)
	return nil
}

// sameSource makes sure that all chunks are of one source.
func (p *partial) sameSource() error {
	info, err := os.Stat(p.in.Name())
	if err != nil {
		return err
	}
	if info.Size() != p.list.of.Size || info.ModTime().UnixNano() != p.list.of.ModTime {
		return fmt.Errorf("%s was changed while it was copied: do p5 again", p.in.Name())
	}
	return nil
}

func (p *partial) corrupt(i int, got [sha256.Size]byte) error {
	off, n := p.list.of.span(i)
	return &Fault{Code: "copy_corrupt", Class: phases.Retryable, Err: fmt.Errorf(
		"%s: wrote bytes %d to %d with SHA-256 %x, read them back with %x: the disk or the network of storage node %s corrupts data",
		p.list.of.Name, off, off+n, p.list.sums[i], got, p.Node)}
}

type counter struct {
	mu    sync.Mutex
	done  map[string]int64
	total int64
	tell  func(step string, done, total int64)
}

func (c *counter) add(step string, n int) {
	if c.tell == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = map[string]int64{}
	}
	c.done[step] += int64(n)
	if n < 0 {
		return // a chunk that is done again: nothing to tell yet
	}
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
