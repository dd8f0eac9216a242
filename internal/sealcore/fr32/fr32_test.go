package fr32

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"sealfleet/internal/sealcore/sealtest"
)

// naivePad is the definition: 254 bits of data, then two zero bits.
func naivePad(src []byte) []byte {
	out := make([]byte, len(src)/BlockIn*BlockOut)
	for i := range len(src) * 8 {
		if src[i/8]>>(i%8)&1 == 1 {
			to := i/254*256 + i%254
			out[to/8] |= 1 << (to % 8)
		}
	}
	return out
}

func blocks(t *rapid.T, size int) []byte {
	n := rapid.IntRange(0, 600).Draw(t, "blocks")
	data := make([]byte, n*size)
	seed := rapid.SliceOfN(rapid.Byte(), 1, 500).Draw(t, "seed")
	for i := range data {
		data[i] = seed[i%len(seed)] ^ byte(i/len(seed))
	}
	return data
}

func TestPad(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := blocks(t, BlockIn)
		want := naivePad(data)
		got := make([]byte, len(want))
		if n := Pad(got, data); n != len(want) || !bytes.Equal(got, want) {
			t.Fatalf("padded %d bytes to %d, or wrongly", len(data), n)
		}
		back := make([]byte, len(data))
		if n := Unpad(back, got); n != len(data) || !bytes.Equal(back, data) {
			t.Fatal("unpadding does not give the data back")
		}
		for i := 31; i < len(got); i += 32 {
			got[i] |= 0xc0
		}
		if Unpad(back, got); !bytes.Equal(back, data) {
			t.Fatal("unpadding does not drop the padding bits")
		}
	})
}

// Each of the 1,016 bits by itself.
func TestPadEveryBit(t *testing.T) {
	for i := range BlockIn * 8 {
		var in [BlockIn]byte
		in[i/8] = 1 << (i % 8)
		var out [BlockOut]byte
		Pad(out[:], in[:])
		if !bytes.Equal(out[:], naivePad(in[:])) {
			t.Fatalf("bit %d is padded to %x", i, out)
		}
		var back [BlockIn]byte
		if Unpad(back[:], out[:]); back != in {
			t.Fatalf("bit %d comes back as %x", i, back)
		}
	}
}

func TestPadIsTheReferences(t *testing.T) {
	for _, name := range []string{"2k", "16k", "8m"} {
		v := sealtest.LoadVector(t, name)
		p := v.Pieces[0] // fills the sector
		path := t.TempDir() + "/unsealed"
		data, err := io.ReadAll(NewReader(sealtest.PieceData(p.Label, int64(p.UnpaddedSize))))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		sealtest.CheckFile(t, path, sealtest.File{Size: int64(v.SectorSize), SHA256: v.UnsealedSHA256})
	}
}

func TestStreams(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := blocks(t, BlockIn)
		padded := naivePad(data)
		sizes := rapid.SliceOfN(rapid.IntRange(1, 40000), 1, 5).Draw(t, "chunk sizes")

		check := func(what string, got []byte, err error, want []byte) {
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%s: %d bytes, %v; want %d", what, len(got), err, len(want))
			}
		}
		got, err := io.ReadAll(&choppy{NewReader(&choppy{bytes.NewReader(data), sizes, 0}), sizes, 1})
		check("reader", got, err, padded)
		got, err = io.ReadAll(&choppy{NewUnpadReader(&choppy{bytes.NewReader(padded), sizes, 0}), sizes, 1})
		check("unpadding reader", got, err, data)

		var b bytes.Buffer
		w := NewWriter(&b)
		err = errors.Join(writeChoppy(w, data, sizes), w.Close())
		check("writer", b.Bytes(), err, padded)
		b.Reset()
		w = NewUnpadWriter(&b)
		err = errors.Join(writeChoppy(w, padded, sizes), w.Close())
		check("unpadding writer", b.Bytes(), err, data)
	})
}

// choppy reads in pieces of odd sizes.
type choppy struct {
	r     io.Reader
	sizes []int
	i     int
}

func (c *choppy) Read(p []byte) (int, error) {
	c.i++
	return c.r.Read(p[:min(len(p), c.sizes[c.i%len(c.sizes)])])
}

func writeChoppy(w io.Writer, data []byte, sizes []int) error {
	for i := 0; len(data) > 0; i++ {
		n := min(len(data), sizes[i%len(sizes)])
		if m, err := w.Write(data[:n]); err != nil || m != n {
			return errors.Join(err, io.ErrShortWrite)
		}
		data = data[n:]
	}
	return nil
}

func TestStreamsRefusePartialBlocks(t *testing.T) {
	for _, n := range []int{1, 126, 128, 127*256 + 5} {
		data := bytes.Repeat([]byte{7}, n)
		if _, err := io.ReadAll(NewReader(bytes.NewReader(data))); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("reader of %d bytes ends with %v", n, err)
		}
		w := NewWriter(io.Discard)
		if _, err := w.Write(data); err != nil {
			t.Error(err)
		}
		if err := w.Close(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("writer of %d bytes ends with %v", n, err)
		}
	}
	if _, err := io.ReadAll(NewUnpadReader(bytes.NewReader(make([]byte, 127)))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("unpadding reader of 127 bytes ends with %v", err)
	}
}

func TestStreamsPassErrorsOn(t *testing.T) {
	broken := errors.New("broken")
	data, err := io.ReadAll(NewReader(io.MultiReader(bytes.NewReader(make([]byte, 254)), iotest.ErrReader(broken))))
	if !errors.Is(err, broken) || len(data) != 256 {
		t.Errorf("read %d bytes, then %v", len(data), err)
	}
	w := NewWriter(brokenWriter{broken})
	_, err = w.Write(make([]byte, 127))
	if !errors.Is(err, broken) || !errors.Is(w.Close(), broken) {
		t.Errorf("wrote to a broken writer: %v", err)
	}
}

type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }

func BenchmarkPad(b *testing.B) {
	src, dst := make([]byte, 127<<13), make([]byte, 128<<13)
	b.SetBytes(int64(len(src)))
	for b.Loop() {
		Pad(dst, src)
	}
}

func BenchmarkUnpad(b *testing.B) {
	src, dst := make([]byte, 128<<13), make([]byte, 127<<13)
	b.SetBytes(int64(len(src)))
	for b.Loop() {
		Unpad(dst, src)
	}
}
