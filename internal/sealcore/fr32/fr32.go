// Package fr32 spreads data over field elements: after every 254 bits it puts two zero bits, so
// that each 32-byte node is smaller than the field's modulus. 127 bytes of data become 128.
//
// Bits are counted from the least significant one of each byte; the padding of a node is thus in
// the two topmost bits of its last byte.
//
// Source: Filecoin spec, "Piece, data representation"; crate fr32 12.1.0.
package fr32

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Bytes of a block before and after padding: the smallest unit in which both are whole bytes.
const (
	BlockIn  = 127
	BlockOut = 128
)

// PaddedSize returns how many bytes so many bytes of data take when padded. It is exact for
// multiples of 127, the only lengths that can be padded.
func PaddedSize(unpadded uint64) uint64 { return unpadded / BlockIn * BlockOut }

// UnpaddedSize returns how many bytes of data are in so many padded bytes, a multiple of 128.
func UnpaddedSize(padded uint64) uint64 { return padded / BlockOut * BlockIn }

const nodeMask = 1<<62 - 1 // keeps the 62 low bits of a node's last 64-bit word

// Pad pads src into dst, which must not overlap. It takes as many whole blocks as src has and
// returns how many bytes of dst it filled. It panics if dst is too short for them.
func Pad(dst, src []byte) int {
	n := 0
	for ; len(src) >= BlockIn; src = src[BlockIn:] {
		padBlock((*[BlockOut]byte)(dst[n:]), (*[BlockIn]byte)(src))
		n += BlockOut
	}
	return n
}

// Unpad is the inverse of Pad. It takes as many whole blocks as src has and returns how many
// bytes of dst it filled. Padding bits are dropped, whatever they are.
func Unpad(dst, src []byte) int {
	n := 0
	for ; len(src) >= BlockOut; src = src[BlockOut:] {
		unpadBlock((*[BlockIn]byte)(dst[n:]), (*[BlockOut]byte)(src))
		n += BlockIn
	}
	return n
}

func padBlock(dst *[BlockOut]byte, src *[BlockIn]byte) {
	le := binary.LittleEndian
	put := func(i int, w uint64) { le.PutUint64(dst[8*i:], w) }
	var w [16]uint64
	for i := range 15 {
		w[i] = le.Uint64(src[8*i:])
	}
	w[15] = le.Uint64(src[BlockIn-8:]) >> 8 // the last seven bytes

	// Node n begins at bit 254·n: its words are shifted by 2·n bits.
	put(0, w[0])
	put(1, w[1])
	put(2, w[2])
	put(3, w[3]&nodeMask)
	put(4, w[3]>>62|w[4]<<2)
	put(5, w[4]>>62|w[5]<<2)
	put(6, w[5]>>62|w[6]<<2)
	put(7, (w[6]>>62|w[7]<<2)&nodeMask)
	put(8, w[7]>>60|w[8]<<4)
	put(9, w[8]>>60|w[9]<<4)
	put(10, w[9]>>60|w[10]<<4)
	put(11, (w[10]>>60|w[11]<<4)&nodeMask)
	put(12, w[11]>>58|w[12]<<6)
	put(13, w[12]>>58|w[13]<<6)
	put(14, w[13]>>58|w[14]<<6)
	put(15, (w[14]>>58|w[15]<<6)&nodeMask)
}

func unpadBlock(dst *[BlockIn]byte, src *[BlockOut]byte) {
	le := binary.LittleEndian
	put := func(i int, w uint64) { le.PutUint64(dst[8*i:], w) }
	var w [16]uint64
	for i := range w {
		w[i] = le.Uint64(src[8*i:])
	}
	for i := 3; i < 16; i += 4 {
		w[i] &= nodeMask
	}

	put(0, w[0])
	put(1, w[1])
	put(2, w[2])
	put(3, w[3]|w[4]<<62)
	put(4, w[4]>>2|w[5]<<62)
	put(5, w[5]>>2|w[6]<<62)
	put(6, w[6]>>2|w[7]<<62)
	put(7, w[7]>>2|w[8]<<60)
	put(8, w[8]>>4|w[9]<<60)
	put(9, w[9]>>4|w[10]<<60)
	put(10, w[10]>>4|w[11]<<60)
	put(11, w[11]>>4|w[12]<<58)
	put(12, w[12]>>6|w[13]<<58)
	put(13, w[13]>>6|w[14]<<58)
	// Words 14 and 15 together have 15 bytes left: the last store overlaps the one before.
	put(14, w[14]>>6|w[15]<<58)
	le.PutUint64(dst[BlockIn-8:], w[14]>>62|w[15]>>6<<8|w[15]<<2&0xff)
}

// streamBlocks is how many blocks the streaming forms convert at once.
const streamBlocks = 256

// codec is one of the two directions.
type codec struct {
	name    string
	in, out int
	convert func(dst, src []byte) int
}

var (
	padding   = codec{"padding", BlockIn, BlockOut, Pad}
	unpadding = codec{"unpadding", BlockOut, BlockIn, Unpad}
)

func (c codec) errPartial(n int) error {
	return fmt.Errorf("fr32: %s: the data ends with %d bytes of a block of %d: %w", c.name, n, c.in, io.ErrUnexpectedEOF)
}

// NewReader returns a reader of the padded form of r's data. The data's length must be a
// multiple of 127 bytes, or the reader ends with an error that wraps io.ErrUnexpectedEOF.
func NewReader(r io.Reader) io.Reader { return newReader(r, padding) }

// NewUnpadReader returns a reader of the data whose padded form r gives. The length of that must
// be a multiple of 128 bytes, or the reader ends with an error that wraps io.ErrUnexpectedEOF.
func NewUnpadReader(r io.Reader) io.Reader { return newReader(r, unpadding) }

type reader struct {
	codec
	r    io.Reader
	in   []byte
	held int // bytes of in that wait for the rest of their block
	out  []byte
	rest []byte // of out, not read yet
	err  error  // what comes after rest
}

func newReader(r io.Reader, c codec) io.Reader {
	return &reader{codec: c, r: r, in: make([]byte, streamBlocks*c.in), out: make([]byte, streamBlocks*c.out)}
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(r.rest) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.fill()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// fill reads once and converts the blocks that are whole.
func (r *reader) fill() {
	n, err := r.r.Read(r.in[r.held:])
	r.held += n
	whole := r.held / r.codec.in * r.codec.in
	r.rest = r.out[:r.convert(r.out, r.in[:whole])]
	r.held = copy(r.in, r.in[whole:r.held])
	if errors.Is(err, io.EOF) && r.held > 0 {
		err = r.errPartial(r.held)
	}
	r.err = err
}

// NewWriter returns a writer that pads what is written to it, on to w. Close must be called; it
// does not close w, and fails (io.ErrUnexpectedEOF) if the data was no multiple of 127 bytes.
func NewWriter(w io.Writer) io.WriteCloser { return newWriter(w, padding) }

// NewUnpadWriter returns a writer that takes padded data and writes the data itself on to w.
// Close must be called; it does not close w, and fails (io.ErrUnexpectedEOF) if what was written
// was no multiple of 128 bytes.
func NewUnpadWriter(w io.Writer) io.WriteCloser { return newWriter(w, unpadding) }

type writer struct {
	codec
	w    io.Writer
	part []byte // of a block
	out  []byte
	err  error
}

func newWriter(w io.Writer, c codec) io.WriteCloser {
	return &writer{codec: c, w: w, part: make([]byte, 0, c.in), out: make([]byte, streamBlocks*c.out)}
}

// Write implements io.Writer. What is left of a block waits for the next call.
func (w *writer) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		if w.err != nil {
			return n, w.err
		}
		var took int
		if len(w.part) > 0 || len(p) < w.in {
			took = min(w.in-len(w.part), len(p))
			w.part = append(w.part, p[:took]...)
			if len(w.part) == w.in {
				w.flush(w.part)
				w.part = w.part[:0]
			}
		} else {
			took = min(len(p)/w.in, streamBlocks) * w.in
			w.flush(p[:took])
		}
		p = p[took:]
		n += took
	}
	return n, w.err
}

func (w *writer) flush(blocks []byte) {
	_, w.err = w.w.Write(w.out[:w.convert(w.out, blocks)])
}

// Close tells whether all that was written has been passed on.
func (w *writer) Close() error {
	if w.err == nil && len(w.part) > 0 {
		w.err = w.errPartial(len(w.part))
	}
	return w.err
}
