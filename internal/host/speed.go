package host

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"sealfleet/internal/phases"
)

// The sample is bounded both ways, so that the doctor neither waits long nor fills a disk.
const (
	sampleBlock  = 1 * mib
	sampleBytes  = 64 * mib
	sampleTime   = 300 * time.Millisecond
	latencyTries = 8
	latencyTime  = 300 * time.Millisecond
	pageSize     = 4096
)

// speed is what a sample measured.
type speed struct {
	perSecond float64       // bytes
	latency   time.Duration // of a small synced write, the median
	direct    bool          // past the page cache
}

// measure writes a sample below dir and removes it.
func measure(dir string) (s speed, err error) {
	removeOldSamples(dir)
	// A process id is no name: containers that share the directory have the same ones.
	path := filepath.Join(dir, samplePrefix+rand.Text())
	const flags = os.O_CREATE | os.O_RDWR | os.O_EXCL
	f, err := os.OpenFile(path, flags|unix.O_DIRECT, 0o600)
	s.direct = err == nil
	if errors.Is(err, unix.EINVAL) {
		_ = os.Remove(path) // some file systems make the file and then refuse to open it so
		f, err = os.OpenFile(path, flags, 0o600)
	}
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(path)) }()
	block := aligned(sampleBlock)
	for i := range block {
		block[i] = byte(i*7 + i>>8) // not zeros: some disks only note those
	}
	start := time.Now()
	var written int64
	for written < sampleBytes && time.Since(start) < sampleTime {
		n, err := f.WriteAt(block, written)
		written += int64(n)
		if err != nil {
			return s, err
		}
	}
	if err := f.Sync(); err != nil {
		return s, err
	}
	s.perSecond = float64(written) / time.Since(start).Seconds()
	var tries []time.Duration
	for begin := time.Now(); len(tries) < latencyTries && time.Since(begin) < latencyTime; {
		at := time.Now()
		if _, err := f.WriteAt(block[:pageSize], int64(len(tries))*pageSize); err != nil {
			return s, err
		}
		if err := f.Sync(); err != nil {
			return s, err
		}
		tries = append(tries, time.Since(at))
	}
	s.latency = median(tries)
	return s, nil
}

const samplePrefix = ".sealfleet-sample-"

// removeOldSamples removes what helpers left that were killed while they wrote.
func removeOldSamples(dir string) {
	list, _ := filepath.Glob(filepath.Join(dir, samplePrefix+"*")) // its only error is a bad pattern; then nothing is found
	for _, path := range list {
		if info, err := os.Lstat(path); err == nil && time.Since(info.ModTime()) > time.Hour {
			_ = os.Remove(path) // it may be another user's
		}
	}
}

// aligned returns a block whose address is a multiple of the page size, as direct I/O asks.
func aligned(n int) []byte {
	buf := make([]byte, n+pageSize)
	off := int(-uintptr(unsafe.Pointer(&buf[0])) & (pageSize - 1)) //nolint:gosec // only the address is looked at
	return buf[off : off+n]
}

func median(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	sorted := append([]time.Duration(nil), d...)
	for i := range sorted {
		for j := i; j > 0 && sorted[j] < sorted[j-1]; j-- {
			sorted[j], sorted[j-1] = sorted[j-1], sorted[j]
		}
	}
	return sorted[len(sorted)/2]
}

// chainLimit is how long a sector has from its ticket to its precommit on chain: 2,880
// epochs of 30 s. Source: Filecoin's PreCommitChallengeDelay and MaxPreCommitRandomnessLookback.
const chainLimit = 24 * time.Hour

// slowLatency is what a synced write takes on a disk that is ill or overloaded; disks
// that turn take 10 ms.
const slowLatency = 100 * time.Millisecond

func (p Place) checkSpeed(tell func(Finding)) {
	s, err := measure(p.Path)
	if err != nil {
		tell(p.fault(err))
		return
	}
	evidence := fmt.Sprintf("writes %.0f MB/s, a synced write takes %s", s.perSecond/1e6, s.latency.Round(10*time.Microsecond))
	if !s.direct {
		evidence += " (through the page cache: no direct I/O here)"
	}
	tell(judgeSpeed(p, s, evidence))
	if s.latency > slowLatency {
		tell(found("sync_slow", Warn, p.Subject, "see with iostat -x what else uses the disk", "%s", evidence))
	}
}

// judgeSpeed compares a measured speed with what all slots of p1 write together.
func judgeSpeed(p Place, s speed, evidence string) Finding {
	need, known := NeedOf(p.Sector, phases.P1)
	if !p.Scratch || p.Sector == 0 || p.Slots == 0 || !known {
		return found("write_speed", OK, p.Subject, "", "%s", evidence)
	}
	all := float64(need.Scratch) * float64(p.Slots)
	least := all / chainLimit.Seconds()
	mend := "mount a faster array (see that it is not a single disk), or fewer slots for p1 in WORKERS"
	told := func(rate float64, within time.Duration) string {
		return fmt.Sprintf("%s; %d p1 of %s at once write %s each and need %.0f MB/s to be done in %s", evidence, p.Slots, SizeName(p.Sector), Bytes(need.Scratch), rate/1e6, within.Round(time.Minute))
	}
	if s.perSecond < least {
		return found("write_too_slow", graver(p.Sector), p.Subject, mend, "%s, the chain's limit", told(least, chainLimit))
	}
	if p.P1Seconds > 0 {
		if rate := all / p.P1Seconds; s.perSecond < rate {
			return found("write_slow", Warn, p.Subject, mend, "%s, what the processor could do", told(rate, time.Duration(p.P1Seconds*float64(time.Second))))
		}
	}
	return found("write_speed", OK, p.Subject, "", "%s", evidence)
}
