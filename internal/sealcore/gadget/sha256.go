package gadget

// SHA-256's round constants and initial state (FIPS 180-4, 4.2.2 and 5.3.3).
var (
	sha256K = [64]uint32{
		0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
		0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
		0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
		0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
		0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
		0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
		0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
		0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
	}
	sha256IV = [8]uint32{
		0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
	}
)

// SHA256 hashes a message of whole bytes, each byte's most significant bit first, and
// returns the 256 bits of the digest in the same order. The message may be overwritten.
func (b *Builder) SHA256(message []Bit) []Bit {
	length := uint64(len(message))
	message = append(message, Constant(true))
	for len(message)%512 != 448 {
		message = append(message, Constant(false))
	}
	for i := 63; i >= 0; i-- {
		message = append(message, Constant(length>>i&1 == 1))
	}

	var state [8]Word
	for i := range state {
		state[i] = ConstantWord(sha256IV[i])
	}
	for ; len(message) > 0; message = message[512:] {
		b.compress(&state, message[:512])
	}
	digest := make([]Bit, 0, 256)
	for i := range state {
		digest = appendBE(digest, &state[i])
	}
	return digest
}

// compress is SHA-256's compression function over one block of 512 bits. The new a and
// e of a round are only allocated when the next round reads them, as sums that take in
// everything at once.
func (b *Builder) compress(state *[8]Word, block []Bit) {
	sums := &b.sums
	var w [64]Word
	for i := range 16 {
		w[i] = wordBE(block[32*i : 32*i+32])
	}
	for i := 16; i < 64; i++ {
		s0 := b.xorRotated(&w[i-15], 7, 18, 3, true)
		s1 := b.xorRotated(&w[i-2], 17, 19, 10, true)
		w[i] = sums.add(&w[i-16], &s0, &w[i-7], &s1)
	}

	va, vb, vc, vd := state[0], state[1], state[2], state[3]
	ve, vf, vg, vh := state[4], state[5], state[6], state[7]
	// What a round leaves for the next: the summands of its a and e.
	var h, s1, ch, k, s0, maj, d Word
	var wi *Word
	for i := range 64 {
		if i > 0 {
			ve = sums.add(&h, &s1, &ch, &k, wi, &d)
		}
		newS1 := b.xorRotated(&ve, 6, 11, 25, false)
		newCh := b.chWord(&ve, &vf, &vg)
		if i > 0 {
			va = sums.add(&h, &s1, &ch, &k, wi, &s0, &maj)
		}
		s0 = b.xorRotated(&va, 2, 13, 22, false)
		maj = b.majWord(&va, &vb, &vc)
		h, s1, ch, k, wi, d = vh, newS1, newCh, ConstantWord(sha256K[i]), &w[i], vd
		vh, vg, vf = vg, vf, ve
		vd, vc, vb = vc, vb, va
	}

	state[0] = sums.add(&h, &s1, &ch, &k, wi, &s0, &maj, &state[0])
	state[1] = sums.add(&state[1], &vb)
	state[2] = sums.add(&state[2], &vc)
	state[3] = sums.add(&state[3], &vd)
	state[4] = sums.add(&h, &s1, &ch, &k, wi, &d, &state[4])
	state[5] = sums.add(&state[5], &vf)
	state[6] = sums.add(&state[6], &vg)
	state[7] = sums.add(&state[7], &vh)
	sums.flush()
}
