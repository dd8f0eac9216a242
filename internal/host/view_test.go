package host

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestViewShowsWhatIsReservedAndChangesNothing(t *testing.T) {
	share := filepath.Join(t.TempDir(), "nfs", "10.10.13.22")
	l := NewLedger(share, "h1")
	r, err := l.Reserve("p1 of s-t01000-1", 5*mib, []string{"cache/s-t01000-1"}, true)
	if err != nil {
		t.Fatal(err)
	}
	// One whose host has gone: by another machine's word, and not touched for long.
	gone := Claimed{ID: "GONE", Bytes: 7 * mib, Host: "h2", Boot: "another"}
	path := filepath.Join(ReserveDir(share), "GONE.json")
	if err := gone.write(path); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-2 * reserveExpires)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	v := NewPatience(time.Minute)
	d, err := v.Disk(share, share)
	if err != nil || d.Reserved != 5*mib || d.Total == 0 || d.Free == 0 || d.Free > d.Total {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("looking removed a reservation: %v", err)
	}
	r.Release()
	if d, err = v.Disk(share, share); err != nil || d.Reserved != 7*mib {
		// The only one left is its own clock: it may live, and an operator sees it.
		t.Errorf("after the release: %+v, %v", d, err)
	}
	if _, err := v.Disk(filepath.Join(share, "none"), ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory that is not there: %v", err)
	}
}

func TestModel(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "proc/cpuinfo"), []byte("processor\t: 0\nmodel name\t: AMD EPYC 7542 32-Core Processor\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if m := modelOf(root); m != "AMD EPYC 7542 32-Core Processor" {
		t.Errorf("model %q", m)
	}
	if m := modelOf(t.TempDir()); m == "" {
		t.Error("no name at all without /proc")
	}
}
