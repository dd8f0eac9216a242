package host

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// # Reservations
//
// A phase that runs out of disk in its third hour takes its neighbours with it. So a
// phase begins only when all that it will write has room beside all that others will
// still write, on its file system, from whatever process or host.
//
// A reservation is a file in <share>/.sealfleet/reservations. There are no locks (over
// NFS they are what hangs first) and no counter that a crash could leave wrong. Whoever
// wants room writes its file first and then reads all files: of two that come at once at
// least one sees the other, and as each counts everybody whom it sees, the two never
// both take the last room. At worst both withdraw, wait a random moment and try again.
//
// What a reservation still stands for is its size less what its paths already hold,
// because that is missing from the free space already. Its owner touches the file every
// minute. It is void when its owner's process has gone (same machine), or was not
// touched for ten minutes (other machines), by the file system's own clock.
//
// FAIL: a host that is frozen for longer than that and then goes on writes into room
// that may be promised to another. The claim's heartbeat stops it at most AckWait/6 later.
const (
	reserveDir     = "reservations"
	reserveTouch   = time.Minute
	reserveExpires = 10 * time.Minute
	reserveTries   = 4
	// walkAbove is the size from which it is worth looking how much is written already;
	// hundreds of 2 KiB sectors would only cost time.
	walkAbove = 64 * mib
)

// Claimed is what a reservation is for; its JSON is the file's content.
type Claimed struct {
	ID     string    `json:"id"`
	Bytes  uint64    `json:"bytes"`
	Paths  []string  `json:"paths"` // relative to the share: what the phase writes
	Before uint64    `json:"before"`
	What   string    `json:"what"` // for people: p1 of s-t01000-7
	Host   string    `json:"host"`
	Boot   string    `json:"boot"` // of the owner's machine
	PID    int       `json:"pid"`
	Start  string    `json:"start"` // of the owner's process
	At     time.Time `json:"at"`
}

// ReserveDir is where a share's reservations lie.
func ReserveDir(share string) string { return filepath.Join(share, fleetDir, reserveDir) }

// ErrNoRoom is what errors.Is finds in a *NoRoomError.
var ErrNoRoom = errors.New("no room")

// NoRoomError says what a phase waits for.
type NoRoomError struct {
	What, Share          string
	Need, Free, Promised uint64
	Others               int
	Holder               string // of the biggest other reservation
}

func (e *NoRoomError) Error() string {
	text := fmt.Sprintf("%s waits for disk: it needs %s on %s, which has %s free", e.What, Bytes(e.Need), e.Share, Bytes(e.Free))
	if e.Others > 0 {
		text += fmt.Sprintf(", of which %s are promised to %d running phases (most to %s)", Bytes(e.Promised), e.Others, e.Holder)
	}
	return text
}

// Is makes errors.Is(err, ErrNoRoom) true.
func (e *NoRoomError) Is(target error) bool { return target == ErrNoRoom }

// Ledger is one share's reservations. It is safe for concurrent use.
type Ledger struct {
	share string
	host  string
	free  func(path string) (uint64, error) // tests put other disks here
	alive func(Claimed) (known, alive bool)
	pause func(time.Duration)

	mu sync.Mutex // this process's own attempts, one after the other
}

// NewLedger returns the reservations of a share (<local_dir>/nfs/<ip>).
func NewLedger(share, hostName string) *Ledger {
	return &Ledger{share: share, host: hostName, alive: ownerAlive, pause: time.Sleep, free: func(path string) (uint64, error) {
		n, err := FreeBytes(path)
		return uint64(max(n, 0)), err
	}}
}

// Reservation is room that is promised to a phase.
type Reservation struct {
	path string
	once sync.Once
}

// Reserve promises bytes on the share to what is written below paths (relative to the
// share), or returns a *NoRoomError. Release it when the phase has ended, and Touch it
// at least every few minutes. goesOn says that what an earlier attempt left below the
// paths is used or replaced by this one, so that it needs that much less.
func (l *Ledger) Reserve(what string, bytes uint64, paths []string, goesOn bool) (*Reservation, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	dir := ReserveDir(l.share)
	if err := MakeDir(dir); err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		r, err := l.attempt(dir, what, bytes, paths, goesOn)
		var none *NoRoomError
		// Only if others reserve too can the lack be that of two who withdrew for each other.
		if err == nil || try == reserveTries || !errors.As(err, &none) || none.Others == 0 || none.Free < none.Need {
			return r, err
		}
		l.pause(time.Duration(10+mrand.IntN(40*try)) * time.Millisecond)
	}
}

func (l *Ledger) attempt(dir, what string, bytes uint64, paths []string, goesOn bool) (*Reservation, error) {
	me := Claimed{ID: rand.Text(), Bytes: bytes, Paths: paths, What: what, Host: l.host, Boot: bootID(), PID: os.Getpid(), Start: processStart(os.Getpid()), At: time.Now().UTC()}
	if bytes > walkAbove && !goesOn {
		me.Before = used(l.share, paths) // other phases' files
	}
	r := &Reservation{path: filepath.Join(dir, me.ID+".json")}
	if err := me.write(r.path); err != nil {
		return nil, err
	}
	none, err := l.look(dir, me)
	if none == nil && err == nil {
		return r, nil
	}
	r.Release()
	if err == nil {
		err = none
	}
	return nil, err
}

// write makes the file, whole under its name. It is not synced: a power cut ends its owner,
// and with him what it stands for. Closing it is what shows it to the other hosts of an export.
func (c Claimed) write(path string) error {
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return Mend(path, err)
	}
	_, err = f.Write(append(data, '\n'))
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return Mend(path, err)
	}
	return nil
}

// look counts everybody else's promises, and compares what is left with mine.
func (l *Ledger) look(dir string, me Claimed) (*NoRoomError, error) {
	now, err := modified(filepath.Join(dir, me.ID+".json"))
	if err != nil {
		return nil, err
	}
	none := &NoRoomError{What: me.What, Share: l.share}
	var most uint64
	for _, d := range l.dirs(dir) {
		list, err := l.list(d, now)
		if err != nil {
			return nil, err
		}
		for _, c := range list {
			if c.ID == me.ID {
				continue
			}
			rest := c.rest(filepath.Dir(filepath.Dir(d)))
			none.Promised += rest
			none.Others++
			if rest >= most {
				most, none.Holder = rest, c.What+" on "+c.Host
			}
		}
	}
	mine := me.rest(l.share)
	// The free space last: what is written meanwhile is then counted twice, never not at all.
	if none.Free, err = l.free(l.share); err != nil {
		return nil, err
	}
	// Some files are written anew beside the old ones, which they then replace.
	none.Need = max(mine, me.Bytes/4)
	if none.Promised+none.Need <= none.Free {
		return nil, nil
	}
	return none, nil
}

// dirs returns the directories of all shares that lie on the same mount: a machine may
// have several, one for each address. Only the table of mounts is read to find them.
func (l *Ledger) dirs(own string) []string {
	list := []string{own}
	mounts, err := Mounts()
	if err != nil {
		return list
	}
	here, found := mountOf(mounts, l.share)
	siblings, err := os.ReadDir(filepath.Dir(l.share))
	if err != nil || !found {
		return list
	}
	for _, s := range siblings {
		share := filepath.Join(filepath.Dir(l.share), s.Name())
		if m, found := mountOf(mounts, share); share != l.share && s.IsDir() && found && m.ID == here.ID {
			list = append(list, ReserveDir(share))
		}
	}
	return list
}

// list reads the reservations of a directory that hold, and removes those that are void.
func (l *Ledger) list(dir string, now time.Time) ([]Claimed, error) {
	return l.read(dir, now, func(path string) { _ = os.Remove(path) }) // it may belong to another user: it is not counted all the same
}

// read reads the reservations of a directory that hold, and hands those that are void over.
func (l *Ledger) read(dir string, now time.Time, void func(path string)) ([]Claimed, error) {
	// Opening the directory anew is what makes an NFS client ask the server.
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var held []Claimed
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".json" || strings.HasPrefix(e.Name(), ".") {
			continue // being written: its owner will read ours
		}
		path := filepath.Join(dir, e.Name())
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESTALE) {
			continue // released meanwhile
		}
		at, errAt := modified(path)
		if errors.Is(errAt, fs.ErrNotExist) {
			continue
		}
		if err = errors.Join(err, errAt); err != nil {
			return nil, err
		}
		var c Claimed
		if err := json.Unmarshal(data, &c); err != nil {
			if now.Sub(at) > reserveExpires { // left so by a power cut: nobody touches it
				void(path)
				continue
			}
			return nil, fmt.Errorf("reservation %s is damaged: %w; mend: remove it if none of its phases runs", path, err)
		}
		if known, alive := l.alive(c); known && !alive || now.Sub(at) > reserveExpires {
			void(path)
			continue
		}
		held = append(held, c)
	}
	slices.SortFunc(held, func(a, b Claimed) int { return cmp.Compare(a.ID, b.ID) })
	return held, nil
}

// rest returns what a reservation still stands for.
func (c Claimed) rest(share string) uint64 {
	if c.Bytes <= walkAbove {
		return c.Bytes
	}
	now := used(share, c.Paths)
	return c.Bytes - min(c.Bytes, now-min(now, c.Before))
}

// used returns how many bytes lie below paths of a share. What vanishes meanwhile counts
// as nothing.
func used(share string, paths []string) (sum uint64) {
	for _, p := range paths {
		if !filepath.IsLocal(p) {
			continue // another's file: it must not lead us elsewhere
		}
		_ = filepath.WalkDir(filepath.Join(share, p), func(_ string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return nil
			}
			info, err := d.Info()
			if err != nil {
				return nil
			}
			if st, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode().IsRegular() {
				sum += uint64(st.Blocks) * 512 //nolint:unconvert // the types differ between platforms
			}
			return nil
		})
	}
	return sum
}

// Touch keeps a reservation from expiring.
func (r *Reservation) Touch() error {
	// Without times the file system's own clock is taken, which all hosts share.
	return unix.UtimesNanoAt(unix.AT_FDCWD, r.path, []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}, 0)
}

// Release gives the room back. It may be called again.
func (r *Reservation) Release() {
	r.once.Do(func() { _ = os.Remove(r.path) }) // if it can't be removed it expires
}

func modified(path string) (time.Time, error) {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

// ownerAlive tells whether a reservation's owner runs; known only on the owner's machine.
func ownerAlive(c Claimed) (known, alive bool) {
	if c.Boot == "" || c.Boot != bootID() || c.Start == "" {
		return false, false
	}
	return true, processStart(c.PID) == c.Start
}

// bootID names this boot of this machine and this container's view of its processes.
var bootID = sync.OnceValue(func() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	// The same number is another process in another container.
	space, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(boot)) + " " + space
})

// processStart returns when a process began, in the kernel's ticks; empty if there is
// none. Numbers are used again; both together are not.
func processStart(pid int) string {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	// The name, in parentheses, may have spaces in it; after it come state (3) … starttime (22).
	_, rest, found := strings.Cut(string(data[max(0, strings.LastIndexByte(string(data), ')')):]), " ")
	fields := strings.Fields(rest)
	if !found || len(fields) < 20 {
		return ""
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return "" // dead, and only not yet waited for
	}
	return fields[19]
}
