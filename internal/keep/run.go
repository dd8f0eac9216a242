package keep

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sealfleet/internal/engine"
	"sealfleet/internal/host"
	"sealfleet/internal/phases"
)

// Program starts a keeper: its arguments are followed by the job's directory.
type Program struct {
	Path string
	Args []string
	// OrphanLimit is how long a keeper goes on without a consumer.
	OrphanLimit time.Duration
	// Grace is how long a keeper has to stop its engine when told to, before it is killed
	// with it. 0 stands for 10 seconds.
	Grace time.Duration
}

func (p Program) grace() time.Duration {
	if p.Grace > 0 {
		return p.Grace
	}
	return 10 * time.Second
}

// child is a keeper that this process started.
type child struct {
	cmd      *exec.Cmd
	progress *os.File
}

// Start has a keeper do the phase. pinErr tells that the kernel does not let it keep to
// its cores; it runs all the same.
func (k *Kept) Start(p Program, r engine.Request) (pinErr, err error) {
	if err := k.write(requestFile, order{Request: r, OrphanLimit: p.OrphanLimit}); err != nil {
		return nil, err
	}
	for _, name := range []string{progressFifo, controlFifo} {
		if err := unix.Mkfifo(k.path(name), 0o600); err != nil {
			return nil, fmt.Errorf("journal: cannot make a FIFO in %s: %w; STATE_DIR must be on a local disk", k.dir, err)
		}
	}
	// The keeper inherits the writing end: from its first moment to its last the FIFO has a
	// writer. It can read too, so that writing never fails for want of a reader.
	theirs, err := os.OpenFile(k.path(progressFifo), os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	defer theirs.Close()
	ours, err := k.openProgress()
	if err != nil {
		return nil, err
	}
	said, err := os.OpenFile(k.path(stderrFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("journal: %w", err), ours.Close())
	}
	defer said.Close()
	cmd := exec.Command(p.Path, append(append([]string(nil), p.Args...), k.dir)...)
	cmd.Stderr, cmd.ExtraFiles = said, []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // signals of our group, or terminal, are not for it
	pinErr, err = host.StartOn(r.Cores, cmd.Start)
	if err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	k.child = &child{cmd: cmd, progress: ours}
	return pinErr, nil
}

func (k *Kept) openProgress() (*os.File, error) {
	f, err := os.OpenFile(k.path(progressFifo), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return f, nil
}

// ErrStopped is the outcome of a keeper that was told to stop, that found no consumer any
// more, or that ended with its machine: nothing failed, and checkpoints are kept.
var ErrStopped = errors.New("the phase was stopped before its end")

// Wait follows the keeper to its end and returns the outcome: an *engine.Error, ErrStopped,
// or ctx's cause. When ctx is done the keeper is told to stop, and after the grace killed
// with all that it started: when Wait returns nothing of the phase runs any more. It may
// be called for a keeper that a consumer before this one started, alive or not.
func (k *Kept) Wait(ctx context.Context, p Program, progress func(engine.Progress)) (r engine.Result, took time.Duration, err error) {
	fifo := (*os.File)(nil)
	if k.child != nil {
		fifo = k.child.progress
	} else if fifo, err = k.openProgress(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return r, 0, err
	}
	ended := make(chan struct{})
	if fifo == nil { // no keeper was started
		close(ended)
	} else {
		defer fifo.Close()
		go func() {
			defer close(ended)
			lines := bufio.NewScanner(fifo)
			for lines.Scan() {
				var at engine.Progress
				if json.Unmarshal(lines.Bytes(), &at) == nil && progress != nil {
					progress(at)
				}
			}
		}()
	}
	select {
	case <-ended:
	case <-ctx.Done():
		k.signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(p.grace()):
			k.signal(syscall.SIGKILL)
		}
	}
	k.killEngine()
	<-ended
	state := k.reap()
	if ctx.Err() != nil {
		return r, 0, context.Cause(ctx)
	}
	return k.outcome(state)
}

// outcome reads what the keeper left, and says what it is if there is nothing.
func (k *Kept) outcome(state *os.ProcessState) (r engine.Result, took time.Duration, err error) {
	var o outcome
	err = k.read(resultFile, &o)
	took = time.Duration(o.Seconds * float64(time.Second))
	switch {
	case err == nil && o.Result != nil:
		return *o.Result, took, nil
	case err == nil && o.Error != nil:
		return r, took, o.Error
	case err == nil && o.Stopped != "":
		return r, took, fmt.Errorf("%w: %s", ErrStopped, o.Stopped)
	case state == nil && (k.Rebooted() || !k.Started()):
		return r, 0, fmt.Errorf("%w: the machine, or the consumer, ended", ErrStopped)
	}
	said := k.said()
	if said != "" {
		said = "; it said last: " + said
	}
	fail := func(code, format string, args ...any) error {
		return &engine.Error{Code: code, Class: phases.Retryable, Message: fmt.Sprintf(format, args...) + said}
	}
	if state == nil {
		return r, 0, fail("engine_no_result", "the phase's keeper ended without a result while no consumer watched")
	}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return r, 0, fail("engine_signal", "the phase's process was killed by signal %d (%v): short of memory? (see dmesg)", status.Signal(), status.Signal())
	}
	if code := state.ExitCode(); code != 0 {
		return r, 0, fail("engine_exit", "the phase's process ended with exit code %d", code)
	}
	return r, 0, fail("engine_no_result", "the phase's process ended without a result")
}

// Limit tells a running p5 its new share, in bytes per second. A keeper that has ended
// needs none.
func (k *Kept) Limit(bytesPerSec int64) error {
	f, err := os.OpenFile(k.path(controlFifo), os.O_WRONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ENXIO) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	data, err := json.Marshal(control{CopyBytesPerSec: bytesPerSec})
	if err == nil {
		_, err = f.Write(append(data, '\n'))
	}
	return errors.Join(err, f.Close())
}

// control is a line to a keeper.
type control struct {
	CopyBytesPerSec int64 `json:"copy_bytes_per_sec"`
}

// signal sends to the keeper, and a SIGKILL to all of its session's group.
func (k *Kept) signal(s syscall.Signal) {
	pid := k.running(pidFile)
	if k.child != nil {
		pid = k.child.cmd.Process.Pid // not reaped yet: it can't be anybody else's
	}
	if pid == 0 {
		return
	}
	if s == syscall.SIGKILL {
		k.killEngine()
		_ = syscall.Kill(-pid, s) // its group, which it leads
	}
	_ = syscall.Kill(pid, s) // nobody left is as good
}

// killEngine kills what the keeper's engine may have left, and waits for its end. A
// process that hangs in the kernel (a dead mount) can't be waited for: not longer than
// killWait.
func (k *Kept) killEngine() {
	group := k.running(engineFile)
	if group == 0 {
		return
	}
	fd, err := unix.PidfdOpen(group, 0)
	if err != nil {
		return // it has ended
	}
	defer unix.Close(fd) //nolint:errcheck // only read
	_ = syscall.Kill(-group, syscall.SIGKILL)
	until := time.Now().Add(killWait)
	for {
		ms := int(time.Until(until).Milliseconds())
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, max(ms, 0))
		if !errors.Is(err, unix.EINTR) || n > 0 || ms <= 0 {
			return
		}
	}
}

const killWait = 10 * time.Second

// running returns the process that a file names, 0 if it has ended: another one with its
// number has another start time.
func (k *Kept) running(name string) int {
	data, err := os.ReadFile(k.path(name))
	if err != nil {
		return 0
	}
	number, started, _ := strings.Cut(strings.TrimSpace(string(data)), " ")
	pid, err := strconv.Atoi(number)
	if err != nil || pid < 2 || startTime(pid) != started {
		return 0
	}
	return pid
}

func (k *Kept) reap() *os.ProcessState {
	if k.child == nil {
		return nil
	}
	_ = k.child.cmd.Wait() // the state says it all
	return k.child.cmd.ProcessState
}

const saidSize = 1000

// said is the end of what keeper and engine said.
func (k *Kept) said() string {
	f, err := os.Open(k.path(stderrFile))
	if err != nil {
		return ""
	}
	defer f.Close()
	buf := make([]byte, saidSize)
	if info, err := f.Stat(); err == nil && info.Size() > saidSize {
		_, _ = f.Seek(-saidSize, 2)
	}
	n, _ := f.Read(buf)
	return strings.TrimSpace(strings.ToValidUTF8(string(buf[:n]), "?"))
}

// startTime is when a process started, in the kernel's ticks; empty if it has ended, or
// is a zombie.
func startTime(pid int) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The name, in brackets, may hold anything.
	at := strings.LastIndexByte(string(data), ')')
	fields := strings.Fields(string(data)[at+1:])
	const state, start = 0, 19 // fields 3 and 22 of proc(5)
	if len(fields) <= start || fields[state] == "Z" {
		return ""
	}
	return fields[start]
}

func writeProcess(path string, pid int) error {
	return os.WriteFile(path, []byte(fmt.Sprintf("%d %s\n", pid, startTime(pid))), 0o600)
}
