package storage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"sealfleet/internal/host"
	"sealfleet/internal/phases"
	"sealfleet/internal/sealcore/seal"
	"sealfleet/internal/throttle"
)

// The binary of these tests also is the child that copies and is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("SEALFLEET_TEST_COPY_FROM"); dir != "" {
		os.Exit(copyingChild(dir, os.Getenv("SEALFLEET_TEST_COPY_TO")))
	}
	os.Exit(m.Run())
}

const childChunk = 64 << 10

func childCopy(localDir, node string) Copy {
	return Copy{From: Layout{LocalDir: localDir, IP: "10.10.13.22", Sector: sector}, Node: "node1", Dir: node, chunkBytes: childChunk}
}

// copyingChild tells each step of its progress, in bytes, and waits to be let on.
func copyingChild(localDir, node string) int {
	c := childCopy(localDir, node)
	var sum int64
	c.OnBytes = func(_ string, done, _ int64) {
		sum++
		fmt.Println(sum)
		var b [1]byte
		if _, err := os.Stdin.Read(b[:]); err != nil {
			os.Exit(3)
		}
	}
	if _, err := c.Run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// killedCopy starts a copy in a child and kills it with SIGKILL in the midst of its n-th step.
func killedCopy(t *testing.T, localDir, node string, n int) (ended bool) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "SEALFLEET_TEST_COPY_FROM="+localDir, "SEALFLEET_TEST_COPY_TO="+node)
	cmd.Stderr = os.Stderr
	stdin, err1 := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	for step := 0; step < n; step++ {
		if step > 0 {
			if _, err := stdin.Write([]byte{'\n'}); err != nil {
				break
			}
		}
		if _, err := stdout.Read(buf); err != nil {
			return cmd.Wait() == nil // it was done before
		}
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the child ended with %v", err)
	}
	return false
}

func TestKilledCopyIsGoneOnWith(t *testing.T) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	local, node := t.TempDir(), t.TempDir()
	l, hashes := sealedSector(t, local, sector)
	most := 0
	for range 8 { // each goes on from the one before; some are over before they are killed
		killedCopy(t, local, node, 1+rnd.IntN(90))
	}
	c := childCopy(local, node)
	c.OnResume = func(name string, chunks, redone int) {
		if redone > 0 {
			t.Errorf("%s: %d of %d chunks were copied again: a kill loses no page", name, redone, chunks)
		}
		most = max(most, chunks)
	}
	r, err := c.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Log("gone on from", most, "chunks of", l.Sealed())
	for _, f := range r.Files {
		source := l.Sealed()
		if !strings.HasPrefix(f.Name, "sealed/") {
			source = filepath.Join(l.Cache(), filepath.Base(f.Name))
		}
		data, err := os.ReadFile(filepath.Join(node, f.Name))
		sum := sha256.Sum256(data)
		if err != nil || f.SHA256 != hashes[source] || hex.EncodeToString(sum[:]) != hashes[source] {
			t.Errorf("%s: %v, %+v", f.Name, err, f)
		}
	}
	if found := files(t, node); len(found) != len(r.Files) {
		t.Errorf("left %v", found)
	}
}

// halfCopied stops a copy of the sealed file after some chunks and returns its part.
func halfCopied(t *testing.T, c Copy, chunks int64) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c.OnBytes = func(step string, done, _ int64) {
		if step == "copy" && done > (chunks+1)*c.chunkBytes {
			cancel()
		}
	}
	if _, err := c.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	return filepath.Join(c.Dir, "sealed", "."+sector+partSuffix)
}

func TestFlippedByteInACopiedChunkIsFoundAndRedone(t *testing.T) {
	local, node := t.TempDir(), t.TempDir()
	_, _ = sealedSector(t, local, sector)
	c := childCopy(local, node)
	part := halfCopied(t, c, 20) // some of the last are not listed yet, as others before them are under way
	seed := rand.Uint64()
	t.Log("seed", seed)
	at := rand.New(rand.NewPCG(seed, 0)).Int64N(8 * childChunk)
	flip(t, part, at)
	had, redone := 0, 0
	c.OnResume = func(name string, h, r int) {
		if strings.HasPrefix(name, "sealed/") {
			had, redone = h, r
		}
	}
	r, err := c.Run(t.Context())
	if err != nil || had < 8 || redone != 1 {
		t.Errorf("gone on from %d chunks, %d again: %v", had, redone, err)
	}
	if err := VerifyReceipt(t.Context(), node, S3Options{}, r, sector, true, nil); err != nil {
		t.Error(err)
	}
}

func flip(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// What an earlier attempt left is not believed if the source was made anew, if the list is
// damaged, or if the part is shorter than the list says.
func TestStalePartsAreNotBelieved(t *testing.T) {
	for name, change := range map[string]func(c *Copy, part string) error{
		"source made anew": func(c *Copy, _ string) error {
			data := make([]byte, 3<<20+17)
			return os.WriteFile(c.From.Sealed(), data, 0o644)
		},
		"another replica": func(c *Copy, _ string) error { c.Replica = strings.Repeat("ab", 32); return nil },
		"list damaged":    func(_ *Copy, part string) error { return os.WriteFile(part+listSuffix, []byte("{"), 0o644) },
		"list gone":       func(_ *Copy, part string) error { return os.Remove(part + listSuffix) },
		"part gone":       func(_ *Copy, part string) error { return os.Remove(part) },
		"part cut short":  func(_ *Copy, part string) error { return os.Truncate(part, 100) },
		"last line torn": func(_ *Copy, part string) error {
			info, err := os.Stat(part + listSuffix)
			if err != nil {
				return err
			}
			return os.Truncate(part+listSuffix, info.Size()-20)
		},
		"forged hash": func(_ *Copy, part string) error {
			data, err := os.ReadFile(part + listSuffix)
			if err != nil {
				return err
			}
			lines := strings.Split(string(data), "\n")
			lines[2] = strings.Repeat("00", 32)
			return os.WriteFile(part+listSuffix, []byte(strings.Join(lines, "\n")), 0o644)
		},
	} {
		local, node := t.TempDir(), t.TempDir()
		sealedSector(t, local, sector)
		c := childCopy(local, node)
		part := halfCopied(t, c, 9)
		if err := change(&c, part); err != nil {
			t.Fatal(err)
		}
		r, err := c.Run(t.Context())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want, err := os.ReadFile(c.From.Sealed())
		sum := sha256.Sum256(want)
		if err != nil || r.Files[len(r.Files)-1].SHA256 != hex.EncodeToString(sum[:]) {
			t.Errorf("%s: %v, receipt %+v", name, err, r)
		}
		if err := VerifyReceipt(t.Context(), node, S3Options{}, r, sector, true, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTwoCopiesOfOneSectorKeepApart(t *testing.T) {
	local, node := t.TempDir(), t.TempDir()
	sealedSector(t, local, sector)
	c := childCopy(local, node)
	busy := make(chan error, 1)
	first := true
	c.OnBytes = func(string, int64, int64) {
		if first {
			first = false
			_, err := childCopy(local, node).Run(t.Context())
			busy <- err
		}
	}
	_, err := c.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantFault(t, <-busy, "copy_busy", phases.Transient)
}

// mount mounts a file system of its own, or skips.
func mount(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("sealfleet-test", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("cannot mount here (%v): needs CAP_SYS_ADMIN", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

func TestFullStorageNodeIsTransient(t *testing.T) {
	local := t.TempDir()
	l, _ := sealedSector(t, local, sector)
	node := mount(t, "size=2m")
	c := childCopy(local, node)
	_, err := c.Run(t.Context())
	wantFault(t, err, "no_space", phases.Transient) // before a byte is written
	if found := files(t, node); len(found) != 0 {
		t.Errorf("wrote %v", found)
	}

	// Enough space at first, but somebody else fills it.
	node = mount(t, "size=5m")
	c = childCopy(local, node)
	c.OnBytes = func(step string, done, _ int64) {
		if done > 1<<20 {
			_ = os.WriteFile(filepath.Join(node, "other"), make([]byte, 8<<20), 0o644) // as much as there is room for
		}
	}
	_, err = c.Run(t.Context())
	wantFault(t, err, "no_space", phases.Transient)
	// Once there is space it goes on.
	if err := os.Remove(filepath.Join(node, "other")); err != nil {
		t.Fatal(err)
	}
	resumed := 0
	c.OnBytes, c.OnResume = nil, func(name string, chunks, _ int) {
		if strings.HasPrefix(name, "sealed/") {
			resumed = chunks
		}
	}
	if _, err := c.Run(t.Context()); err != nil || resumed < 8 {
		t.Errorf("gone on from %d chunks: %v", resumed, err)
	}
	_ = l
}

func TestReadOnlyStorageNode(t *testing.T) {
	local := t.TempDir()
	sealedSector(t, local, sector)
	node := mount(t, "size=8m")
	if err := syscall.Mount("", node, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	_, err := childCopy(local, node).Run(t.Context())
	wantFault(t, err, "not_permitted", phases.Retryable)
	_, err = Clean{Of: Layout{LocalDir: node, IP: "10.10.13.22", Sector: sector}, Cache: true}.Run(t.Context())
	if err != nil {
		t.Error("nothing to clean is no error:", err)
	}
}

func TestForgedReceiptIsFound(t *testing.T) {
	local, node := t.TempDir(), t.TempDir()
	sealedSector(t, local, sector)
	r, err := childCopy(local, node).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	forged := r
	forged.Files = append([]File(nil), r.Files...)
	forged.Files[0].SHA256 = strings.Repeat("0", 64)
	if err := CheckReceipt(node, forged, sector); err != nil {
		t.Error("sizes are right:", err)
	}
	wantFault(t, VerifyReceipt(t.Context(), node, S3Options{}, forged, sector, false, throttle.New(0)), "receipt_broken", phases.Permanent)
	// A copy that was damaged since.
	flip(t, filepath.Join(node, "sealed", sector), 1<<20)
	wantFault(t, VerifyReceipt(t.Context(), node, S3Options{}, r, sector, true, nil), "receipt_broken", phases.Permanent)
}

func TestCleanAsksForTheDevice(t *testing.T) {
	l, _ := sealedSector(t, t.TempDir(), sector)
	other := errors.New("not what p1 wrote to")
	c := Clean{Of: l, Cache: true, CheckDevice: func(share, cache string) error {
		if cache != l.Cache() || share != filepath.Join(l.LocalDir, "nfs", l.IP) {
			t.Errorf("asked for %s, %s", share, cache)
		}
		return other
	}}
	_, err := c.Run(t.Context())
	wantFault(t, err, "other_device", phases.Permanent)
	if _, err := os.Stat(l.P1JSON()); err != nil {
		t.Error("deleted all the same:", err)
	}
	c.CheckDevice = func(string, string) error { return fmt.Errorf("no record: %w", fs.ErrNotExist) }
	if done, err := c.Run(t.Context()); err != nil || done.Freed == 0 {
		t.Errorf("a sector of an earlier release: %+v, %v", done, err)
	}
}

func TestKnownNames(t *testing.T) {
	for _, name := range []string{
		"sc-02-data-layer-11.dat", "sc-02-data-tree-c-7.dat", "sc-02-data-tree-c.dat", "sc-02-data-tree-d.dat", "sc-02-data-tree-r-last-0.dat",
		"p_aux", "t_aux", "p1.json", "commit-phase1-output.json", ".sc-02-data-layer-2.dat.tmp", ".p_aux.tmp", "sealfleet-origin.json", ".sealfleet-origin.json1234567", "unsealed",
		seal.RecordName, "." + seal.RecordName + ".tmp", host.OriginFile,
	} {
		if !Known(name) {
			t.Errorf("%s is a phase's", name)
		}
	}
	for _, name := range []string{"", "notes.txt", "sc-02-data-layer-11.dat.bak", "p_aux~", "..", "lost+found", "sc-02-data-.dat", "xp_aux", "wallet"} {
		if Known(name) {
			t.Errorf("%s is no phase's", name)
		}
	}
}

// Roots of RFC 6962's form, computed by hand from the definition.
func TestTreeRoot(t *testing.T) {
	leaf := func(s string) []byte { h := sha256.Sum256([]byte("\x00" + s)); return h[:] }
	node := func(l, r []byte) []byte {
		h := sha256.Sum256(append(append([]byte{1}, l...), r...))
		return h[:]
	}
	sums := make([][sha256.Size]byte, 5)
	var leaves [][]byte
	for i := range sums {
		sums[i] = sha256.Sum256([]byte(strconv.Itoa(i)))
		leaves = append(leaves, leaf(string(sums[i][:])))
	}
	for n, want := range map[int][]byte{
		1: leaves[0], 2: node(leaves[0], leaves[1]), 3: node(node(leaves[0], leaves[1]), leaves[2]),
		5: node(node(node(leaves[0], leaves[1]), node(leaves[2], leaves[3])), leaves[4]),
	} {
		if got := treeRoot(sums[:n]); string(got[:]) != string(want) {
			t.Errorf("%d chunks: %x, want %x", n, got, want)
		}
	}
}
