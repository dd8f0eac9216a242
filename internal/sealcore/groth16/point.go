package groth16

import (
	"encoding/binary"
	"fmt"

	bls12381 "github.com/consensys/gnark-crypto/ecc/bls12-381"
	"github.com/consensys/gnark-crypto/ecc/bls12-381/fp"

	"sealfleet/internal/sealcore/groth16/msm"
)

// Lengths of encoded points in bytes.
const (
	g1Len           = 2 * fp.Bytes
	g2Len           = 4 * fp.Bytes
	g1CompressedLen = fp.Bytes
	g2CompressedLen = 2 * fp.Bytes
)

// flagMask covers the three topmost bits of an encoded point: compressed, infinity, and
// the sign of y. They are all clear for an uncompressed point other than infinity, and
// infinity is nowhere allowed in a key, in parameters or in a proof.
const flagMask = 0xe0

// decodeG1 reads an uncompressed point of G1 that is not infinity. It does not check
// that the point is on the curve: that would cost as much as using it does.
func decodeG1(b []byte, p *msm.G1) error {
	if err := checkFlags(b); err != nil {
		return err
	}
	return decodeFp(b, &p.X, &p.Y)
}

// decodeG1Wide is decodeG1 for wide coordinates.
func decodeG1Wide(b []byte, p *msm.G1Wide) error {
	if err := checkFlags(b); err != nil {
		return err
	}
	if p.X.SetBytes(b[:fp.Bytes]) != nil || p.Y.SetBytes(b[fp.Bytes:]) != nil {
		return errCoordinate()
	}
	return nil
}

// decodeG2 is decodeG1 for G2. The part of a coordinate that is multiplied by u is first.
func decodeG2(b []byte, p *msm.G2) error {
	if err := checkFlags(b); err != nil {
		return err
	}
	return decodeFp(b, &p.X.A1, &p.X.A0, &p.Y.A1, &p.Y.A0)
}

func checkFlags(b []byte) error {
	switch flags := b[0] & flagMask; {
	case flags == 0:
		return nil
	case flags&0x40 != 0:
		return fmt.Errorf("%w: the point is infinity", ErrMalformed)
	default:
		return fmt.Errorf("%w: the point's flags are %#02x instead of 0, so it is no uncompressed point", ErrMalformed, flags)
	}
}

func decodeFp(b []byte, coordinates ...*fp.Element) error {
	for i, c := range coordinates {
		if err := c.SetBytesCanonical(b[i*fp.Bytes : (i+1)*fp.Bytes]); err != nil {
			return errCoordinate()
		}
	}
	return nil
}

func errCoordinate() error {
	return fmt.Errorf("%w: a coordinate of the point is not below the field's modulus", ErrMalformed)
}

// checkG1 tells why a decoded point is no element of the group; nil if it is one.
func checkG1(p *bls12381.G1Affine) error {
	switch {
	case p.IsInfinity():
		return fmt.Errorf("%w: the point is infinity", ErrMalformed)
	case !p.IsOnCurve():
		return fmt.Errorf("%w: the point is not on the curve", ErrMalformed)
	case !p.IsInSubGroup():
		return fmt.Errorf("%w: the point is not in the subgroup", ErrMalformed)
	}
	return nil
}

func checkG2(p *bls12381.G2Affine) error {
	switch {
	case p.IsInfinity():
		return fmt.Errorf("%w: the point is infinity", ErrMalformed)
	case !p.IsOnCurve():
		return fmt.Errorf("%w: the point is not on the curve", ErrMalformed)
	case !p.IsInSubGroup():
		return fmt.Errorf("%w: the point is not in the subgroup", ErrMalformed)
	}
	return nil
}

// appendG1 and appendG2 encode points without compression.
func appendG1(b []byte, p *msm.G1) []byte { return appendFp(b, &p.X, &p.Y) }

func appendG1Wide(b []byte, p *msm.G1Wide) []byte { return p.Y.AppendBytes(p.X.AppendBytes(b)) }

func appendG2(b []byte, p *msm.G2) []byte {
	return appendFp(b, &p.X.A1, &p.X.A0, &p.Y.A1, &p.Y.A0)
}

func appendFp(b []byte, coordinates ...*fp.Element) []byte {
	for _, c := range coordinates {
		raw := c.Bits()
		for i := len(raw) - 1; i >= 0; i-- {
			b = binary.BigEndian.AppendUint64(b, raw[i])
		}
	}
	return b
}

// reader walks over encoded points. After the first error it reads nothing more.
type reader struct {
	data []byte
	off  int
	err  error
}

func (r *reader) fail(what string, err error) {
	if r.err == nil {
		r.err = fmt.Errorf("%s: %w", what, err)
	}
}

// next returns the next n bytes, or nil if there are not so many.
func (r *reader) next(what string, n int) []byte {
	if r.err != nil {
		return nil
	}
	if n > len(r.data)-r.off {
		r.fail(what, fmt.Errorf("%w: the file ends after %d bytes, in the midst of it", ErrMalformed, len(r.data)))
		return nil
	}
	b := r.data[r.off : r.off+n]
	r.off += n
	return b
}

// g1 reads and checks a point.
func (r *reader) g1(what string) (p bls12381.G1Affine) {
	if b := r.next(what, g1Len); b != nil {
		err := decodeG1(b, (*msm.G1)(&p))
		if err == nil {
			err = checkG1(&p)
		}
		if err != nil {
			r.fail(what, err)
		}
	}
	return p
}

func (r *reader) g2(what string) (p bls12381.G2Affine) {
	if b := r.next(what, g2Len); b != nil {
		err := decodeG2(b, (*msm.G2)(&p))
		if err == nil {
			err = checkG2(&p)
		}
		if err != nil {
			r.fail(what, err)
		}
	}
	return p
}

// count reads how many things of the given size follow, and checks that they do.
func (r *reader) count(what string, size int) int {
	b := r.next("the number of "+what, 4)
	if b == nil {
		return 0
	}
	n := uint64(binary.BigEndian.Uint32(b))
	if rest := uint64(len(r.data) - r.off); n*uint64(size) > rest {
		r.fail(what, fmt.Errorf("%w: %d points of %d bytes are announced, but %d bytes are left", ErrMalformed, n, size, rest))
		return 0
	}
	return int(n)
}
