package pieces

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/bits"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/fr32"
	"sealfleet/internal/sealcore/sealtest"
)

func params(t testing.TB, name string) sealcore.Params {
	t.Helper()
	p, err := sealcore.ForShape(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestCommPAndCommDAreTheReferences(t *testing.T) {
	for _, name := range []string{"2k", "2k-pieces", "2k-v1", "16k", "32k", "8m"} {
		v := sealtest.LoadVector(t, name)
		var list []Info
		for _, p := range v.Pieces {
			commP, err := CommP(t.Context(), sealtest.PieceData(p.Label, int64(p.UnpaddedSize)), p.UnpaddedSize)
			if err != nil {
				t.Fatal(err)
			}
			if commP != sealcore.Domain(p.CommP) {
				t.Errorf("%s: CommP of %s is %x, want %x", name, p.Label, commP, p.CommP)
			}
			list = append(list, Info{p.UnpaddedSize, commP})
		}
		commD, err := CommD(v.Params(t), list)
		if err != nil {
			t.Fatal(err)
		}
		if commD != sealcore.Domain(v.CommD) {
			t.Errorf("%s: CommD is %x, want %x", name, commD, v.CommD)
		}
	}
}

func TestCommPOfZeros(t *testing.T) {
	for unpadded := uint64(127); unpadded <= 127<<16; unpadded *= 2 {
		want, err := CommP(t.Context(), bytes.NewReader(make([]byte, unpadded)), unpadded)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ZeroCommP(unpadded); err != nil || got != want {
			t.Errorf("%d zeros: %x, %v; want %x", unpadded, got, err, want)
		}
	}
	if _, err := ZeroCommP(126); !errors.Is(err, ErrSize) {
		t.Errorf("126 zeros: %v", err)
	}
	// The well-known commitment of an empty sector of 32 GiB.
	const known = "077e5fde35c50a9303a55009e3498a4ebedff39c42b710b730d8ec7ac7afa63e"
	got, err := ZeroCommP(127 << 28)
	if err != nil || sealtest.Domain(got) != hexDomain(t, known) {
		t.Errorf("32 GiB of zeros: %x, %v; want %s", got, err, known)
	}
}

func hexDomain(t *testing.T, s string) (d sealtest.Domain) {
	t.Helper()
	if err := d.UnmarshalText([]byte(s)); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestCommPRefuses(t *testing.T) {
	ctx := t.Context()
	if _, err := CommP(ctx, bytes.NewReader(make([]byte, 253)), 254); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a byte too few: %v", err)
	}
	if _, err := CommP(ctx, bytes.NewReader(make([]byte, 255)), 254); !errors.Is(err, ErrLonger) {
		t.Errorf("a byte too many: %v", err)
	}
	if _, err := CommP(ctx, iotest.ErrReader(io.ErrClosedPipe), 254); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("broken data: %v", err)
	}
	for _, size := range []uint64{0, 1, 126, 128, 381, 1 << 63} {
		if _, err := CommP(ctx, iotest.ErrReader(io.ErrClosedPipe), size); !errors.Is(err, ErrSize) {
			t.Errorf("size %d: %v", size, err)
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := CommP(cancelled, bytes.NewReader(make([]byte, 254)), 254); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestValidate(t *testing.T) {
	p := params(t, "2KiB")
	for _, c := range []struct {
		sizes []uint64
		want  error
		says  string
	}{
		{[]uint64{2032}, nil, ""},
		{[]uint64{508, 508, 1016}, nil, ""},
		{[]uint64{508, 1016}, nil, ""},
		{[]uint64{127}, nil, ""},
		{nil, ErrNone, "committed capacity"},
		{[]uint64{508, 0}, ErrSize, "piece 2 of 2"},
		{[]uint64{2048}, ErrSize, "to 4064"},
		{[]uint64{1 << 63}, ErrSize, "no size of a piece"},
		{[]uint64{4064}, ErrTooLarge, "takes 2032"},
		{[]uint64{2032, 127}, ErrOverflow, "piece 2 of 2"},
		// They would fit without alignment, or in another order.
		{[]uint64{127, 1016, 508, 254}, ErrOverflow, "larger pieces first"},
		{[]uint64{1016, 508, 254, 127}, nil, ""},
	} {
		err := Validate(p, c.sizes)
		if !errors.Is(err, c.want) || (err != nil && !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%d: %v, want %v that says %q", c.sizes, err, c.want, c.says)
		}
	}
}

// refLayout is the reference's get_piece_alignment, on unpadded bytes.
func refLayout(sizes []uint64) (starts []uint64, end uint64) {
	for _, size := range sizes {
		if over := end % size; over > 0 {
			end += size - over
		}
		starts = append(starts, end)
		end += size
	}
	return starts, end
}

func drawSizes(t *rapid.T) []uint64 {
	shifts := rapid.SliceOfN(rapid.IntRange(0, 7), 1, 12).Draw(t, "log2 of the pieces' blocks")
	sizes := make([]uint64, len(shifts))
	for i, s := range shifts {
		sizes[i] = 127 << s
	}
	return sizes
}

func TestLayoutIsTheReferences(t *testing.T) {
	p := params(t, "32KiB")
	rapid.Check(t, func(t *rapid.T) {
		sizes := drawSizes(t)
		starts, end := refLayout(sizes)
		placed, err := Layout(p, sizes)
		if end > p.UnpaddedSize() {
			if !errors.Is(err, ErrOverflow) && !errors.Is(err, ErrTooLarge) {
				t.Fatalf("%d end at %d of %d: %v", sizes, end, p.UnpaddedSize(), err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		for i, at := range placed {
			if fr32.UnpaddedSize(at.Offset) != starts[i] || fr32.UnpaddedSize(at.Size) != sizes[i] {
				t.Fatalf("piece %d of %d is at %+v, want %d", i, sizes, at, starts[i])
			}
		}
	})
}

// refCommD joins pieces as the reference does, on a stack, and tells how much it covers.
func refCommD(list []Info) (root sealcore.Domain, covers uint64) {
	stack := []Info{list[0]}
	push := func(i Info) {
		stack = append(stack, i)
		for n := len(stack); n > 1 && stack[n-1].UnpaddedSize == stack[n-2].UnpaddedSize; n = len(stack) {
			joined := Info{2 * stack[n-1].UnpaddedSize, join(stack[n-2].CommP, stack[n-1].CommP)}
			stack = append(stack[:n-2], joined)
		}
	}
	padTop := func() {
		top := stack[len(stack)-1].UnpaddedSize
		push(Info{top, zeroRoot(level(fr32.PaddedSize(top)))})
	}
	for _, i := range list[1:] {
		for stack[len(stack)-1].UnpaddedSize < i.UnpaddedSize {
			padTop()
		}
		push(i)
	}
	for len(stack) > 1 {
		padTop()
	}
	return stack[0].CommP, stack[0].UnpaddedSize
}

func TestCommDAndFillAgreeWithTheReferencesStack(t *testing.T) {
	p := params(t, "32KiB")
	rapid.Check(t, func(t *rapid.T) {
		sizes := drawSizes(t)
		if Validate(p, sizes) != nil {
			t.Skip("too much")
		}
		var list []Info
		for i, size := range sizes {
			list = append(list, Info{size, sealcore.Domain{byte(i + 1)}})
		}
		commD, err := CommD(p, list)
		if err != nil {
			t.Fatal(err)
		}
		if ref, covers := refCommD(list); covers == p.UnpaddedSize() && ref != commD {
			t.Fatalf("CommD %x, the reference's %x", commD, ref)
		}
		full, err := Fill(p, list)
		if err != nil {
			t.Fatal(err)
		}
		if ref, covers := refCommD(full); covers != p.UnpaddedSize() || ref != commD {
			t.Fatalf("filled up to %v: the reference gets %x over %d bytes, want %x", full, ref, covers, commD)
		}
		var sum uint64
		for _, i := range full {
			sum += i.UnpaddedSize
		}
		if sum != p.UnpaddedSize() {
			t.Fatalf("filled up to %d of %d bytes", sum, p.UnpaddedSize())
		}
	})
}

// memory is a file in memory that counts what is written to it.
type memory struct {
	data    []byte
	written atomic.Int64
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	m.written.Add(int64(len(p)))
	return copy(m.data[off:off+int64(len(p))], p), nil
}

func (m *memory) ReadAt(p []byte, off int64) (int, error) { return copy(p, m.data[off:]), nil }

// naiveTree is tree D by its definition.
func naiveTree(leaves []byte) []byte {
	tree := bytes.Clone(leaves)
	for row := leaves; len(row) > 32; {
		var parents []byte
		for i := 0; i < len(row); i += 64 {
			h := sha256.Sum256(row[i : i+64])
			h[31] &= 0x3f
			parents = append(parents, h[:]...)
		}
		tree = append(tree, parents...)
		row = parents
	}
	return tree
}

// Any pieces, some of them zeros: unsealed data and tree are what they have to be, CommPs are the
// pieces' own, and CommD is what joining them gives.
func TestBuild(t *testing.T) {
	for _, shape := range []string{"2KiB", "32KiB"} {
		p := params(t, shape)
		rapid.Check(t, func(t *rapid.T) {
			sizes := drawSizes(t)
			if _, end := refLayout(sizes); end > p.UnpaddedSize() {
				t.Skip("too much")
			}
			zeros := rapid.SliceOfN(rapid.Bool(), len(sizes), len(sizes)).Draw(t, "zeros")
			checkBuild(t, p, sizes, zeros, 1)
		})
	}
}

// Pieces around the size of a chunk, by several workers.
func TestBuildInChunks(t *testing.T) {
	const quarter = 127 << 11 // of a chunk
	p := params(t, "8MiB")
	for _, c := range []struct {
		sizes []uint64
		zeros []bool
	}{
		{[]uint64{32 * quarter}, []bool{false}},
		{[]uint64{quarter, 2 * quarter, 16 * quarter}, []bool{false, false, false}},
		{[]uint64{8 * quarter, 4 * quarter, quarter, quarter}, []bool{false, true, false, true}},
	} {
		checkBuild(t, p, c.sizes, c.zeros, 3)
	}
}

func checkBuild(t rapid.TB, p sealcore.Params, sizes []uint64, zeros []bool, threads int) {
	starts, _ := refLayout(sizes)
	src := make(Source, len(sizes))
	data := make([]byte, p.UnpaddedSize())
	for i, size := range sizes {
		if zeros[i] {
			continue
		}
		data := data[starts[i] : starts[i]+size]
		if _, err := io.ReadFull(sealtest.PieceData(string(rune('a'+i)), int64(size)), data); err != nil {
			t.Fatal(err)
		}
		src[i] = bytes.NewReader(data)
	}
	wantUnsealed := make([]byte, p.SectorSize)
	fr32.Pad(wantUnsealed, data)

	unsealed := &memory{data: make([]byte, p.SectorSize)}
	tree := &memory{data: make([]byte, TreeSize(p))}
	var progress atomic.Uint64
	commD, list, err := Build(context.Background(), p, sizes, src, unsealed, tree, BuildOptions{
		Threads: threads, Progress: func(done, total uint64) {
			if done == total {
				progress.Store(done)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(unsealed.data, wantUnsealed) {
		t.Fatal("wrong unsealed data")
	}
	if !bytes.Equal(tree.data, naiveTree(wantUnsealed)) {
		t.Fatal("wrong tree D")
	}
	if progress.Load() != p.SectorSize {
		t.Fatal("progress did not reach the end")
	}
	for i, info := range list {
		commP, err := CommP(context.Background(), bytes.NewReader(data[starts[i]:starts[i]+sizes[i]]), sizes[i])
		if err != nil || info.CommP != commP || info.UnpaddedSize != sizes[i] {
			t.Fatalf("piece %d: %+v, want %x, %v", i, info, commP, err)
		}
	}
	joined, err := CommD(p, list)
	if err != nil || joined != commD || commD != sealcore.Domain(tree.data[len(tree.data)-32:]) {
		t.Fatalf("CommD is %x by the tree, %x by the pieces, %v", commD, joined, err)
	}
}

// A sector of zeros is written only where it is not zero.
func TestBuildKeepsZerosSparse(t *testing.T) {
	p := params(t, "8MiB")
	unsealed := &memory{data: make([]byte, p.SectorSize)}
	tree := &memory{data: make([]byte, TreeSize(p))}
	commD, _, err := Build(t.Context(), p, []uint64{p.UnpaddedSize()}, Source{nil}, unsealed, tree, BuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if u, d := unsealed.written.Load(), tree.written.Load(); u != 0 || d >= int64(p.SectorSize) {
		t.Errorf("%d bytes of data and %d of the tree were written", u, d)
	}
	if want := zeroRoot(bits.TrailingZeros64(p.Nodes())); commD != want {
		t.Errorf("CommD is %x, want %x", commD, want)
	}
}

type failing struct {
	memory
	err error
}

func (f *failing) WriteAt([]byte, int64) (int, error) { return 0, f.err }

func TestBuildFails(t *testing.T) {
	p := params(t, "2KiB")
	file := func(n int64) *memory { return &memory{data: make([]byte, n)} }
	good := Source{bytes.NewReader(make([]byte, 2032))}
	sizes := []uint64{2032}

	_, _, err := Build(t.Context(), p, sizes, Source{bytes.NewReader(make([]byte, 2031))}, file(2048), file(4064), BuildOptions{})
	if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "2031 of the piece's 2032") {
		t.Errorf("short piece: %v", err)
	}
	full := errors.New("no space")
	if _, _, err := Build(t.Context(), p, sizes, good, &failing{err: full}, file(4064), BuildOptions{}); !errors.Is(err, full) {
		t.Errorf("unsealed does not fit: %v", err)
	}
	if _, _, err := Build(t.Context(), p, sizes, good, file(2048), &failing{err: full}, BuildOptions{}); !errors.Is(err, full) {
		t.Errorf("tree D does not fit: %v", err)
	}
	if _, _, err := Build(t.Context(), p, []uint64{4064}, good, file(2048), file(4064), BuildOptions{}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Build(ctx, p, sizes, good, file(2048), file(4064), BuildOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
