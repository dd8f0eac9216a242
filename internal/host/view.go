package host

import (
	"bufio"
	"os"
	"path"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sealfleet/internal/memory"
)

// Model names the processor as the kernel does; its architecture, if the kernel says nothing.
func Model() string { return modelOf("/") }

func modelOf(root string) string {
	f, err := os.Open(path.Join(root, "proc/cpuinfo"))
	if err != nil {
		return runtime.GOARCH
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), ":")
		switch strings.TrimSpace(name) {
		case "model name", "Model", "cpu model":
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// Memory returns how many bytes the phases can have in all, and how many are to be had now.
func Memory() (total, available uint64) { return memory.Total("/"), memory.Available("/") }

// DiskView is how full a file system is, in bytes.
type DiskView struct {
	Total, Free uint64
	Reserved    uint64 // of Free: what is promised to running phases, of shares only
}

// Disk tells how full the file system of dir is. If share is not empty (a share's
// directory, <local_dir>/nfs/<ip>), what is reserved there is counted. Errors wrap
// ErrHung or are the file system's.
func (p *Patience) Disk(dir, share string) (DiskView, error) {
	seen := make(chan DiskView, 1)
	err := p.Do(dir, func() error {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			return err
		}
		d := DiskView{Total: st.Blocks * uint64(st.Bsize), Free: st.Bavail * uint64(st.Bsize)} //nolint:unconvert // the types differ between platforms
		if share != "" {
			d.Reserved = Promised(share)
		}
		seen <- d
		return nil
	})
	if err != nil {
		return DiskView{}, err
	}
	return <-seen, nil
}

// Promised returns how many bytes running phases will still write on a share's file
// system, as far as reservations can be read. It changes nothing.
func Promised(share string) (sum uint64) {
	l := NewLedger(share, "")
	for _, dir := range l.dirs(ReserveDir(share)) {
		list, err := l.read(dir, lastTouch(dir), func(string) {})
		if err != nil {
			continue // a figure for people: the ledger itself will complain
		}
		for _, c := range list {
			sum += c.rest(path.Dir(path.Dir(dir)))
		}
	}
	return sum
}

// lastTouch is when a reservation of a directory was touched last: about now, by the file
// system's own clock, without writing there to ask for it.
func lastTouch(dir string) (last time.Time) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return last
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	return last
}
