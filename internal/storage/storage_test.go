package storage

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"sealfleet/internal/phases"
	"sealfleet/internal/throttle"
)

const sector = "s-t01000-7"

// sealedSector makes a sector as p3 leaves it, with made-up contents, and returns the
// hashes of all files by path.
func sealedSector(t *testing.T, localDir, name string) (Layout, map[string]string) {
	t.Helper()
	l := Layout{LocalDir: localDir, IP: "10.10.13.22", Sector: name}
	if err := l.Make(); err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Log("seed", seed)
	rnd := rand.NewChaCha8([32]byte(binary.LittleEndian.AppendUint64(make([]byte, 24), seed)))
	hashes := map[string]string{}
	for path, size := range map[string]int{
		l.Sealed(): 3<<20 + 17, l.Unsealed(): 1000,
		filepath.Join(l.Cache(), "p_aux"):                        64,
		filepath.Join(l.Cache(), "t_aux"):                        280,
		filepath.Join(l.Cache(), "sc-02-data-tree-r-last-0.dat"): 4096,
		filepath.Join(l.Cache(), "sc-02-data-tree-r-last-1.dat"): 0,
		filepath.Join(l.Cache(), "sc-02-data-layer-1.dat"):       50_000,
		l.P1JSON(): 99, l.C1JSON(): 1234,
	} {
		data := make([]byte, size)
		rnd.Read(data)
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(data)
		hashes[path] = hex.EncodeToString(sum[:])
	}
	return l, hashes
}

func wantFault(t *testing.T, err error, code string, class phases.Class) {
	t.Helper()
	var f *Fault
	if !errors.As(err, &f) || f.Code != code || f.Class != class {
		t.Errorf("got %#v (%v), want code %s, class %s", err, err, code, class)
	}
}

func TestCopyLeavesFilesAndReceipt(t *testing.T) {
	l, hashes := sealedSector(t, t.TempDir(), sector)
	node := t.TempDir()
	var last map[string]int64
	copyIt := func() Receipt {
		last = map[string]int64{}
		r, err := Copy{From: l, Node: "node1", Dir: node, Limit: throttle.New(0), OnBytes: func(step string, done, total int64) {
			if done < last[step] || done > total {
				t.Errorf("%s goes from %d to %d of %d", step, last[step], done, total)
			}
			last[step] = done
		}}.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := copyIt()
	want := map[string]string{
		"sealed/" + sector:                                  l.Sealed(),
		"cache/" + sector + "/p_aux":                        filepath.Join(l.Cache(), "p_aux"),
		"cache/" + sector + "/t_aux":                        filepath.Join(l.Cache(), "t_aux"),
		"cache/" + sector + "/sc-02-data-tree-r-last-0.dat": filepath.Join(l.Cache(), "sc-02-data-tree-r-last-0.dat"),
		"cache/" + sector + "/sc-02-data-tree-r-last-1.dat": filepath.Join(l.Cache(), "sc-02-data-tree-r-last-1.dat"),
	}
	if len(r.Files) != len(want) || r.Node != "node1" || r.Path != node {
		t.Errorf("receipt %+v", r)
	}
	if last["copy"] != r.Bytes() || last["verify"] != r.Bytes() || r.Bytes() != 3<<20+17+64+280+4096 {
		t.Errorf("progress %v, receipt %d bytes", last, r.Bytes())
	}
	check := func(r Receipt) {
		t.Helper()
		for _, f := range r.Files {
			data, err := os.ReadFile(filepath.Join(node, f.Name))
			sum := sha256.Sum256(data)
			if err != nil || hex.EncodeToString(sum[:]) != hashes[want[f.Name]] || f.SHA256 != hashes[want[f.Name]] || f.Size != int64(len(data)) {
				t.Errorf("%s: %v, receipt %+v", f.Name, err, f)
			}
		}
	}
	check(r)
	if err := CheckReceipt(node, r, sector); err != nil {
		t.Error(err)
	}

	// Doing p5 again replaces what is there, also a copy that was spoilt since, and what a
	// killed attempt left.
	if err := os.WriteFile(filepath.Join(node, "sealed", sector), []byte("spoilt"), 0o644); err != nil {
		t.Fatal(err)
	}
	wantFault(t, CheckReceipt(node, r, sector), "receipt_broken", phases.Permanent)
	left := filepath.Join(node, "sealed", "."+sector+".tmp-ABCDEFGH")
	if err := os.WriteFile(left, []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	check(copyIt())
	if _, err := os.Lstat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the temporary file of a killed attempt is still there")
	}
	if found := files(t, node); len(found) != len(want) {
		t.Errorf("node holds %v", found)
	}
}

func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestCorruptedCopyIsNoticedAndNotKept(t *testing.T) {
	l, _ := sealedSector(t, t.TempDir(), sector)
	for name, spoil := range map[string]func(path string) error{
		"flipped bit": func(path string) error {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			b := make([]byte, 1)
			if _, err := f.ReadAt(b, 2<<20); err != nil {
				return err
			}
			b[0] ^= 1
			_, err = f.WriteAt(b, 2<<20)
			return err
		},
		"cut short": func(path string) error { return os.Truncate(path, 3<<20) },
	} {
		node := t.TempDir()
		_, err := Copy{From: l, Node: "node1", Dir: node, written: func(path string) {
			if strings.Contains(path, "/sealed/") {
				if err := spoil(path); err != nil {
					t.Fatal(err)
				}
			}
		}}.Run(t.Context())
		wantFault(t, err, "copy_corrupt", phases.Retryable)
		for _, path := range files(t, filepath.Join(node, "sealed")) {
			t.Errorf("%s: %s was kept", name, path)
		}
	}
}

func TestCopyRefusesBeforeItWrites(t *testing.T) {
	l, _ := sealedSector(t, t.TempDir(), sector)
	absent := filepath.Join(t.TempDir(), "not-mounted")
	_, err := Copy{From: l, Node: "node1", Dir: absent}.Run(t.Context())
	wantFault(t, err, "storage_away", phases.Transient)
	if _, statErr := os.Stat(absent); !errors.Is(statErr, fs.ErrNotExist) {
		t.Error("the node's directory was made: a node that is not mounted would fill the system disk")
	}

	node := t.TempDir()
	if err := os.Remove(filepath.Join(l.Cache(), "t_aux")); err != nil {
		t.Fatal(err)
	}
	_, err = Copy{From: l, Node: "node1", Dir: node}.Run(t.Context())
	wantFault(t, err, "input_missing", phases.Retryable)
	if found := files(t, node); len(found) != 0 {
		t.Errorf("wrote %v", found)
	}

	for _, bad := range []Layout{
		{l.LocalDir, l.IP, "../" + sector}, {l.LocalDir, "..", sector}, {l.LocalDir, "a/b", sector},
		{"sealer", l.IP, sector}, {l.LocalDir, l.IP, ""}, {l.LocalDir, l.IP, sector + "/x"},
	} {
		_, err := Copy{From: bad, Node: "node1", Dir: node}.Run(t.Context())
		wantFault(t, err, "bad_path", phases.Permanent)
		_, err = Clean{Of: bad, Cache: true, Sealed: true, Unsealed: true}.Run(t.Context())
		wantFault(t, err, "bad_path", phases.Permanent)
	}
}

func TestCancelledCopyLeavesOnlyWhatItGoesOnFrom(t *testing.T) {
	l, _ := sealedSector(t, t.TempDir(), sector)
	node := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	c := Copy{From: l, Node: "node1", Dir: node, Limit: throttle.New(1 << 20), chunkBytes: 1 << 18, OnBytes: func(_ string, done, _ int64) {
		if done > 1<<20 {
			cancel()
		}
	}}
	_, err := c.Run(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	part := filepath.Join(node, "sealed", "."+sector+partSuffix)
	if found := files(t, filepath.Join(node, "sealed")); !slices.Equal(found, []string{part, part + listSuffix}) {
		t.Errorf("left %v", found)
	}
	resumed := 0
	c.Limit, c.OnBytes = nil, nil
	c.OnResume = func(name string, chunks, redone int) {
		if name == "sealed/"+sector && redone == 0 {
			resumed = chunks
		}
	}
	if _, err := c.Run(t.Context()); err != nil || resumed < 1 {
		t.Errorf("gone on from %d chunks: %v", resumed, err)
	}
	if found := files(t, filepath.Join(node, "sealed")); len(found) != 1 {
		t.Errorf("left %v", found)
	}
}

func TestReceiptsThatProveNothing(t *testing.T) {
	l, _ := sealedSector(t, t.TempDir(), sector)
	node := t.TempDir()
	r, err := Copy{From: l, Node: "node1", Dir: node}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckReceipt(node, r, sector); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Receipt){
		"no files":         func(r *Receipt) { r.Files = nil },
		"no sealed file":   func(r *Receipt) { r.Files = r.Files[:len(r.Files)-1] },
		"another sector":   func(r *Receipt) { r.Files[0].Name = "cache/" + sector + "0/p_aux" },
		"a way out":        func(r *Receipt) { r.Files[0].Name = "../../etc/passwd" },
		"another size":     func(r *Receipt) { r.Files[0].Size++ },
		"a file not there": func(r *Receipt) { r.Files[1].Name += "x" },
		"no p_aux":         func(r *Receipt) { r.Files = r.Files[1:] },
		"no hash":          func(r *Receipt) { r.Files[1].SHA256 = "" },
	} {
		data, _ := json.Marshal(r)
		var bad Receipt
		if err := json.Unmarshal(data, &bad); err != nil {
			t.Fatal(err)
		}
		spoil(&bad)
		err := CheckReceipt(node, bad, sector)
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		wantFault(t, err, "receipt_broken", phases.Permanent)
	}
	wantFault(t, CheckReceipt(t.TempDir(), r, sector), "storage_away", phases.Transient)
}

func TestCleanFreesOneSectorOnly(t *testing.T) {
	top := t.TempDir()
	l, _ := sealedSector(t, top, sector)
	neighbour, _ := sealedSector(t, top, sector+"0")
	before := files(t, neighbour.LocalDir)

	plan, err := Clean{Of: l, Cache: true, Unsealed: true, DryRun: true}.Run(t.Context())
	if now := files(t, neighbour.LocalDir); err != nil || !slices.Equal(now, before) {
		t.Errorf("a dry run left %v (%v)", now, err)
	}
	done, err := Clean{Of: l, Cache: true, Unsealed: true}.Run(t.Context())
	if want := int64(64 + 280 + 4096 + 50_000 + 99 + 1234 + 1000); err != nil || done.Freed != want || len(done.Removed) != 8 {
		t.Errorf("freed %+v (%v), want %d", done, err, want)
	}
	if !reflect.DeepEqual(plan, done) {
		t.Errorf("the dry run said %+v, then it was %+v", plan, done)
	}
	if _, err := os.Lstat(l.Cache()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("cache: %v", err)
	}
	if _, err := os.Lstat(l.Sealed()); err != nil {
		t.Error("the sealed file is gone:", err)
	}
	if left := files(t, top); len(left) != len(before)-9+1 { // nine files of the sector, one stays
		t.Errorf("left %v", left)
	}

	// Again: nothing to do, nothing counted.
	if done, err := (Clean{Of: l, Cache: true, Unsealed: true}).Run(t.Context()); done.Freed != 0 || err != nil {
		t.Errorf("second clean: %+v, %v", done, err)
	}
	// What a killed p2 left goes with the file itself.
	if err := os.WriteFile(filepath.Join(filepath.Dir(l.Sealed()), "."+sector+".tmp"), make([]byte, 11), 0o644); err != nil {
		t.Fatal(err)
	}
	if done, err := (Clean{Of: l, Cache: true, Unsealed: true, Sealed: true}).Run(t.Context()); done.Freed != 3<<20+17+11 || err != nil {
		t.Errorf("with sealed: %+v, %v", done, err)
	}
	// A host whose share is empty.
	if done, err := (Clean{Of: Layout{t.TempDir(), l.IP, sector}, Cache: true}).Run(t.Context()); done.Freed != 0 || err != nil {
		t.Errorf("empty share: %+v, %v", done, err)
	}
	// A share that is not there at all is not the same as one without the sector.
	_, err = Clean{Of: Layout{filepath.Join(top, "absent"), l.IP, sector}, Cache: true}.Run(t.Context())
	wantFault(t, err, "storage_away", phases.Transient)
}

func TestCleanNeverFollowsLinks(t *testing.T) {
	top, outside := t.TempDir(), t.TempDir()
	precious := filepath.Join(outside, "dir", "precious")
	if err := errors.Join(os.MkdirAll(filepath.Dir(precious), 0o755), os.WriteFile(precious, []byte("x"), 0o644)); err != nil {
		t.Fatal(err)
	}
	intact := func(what string) {
		t.Helper()
		if _, err := os.Stat(precious); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	link := func(target, path string) {
		t.Helper()
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
	}

	// Links inside the cache go if they have a phase's name; what they point to stays and
	// isn't counted. Other names stay, and the directory with them.
	l, _ := sealedSector(t, top, sector)
	link(outside, filepath.Join(l.Cache(), "sc-02-data-layer-2.dat"))
	link(precious, filepath.Join(l.Cache(), "sc-02-data-tree-c-3.dat"))
	link(outside, filepath.Join(l.Cache(), "operators-notes"))
	if err := errors.Join(os.Link(precious, filepath.Join(l.Cache(), "sc-02-data-tree-d.dat")), os.Mkdir(filepath.Join(l.Cache(), "p_aux.tmp"), 0o755)); err != nil {
		t.Fatal(err)
	}
	done, err := Clean{Of: l, Cache: true}.Run(t.Context())
	if want := int64(64 + 280 + 4096 + 50_000 + 99 + 1234); err != nil || done.Freed != want {
		t.Errorf("freed %+v (%v), want %d", done, err, want)
	}
	if !slices.Equal(done.Kept, []string{filepath.Join(l.Cache(), "operators-notes"), filepath.Join(l.Cache(), "p_aux.tmp")}) {
		t.Errorf("kept %v", done.Kept)
	}
	intact("links in the cache")
	if err := os.RemoveAll(l.Cache()); err != nil {
		t.Fatal(err)
	}

	// The sector's directory, or one above it, is a link.
	link(filepath.Dir(precious), l.Cache())
	_, err = Clean{Of: l, Cache: true}.Run(t.Context())
	wantFault(t, err, "bad_path", phases.Permanent)
	intact("sector's directory is a link")
	for _, dir := range []string{"cache", "10.10.13.22", "nfs"} {
		top := t.TempDir()
		l, _ := sealedSector(t, top, sector)
		moved := filepath.Join(t.TempDir(), "moved")
		var path string
		for path = l.Cache(); filepath.Base(path) != dir; path = filepath.Dir(path) {
		}
		if err := os.Rename(path, moved); err != nil {
			t.Fatal(err)
		}
		link(moved, path)
		_, err = Clean{Of: l, Cache: true}.Run(t.Context())
		wantFault(t, err, "bad_path", phases.Permanent)
		if _, err := os.Stat(filepath.Join(l.Cache(), "p_aux")); err != nil {
			t.Errorf("%s is a link: %v", dir, err)
		}
	}
}

// A directory that is swapped for a link while clean walks is opened without following.
func TestCleanRacesWithLinkSwapping(t *testing.T) {
	top, outside := t.TempDir(), t.TempDir()
	for i := range 20 {
		precious := filepath.Join(outside, "precious")
		if err := os.WriteFile(precious, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		l, _ := sealedSector(t, top, sector)
		sub := filepath.Join(l.Cache(), "p_aux.tmp")
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
				}
				os.Mkdir(sub, 0o755)
				os.Remove(sub)
				os.Symlink(outside, sub)
				os.Remove(sub)
			}
		}()
		for range 20 {
			Clean{Of: l, Cache: true}.Run(t.Context()) // may fail: something is made meanwhile
		}
		close(stop)
		<-stopped
		if _, err := os.Stat(precious); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
	}
}

func TestMakeNamesTheMend(t *testing.T) {
	top := t.TempDir()
	if err := os.WriteFile(filepath.Join(top, "nfs"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	err := Layout{top, "10.10.13.22", sector}.Make()
	if err == nil || !strings.Contains(err.Error(), "failed to create out dir") || !strings.Contains(err.Error(), filepath.Join(top, "nfs")) {
		t.Errorf("got %v", err)
	}
}

func TestClassify(t *testing.T) {
	for _, test := range []struct {
		err   error
		code  string
		class phases.Class
	}{
		{syscall.ENOSPC, "no_space", phases.Transient}, {syscall.EDQUOT, "no_space", phases.Transient},
		{syscall.ESTALE, "storage_away", phases.Transient}, {syscall.EACCES, "not_permitted", phases.Retryable},
		{syscall.EROFS, "not_permitted", phases.Retryable}, {syscall.ENOENT, "input_missing", phases.Retryable},
		{syscall.EIO, "io", phases.Retryable},
	} {
		wantFault(t, classify(&fs.PathError{Op: "write", Path: "x", Err: test.err}), test.code, test.class)
	}
}
