package pieces

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/fr32"
)

// join hashes two nodes to their parent: SHA-256 with the two topmost bits cleared.
func join(left, right sealcore.Domain) sealcore.Domain {
	var pair [2 * sealcore.NodeSize]byte
	copy(pair[:], left[:])
	copy(pair[sealcore.NodeSize:], right[:])
	h := sha256.Sum256(pair[:])
	h[sealcore.NodeSize-1] &= 0x3f
	return h
}

// hashRow hashes each two nodes of row to one of parents. They may be the same memory.
func hashRow(parents, row []byte) {
	for i := 0; i+2*sealcore.NodeSize <= len(row); i += 2 * sealcore.NodeSize {
		h := sha256.Sum256(row[i : i+2*sealcore.NodeSize])
		h[sealcore.NodeSize-1] &= 0x3f
		copy(parents[i/2:], h[:])
	}
}

// maxLevel is far above the root of any sector (64 GiB: 31).
const maxLevel = 58

var zeroRoots = sync.OnceValue(func() *[maxLevel + 1]sealcore.Domain {
	var roots [maxLevel + 1]sealcore.Domain
	for l := 1; l <= maxLevel; l++ {
		roots[l] = join(roots[l-1], roots[l-1])
	}
	return &roots
})

// zeroRoot returns the root of a tree over 2^level nodes of zeros.
func zeroRoot(level int) sealcore.Domain { return zeroRoots()[level] }

// ZeroCommP returns the commitment of a piece of zeros, of so many unpadded bytes. It hashes no
// more than once per row of the tree. It fails with ErrSize if no piece has this size.
func ZeroCommP(unpadded uint64) (sealcore.Domain, error) {
	if err := CheckSize(unpadded); err != nil {
		return sealcore.Domain{}, err
	}
	return zeroRoot(level(fr32.PaddedSize(unpadded))), nil
}

// CommP reads a piece of so many unpadded bytes from r and returns its commitment. It fails with
// ErrSize before it reads anything, with an error that wraps io.ErrUnexpectedEOF if r has less,
// and with ErrLonger if r has more. It needs little memory and one core.
func CommP(ctx context.Context, r io.Reader, unpadded uint64) (sealcore.Domain, error) {
	if err := CheckSize(unpadded); err != nil {
		return sealcore.Domain{}, err
	}
	const chunk = 127 << 11 // padded: 256 KiB
	in := make([]byte, min(chunk, unpadded))
	tree := make([]byte, fr32.PaddedSize(uint64(len(in))))
	var j joiner
	for left := unpadded; left > 0; left -= uint64(len(in)) {
		if err := ctx.Err(); err != nil {
			return sealcore.Domain{}, err
		}
		if n, err := io.ReadFull(r, in); err != nil {
			return sealcore.Domain{}, readError(err, unpadded-left+uint64(n), unpadded)
		}
		fr32.Pad(tree, in)
		row := tree
		for len(row) > sealcore.NodeSize {
			hashRow(row, row)
			row = row[:len(row)/2]
		}
		j.push(level(uint64(len(tree))), sealcore.Domain(row))
	}
	if err := atEnd(r); err != nil {
		return sealcore.Domain{}, fmt.Errorf("piece of %d bytes: %w", unpadded, err)
	}
	return j.stack[0].root, nil
}

// ErrLonger tells that a piece's data goes on behind the size that was given for it.
var ErrLonger = errors.New("the data is longer than the piece's size")

// readError says how far a piece's data went.
func readError(err error, got, want uint64) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the data ends after %d of the piece's %d bytes: %w", got, want, io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("read the piece at byte %d: %w", got, err)
}

// atEnd fails with ErrLonger unless nothing follows in r.
func atEnd(r io.Reader) error {
	var one [1]byte
	switch _, err := io.ReadFull(r, one[:]); {
	case err == nil:
		return ErrLonger
	case errors.Is(err, io.EOF):
		return nil
	default:
		return err
	}
}
