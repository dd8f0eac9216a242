package chaos

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A program's wall clock is set as an operator, or a broken time service, would set it: at
// any moment, by days, forwards or back. Linux has one such clock for all processes, and Go
// reads it without the C library. So the programs of a run are built with a time package
// (go build -overlay) whose Now adds eight bytes of a file that is mapped into memory. The
// monotonic clock is left alone, as settimeofday leaves it. No line of the product differs.

const skewVariable = "SEALFLEET_CHAOS_CLOCK"

// wallClock is the line of time.Now that reads the clock.
const wallClock = "sec, nsec, mono := runtimeNow()\n"

const skewedTime = `package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

var chaosSkew = new(int64)

func init() {
	path, ok := syscall.Getenv("` + skewVariable + `")
	if !ok {
		return
	}
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		panic("` + skewVariable + `=" + path + ": " + err.Error())
	}
	page, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic("` + skewVariable + `=" + path + ": " + err.Error())
	}
	syscall.Close(fd)
	chaosSkew = (*int64)(unsafe.Pointer(&page[0]))
}

func skewed(sec int64, nsec int32) (int64, int32) {
	const second = 1e9
	total := int64(nsec) + atomic.LoadInt64(chaosSkew)
	sec += total / second
	if total %= second; total < 0 {
		total += second
		sec--
	}
	return sec, int32(total)
}
`

// clockOverlay writes the time package whose clock can be set into dir, and returns the
// file for go build -overlay.
func clockOverlay(ctx context.Context, dir string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOROOT: %w", err)
	}
	src := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	text, err := os.ReadFile(filepath.Join(src, "time.go"))
	if err != nil {
		return "", err
	}
	// Now, Since and Until may read it; all of them must be alike.
	if strings.Count(string(text), wallClock) == 0 {
		return "", fmt.Errorf("%s/time.go does not read the clock as it did in Go 1.26: see clockOverlay", src)
	}
	changed := strings.ReplaceAll(string(text), wallClock, wallClock+"\tsec, nsec = skewed(sec, nsec)\n")
	replace := map[string]string{}
	for name, content := range map[string]string{"time.go": changed, "chaos_skew.go": skewedTime} {
		path := filepath.Join(dir, name+".overlay")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(src, name)] = path
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, overlay, 0o600)
}

// setClock sets the wall clock of a program, and of those that it starts, off by so much.
func (p *process) setClock(off time.Duration) error {
	file, err := os.OpenFile(p.clockPath(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	var now [8]byte
	binary.NativeEndian.PutUint64(now[:], uint64(off)) //nolint:gosec // negative ones as two's complement
	_, err = file.WriteAt(now[:], 0)
	return err
}

func (p *process) clockPath() string { return filepath.Join(p.dir, p.name+".clock") }

// skew has a host or a dispatcher believe for a while that it is another day.
func (r *run) skew(_ context.Context, f Fault) error {
	all := append(append([]*process{}, r.consumers...), r.spareDispatchers()...)
	p := all[f.Who%len(all)]
	if !p.setting.TryLock() {
		return errBusy
	}
	defer p.setting.Unlock()
	off := time.Duration(f.Who%6000-3000) * time.Minute // two days, before or after
	if err := p.setClock(off); err != nil {
		return err
	}
	time.Sleep(f.For) // what the fault is about
	return p.setClock(0)
}

// skewServer sets a server's clock on by a minute or so, and the next time back again: all
// leases run out at once, or those of dead hosts do not for a minute. It is the fleet's clock,
// and the development chain's, so not by days: deadlines would be over, and epochs far away.
func (r *run) skewServer(_ context.Context, f Fault) error {
	all := r.anyServer()
	p := all[f.Who%len(all)]
	if !p.setting.TryLock() {
		return errBusy
	}
	defer p.setting.Unlock()
	if p.clock == 0 {
		p.clock = 20 * f.For
	} else {
		p.clock = 0
	}
	return p.setClock(p.clock)
}
