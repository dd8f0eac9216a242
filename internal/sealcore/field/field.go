// Package field turns the 32-byte nodes of Filecoin's trees and labels into elements of
// BLS12-381's scalar field and back.
//
// Filecoin writes an element as 32 bytes, little-endian, canonical (less than the
// modulus r = 0x73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001).
// gnark-crypto keeps it in Montgomery form and writes it big-endian by default, so
// every crossing between the two goes through this package.
package field

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"

	"sealfleet/internal/sealcore"
)

// The modulus r as little-endian words.
const (
	r0 = 0xffffffff00000001
	r1 = 0x53bda402fffe5bfe
	r2 = 0x3339d80809a1d805
	r3 = 0x73eda753299d7d48
)

// RangeError says that a node is not a field element: its value is r or more.
type RangeError struct {
	Index int // of the node in the bytes that were given
}

// Error names the node.
func (e *RangeError) Error() string {
	return fmt.Sprintf("node %d is not a field element: its value is not below the modulus", e.Index)
}

// Canonical tells whether d, little-endian, is below the modulus.
func Canonical(d *sealcore.Domain) bool {
	_, b := bits.Sub64(binary.LittleEndian.Uint64(d[0:8]), r0, 0)
	_, b = bits.Sub64(binary.LittleEndian.Uint64(d[8:16]), r1, b)
	_, b = bits.Sub64(binary.LittleEndian.Uint64(d[16:24]), r2, b)
	_, b = bits.Sub64(binary.LittleEndian.Uint64(d[24:32]), r3, b)
	return b == 1
}

// FromDomain reads a node as a field element. It refuses values of r and more with a
// *RangeError.
func FromDomain(d sealcore.Domain) (fr.Element, error) {
	z, err := fr.LittleEndian.Element(&d)
	if err != nil {
		return fr.Element{}, &RangeError{}
	}
	return z, nil
}

// ToDomain writes a field element as a node.
func ToDomain(e fr.Element) sealcore.Domain {
	var d sealcore.Domain
	fr.LittleEndian.PutElement(&d, e)
	return d
}

// FromBytes reads len(dst) nodes of 32 bytes from src, one after the other. The first
// one that is not a field element stops it with a *RangeError. It panics if src is
// shorter than 32·len(dst).
func FromBytes(dst []fr.Element, src []byte) error {
	return FromBytesStrided(dst, 1, src)
}

// FromBytesStrided is FromBytes with node i going to dst[i·stride]; it reads
// ⌈len(dst)/stride⌉ nodes. It gathers the columns of layers that are stored row by row.
func FromBytesStrided(dst []fr.Element, stride int, src []byte) error {
	for i, at := 0, 0; at < len(dst); i, at = i+1, at+stride {
		z, err := fr.LittleEndian.Element((*[fr.Bytes]byte)(src[i*fr.Bytes:]))
		if err != nil {
			return &RangeError{Index: i}
		}
		dst[at] = z
	}
	return nil
}

// ToBytes writes the elements of src as nodes, one after the other. It panics if dst is
// shorter than 32·len(src).
func ToBytes(dst []byte, src []fr.Element) {
	for i := range src {
		fr.LittleEndian.PutElement((*[fr.Bytes]byte)(dst[i*fr.Bytes:]), src[i])
	}
}
