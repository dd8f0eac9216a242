package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sealfleet/internal/phases"
)

// Place is a directory that the host's work depends on, and what it is for.
type Place struct {
	Subject string   `json:"subject"` // how people know it: LOCAL_DIR, or STORAGE_NODES node1
	Path    string   `json:"path"`
	Make    []string `json:"make,omitempty"` // directories below it that the work will make: they are made now
	Share   string   `json:"share,omitempty"`
	Scratch bool     `json:"scratch,omitempty"` // p1 writes here
	Node    bool     `json:"node,omitempty"`    // a storage node
	Peer    bool     `json:"peer,omitempty"`    // another host's share, where p2 and p3 write
	// Slots is how many p1 may run here at once, Sector the size of the sectors (0: not known).
	Slots  int    `json:"slots,omitempty"`
	Sector uint64 `json:"sector,omitempty"`
	// P1Seconds is how long one p1 of that size takes this processor; 0: not known.
	P1Seconds float64      `json:"p1_seconds,omitempty"`
	Sample    bool         `json:"sample,omitempty"` // measure its speed
	Expect    *Expectation `json:"expect,omitempty"`
}

// production tells whether a sector is of a size that real miners seal: there what only
// slows small sectors down makes p1 miss the chain's deadline.
func production(sector uint64) bool { return sector >= 32*gib }

// graver is Refuse for the sectors of production, else Warn.
func graver(sector uint64) Severity {
	if production(sector) {
		return Refuse
	}
	return Warn
}

// check looks at a place. It may hang with the place's mount: it runs in the helper. tell
// gets each finding as soon as it is made, so that a hang keeps what was found before.
func (p Place) check(tell func(Finding)) {
	if !p.checkDirs(tell) {
		return
	}
	if p.Peer {
		p.checkOrigins(tell)
		return // its owner's doctor looks at the disk
	}
	p.checkMount(tell)
	p.checkSpace(tell)
	if p.Share != "" {
		p.checkOrigins(tell)
	}
	if p.Sample {
		p.checkSpeed(tell)
	}
}

// checkDirs tells whether the place exists, and whether files in it and in the directories
// below it can be made, written, synced, read back and removed now.
func (p Place) checkDirs(tell func(Finding)) bool {
	info, err := os.Stat(p.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		tell(found("path_missing", Refuse, p.Subject, fmt.Sprintf("mount it, or make it: mkdir -p %s && chown %s %[1]s", p.Path, UserName()),
			"%s does not exist", p.Path))
		return false
	case err == nil && !info.IsDir():
		tell(found("not_directory", Refuse, p.Subject, "remove the file, and mount or make the directory", "%s is not a directory", p.Path))
		return false
	}
	if p.Peer {
		p.Make = existing(filepath.Join(p.Path, "cache"), filepath.Join(p.Path, "sealed"), ReserveDir(p.Path))
	} else if err == nil {
		err = TryDir(p.Path)
	}
	for _, dir := range p.Make {
		if err == nil {
			err = MakeDir(dir)
		}
		if err == nil {
			err = TryDir(dir)
		}
	}
	if err != nil {
		tell(p.fault(err))
		return false
	}
	tell(found("writable", OK, p.Subject, "", "%s: written, synced, read back and removed as %s", p.Path, UserName()))
	return true
}

// existing keeps those that are there: of another host's share nothing is made.
func existing(dirs ...string) (there []string) {
	for _, d := range dirs {
		if info, err := os.Stat(d); err == nil && info.IsDir() {
			there = append(there, d)
		}
	}
	return there
}

// fault makes a finding of an error of the place's file system.
func (p Place) fault(err error) Finding {
	text := err.Error()
	switch {
	case errors.Is(err, unix.EROFS):
		return found("read_only", Refuse, p.Subject, p.remount(), "%s", text)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return found("space_none", Refuse, p.Subject, "free space: see what p6 has not cleaned yet (df -h "+p.Path+"; df -i "+p.Path+")", "%s", text)
	case errors.Is(err, unix.ESTALE), errors.Is(err, unix.ENOTCONN), errors.Is(err, unix.ETIMEDOUT), errors.Is(err, unix.EHOSTDOWN), errors.Is(err, unix.EIO):
		return found("path_stale", Refuse, p.Subject, "look at the disk or the exporting host (dmesg); then umount -l "+p.Path+" && mount "+p.Path, "%s", text)
	case errors.Is(err, fs.ErrPermission):
		evidence, mend, _ := strings.Cut(text, "; mend: ")
		if mend == "" {
			mend = fmt.Sprintf("chown %s %s", UserName(), p.Path)
		}
		return found("not_writable", Refuse, p.Subject, mend, "%s", evidence)
	}
	return found("path_fault", Refuse, p.Subject, "look at "+p.Path+" as user "+UserName(), "%s", text)
}

func (p Place) remount() string {
	if m, err := MountOf(p.Path); err == nil {
		return "mount -o remount,rw " + m.Point + " (first see in dmesg why the kernel made it read-only)"
	}
	return "mount it with rw"
}

// TryDir makes a file in a directory, writes, syncs, reads it back and removes it.
// Errors name owner, user and mend as Mend does.
func TryDir(dir string) (err error) {
	f, err := os.CreateTemp(dir, ".sealfleet-check-*")
	if err != nil {
		return Mend(dir, err)
	}
	defer func() {
		err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		if err != nil {
			err = fmt.Errorf("%s: %w", dir, err)
		}
	}()
	wrote := fmt.Sprintf("sealfleet checks that it can write here, %s", time.Now().Format(time.RFC3339Nano))
	if _, err := f.WriteString(wrote); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	// What is read must come from the file system and not from memory, as far as one can ask for that.
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	read := make([]byte, len(wrote)+1)
	n, _ := f.ReadAt(read, 0)
	if string(read[:n]) != wrote {
		return fmt.Errorf("read back other bytes than were written: %w", unix.EIO)
	}
	return nil
}

// checkMount tells where the place really lies: the old note's /sealer was on the system
// disk instead of the array, and p1 crawled.
func (p Place) checkMount(tell func(Finding)) {
	m, err := MountOf(p.Path)
	if err != nil {
		tell(found("mount_unknown", Info, p.Subject, "", "cannot tell what %s is mounted from: %v", p.Path, err))
		return
	}
	if p.Expect != nil {
		if !p.Expect.met(m) {
			tell(found("wrong_mount", Refuse, p.Subject,
				fmt.Sprintf("mount %s at %s (see /etc/fstab), or correct EXPECT_MOUNT", p.Expect, p.Expect.Path),
				"%s lies on %s, expected was %s", p.Path, m, p.Expect))
			return
		}
		tell(found("mount", OK, p.Subject, "", "%s lies on %s, as expected", p.Path, m))
		return
	}
	kind := "local"
	if m.Network() {
		kind = "an export of another host"
	}
	f := found("mount", OK, p.Subject, "", "%s lies on %s (%s)", p.Path, m, kind)
	var here, system unix.Stat_t
	mend := fmt.Sprintf("mount the array or node there (see /etc/fstab, df %s), or say that it is meant: EXPECT_MOUNT=%s=%s:%s", p.Path, p.Path, m.Type, m.Source)
	switch {
	case errors.Join(unix.Stat(p.Path, &here), unix.Stat("/", &system)) != nil:
	case here.Dev == system.Dev:
		f = found("system_disk", graver(p.Sector), p.Subject, mend, "%s lies on the system disk (%s), not on a file system of its own", p.Path, m)
	default:
		root, _ := MountOf("/")
		if shared := intersect(disks("/sys", m.Device), disks("/sys", root.Device)); len(shared) > 0 {
			f = found("system_disk_shared", Warn, p.Subject, mend, "%s (%s) shares the physical disk %s with the system", p.Path, m, strings.Join(shared, ", "))
		}
	}
	tell(f)
	if m.Type == "tmpfs" || m.Type == "ramfs" {
		tell(found("memory_disk", graver(p.Sector), p.Subject, "mount a disk there", "%s lies in memory (%s)", p.Path, m.Type))
	}
}

func intersect(a, b []string) []string {
	var both []string
	for _, x := range a {
		for _, y := range b {
			if x == y {
				both = append(both, x)
			}
		}
	}
	return both
}

// Below these an array that is used by several hosts is as good as full.
const (
	fewInodes = 10_000
	fewBytes  = 1 * gib
)

func (p Place) checkSpace(tell func(Finding)) {
	var st unix.Statfs_t
	if err := unix.Statfs(p.Path, &st); err != nil {
		tell(p.fault(&fs.PathError{Op: "statfs", Path: p.Path, Err: err}))
		return
	}
	free, total := st.Bavail*uint64(st.Bsize), st.Blocks*uint64(st.Bsize)
	evidence := fmt.Sprintf("%s of %s free", Bytes(free), Bytes(total))
	switch need := p.spaceFor(); {
	case need > 0 && total < need:
		tell(found("space_never", Refuse, p.Subject, "give "+p.Path+" a bigger file system", "%s; one sector of %s needs %s, more than there is in all", evidence, SizeName(p.Sector), Bytes(need)))
	case need > 0 && free < need:
		// Not a refusal: admission waits until something was cleaned.
		tell(found("space_low", Warn, p.Subject, "let p6 clean, or give "+p.Path+" more space", "%s; the next sector of %s needs %s and will wait", evidence, SizeName(p.Sector), Bytes(need)))
	case need == 0 && free < fewBytes && free < total/20:
		tell(found("space_low", Warn, p.Subject, "free space below "+p.Path, "%s", evidence))
	default:
		tell(found("space", OK, p.Subject, "", "%s", evidence))
	}
	switch {
	case st.Files == 0: // btrfs and others have no fixed number
	case st.Ffree < fewInodes && st.Ffree < st.Files/20:
		tell(found("inodes_low", Warn, p.Subject, "remove small files below "+p.Path+" (df -i), or make the file system with more inodes", "%d of %d inodes free", st.Ffree, st.Files))
	default:
		tell(found("inodes", OK, p.Subject, "", "%d of %d inodes free", st.Ffree, st.Files))
	}
}

// spaceFor returns what one more sector takes here, 0 if its size is not known.
func (p Place) spaceFor() uint64 {
	switch {
	case p.Sector == 0:
	case p.Scratch:
		n, _ := NeedOf(p.Sector, "p1")
		return n.Scratch
	case p.Node:
		n, _ := NeedOf(p.Sector, "p5")
		return n.Node
	}
	return 0
}

// maxOrigins is how many sectors are looked at: enough for a share of production.
const maxOrigins = 1000

// checkOrigins tells whether the sectors on the share are on the file system that p1
// wrote to.
func (p Place) checkOrigins(tell func(Finding)) {
	dirs, err := os.ReadDir(filepath.Join(p.Share, "cache"))
	if err != nil {
		return // no sector was here
	}
	looked, changed := 0, []string{}
	var first error
	for _, d := range dirs[:min(len(dirs), maxOrigins)] {
		if _, _, err := phases.ParseSectorID(d.Name()); err != nil {
			continue // no sector: the trial file of a doctor who looks at the same time, say
		}
		err := CheckOrigin(p.Share, filepath.Join(p.Share, "cache", d.Name()))
		if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrDeviceChanged) || errors.Is(err, unix.ESTALE) {
			continue // p1 left no record, or p6 removes it now, perhaps on another host
		}
		looked++
		if err != nil {
			changed = append(changed, d.Name())
			first = errors.Join(first, err)
		}
	}
	switch {
	case len(changed) > 0:
		tell(found("device_changed", Refuse, p.Subject, "mount the file system that p1 wrote to at "+p.Share+"; nothing of these sectors is deleted before",
			"%d of %d sectors (%s) are not where p1 wrote them: %s", len(changed), looked, strings.Join(changed[:min(3, len(changed))], ", "), firstLine(first)))
	case looked > 0:
		tell(found("device", OK, p.Subject, "", "%d sectors are on the file system that p1 wrote to", looked))
	}
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
