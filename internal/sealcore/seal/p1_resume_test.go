package seal

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/sealtest"
)

// childEnv makes this test binary do a p1 and nothing else: TestP1Child.
const childEnv = "SEALFLEET_TEST_P1_CHILD"

// childJob is what the child gets.
type childJob struct {
	Sector Sector
	Pieces []Piece
	Paths  Paths
}

// layered returns a sector of some size with more layers than a small one has, to be quick.
func layered(t testing.TB, size uint64, layers int) (Sector, []Piece) {
	t.Helper()
	params, err := sealcore.ForShape("8MiB")
	if err != nil {
		t.Fatal(err)
	}
	params.SectorSize, params.Layers = size, layers
	piece := filepath.Join(t.TempDir(), "piece")
	random := rand.NewChaCha8([32]byte{1})
	data := make([]byte, params.UnpaddedSize()/4)
	random.Read(data)
	if err := os.WriteFile(piece, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return Sector{Params: params, ProverID: sealcore.ProverID(1000), Number: 3, Ticket: sealcore.Domain{7}},
		[]Piece{{piece, uint64(len(data))}, {"", params.UnpaddedSize() / 4}, {"", params.UnpaddedSize() / 2}}
}

// mustP1 runs p1 and returns its output, the files' facts and the steps that began.
func mustP1(t *testing.T, s Sector, list []Piece, p Paths) (*PreCommit1, map[string]FileFact, []string) {
	t.Helper()
	var began began
	out, err := P1(t.Context(), s, list, p, Options{Progress: began.add})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(p.Cache, RecordName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the record is left: %v", err)
	}
	return out, mustFacts(t, p), began.steps
}

// began collects steps in the order in which they began.
type began struct {
	mu    sync.Mutex
	steps []string
}

func (b *began) add(step string, _, _ uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Contains(b.steps, step) {
		b.steps = append(b.steps, step)
	}
}

// cancelIn runs p1 until a step begins, and cancels it there.
func cancelIn(t *testing.T, s Sector, list []Piece, p Paths, at string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := P1(ctx, s, list, p, Options{Progress: func(step string, _, _ uint64) {
		if step == at {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled in %s: %v", at, err)
	}
}

func TestP1Resumes(t *testing.T) {
	s, list := layered(t, 2<<20, 6)
	want, wantFacts, _ := mustP1(t, s, list, InDir(t.TempDir()))
	layerFile := func(p Paths, layer int) string { return LabelsConfig(s.Params, p.Cache, layer).File() }
	spoil := func(path string) {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte{0xee}, 1<<20+17); err != nil {
			t.Fatal(err)
		}
	}
	step := func(layers ...int) (steps []string) {
		for _, l := range layers {
			steps = append(steps, fmt.Sprintf("layer %d/6", l))
		}
		return steps
	}
	for what, c := range map[string]struct {
		spoil func(p Paths)
		steps []string // after tree-d
	}{
		"as it was":     {func(Paths) {}, append([]string{"resumed at layer 5/6"}, step(5, 6)...)},
		"spoilt layer":  {func(p Paths) { spoil(layerFile(p, 2)) }, append([]string{"resumed at layer 2/6"}, step(2, 5, 6)...)},
		"missing layer": {func(p Paths) { os.Remove(layerFile(p, 4)) }, append([]string{"resumed at layer 4/6"}, step(4, 5, 6)...)},
		"short layer": {func(p Paths) { os.Truncate(layerFile(p, 1), 2<<20-1) },
			append([]string{"resumed at layer 1/6"}, step(1, 5, 6)...)},
		"spoilt tree D":      {func(p Paths) { spoil(TreeDConfig(s.Params, p.Cache).File()) }, append([]string{"resumed at layer 5/6"}, step(5, 6)...)},
		"spoilt data":        {func(p Paths) { spoil(p.Unsealed) }, append([]string{"resumed at layer 5/6"}, step(5, 6)...)},
		"spoilt copy":        {func(p Paths) { spoil(p.Sealed) }, append([]string{"resumed at layer 5/6"}, step(5, 6)...)},
		"no record":          {func(p Paths) { os.Remove(filepath.Join(p.Cache, RecordName)) }, step(1, 2, 3, 4, 5, 6)},
		"record of nonsense": {func(p Paths) { os.WriteFile(filepath.Join(p.Cache, RecordName), []byte(`{"v":1,`), 0o600) }, step(1, 2, 3, 4, 5, 6)},
	} {
		t.Run(what, func(t *testing.T) {
			p := InDir(t.TempDir())
			cancelIn(t, s, list, p, "layer 5/6")
			c.spoil(p)
			out, facts, steps := mustP1(t, s, list, p)
			if out.ReplicaID != want.ReplicaID || out.CommD != want.CommD || !slices.Equal(out.Pieces, want.Pieces) {
				t.Errorf("got %+v, want %+v", out, want)
			}
			for name := range wantFacts {
				if facts[name] != wantFacts[name] {
					t.Errorf("%s is %+v, want %+v", name, facts[name], wantFacts[name])
				}
			}
			if all := append([]string{"tree-d"}, c.steps...); !slices.Equal(steps, all) {
				t.Errorf("did %v, want %v", steps, all)
			}
		})
	}
}

// Layers of another ticket, or of other data, are never taken.
func TestP1ResumesNoOtherReplica(t *testing.T) {
	s, list := layered(t, 2<<20, 6)
	other := s
	other.Ticket[3] ^= 1
	otherList := []Piece{{"", s.Params.UnpaddedSize()}}
	for what, c := range map[string]struct {
		s    Sector
		list []Piece
	}{"ticket": {other, list}, "data": {s, otherList}} {
		p := InDir(t.TempDir())
		cancelIn(t, s, list, p, "layer 3/6")
		_, want, _ := mustP1(t, c.s, c.list, InDir(t.TempDir()))
		_, got, steps := mustP1(t, c.s, c.list, p)
		for name := range want {
			if got[name] != want[name] {
				t.Errorf("other %s: %s is %+v, want %+v", what, name, got[name], want[name])
			}
		}
		if len(steps) != 7 || strings.HasPrefix(steps[1], "resumed") {
			t.Errorf("other %s: did %v", what, steps)
		}
	}
}

// Killed at random moments, again and again, p1 ends with the same bytes.
func TestP1SurvivesKills(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	s, list := layered(t, 8<<20, 4)
	start := time.Now()
	_, want, _ := mustP1(t, s, list, InDir(t.TempDir()))
	whole := time.Since(start)
	p := InDir(t.TempDir())
	job, err := json.Marshal(childJob{s, list, p})
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	const kills = 8
	killed, resumed := 0, 0
	for run := 0; ; run++ {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestP1Child$")
		cmd.Env = append(os.Environ(), childEnv+"="+string(job))
		lines, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if run < kills {
			kill := time.AfterFunc(time.Duration(random.Int64N(int64(whole/2))), func() { cmd.Process.Kill() })
			defer kill.Stop()
		}
		scanner := bufio.NewScanner(lines)
		for scanner.Scan() {
			if strings.HasPrefix(scanner.Text(), "resumed") {
				resumed++
			}
		}
		err = cmd.Wait()
		if err == nil && run >= kills {
			break
		}
		if err != nil {
			if run >= kills {
				t.Fatalf("run %d: %v", run, err)
			}
			killed++
		}
	}
	t.Logf("%d kills, %d times resumed", killed, resumed)
	got := mustFacts(t, p)
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%s is %+v, want %+v", name, got[name], want[name])
		}
	}
	for _, name := range namesBelow(t, filepath.Dir(p.Unsealed)) {
		if strings.HasPrefix(filepath.Base(name), ".") {
			t.Errorf("%s is left", name)
		}
	}
}

// TestP1Child is no test: it is the process that TestP1SurvivesKills kills.
func TestP1Child(t *testing.T) {
	text := os.Getenv(childEnv)
	if text == "" {
		t.Skip("only for TestP1SurvivesKills")
	}
	var job childJob
	if err := json.Unmarshal([]byte(text), &job); err != nil {
		t.Fatal(err)
	}
	_, err := P1(t.Context(), job.Sector, job.Pieces, job.Paths, Options{Progress: func(step string, _, _ uint64) {
		if strings.HasPrefix(step, "resumed") {
			fmt.Println(step)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
}

// Six sectors in one batch come out as one by one; one with a bad piece and one that is cancelled
// do not disturb them; the cancelled one resumes, and catches up with a new one.
func TestP1Batch(t *testing.T) {
	v := sealtest.LoadVector(t, "2k")
	small := BatchItem{Sector: sectorOf(t, v), Pieces: piecesOf(t, v), Paths: InDir(t.TempDir())}
	s, list := layered(t, 2<<20, 3)
	item := func(number uint64) BatchItem {
		i := BatchItem{Sector: s, Pieces: list, Paths: InDir(t.TempDir())}
		i.Sector.Number = number
		return i
	}
	items := []BatchItem{item(1), item(2), small, item(3), item(4), item(5), item(6)}
	items[3].Pieces = []Piece{{filepath.Join(t.TempDir(), "nowhere"), s.Params.UnpaddedSize()}}
	own, cancel := context.WithCancel(t.Context())
	defer cancel()
	items[4].Context = own
	items[4].Options.Progress = func(step string, _, _ uint64) {
		if step == "layer 2/3" {
			cancel()
		}
	}
	check := func(items []BatchItem, results []BatchResult) {
		t.Helper()
		for i, r := range results {
			if r.Err != nil {
				t.Errorf("item %d: %v", i, r.Err)
				continue
			}
			if items[i].Sector.Params != s.Params {
				checkP1(t, v, r.Output, items[i].Paths)
				continue
			}
			alone := item(items[i].Sector.Number)
			out, want, _ := mustP1(t, alone.Sector, alone.Pieces, alone.Paths)
			if r.Output.ReplicaID != out.ReplicaID {
				t.Errorf("item %d: replica id %x, want %x", i, r.Output.ReplicaID, out.ReplicaID)
			}
			got := mustFacts(t, items[i].Paths)
			for name := range want {
				if got[name] != want[name] {
					t.Errorf("item %d: %s is %+v, want %+v", i, name, got[name], want[name])
				}
			}
		}
	}
	results := P1Batch(t.Context(), items, 2)
	if !errors.Is(results[3].Err, fs.ErrNotExist) || !errors.Is(results[4].Err, context.Canceled) {
		t.Errorf("bad piece: %v; cancelled: %v", results[3].Err, results[4].Err)
	}
	check(slices.Concat(items[:3], items[5:]), slices.Concat(results[:3], results[5:]))

	var steps began
	again := []BatchItem{items[4], item(9)}
	again[0].Context, again[0].Options.Progress = nil, steps.add
	check(again, P1Batch(t.Context(), again, 2))
	if want := []string{"tree-d", "resumed at layer 2/3", "layer 2/3", "layer 3/3"}; !slices.Equal(steps.steps, want) {
		t.Errorf("did %v, want %v", steps.steps, want)
	}
}

// One that is cancelled has ended long before the others have: in the midst of a layer, and with
// nothing left open.
func TestP1BatchEndsEachOnItsOwn(t *testing.T) {
	s, list := layered(t, 2<<20, 3)
	for _, threads := range []int{1, 2} {
		items := make([]BatchItem, 3)
		for i := range items {
			items[i] = BatchItem{Sector: s, Pieces: list, Paths: InDir(t.TempDir())}
			items[i].Sector.Number = uint64(i)
		}
		own, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan error, 1)
		items[0].Context = own
		items[0].Options.Progress = func(step string, _, _ uint64) {
			if step == "layer 2/3" {
				cancel()
			}
		}
		items[0].Done = func(r BatchResult) { ended <- r.Err }
		var others atomic.Int32
		items[1].Options.Progress = func(step string, done, total uint64) {
			if step != "layer 2/3" || done < total {
				return
			}
			select {
			case err := <-ended:
				if !errors.Is(err, context.Canceled) {
					t.Errorf("%d threads: the cancelled one ended with %v", threads, err)
				}
			case <-time.After(time.Minute):
				t.Errorf("%d threads: the cancelled one has not ended with the layer", threads)
			}
			if n := others.Load(); n != 0 {
				t.Errorf("%d threads: %d of the others had ended", threads, n)
			}
		}
		for i := range items[1:] {
			items[1+i].Done = func(BatchResult) { others.Add(1) }
		}
		for i, r := range P1Batch(t.Context(), items, threads) {
			if failed := r.Err != nil; failed != (i == 0) {
				t.Errorf("%d threads: sector %d: %v", threads, i, r.Err)
			}
		}
		if n := others.Load(); n != 2 {
			t.Errorf("%d threads: %d of the others were told of", threads, n)
		}
	}
}
