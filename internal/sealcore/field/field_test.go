package field

import (
	"bytes"
	"errors"
	"math/big"
	"slices"
	"testing"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"
	"pgregory.net/rapid"

	"sealfleet/internal/sealcore"
)

// domainOf writes v little-endian; v must fit in 32 bytes.
func domainOf(v *big.Int) (d sealcore.Domain) {
	v.FillBytes(d[:])
	slices.Reverse(d[:])
	return d
}

func TestEdges(t *testing.T) {
	r := fr.Modulus()
	one := big.NewInt(1)
	for _, c := range []struct {
		name string
		v    *big.Int
		ok   bool
	}{
		{"zero", new(big.Int), true},
		{"one", one, true},
		{"r-1", new(big.Int).Sub(r, one), true},
		{"r", r, false},
		{"r+1", new(big.Int).Add(r, one), false},
		{"2^255", new(big.Int).Lsh(one, 255), false},
		{"2^256-1", new(big.Int).Sub(new(big.Int).Lsh(one, 256), one), false},
	} {
		d := domainOf(c.v)
		if Canonical(&d) != c.ok {
			t.Errorf("Canonical(%s) = %v", c.name, !c.ok)
		}
		e, err := FromDomain(d)
		if (err == nil) != c.ok {
			t.Fatalf("FromDomain(%s): error %v", c.name, err)
		}
		if c.ok && (e.BigInt(new(big.Int)).Cmp(c.v) != 0 || ToDomain(e) != d) {
			t.Errorf("%s does not survive the way there and back", c.name)
		}
	}
}

func TestBytesRoundTripAndNameTheBadNode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 20).Draw(t, "nodes")
		src := make([]byte, 0, n*32)
		for range n {
			b := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "node")
			b[31] &= 0x3f
			src = append(src, b...)
		}
		got := make([]fr.Element, n)
		if err := FromBytes(got, src); err != nil {
			t.Fatal(err)
		}
		back := make([]byte, len(src))
		ToBytes(back, got)
		if !bytes.Equal(back, src) {
			t.Fatal("bytes changed on the way there and back")
		}
		const stride = 3
		wide := make([]fr.Element, n*stride)
		if err := FromBytesStrided(wide[1:], stride, src); err != nil {
			t.Fatal(err)
		}
		for i := range got {
			if wide[1+i*stride] != got[i] {
				t.Fatalf("strided element %d differs", i)
			}
		}
		bad := rapid.IntRange(0, n-1).Draw(t, "bad")
		src[bad*32+31] = 0xff
		var re *RangeError
		if err := FromBytes(got, src); !errors.As(err, &re) || re.Index != bad {
			t.Fatalf("error %v does not name node %d", err, bad)
		}
	})
}
