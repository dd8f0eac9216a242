package storage

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"os"
	"path/filepath"
	"syscall"

	"sealfleet/internal/host"
	"sealfleet/internal/phases"
)

// Names of a copy under way, beside the file that it will be.
const (
	partSuffix = ".part"   // .NAME.part: what is copied so far
	listSuffix = ".chunks" // .NAME.part.chunks: the hashes of its chunks
)

func partName(target string) string {
	return filepath.Join(filepath.Dir(target), "."+filepath.Base(target)+partSuffix)
}

// chunkSize is how much of a file is hashed and, if need be, copied again as one.
const chunkSize = 64 << 20

// origin says which bytes a list of chunks is of. If the source was made anew (p2 redone:
// another modification time; another ticket: another CommR) nothing of it is believed.
type origin struct {
	V       int    `json:"v"`
	Name    string `json:"name"` // relative to the node's directory
	Size    int64  `json:"size"`
	Chunk   int64  `json:"chunk"`
	ModTime int64  `json:"mtime_ns"`
	Replica string `json:"replica,omitempty"` // CommR, in hex
}

func (o origin) chunks() int { return int((o.Size + o.Chunk - 1) / o.Chunk) }

// span returns where a chunk lies.
func (o origin) span(i int) (off, n int64) {
	off = int64(i) * o.Chunk
	return off, min(o.Chunk, o.Size-off)
}

// chunkList is the file of a copy's chunk hashes: the origin as a line of JSON, then a
// SHA-256 in hex per line, in order. A line that a crash cut short ends it. It is no
// promise that the chunks are on the disk: who goes on reads them back first.
type chunkList struct {
	path string
	of   origin
	file *os.File
	sums [][sha256.Size]byte
}

// openChunks opens the list of a copy, without entries if there is none of this origin.
func openChunks(path string, of origin) (*chunkList, error) {
	l := &chunkList{path: path, of: of}
	if sums, ok := readChunks(path, of); ok {
		l.sums = sums
	}
	return l, l.rewrite() // also drops a line that was cut short
}

func readChunks(path string, of origin) (sums [][sha256.Size]byte, ok bool) {
	f, err := os.Open(path)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	var was origin
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &was) != nil || was != of {
		return nil, false
	}
	for lines.Scan() && len(sums) < of.chunks() {
		sum, err := hex.DecodeString(lines.Text())
		if err != nil || len(sum) != sha256.Size {
			break
		}
		sums = append(sums, [sha256.Size]byte(sum))
	}
	return sums, true
}

// rewrite writes the list anew.
func (l *chunkList) rewrite() error {
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
	head, err := json.Marshal(l.of)
	if err != nil {
		return err
	}
	text := append(head, '\n')
	for _, sum := range l.sums {
		text = append(hex.AppendEncode(text, sum[:]), '\n')
	}
	if l.file, err = os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644); err != nil {
		return host.Mend(l.path, err)
	}
	_, err = l.file.Write(text)
	return err
}

// add notes one more chunk.
func (l *chunkList) add(sum [sha256.Size]byte) error {
	l.sums = append(l.sums, sum)
	_, err := l.file.Write(append(hex.AppendEncode(nil, sum[:]), '\n'))
	return err
}

func (l *chunkList) remove() error {
	l.file.Close()
	if err := os.Remove(l.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// treeRoot returns the root of the hash tree over a file's chunks: RFC 6962's tree, whose
// leaves are SHA-256(0 ‖ SHA-256(chunk)) and whose nodes are SHA-256(1 ‖ left ‖ right);
// over nothing it is SHA-256 of nothing. Who holds the list of chunk hashes can so prove
// any single chunk against a receipt.
func treeRoot(sums [][sha256.Size]byte) [sha256.Size]byte {
	switch n := len(sums); n {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, sums[0][:]...))
	default:
		half := 1 << (bits.Len(uint(n-1)) - 1) // the largest power of two below n
		left, right := treeRoot(sums[:half]), treeRoot(sums[half:])
		return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
	}
}

// openPart opens a copy under way, locked: two attempts that overlap for a moment (the
// loser of a claim is killed, but not in zero time) must not write one file.
func openPart(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o644)
		if err != nil {
			return nil, host.Mend(path, err)
		}
		switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
		case errors.Is(err, syscall.EWOULDBLOCK):
			return nil, errors.Join(&Fault{Code: "copy_busy", Class: phases.Transient,
				Err: fmt.Errorf("%s: another attempt is still copying it: it ends by itself, or kill it", path)}, f.Close())
		case errors.Is(err, syscall.ENOLCK), errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOSYS):
			// A file system without locks: go on without.
		case err != nil:
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		// Between open and lock the other one may have finished: then this is its file.
		ours, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if named, err := os.Lstat(path); err == nil && os.SameFile(ours, named) {
			return f, nil
		}
		f.Close() // nothing was written
	}
}
