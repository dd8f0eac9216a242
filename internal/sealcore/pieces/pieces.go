// Package pieces places pieces of data in a sector and commits to them: CommP of one piece,
// CommD of a sector, and tree D, the binary SHA-256 tree whose nodes both of them are.
//
// A piece is 127·2^k bytes, so that padded (fr32) it fills a whole subtree. Pieces keep their
// order; before a piece, zeros fill up to the next multiple of its own size, and after the last
// one up to the end of the sector.
//
// Source: Filecoin spec, "Piece, data representation"; filecoin-proofs pieces.rs (19.1.0).
package pieces

import (
	"errors"
	"fmt"
	"math/bits"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/fr32"
)

// What may be wrong with a list of pieces; test with errors.Is.
var (
	ErrNone     = errors.New("no pieces")
	ErrSize     = errors.New("a piece has to be 127·2^k bytes (127, 254, 508, 1016, 2032, …)")
	ErrTooLarge = errors.New("the piece is larger than the sector")
	ErrOverflow = errors.New("the pieces do not fit in the sector")
)

// Info is a piece as commitments see it.
type Info struct {
	UnpaddedSize uint64 // bytes
	CommP        sealcore.Domain
}

// Placed is a piece's place in the sector, in bytes of padded data.
type Placed struct {
	Offset uint64 // a multiple of Size
	Size   uint64 // a power of two
}

// CheckSize tells whether a piece may have so many unpadded bytes: ErrSize if not.
func CheckSize(unpadded uint64) error {
	if unpadded%fr32.BlockIn == 0 && bits.OnesCount64(unpadded/fr32.BlockIn) == 1 {
		return nil
	}
	return fmt.Errorf("piece of %d bytes: %w; %s", unpadded, ErrSize, nextSize(unpadded))
}

func nextSize(unpadded uint64) string {
	if unpadded > 127<<50 {
		return "this is no size of a piece at all"
	}
	next := uint64(fr32.BlockIn)
	for next < unpadded {
		next *= 2
	}
	return fmt.Sprintf("fill it with zeros to %d", next)
}

// Validate tells whether pieces of these sizes (unpadded bytes, in order) fit in a sector:
// nil, or an error that wraps ErrNone, ErrSize, ErrTooLarge or ErrOverflow. It is cheap: use it
// before any work.
func Validate(p sealcore.Params, sizes []uint64) error {
	_, err := Layout(p, sizes)
	return err
}

// Layout places pieces of these sizes (unpadded bytes, in order) in a sector. It fails like
// Validate.
func Layout(p sealcore.Params, sizes []uint64) ([]Placed, error) {
	if len(sizes) == 0 {
		return nil, fmt.Errorf("%w: name at least one piece, or ask for a sector of zeros (committed capacity)", ErrNone)
	}
	placed := make([]Placed, len(sizes))
	var end, gaps uint64
	for i, size := range sizes {
		if err := CheckSize(size); err != nil {
			return nil, fmt.Errorf("piece %d of %d: %w", i+1, len(sizes), err)
		}
		if size > p.UnpaddedSize() {
			return nil, fmt.Errorf("piece %d of %d: %w: it has %d bytes, a sector of %s takes %d",
				i+1, len(sizes), ErrTooLarge, size, p.Name, p.UnpaddedSize())
		}
		padded := fr32.PaddedSize(size)
		offset := (end + padded - 1) &^ (padded - 1)
		gaps += offset - end
		end = offset + padded
		if end > p.SectorSize {
			return nil, fmt.Errorf("%w: piece %d of %d ends %d bytes behind the end of a sector of %s"+
				" (padded to fr32, with %d bytes of zeros for alignment); put larger pieces first, or fewer in",
				ErrOverflow, i+1, len(sizes), end-p.SectorSize, p.Name, gaps)
		}
		placed[i] = Placed{Offset: offset, Size: padded}
	}
	return placed, nil
}

// CommD joins the pieces of a sector, and the zeros between and behind them, to its commitment.
// It fails like Validate.
//
// The reference does not fill up behind the last piece as far as this: it refuses a list of
// pieces that leaves its commitment short of the sector's (see Fill). Where it gives an answer,
// this is the same.
func CommD(p sealcore.Params, list []Info) (sealcore.Domain, error) {
	placed, err := Layout(p, sizesOf(list))
	if err != nil {
		return sealcore.Domain{}, err
	}
	var j joiner
	for i, piece := range list {
		j.fill(placed[i].Offset)
		j.push(level(placed[i].Size), piece.CommP)
	}
	j.fill(p.SectorSize)
	return j.stack[0].root, nil
}

// level is how many rows above the leaves the root of a subtree over so many padded bytes is.
func level(padded uint64) int { return bits.TrailingZeros64(padded / sealcore.NodeSize) }

// joiner reduces subtrees that come from left to right, each aligned to its own size.
type joiner struct {
	end   uint64 // padded bytes so far
	stack []subtree
}

type subtree struct {
	level int
	root  sealcore.Domain
}

func (j *joiner) push(level int, root sealcore.Domain) {
	j.end += sealcore.NodeSize << level
	for n := len(j.stack); n > 0 && j.stack[n-1].level == level; n = len(j.stack) {
		root = join(j.stack[n-1].root, root)
		level++
		j.stack = j.stack[:n-1]
	}
	j.stack = append(j.stack, subtree{level, root})
}

// fill appends zeros up to an offset in padded bytes.
func (j *joiner) fill(to uint64) {
	for j.end < to {
		l := level(zerosAt(j.end, to))
		j.push(l, zeroRoot(l))
	}
}

// zerosAt returns the size of the largest subtree that begins at an offset and does not reach
// beyond another, in padded bytes.
func zerosAt(from, to uint64) uint64 {
	size := uint64(1) << (bits.Len64(to-from) - 1)
	if from > 0 {
		size = min(size, from&-from)
	}
	return size
}

// Fill returns the list with pieces of zeros wherever alignment, or the end of the sector, leaves
// a gap: the same sector, told in full. The reference wants such a list where it checks CommD
// against the pieces. It fails like Validate.
func Fill(p sealcore.Params, list []Info) ([]Info, error) {
	placed, err := Layout(p, sizesOf(list))
	if err != nil {
		return nil, err
	}
	var full []Info
	var end uint64
	zeros := func(to uint64) {
		for end < to {
			size := zerosAt(end, to)
			full = append(full, Info{fr32.UnpaddedSize(size), zeroRoot(level(size))})
			end += size
		}
	}
	for i, piece := range list {
		zeros(placed[i].Offset)
		full = append(full, piece)
		end += placed[i].Size
	}
	zeros(p.SectorSize)
	return full, nil
}

func sizesOf(list []Info) []uint64 {
	sizes := make([]uint64, len(list))
	for i, piece := range list {
		sizes[i] = piece.UnpaddedSize
	}
	return sizes
}
