package graph

import (
	"encoding/binary"

	"golang.org/x/crypto/blake2b"

	"sealfleet/internal/sealcore"
)

// rounds of the Feistel network: the fourth key that the seed gives is not used.
const rounds = 3

// feistel is a permutation of [0, n) that looks random.
//
// A round's function (BLAKE2b over its half and its key) has only as many inputs as half the
// bits of n can tell: 2^14 for 512 MiB, 2^17 for 32 GiB. All of them are computed once, and a
// permutation is then a handful of table reads instead of three or more hashes.
type feistel struct {
	n     uint64
	half  uint   // bits of a half
	mask  uint64 // of a half
	table [rounds][]uint32
}

// newFeistel prepares the permutation of [0, n) under the first three of the four 64-bit
// little-endian keys.
func newFeistel(n uint64, keys sealcore.Domain) *feistel {
	f := &feistel{n: n, half: 1}
	for uint64(1)<<(2*f.half) < n {
		f.half++
	}
	f.mask = 1<<f.half - 1
	var in [16]byte
	for r := range f.table {
		key := binary.LittleEndian.Uint64(keys[8*r:])
		binary.BigEndian.PutUint64(in[8:], key)
		t := make([]uint32, f.mask+1)
		for i := range t {
			binary.BigEndian.PutUint64(in[:8], uint64(i))
			h := blake2b.Sum512(in[:])
			t[i] = uint32(binary.BigEndian.Uint64(h[:8]) & f.mask)
		}
		f.table[r] = t
	}
	return f
}

// permute maps i of [0, n) into [0, n). The network permutes the next power of four, so it is
// walked until the value falls into the range again.
func (f *feistel) permute(i uint64) uint64 {
	t0, t1, t2 := f.table[0], f.table[1], f.table[2]
	for {
		left, right := i>>f.half&f.mask, i&f.mask
		left ^= uint64(t0[right])
		right ^= uint64(t1[left])
		left ^= uint64(t2[right])
		// Three rounds swap the halves an odd number of times.
		if i = right<<f.half | left; i < f.n {
			return i
		}
	}
}
