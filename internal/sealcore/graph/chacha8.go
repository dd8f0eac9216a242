package graph

import "math/bits"

// chacha8 fills out with the first numbers of a ChaCha generator of eight rounds, counter and
// nonce zero, as a 64-bit little-endian reader of its key stream sees them (RFC 8439 with a
// 64-bit counter and eight rounds; rand_chacha's ChaCha8Rng).
func chacha8(key *[8]uint32, out *[2 * draws]uint64) {
	var block [16]uint32
	chacha8Block(key, 0, &block)
	for i := range 8 {
		out[i] = uint64(block[2*i]) | uint64(block[2*i+1])<<32
	}
	chacha8Block(key, 1, &block)
	for i := range 2 * (draws - 4) {
		out[8+i] = uint64(block[2*i]) | uint64(block[2*i+1])<<32
	}
}

// The words that start every ChaCha block: "expand 32-byte k".
const sigma0, sigma1, sigma2, sigma3 = 0x61707865, 0x3320646e, 0x79622d32, 0x6b206574

func chacha8Block(key *[8]uint32, counter uint32, out *[16]uint32) {
	x0, x1, x2, x3 := uint32(sigma0), uint32(sigma1), uint32(sigma2), uint32(sigma3)
	x4, x5, x6, x7 := key[0], key[1], key[2], key[3]
	x8, x9, x10, x11 := key[4], key[5], key[6], key[7]
	x12, x13, x14, x15 := counter, uint32(0), uint32(0), uint32(0)

	for range 4 { // a column round and a diagonal round each
		x0, x4, x8, x12 = quarter(x0, x4, x8, x12)
		x1, x5, x9, x13 = quarter(x1, x5, x9, x13)
		x2, x6, x10, x14 = quarter(x2, x6, x10, x14)
		x3, x7, x11, x15 = quarter(x3, x7, x11, x15)

		x0, x5, x10, x15 = quarter(x0, x5, x10, x15)
		x1, x6, x11, x12 = quarter(x1, x6, x11, x12)
		x2, x7, x8, x13 = quarter(x2, x7, x8, x13)
		x3, x4, x9, x14 = quarter(x3, x4, x9, x14)
	}

	out[0], out[1], out[2], out[3] = x0+sigma0, x1+sigma1, x2+sigma2, x3+sigma3
	out[4], out[5], out[6], out[7] = x4+key[0], x5+key[1], x6+key[2], x7+key[3]
	out[8], out[9], out[10], out[11] = x8+key[4], x9+key[5], x10+key[6], x11+key[7]
	out[12], out[13], out[14], out[15] = x12+counter, x13, x14, x15
}

func quarter(a, b, c, d uint32) (uint32, uint32, uint32, uint32) {
	a += b
	d = bits.RotateLeft32(d^a, 16)
	c += d
	b = bits.RotateLeft32(b^c, 12)
	a += b
	d = bits.RotateLeft32(d^a, 8)
	c += d
	b = bits.RotateLeft32(b^c, 7)
	return a, b, c, d
}
