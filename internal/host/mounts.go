package host

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Mount is one line of /proc/self/mountinfo.
type Mount struct {
	ID      int
	Device  string // major:minor
	Root    string // of the file system, as mounted here
	Point   string
	Options string // of the mount: rw,relatime
	Type    string // ext4, xfs, nfs4, tmpfs
	Source  string // /dev/md1, 10.10.13.22:/sealer
	Super   string // options of the file system
}

// Network tells whether the file system lies on another host.
func (m Mount) Network() bool {
	switch m.Type {
	case "nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "glusterfs", "lustre", "beegfs":
		return true
	}
	return strings.HasPrefix(m.Type, "fuse.") && strings.Contains(m.Source, ":")
}

// String writes the mount as df would.
func (m Mount) String() string { return fmt.Sprintf("%s from %s at %s", m.Type, m.Source, m.Point) }

// Mounts reads the mounts that this process sees. It touches none of them, so a hung one
// can't hang it.
func Mounts() ([]Mount, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseMounts(f)
}

func parseMounts(r io.Reader) ([]Mount, error) {
	var list []Mount
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		// 36 35 98:0 /root /point rw,noatime master:1 - ext4 /dev/sda1 rw,errors=continue
		left, right, found := strings.Cut(s.Text(), " - ")
		a, b := strings.Fields(left), strings.Fields(right)
		if !found || len(a) < 6 || len(b) < 2 {
			return nil, fmt.Errorf("mountinfo: strange line %q", s.Text())
		}
		id, err := strconv.Atoi(a[0])
		if err != nil {
			return nil, fmt.Errorf("mountinfo: strange line %q", s.Text())
		}
		m := Mount{ID: id, Device: a[2], Root: unescape(a[3]), Point: unescape(a[4]), Options: a[5], Type: b[0], Source: unescape(b[1])}
		if len(b) > 2 {
			m.Super = b[2]
		}
		list = append(list, m)
	}
	return list, s.Err()
}

// unescape undoes the kernel's octal escapes of space, tab, newline and backslash.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// mountOf returns the mount that a path without links lies on: the longest mount point
// above it, and of several the one that was mounted last.
func mountOf(list []Mount, path string) (Mount, bool) {
	best, found := Mount{}, false
	for _, m := range list {
		if !within(path, m.Point) {
			continue
		}
		if !found || len(m.Point) >= len(best.Point) {
			best, found = m, true
		}
	}
	return best, found
}

func within(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// Expectation is what a path is expected to be mounted from.
type Expectation struct {
	Path   string
	Type   string // empty: any
	Source string // empty: any
}

// Expectations is EXPECT_MOUNT: "/sealer=ext4:/dev/md1,/mnt/node1=nfs4:10.10.13.9:/store".
type Expectations []Expectation

// UnmarshalText reads the list.
func (e *Expectations) UnmarshalText(text []byte) error {
	var list Expectations
	for entry := range strings.SplitSeq(string(text), ",") {
		if strings.TrimSpace(entry) == "" {
			continue
		}
		path, what, found := strings.Cut(strings.TrimSpace(entry), "=")
		kind, source, colon := strings.Cut(what, ":")
		switch {
		case !found || !colon && kind == "":
			return fmt.Errorf("entry %q: write /path=type:source, of which one may be left out (/sealer=ext4: or /sealer=:/dev/md1)", entry)
		case !filepath.IsAbs(path):
			return fmt.Errorf("entry %q: the path must be absolute", entry)
		case kind == "" && source == "":
			return errors.New("an expectation needs a type, a source, or both")
		}
		list = append(list, Expectation{filepath.Clean(path), kind, source})
	}
	*e = list
	return nil
}

// of returns the expectation for a path: the nearest at or above it.
func (e Expectations) of(path string) (Expectation, bool) {
	best, found := Expectation{}, false
	for _, x := range e {
		if within(path, x.Path) && (!found || len(x.Path) > len(best.Path)) {
			best, found = x, true
		}
	}
	return best, found
}

func (x Expectation) met(m Mount) bool {
	return (x.Type == "" || x.Type == m.Type) && (x.Source == "" || x.Source == m.Source || sameDevice(x.Source, m.Source))
}

// sameDevice compares two names of a block device: /dev/disk/by-label/sealer is a link.
func sameDevice(a, b string) bool {
	if !strings.HasPrefix(a, "/dev/") || !strings.HasPrefix(b, "/dev/") {
		return false
	}
	ra, errA := filepath.EvalSymlinks(a)
	rb, errB := filepath.EvalSymlinks(b)
	return errA == nil && errB == nil && ra == rb
}

func (x Expectation) String() string {
	kind, source := x.Type, x.Source
	if kind == "" {
		kind = "any file system"
	}
	if source == "" {
		source = "any source"
	}
	return kind + " from " + source
}

// disks returns the physical disks below a block device (major:minor): a partition's disk,
// and all members of an array or volume. It is empty if the device is none (tmpfs, NFS,
// overlay). sys is where sysfs is mounted.
func disks(sys, device string) []string {
	dir, err := filepath.EvalSymlinks(filepath.Join(sys, "dev/block", device))
	if err != nil {
		return nil
	}
	seen := map[string]bool{}
	var walk func(dir string, depth int)
	walk = func(dir string, depth int) {
		if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
			dir = filepath.Dir(dir)
		}
		members, err := os.ReadDir(filepath.Join(dir, "slaves"))
		if err != nil || len(members) == 0 || depth > 8 {
			seen[filepath.Base(dir)] = true
			return
		}
		for _, m := range members {
			if d, err := filepath.EvalSymlinks(filepath.Join(dir, "slaves", m.Name())); err == nil {
				walk(d, depth+1)
			}
		}
	}
	walk(dir, 0)
	names := make([]string, 0, len(seen))
	for n := range seen {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
