package seal

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/pieces"
	"sealfleet/internal/sealcore/sealtest"
)

// piecesOf writes a vector's pieces to files.
func piecesOf(t testing.TB, v sealtest.Seal) []Piece {
	t.Helper()
	paths := v.WritePieces(t, t.TempDir())
	list := make([]Piece, len(paths))
	for i, path := range paths {
		list[i] = Piece{Path: path, UnpaddedSize: v.Pieces[i].UnpaddedSize}
	}
	return list
}

// checkP1 compares all that p1 leaves with a vector.
func checkP1(t *testing.T, v sealtest.Seal, out *PreCommit1, p Paths) {
	t.Helper()
	if out.CommD != sealcore.Domain(v.CommD) || out.ReplicaID != sealcore.Domain(v.ReplicaID) {
		t.Errorf("CommD %x, replica id %x; want %x, %x", out.CommD, out.ReplicaID, v.CommD, v.ReplicaID)
	}
	if len(out.Pieces) != len(v.Pieces) {
		t.Fatalf("%d pieces, want %d", len(out.Pieces), len(v.Pieces))
	}
	for i, want := range v.Pieces {
		if got := out.Pieces[i]; got.CommP != sealcore.Domain(want.CommP) || got.UnpaddedSize != want.UnpaddedSize {
			t.Errorf("piece %d is %+v, want %+v", i, got, want)
		}
	}
	for _, path := range []string{p.Unsealed, p.Sealed} {
		sealtest.CheckFile(t, path, sealtest.File{Size: int64(v.SectorSize), SHA256: v.UnsealedSHA256})
	}
	for name, want := range v.CacheAfterP1 {
		sealtest.CheckFile(t, filepath.Join(p.Cache, name), want)
	}
	if names := namesBelow(t, p.Cache); len(names) != len(v.CacheAfterP1) {
		t.Errorf("the cache holds %v, want %d files", names, len(v.CacheAfterP1))
	}
}

// namesBelow lists the files below a directory, those in the making too.
func namesBelow(t testing.TB, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestP1IsTheReferences(t *testing.T) {
	names := []string{"2k", "2k-pieces", "2k-v1", "16k", "32k"}
	if !testing.Short() {
		names = append(names, "8m")
	}
	if os.Getenv("SEALFLEET_TEST_512M") != "" {
		names = append(names, "512m")
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			v := sealtest.LoadVector(t, name)
			list := piecesOf(t, v)
			p := InDir(t.TempDir())
			progress := steps{log: t.Logf, last: time.Now()}
			out, err := P1(t.Context(), sectorOf(t, v), list, p, Options{Progress: progress.add})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("rest: %.2f s", time.Since(progress.last).Seconds())
			checkP1(t, v, out, p)
			if want := "tree-d, layer 1/2, layer 2/2"; progress.String() != want {
				t.Errorf("progress of %s, want %s", progress.String(), want)
			}
			data, err := out.JSON()
			if err != nil {
				t.Fatal(err)
			}
			back, err := ParsePreCommit1(data)
			if err != nil {
				t.Fatal(err)
			}
			if err := back.Bind(out.Sector); err != nil || back.ReplicaID != out.ReplicaID || back.Cache != p.Cache {
				t.Errorf("read back %+v, %v", back, err)
			}
		})
	}
}

// steps collects the steps that reached their end.
type steps struct {
	mu   sync.Mutex
	all  []string
	log  func(string, ...any)
	last time.Time
}

func (s *steps) add(step string, done, total uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if done == total {
		s.all = append(s.all, step)
		s.log("%s: %.2f s", step, time.Since(s.last).Seconds())
		s.last = time.Now()
	}
}

func (s *steps) String() string { return strings.Join(s.all, ", ") }

// p1 over its own files, and over what p2 made of them, gives the same bytes.
func TestP1DoneAgainGivesTheSameBytes(t *testing.T) {
	v := sealtest.LoadVector(t, "2k-pieces")
	list := piecesOf(t, v)
	p := InDir(t.TempDir())
	for run := range 3 {
		out, err := P1(t.Context(), sectorOf(t, v), list, p, Options{Threads: 1 + run})
		if err != nil {
			t.Fatal(err)
		}
		checkP1(t, v, out, p)
		for _, path := range []string{p.Sealed, p.Unsealed} {
			if err := os.WriteFile(path, []byte("something else"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		// What a killed process leaves.
		if err := os.WriteFile(filepath.Join(p.Cache, ".sc-02-data-layer-1.dat.tmp"), make([]byte, 5000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A run that ends early leaves no labels of an earlier one behind its own: they may be of another
// ticket, and nothing in the files would tell.
func TestP1LeavesNoMixtureOfRuns(t *testing.T) {
	v := sealtest.LoadVector(t, "2k")
	s, list, p := sectorOf(t, v), piecesOf(t, v), InDir(t.TempDir())
	if _, err := P1(t.Context(), s, list, p, Options{}); err != nil {
		t.Fatal(err)
	}
	s.Ticket[0] ^= 1
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := P1(ctx, s, list, p, Options{Progress: func(step string, _, _ uint64) {
		if step == "layer 1/2" {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled: %v", err)
	}
	if _, err := os.Stat(LabelsConfig(s.Params, p.Cache, 2).File()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("layer 2 of another ticket is left: %v", err)
	}
}

// Zeros without a file are zeros from a file, with less on the disk.
func TestP1OfCommittedCapacity(t *testing.T) {
	params, err := sealcore.ForShape("8MiB")
	if err != nil {
		t.Fatal(err)
	}
	params.Layers = 1 // enough here, and quick
	s := Sector{Params: params, ProverID: sealcore.ProverID(1000), Number: 1}
	size := params.UnpaddedSize()
	file := filepath.Join(t.TempDir(), "zeros")
	if err := os.WriteFile(file, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	with, without := InDir(t.TempDir()), InDir(t.TempDir())
	a, err := P1(t.Context(), s, []Piece{{file, size}}, with, Options{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := P1(t.Context(), s, []Piece{{"", size}}, without, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if a.CommD != b.CommD || a.ReplicaID != b.ReplicaID || a.Pieces[0] != b.Pieces[0] {
		t.Errorf("from a file %+v, without %+v", a, b)
	}
	if want, err := pieces.ZeroCommP(size); err != nil || b.CommD != want {
		t.Errorf("CommD %x, want %x, %v", b.CommD, want, err)
	}
	want, err := FileFacts(t.Context(), with)
	if err != nil {
		t.Fatal(err)
	}
	got, err := FileFacts(t.Context(), without)
	if err != nil {
		t.Fatal(err)
	}
	if len(want) != 4 {
		t.Errorf("files %v, want unsealed, sealed, tree D and a layer", want)
	}
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%s is %+v without a file, %+v with one", name, got[name], want[name])
		}
	}
}

func TestP1RefusesBadInputAndLeavesNothing(t *testing.T) {
	v := sealtest.LoadVector(t, "2k")
	s := sectorOf(t, v)
	dir := t.TempDir()
	write := func(name string, size int) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	whole := write("whole", 2032)
	for what, c := range map[string]struct {
		list []Piece
		want error
		says string
	}{
		"none":         {nil, pieces.ErrNone, "committed capacity"},
		"odd size":     {[]Piece{{whole, 2000}}, pieces.ErrSize, "2032"},
		"too large":    {[]Piece{{write("large", 4064), 4064}}, pieces.ErrTooLarge, ""},
		"too many":     {[]Piece{{whole, 2032}, {whole, 2032}}, pieces.ErrOverflow, "piece 2 of 2"},
		"missing":      {[]Piece{{"", 1016}, {dir + "/nowhere", 1016}}, fs.ErrNotExist, "piece 2 of 2"},
		"short":        {[]Piece{{write("short", 2031), 2032}}, io.ErrUnexpectedEOF, "has 2031 bytes, the piece 2032"},
		"long":         {[]Piece{{whole, 1016}}, pieces.ErrLonger, "has 2032 bytes, the piece 1016"},
		"no file":      {[]Piece{{dir, 2032}}, nil, "no regular file"},
		"of the world": {[]Piece{{"/dev/zero", 2032}}, nil, "no regular file"},
	} {
		p := InDir(filepath.Join(t.TempDir(), "sector"))
		_, err := P1(t.Context(), s, c.list, p, Options{})
		if err == nil || (c.want != nil && !errors.Is(err, c.want)) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %v that says %q", what, err, c.want, c.says)
		}
		if _, err := os.Stat(filepath.Dir(p.Unsealed)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: something was made before the input was checked: %v", what, err)
		}
	}
}

func TestP1SaysWhichDirectoryItCannotMake(t *testing.T) {
	v := sealtest.LoadVector(t, "2k")
	list := piecesOf(t, v)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := InDir(dir)
	p.Cache = filepath.Join(dir, "file", "cache")
	if _, err := P1(t.Context(), sectorOf(t, v), list, p, Options{}); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "file")) {
		t.Errorf("got %v", err)
	}
	if names := namesBelow(t, dir); len(names) != 1 {
		t.Errorf("left %v", names)
	}
}

// Cancelled in each step, p1 leaves whole files or none.
func TestP1StopsWhenCancelled(t *testing.T) {
	params, err := sealcore.ForShape("8MiB")
	if err != nil {
		t.Fatal(err)
	}
	size := params.UnpaddedSize()
	s := Sector{Params: params, ProverID: sealcore.ProverID(1000), Number: 1}
	for _, at := range []string{"tree-d", "layer 1/2", "layer 2/2"} {
		p := InDir(t.TempDir())
		ctx, cancel := context.WithCancel(t.Context())
		var last uint64
		_, err := P1(ctx, s, []Piece{{"", size}}, p, Options{Threads: 1, Progress: func(step string, done, _ uint64) {
			if step == at {
				last = done
				cancel()
			}
		}})
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled in %s: %v", at, err)
		}
		if limit := params.Nodes() / 2; strings.HasPrefix(at, "layer") && last > limit {
			t.Errorf("cancelled in %s, it went on to node %d", at, last)
		}
		for name, f := range mustFacts(t, p) {
			if name != "unsealed" && name != "sealed" && strings.Contains(name, strings.ReplaceAll(strings.Split(at, "/")[0], " ", "-")) {
				t.Errorf("cancelled in %s, %s is there: %+v", at, name, f)
			}
		}
		for _, name := range namesBelow(t, filepath.Dir(p.Unsealed)) {
			if strings.HasSuffix(name, ".tmp") {
				t.Errorf("cancelled in %s, %s is left", at, name)
			}
		}
	}
}

func mustFacts(t *testing.T, p Paths) map[string]FileFact {
	t.Helper()
	facts, err := FileFacts(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return facts
}
