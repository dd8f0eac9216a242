package host

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealfleet/internal/phases"
)

// The test binary is also the helper, as whatever user it is told to be.
func TestMain(m *testing.M) {
	if os.Getenv("SEALFLEET_TEST_PROBE") != "" {
		if uid, err := strconv.Atoi(os.Getenv("SEALFLEET_TEST_UID")); err == nil {
			if err := syscall.Setgroups(nil); err == nil {
				err = syscall.Setgid(uid)
				if err == nil {
					err = syscall.Setuid(uid)
				}
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(3)
				}
			}
		}
		os.Exit(ServeProbe(os.Stdin, os.Stdout))
	}
	if os.Getenv(reserverEnv) != "" {
		os.Exit(runReserver())
	}
	os.Exit(m.Run())
}

func prober(env ...string) *Prober {
	return &Prober{Path: "/proc/self/exe", Env: append(env, "SEALFLEET_TEST_PROBE=1")}
}

const patience = 2 * time.Minute // for what must come; no test asserts time

// look sends a helper, and returns its findings by code.
func look(t *testing.T, p *Prober, place Place) map[string]Finding {
	t.Helper()
	place.Subject = "LOCAL_DIR"
	byCode := map[string]Finding{}
	for _, f := range p.Look(t.Context(), place, patience) {
		byCode[f.Code] = f
	}
	return byCode
}

// expect wants a finding whose evidence and mend hold some words.
func expect(t *testing.T, list map[string]Finding, code string, s Severity, words ...string) {
	t.Helper()
	f, there := list[code]
	if !there || f.Severity != s {
		t.Errorf("want %s as %s, got %+v", code, s, list)
		return
	}
	if s.rank() >= Warn.rank() && f.Mend == "" {
		t.Errorf("%s names no mend", code)
	}
	for _, w := range words {
		if !strings.Contains(f.Evidence+" | "+f.Mend, w) {
			t.Errorf("%s: %q | %q lacks %q", code, f.Evidence, f.Mend, w)
		}
	}
}

func needRoot(t *testing.T, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root " + why)
	}
}

// mount mounts for the time of a test, or skips it where that is not allowed.
func mount(t *testing.T, source, dir, kind string, flags uintptr, data string) {
	t.Helper()
	needRoot(t, "to mount")
	if err := unix.Mount(source, dir, kind, flags, data); err != nil {
		t.Skipf("mounting %s is not allowed here: %v", kind, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

func TestMissingPlaceAndFile(t *testing.T) {
	dir := t.TempDir()
	expect(t, look(t, prober(), Place{Path: filepath.Join(dir, "absent")}), "path_missing", Refuse, "mkdir -p "+dir, "chown "+UserName())
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, look(t, prober(), Place{Path: file}), "not_directory", Refuse, file)
}

func TestHealthyPlace(t *testing.T) {
	dir := t.TempDir()
	share := filepath.Join(dir, "nfs", "10.0.0.1")
	// A helper that was killed while it wrote left its sample here.
	stale, long := filepath.Join(dir, samplePrefix+"1"), time.Now().Add(-2*time.Hour)
	if err := errorsOf(os.WriteFile(stale, nil, 0o600), os.Chtimes(stale, long, long)); err != nil {
		t.Fatal(err)
	}
	list := look(t, prober(), Place{Path: dir, Make: []string{filepath.Join(share, "cache"), ReserveDir(share)}, Share: share, Scratch: true, Sample: true})
	expect(t, list, "writable", OK, dir)
	expect(t, list, "space", OK, "free")
	expect(t, list, "write_speed", OK, "MB/s", "synced write")
	for _, d := range []string{filepath.Join(share, "cache"), ReserveDir(share)} {
		if left, err := os.ReadDir(d); err != nil || len(left) != 0 {
			t.Errorf("%s holds %v %v", d, left, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// The old note: /sealer/nfs belonged to root with mode 755.
func TestPlaceOfAnotherUser(t *testing.T) {
	needRoot(t, "to be another user")
	top, err := os.MkdirTemp("/tmp", "sealfleet-doctor-") // t.TempDir's parents are closed to others
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(top)
	nfs := filepath.Join(top, "nfs")
	for _, d := range []string{top, nfs} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(top, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	nobody := prober("SEALFLEET_TEST_UID=65534")
	list := look(t, nobody, Place{Path: top, Make: []string{filepath.Join(nfs, "10.10.13.22", "sealed")}})
	expect(t, list, "not_writable", Refuse, nfs+" belongs to root with mode 0755", "chown "+userOf(65534)+" "+nfs)
	if err := os.Chown(nfs, 65534, 65534); err != nil { // the mend
		t.Fatal(err)
	}
	expect(t, look(t, nobody, Place{Path: top, Make: []string{filepath.Join(nfs, "10.10.13.22", "sealed")}}), "writable", OK, "as "+userOf(65534))
}

// p2 runs as another user than the P1 host's: found out before p1, not after.
func TestPeersShareOfAnotherUser(t *testing.T) {
	needRoot(t, "to be another user")
	top, err := os.MkdirTemp("/tmp", "sealfleet-doctor-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(top)
	sealed := filepath.Join(top, "nfs", "10.10.13.22", "sealed")
	if err := errorsOf(os.Chown(top, 65534, 65534), os.MkdirAll(sealed, 0o755), os.MkdirAll(filepath.Join(top, "nfs", "10.10.13.23"), 0o755), os.Chmod(top, 0o755)); err != nil {
		t.Fatal(err)
	}
	d := &Doctor{
		Settings: Settings{Limit: patience}, Places: []Place{{Subject: "LOCAL_DIR", Path: top}}, Shares: filepath.Join(top, "nfs"), OwnShare: "10.10.13.23",
		Prober: prober("SEALFLEET_TEST_UID=65534"), Cores: NewCores(0),
	}
	r := d.Run(t.Context(), 0, true)
	codes := map[string]Finding{}
	for _, f := range r.Findings {
		codes[f.Code] = f
	}
	expect(t, codes, "not_writable", Warn, sealed+" belongs to root", "chown "+userOf(65534)+" "+sealed)
	if err := os.Chown(sealed, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	for _, f := range d.Run(t.Context(), 0, true).Findings {
		if f.Code == "not_writable" || strings.Contains(f.Subject, "10.10.13.23") {
			t.Errorf("%+v", f)
		}
	}
}

func TestReadOnlyMount(t *testing.T) {
	dir := t.TempDir()
	mount(t, "none", dir, "tmpfs", unix.MS_RDONLY, "size=1m")
	expect(t, look(t, prober(), Place{Path: dir}), "read_only", Refuse, dir, "mount -o remount,rw "+dir)
}

func TestFullFileSystem(t *testing.T) {
	dir := t.TempDir()
	mount(t, "none", dir, "tmpfs", 0, "size=64k")
	if err := os.WriteFile(filepath.Join(dir, "full"), make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("it holds more than it should")
	}
	expect(t, look(t, prober(), Place{Path: dir}), "space_none", Refuse, "no space left", "p6")
}

func TestNoInodesLeft(t *testing.T) {
	dir := t.TempDir()
	mount(t, "none", dir, "tmpfs", 0, "size=1m,nr_inodes=20")
	for i := range 17 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600); err != nil {
			t.Fatal(i, err)
		}
	}
	expect(t, look(t, prober(), Place{Path: dir}), "writable", OK)
	if err := os.WriteFile(filepath.Join(dir, "a"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for i := 0; os.WriteFile(filepath.Join(dir, fmt.Sprint("more", i)), nil, 0o600) == nil; i++ {
	}
	expect(t, look(t, prober(), Place{Path: dir}), "space_none", Refuse, "df -i")
}

func TestTooSmallForOneSector(t *testing.T) {
	dir := t.TempDir()
	mount(t, "none", dir, "tmpfs", 0, "size=16m")
	list := look(t, prober(), Place{Path: dir, Scratch: true, Sector: 8 << 20})
	expect(t, list, "space_never", Refuse, "8MiB", "16.0 MiB")
	expect(t, list, "memory_disk", Warn, "tmpfs")
	if err := unix.Mount("none", dir, "tmpfs", unix.MS_REMOUNT, "size=60m"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "other"), make([]byte, 20<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, look(t, prober(), Place{Path: dir, Scratch: true, Sector: 8 << 20}), "space_low", Warn, "will wait")
}

// The old note: /sealer was on the system disk instead of the array.
func TestSystemDisk(t *testing.T) {
	dir := t.TempDir()
	var here, root unix.Stat_t
	if err := unix.Stat(dir, &here); err != nil {
		t.Fatal(err)
	}
	if err := unix.Stat("/", &root); err != nil {
		t.Fatal(err)
	}
	if here.Dev != root.Dev {
		t.Skip("the directory for temporary files is not on the system disk here")
	}
	for sector, s := range map[uint64]Severity{0: Warn, 2 << 10: Warn, 32 << 30: Refuse} {
		expect(t, look(t, prober(), Place{Path: dir, Sector: sector}), "system_disk", s, dir, "EXPECT_MOUNT="+dir+"=")
	}
	// Somebody who says that it is meant is believed.
	m, err := MountOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, look(t, prober(), Place{Path: dir, Sector: 32 << 30, Expect: &Expectation{dir, m.Type, m.Source}}), "mount", OK, "as expected")
}

func TestWrongMountByLoopDevice(t *testing.T) {
	needRoot(t, "to make a loop device")
	image, dir := filepath.Join(t.TempDir(), "image"), t.TempDir()
	if err := errorsOf(os.WriteFile(image, nil, 0o600), os.Truncate(image, 16<<20)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", image).CombinedOutput(); err != nil {
		t.Skipf("no mkfs.ext4 here: %v %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", image, dir).CombinedOutput(); err != nil {
		t.Skipf("loop devices are not allowed here: %v %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", dir).Run() })
	m, err := MountOf(dir)
	if err != nil || m.Type != "ext4" || !strings.HasPrefix(m.Source, "/dev/loop") {
		t.Fatal(m, err)
	}
	expect(t, look(t, prober(), Place{Path: dir, Expect: &Expectation{dir, "ext4", m.Source}}), "mount", OK, m.Source)
	expect(t, look(t, prober(), Place{Path: dir, Expect: &Expectation{dir, "ext4", "/dev/md1"}}), "wrong_mount", Refuse, m.Source, "expected was ext4 from /dev/md1")
	expect(t, look(t, prober(), Place{Path: dir, Expect: &Expectation{dir, "nfs4", ""}}), "wrong_mount", Refuse, "nfs4")
	// Its own device is no system disk, and has a speed of its own, past the page cache.
	list := look(t, prober(), Place{Path: dir, Sector: 32 << 30, Sample: true})
	expect(t, list, "mount", OK, "ext4")
	if f := list["space_none"]; f.Code == "" { // 16 MiB are soon full
		expect(t, list, "write_speed", OK, "MB/s")
	}
}

func errorsOf(list ...error) error {
	for _, err := range list {
		if err != nil {
			return err
		}
	}
	return nil
}

// Another file system at the place of the one that p1 wrote to, as after a reboot without
// the array.
func TestDeviceChanged(t *testing.T) {
	dir := t.TempDir()
	share := filepath.Join(dir, "nfs", "10.0.0.1")
	cache := filepath.Join(share, "cache", "s-t01000-7")
	place := Place{Path: dir, Share: share}
	record := func() {
		if err := errorsOf(os.MkdirAll(cache, 0o755), RecordOrigin(share, cache, "p1")); err != nil {
			t.Fatal(err)
		}
	}
	record()
	record() // again: the same file system keeps its name
	if err := CheckOrigin(share, cache); err != nil {
		t.Fatal(err)
	}
	expect(t, look(t, prober(), place), "device", OK, "1 sectors")
	// Another host's doctor tries the directory at the same time, and people leave notes.
	for _, name := range []string{".sealfleet-check-664305869", "notes.txt", "s-t01000-8.bak"} {
		if err := os.WriteFile(filepath.Join(share, "cache", name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, look(t, prober(), place), "device", OK, "1 sectors")
	was, err := os.ReadFile(filepath.Join(cache, OriginFile))
	if err != nil {
		t.Fatal(err)
	}
	mount(t, "none", dir, "tmpfs", 0, "size=1m")
	if err := errorsOf(os.MkdirAll(cache, 0o755), os.WriteFile(filepath.Join(cache, OriginFile), was, 0o600)); err != nil {
		t.Fatal(err)
	}
	expect(t, look(t, prober(), place), "device_changed", Refuse, "s-t01000-7", "no identity")
	if _, err := ShareDevice(share, "p1"); err != nil {
		t.Fatal(err)
	}
	expect(t, look(t, prober(), place), "device_changed", Refuse, "p1 wrote to", share)
}

// hungMount mounts a FUSE file system whose server never answers: whoever touches it
// sleeps, as with an NFS server that is gone. At the test's end the sleepers get an error,
// and awaited returns when they have it: what is still under way when the mount is gone
// would write below it, into a directory that is being removed.
func hungMount(t *testing.T, awaited func(dir string)) string {
	t.Helper()
	needRoot(t, "to mount")
	fuse, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	dir := t.TempDir()
	if err := unix.Mount("dead-server", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fuse.Fd())); err != nil {
		fuse.Close()
		t.Skipf("mounting FUSE is not allowed here: %v", err)
	}
	t.Cleanup(func() {
		fuse.Close()
		awaited(dir)
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestHungMountCostsItsLimitAndNoMore(t *testing.T) {
	dir := hungMount(t, func(string) {}) // the helper is killed, and waited for
	const limit = 300 * time.Millisecond
	done := make(chan []Finding, 1)
	go func() { done <- prober().Look(context.Background(), Place{Subject: "LOCAL_DIR", Path: dir}, limit) }()
	select {
	case list := <-done:
		if len(list) != 1 || list[0].Code != "path_hung" || list[0].Severity != Refuse || !strings.Contains(list[0].Evidence, "hung mount or stale handle") ||
			!strings.Contains(list[0].Evidence, "dead-server") || !strings.Contains(list[0].Mend, "umount -l "+dir) {
			t.Errorf("%+v", list)
		}
	case <-time.After(patience):
		t.Fatal("the doctor hangs with the mount")
	}
}

// A helper that stops in the middle keeps what it found before, and its slowness is bounded.
func TestStoppedHelper(t *testing.T) {
	t.Parallel()
	said := `{"code":"writable","severity":"ok","subject":"x","evidence":"y"}`
	p := &Prober{Path: "/bin/sh", Args: []string{"-c", "echo '" + said + "'; kill -STOP $$; echo never"}}
	list := p.Look(t.Context(), Place{Subject: "LOCAL_DIR", Path: "/"}, 5*time.Second) // a shell may take long to start
	if len(list) != 2 || list[0].Code != "writable" || list[1].Code != "path_hung" {
		t.Errorf("%+v", list)
	}
}

func TestHelperThatFails(t *testing.T) {
	for _, p := range []*Prober{
		{Path: "/bin/sh", Args: []string{"-c", "echo oh >&2; exit 3"}},
		{Path: "/bin/sh", Args: []string{"-c", "echo garbage oh"}},
		{Path: "/absent/oh"},
	} {
		list := p.Look(t.Context(), Place{Subject: "LOCAL_DIR", Path: "/"}, patience)
		if len(list) != 1 || list[0].Code != "probe_failed" || list[0].Severity != Warn {
			t.Errorf("%+v", list)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if list := (&Prober{Path: "/bin/sleep", Args: []string{"60"}}).Look(ctx, Place{Path: "/"}, patience); len(list) != 1 || list[0].Code != "probe_failed" {
		t.Errorf("%+v", list)
	}
}

// A helper that can't be killed (uninterruptible sleep) must not be followed by others.
func TestHelperLeftBehind(t *testing.T) {
	p := &Prober{Path: "/bin/sh", Args: []string{"-c", "exit 0"}, lost: map[string]time.Time{"/sealer": time.Now()}}
	list := p.Look(t.Context(), Place{Path: "/sealer"}, patience)
	if len(list) != 1 || list[0].Code != "path_hung" || !strings.Contains(list[0].Evidence, "still stuck") {
		t.Errorf("%+v", list)
	}
}

func TestDoctorRun(t *testing.T) {
	dir := t.TempDir()
	d := &Doctor{
		Settings: Settings{Limit: patience, Sector: 32 << 30, Allow: Codes{"p1_too_slow"}}, Host: "h1",
		Places: []Place{{Subject: "LOCAL_DIR", Path: filepath.Join(dir, "absent"), Scratch: true}},
		Slots:  map[phases.Step]int{phases.P1: 1, phases.P4: 1}, Prober: prober(), Cores: NewCores(2),
		Clock: func(context.Context) (time.Duration, time.Duration, error) {
			return -time.Minute, time.Millisecond, nil
		},
		Parameters: func(uint64) error { return os.ErrNotExist },
		rate:       func() float64 { return 1e6 },
	}
	r := d.Run(t.Context(), 0, true)
	codes := map[string]Finding{}
	for _, f := range r.Findings {
		codes[f.Code] = f
	}
	expect(t, codes, "path_missing", Refuse)
	expect(t, codes, "parameters_missing", Refuse)
	expect(t, codes, "clock_offset", Warn, "-1m0s", "epoch", "chrony")
	expect(t, codes, "p1_too_slow", Warn, "DOCTOR_ALLOW")
	if r.Worst != Refuse || r.Findings[0].Severity != Refuse || r.Refused() == nil || !strings.Contains(r.Refused().Error(), "mend: ") {
		t.Errorf("%+v", r)
	}
	// Measured against a small sector the same host may work.
	d.Places[0].Path, d.Parameters, d.rate = dir, func(uint64) error { return nil }, nil
	if r := d.Run(t.Context(), 2<<10, true); r.Refused() != nil {
		t.Error(r.Refused())
	}
}
