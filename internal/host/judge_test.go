package host

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sealfleet/internal/phases"
)

func TestSpeedAgainstWhatP1Needs(t *testing.T) {
	p := Place{Subject: "LOCAL_DIR", Scratch: true, Slots: 10, Sector: 32 << 30, P1Seconds: 3 * 3600}
	// 10 × 480 GiB in 24 h are 60 MB/s, in 3 h 477 MB/s.
	for rate, want := range map[float64]struct {
		code string
		s    Severity
	}{50e6: {"write_too_slow", Refuse}, 70e6: {"write_slow", Warn}, 460e6: {"write_slow", Warn}, 500e6: {"write_speed", OK}} {
		if f := judgeSpeed(p, speed{perSecond: rate}, "x"); f.Code != want.code || f.Severity != want.s {
			t.Errorf("%.0f: %+v", rate, f)
		}
	}
	p.Sector = 0
	if f := judgeSpeed(p, speed{perSecond: 1}, "x"); f.Severity != OK {
		t.Errorf("%+v", f)
	}
}

func TestProcessorEstimates(t *testing.T) {
	hours := func(sector uint64, rate float64, ext bool) float64 { return p1Seconds(sector, rate, ext) / 3600 }
	if h := hours(32<<30, 1.9e9, true); h < 2.5 || h > 3.5 {
		t.Errorf("with SHA extensions %.1f h, the field has 3", h)
	}
	if h := hours(32<<30, 450e6, false); h != 32 {
		t.Errorf("without SHA extensions %.1f h, the field has 32", h)
	}
	for _, c := range []struct {
		sector uint64
		rate   float64
		ext    bool
		s      Severity
		code   string
	}{
		{32 << 30, 1.9e9, true, OK, "processor"}, {64 << 30, 1.9e9, true, OK, "processor"},
		{32 << 30, 450e6, false, Refuse, "p1_too_slow"}, {0, 450e6, false, Warn, "p1_too_slow"},
		{32 << 30, 300e6, true, Warn, "p1_slow"}, {2 << 10, 100e6, false, OK, "processor"}, {512 << 20, 100e6, false, OK, "processor"},
	} {
		if f := checkProcessor(c.sector, c.rate, c.ext); f.Severity != c.s || f.Code != c.code {
			t.Errorf("%+v: %+v", c, f)
		}
	}
	root := t.TempDir()
	for flags, want := range map[string]bool{"flags\t\t: fpu sha_ni avx2\n": true, "flags\t\t: fpu avx2\n": false, "Features\t: fp sha1 sha2\n": true} {
		if err := errorsOf(os.MkdirAll(filepath.Join(root, "proc"), 0o755), os.WriteFile(filepath.Join(root, "proc/cpuinfo"), []byte("processor\t: 0\n"+flags), 0o600)); err != nil {
			t.Fatal(err)
		}
		if hasSHA(root) != want {
			t.Errorf("%q: want %v", flags, want)
		}
	}
	if r := shaRate(); r < 1e6 {
		t.Errorf("SHA-256 at %.0f bytes per second", r)
	}
}

func TestFilesAndMemory(t *testing.T) {
	slots := map[phases.Step]int{phases.P1: 10, phases.P6: 4}
	for limit, s := range map[uint64]Severity{256: Refuse, 1024: Warn, 20_000: OK} {
		if f := judgeFiles(limit, slots); f.Severity != s || (s != OK) != strings.Contains(f.Mend, "LimitNOFILE") {
			t.Errorf("%d: %+v", limit, f)
		}
	}
	p4 := map[phases.Step]int{phases.P4: 2}
	for total, code := range map[uint64]string{8 * gib: "memory_never", 20 * gib: "memory_few", 64 * gib: "memory"} {
		if f := checkMemory(p4, 32*gib, total); f.Code != code {
			t.Errorf("%s: %+v", Bytes(total), f)
		}
	}
	if f := checkMemory(map[phases.Step]int{phases.P1: 4}, 32*gib, 128*gib); f.Code != "memory_cache" {
		t.Errorf("%+v", f)
	}
}

func TestMountsTableAndExpectations(t *testing.T) {
	list, err := parseMounts(strings.NewReader(`22 1 253:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 9:1 / /sealer rw - xfs /dev/md1 rw
31 30 0:50 / /sealer/nfs/10.0.0.2 rw - nfs4 10.0.0.2:/sealer\040x/nfs rw,vers=4.2
`))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"/sealer2/x": "/", "/sealer": "/sealer", "/sealer/nfs/10.0.0.1/cache": "/sealer", "/sealer/nfs/10.0.0.2/cache": "/sealer/nfs/10.0.0.2"} {
		if m, found := mountOf(list, path); !found || m.Point != want {
			t.Errorf("%s lies on %+v, want %s", path, m, want)
		}
	}
	if m := list[2]; !m.Network() || m.Source != "10.0.0.2:/sealer x/nfs" {
		t.Errorf("%+v", m)
	}
	if _, err := parseMounts(strings.NewReader("strange\n")); err == nil {
		t.Error("a strange table was believed")
	}
	var e Expectations
	if err := e.UnmarshalText([]byte("/sealer=ext4:/dev/md1, /mnt/node1=nfs4:10.10.13.9:/store,/x=:/dev/sdb")); err != nil {
		t.Fatal(err)
	}
	if x, found := e.of("/mnt/node1/deep"); !found || x.Type != "nfs4" || x.Source != "10.10.13.9:/store" || !x.met(Mount{Type: "nfs4", Source: "10.10.13.9:/store"}) {
		t.Errorf("%+v", x)
	}
	if x, _ := e.of("/x"); x.Type != "" || !x.met(Mount{Type: "xfs", Source: "/dev/sdb"}) || x.met(Mount{Type: "xfs", Source: "/dev/sda"}) {
		t.Errorf("%+v", x)
	}
	if _, found := e.of("/sealer2"); found {
		t.Error("/sealer stands for /sealer2")
	}
	for _, bad := range []string{"/sealer", "sealer=ext4:x", "/a=:", "=x"} {
		if new(Expectations).UnmarshalText([]byte(bad)) == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}

// An array over two partitions, one of them on the system's disk.
func TestDisksBelowAnArray(t *testing.T) {
	sys := t.TempDir()
	for _, d := range []string{"devices/sda/sda1", "devices/sda/sda2", "devices/sdb/sdb1", "devices/virtual/md1/slaves", "dev/block"} {
		if err := os.MkdirAll(filepath.Join(sys, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{"sda/sda1", "sda/sda2", "sdb/sdb1"} {
		if err := os.WriteFile(filepath.Join(sys, "devices", p, "partition"), []byte("1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{
		"dev/block/8:1": "devices/sda/sda1", "dev/block/9:1": "devices/virtual/md1",
		"devices/virtual/md1/slaves/sda2": "devices/sda/sda2", "devices/virtual/md1/slaves/sdb1": "devices/sdb/sdb1",
	} {
		if err := os.Symlink(filepath.Join(sys, to), filepath.Join(sys, link)); err != nil {
			t.Fatal(err)
		}
	}
	if got := disks(sys, "9:1"); !slices.Equal(got, []string{"sda", "sdb"}) {
		t.Errorf("the array lies on %v", got)
	}
	if got := intersect(disks(sys, "9:1"), disks(sys, "8:1")); !slices.Equal(got, []string{"sda"}) {
		t.Errorf("it shares %v", got)
	}
	if got := disks(sys, "0:50"); len(got) != 0 {
		t.Errorf("an export lies on %v", got)
	}
}
