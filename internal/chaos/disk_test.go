package chaos

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealfleet/internal/phases"
)

// smallDisk mounts a small file system of its own.
func smallDisk(t *testing.T, dir, size string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skip("needs the right to mount: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// fill takes all the room of a disk, and returns what gives it back.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; size /= 16 { // to the last page
		block := make([]byte, size)
		for err = nil; err == nil; {
			_, err = f.Write(block)
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

// A disk that is full, under the server's store or under the sealing share, delays. When it
// has room again everything goes on by itself, and no attempt was spent.
func TestAFullDiskDelaysAndFailsNothing(t *testing.T) {
	t.Parallel()
	bin := programs(t)
	for name, where := range map[string]func(f *fleet) string{
		"of the server": func(f *fleet) string { return filepath.Join(f.dir, "d1") },
		"of the share":  func(f *fleet) string { return f.sealer() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := Options{Dir: filepath.Join(t.TempDir(), "run"), Bin: bin, Consumers: 1, Work: 300 * time.Millisecond, AckWait: 2 * time.Second}
			if err := o.withDefaults(); err != nil {
				t.Fatal(err)
			}
			f, err := newFleet(o, nil)
			if err != nil {
				t.Fatal(err)
			}
			disk := where(f)
			smallDisk(t, disk, "400m")
			defer func() {
				if err := f.stop(); err != nil {
					t.Error(err)
				}
			}()
			b, err := f.start(t.Context(), 1)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			w := newWitness()
			w.keep = true
			go func() { _ = b.Follow(t.Context(), 1, w.see) }()
			const sectors = 12
			if err := submitMany(t.Context(), b, 1, sectors); err != nil {
				t.Fatal(err)
			}
			if err := waitFor(t.Context(), func() bool { return w.count() >= 1 }); err != nil {
				t.Fatal(err)
			}
			free := fill(t, disk)
			full := time.NewTimer(3 * o.AckWait) // the fault itself
			<-full.C
			stood := w.count()
			free()
			t.Logf("%d of %d sectors had ended when there was room again", stood, sectors)
			if err := waitFor(t.Context(), func() bool { return w.count() == sectors }); err != nil {
				log, _ := os.ReadFile(f.dispatchers[0].logPath())
				t.Fatalf("%v:\n%s\n%s", err, w.stuck(), log[max(0, len(log)-3000):])
			}
			for _, e := range w.events(func(e phases.Event) bool { return e.Type == phases.Failed }) {
				if e.Result.Class != phases.Transient {
					t.Errorf("%s of %s failed for good: %s %s", e.Step, e.Sector, e.Result.Code, e.Result.Message)
				}
			}
			if stood == sectors {
				t.Error("the disk was full too late to matter")
			}
		})
	}
}
