package poseidon

import "github.com/consensys/gnark-crypto/ecc/bls12-381/fr"

// grain is the Grain LFSR in its self-shrinking mode, from which the Poseidon paper
// (appendix E) draws round constants. The oldest of its 80 bits is at next.
type grain struct {
	state [80]byte
	next  int
}

// newGrain seeds the register with the instance: a prime field (1), the S-box x^5 (1 in
// neptune's numbering), the field's 255 bits, the width and the rounds; it then
// discards the first 160 bits.
func newGrain(width, fullRounds, partialRounds int) *grain {
	g := &grain{}
	at := 0
	put := func(n int, v uint64) {
		for i := n - 1; i >= 0; i-- {
			g.state[at] = byte(v >> i & 1)
			at++
		}
	}
	put(2, 1)
	put(4, 1)
	put(12, fr.Bits)
	put(12, uint64(width))
	put(10, uint64(fullRounds))
	put(10, uint64(partialRounds))
	put(30, 1<<30-1)
	for range 160 {
		g.step()
	}
	return g
}

func (g *grain) step() byte {
	at := func(i int) byte { return g.state[(g.next+i)%len(g.state)] }
	b := at(62) ^ at(51) ^ at(38) ^ at(23) ^ at(13) ^ at(0)
	g.state[g.next] = b
	g.next = (g.next + 1) % len(g.state)
	return b
}

// bit takes bits in pairs until the first of a pair is 1, and returns the second.
func (g *grain) bit() byte {
	for g.step() == 0 {
		g.step()
	}
	return g.step()
}

// element returns the next 255 bits, most significant first, that are below the modulus.
func (g *grain) element() fr.Element {
	for {
		var b [fr.Bytes]byte
		for i := 256 - fr.Bits; i < 256; i++ {
			b[i/8] |= g.bit() << (7 - i%8)
		}
		if z, err := fr.BigEndian.Element(&b); err == nil {
			return z
		}
	}
}
