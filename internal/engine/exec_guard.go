package engine

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"sealfleet/internal/phases"
)

// guard watches one run of a program: its time, its output, and the memory of its process
// group with all descendants.
//
// Memory is what the kernel could not get back by writing out files: anonymous pages,
// shared memory and swap, as /proc tells them. It is looked at, twice a second, rather than
// set by the kernel: RLIMIT_AS counts the address space, of which mapped layers and GPU
// drivers take a hundred times their memory, and a cgroup needs rights that a consumer
// doesn't have everywhere. So a program that takes the whole host's memory within half a
// second is still the kernel's to kill; where that matters, run the consumer under systemd
// with MemoryMax. Pages that a fork shares are counted in each process.
//
// Descendants that left the process group are known if a look found them while their
// parents lived; they are killed one by one at the end. One that leaves the group and loses
// its parent between two looks escapes.
type guard struct {
	name     string
	phase    phases.Step
	limits   *Limits
	exceeded chan struct{} // closed when a limit is passed
	once     sync.Once
	reason   atomic.Pointer[Error]
	output   atomic.Int64
	stop     context.CancelFunc
	done     chan struct{}
	members  map[int]uint64 // process id → start time, of all that were ever seen
}

// newGuard returns nil if there are no limits; a nil guard lets everything pass.
func (c *Command) newGuard(p phases.Step) *guard {
	if c.Limits == nil {
		return nil
	}
	return &guard{name: c.name(), phase: p, limits: c.Limits, exceeded: make(chan struct{}), members: map[int]uint64{}}
}

// watch begins when the program runs as process pid, which leads its group.
func (g *guard) watch(pid int) {
	if g == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	g.stop, g.done = cancel, make(chan struct{})
	go func() {
		defer close(g.done)
		g.run(ctx, pid)
	}()
}

func (g *guard) run(ctx context.Context, pid int) {
	var over <-chan time.Time
	limit := g.limits.Time.Of(g.phase)
	if limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		over = timer.C
	}
	memory := g.limits.Memory.Bytes()
	look := time.NewTicker(g.limits.poll())
	defer look.Stop()
	for {
		used := g.look(pid)
		if memory > 0 && used > memory {
			g.exceed("engine_memory", "had %s of memory with all that it started, more than its %s: raise ENGINE_MEMORY_LIMIT if it needs that",
				humanize.IBytes(uint64(used)), humanize.IBytes(uint64(memory)))
		}
		select {
		case <-ctx.Done():
			return
		case <-over:
			over = nil
			g.exceed("engine_time", "was not ready after %v: it hangs, or ENGINE_TIME_LIMIT is too short for this host", limit)
		case <-look.C:
		}
	}
}

// exceed notes the first limit that is passed.
func (g *guard) exceed(code, format string, args ...any) {
	g.once.Do(func() {
		g.reason.Store(failf(code, phases.Retryable, "engine %s %s; killed with all that it started", g.name, fmt.Sprintf(format, args...)))
		close(g.exceeded)
	})
}

// over is closed when a limit is passed.
func (g *guard) over() <-chan struct{} {
	if g == nil {
		return nil
	}
	return g.exceeded
}

// err returns the limit that was passed, or nil.
func (g *guard) err() *Error {
	if g == nil {
		return nil
	}
	return g.reason.Load()
}

// wrote counts output.
func (g *guard) wrote(n int) {
	if g == nil {
		return
	}
	if g.output.Add(int64(n)) > g.limits.output() {
		g.exceed("engine_output", "wrote more than %s to stdout and stderr", humanize.IBytes(uint64(g.limits.output())))
	}
}

// reader counts what is read; it ends where the limit is passed.
func (g *guard) reader(r io.Reader) io.Reader {
	if g == nil {
		return r
	}
	return &guardedReader{r, g}
}

type guardedReader struct {
	io.Reader
	guard *guard
}

// Read ends at the limit, so that a flood is not worked through while its writer dies.
func (r *guardedReader) Read(p []byte) (int, error) {
	if r.guard.err() != nil {
		return 0, io.EOF
	}
	n, err := r.Reader.Read(p)
	r.guard.wrote(n)
	return n, err
}

// end stops watching and kills what had left the group. The group itself must be dead.
func (g *guard) end() {
	if g == nil || g.stop == nil {
		return
	}
	g.stop()
	<-g.done
	for pid, started := range g.members {
		killProcess(pid, started)
	}
}

// killProcess kills a process if it is still the one that started then: the descriptor
// holds on to it while its start is read.
func killProcess(pid int, started uint64) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return // gone
	}
	defer func() { _ = unix.Close(fd) }()
	if s, ok := readStat(pid); ok && s.started == started {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // gone is as good
	}
}

// look finds the processes that belong to the program and returns their memory in bytes.
func (g *guard) look(leader int) int64 {
	dir, err := os.Open("/proc")
	if err != nil {
		return 0
	}
	names, err := dir.Readdirnames(-1)
	dir.Close()
	if err != nil {
		return 0
	}
	stats := map[int]procStat{}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if s, ok := readStat(pid); ok {
			stats[pid] = s
		}
	}
	belongs := map[int]bool{}
	for pid, s := range stats {
		if started, seen := g.members[pid]; pid == leader || s.group == leader || seen && started == s.started {
			belongs[pid] = true
		}
	}
	for grown := true; grown; { // children may have any numbers
		grown = false
		for pid, s := range stats {
			if !belongs[pid] && belongs[s.parent] {
				belongs[pid], grown = true, true
			}
		}
	}
	var used int64
	for pid := range belongs {
		g.members[pid] = stats[pid].started
		if data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status")); err == nil {
			used += (statusKiB(data, "RssAnon:") + statusKiB(data, "RssShmem:") + statusKiB(data, "VmSwap:")) << 10
		}
	}
	return used
}

// procStat is what /proc/PID/stat tells of a process's relations.
type procStat struct {
	parent, group int
	started       uint64 // clock ticks since boot
}

func readStat(pid int) (s procStat, ok bool) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return s, false
	}
	// The name before may hold blanks and brackets.
	f := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(f) < 20 {
		return s, false
	}
	var errs [3]error
	s.parent, errs[0] = strconv.Atoi(f[1])
	s.group, errs[1] = strconv.Atoi(f[2])
	s.started, errs[2] = strconv.ParseUint(f[19], 10, 64)
	return s, errs == [3]error{}
}

// statusKiB returns a value that a file of /proc gives in kB, 0 if it isn't there.
func statusKiB(data []byte, name string) int64 {
	for line := range bytes.Lines(data) {
		if rest, found := bytes.CutPrefix(line, []byte(name)); found {
			n, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(string(rest)), "kB")), 10, 64)
			return n
		}
	}
	return 0
}
