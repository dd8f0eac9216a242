package engine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sealfleet/internal/host"
	"sealfleet/internal/phases"
)

// Command is an engine in a child process.
type Command struct {
	Path string
	Name string // in messages; empty: the path
	Args []string
	Env  []string // added to this process's environment
	// Grace is how long the group has between SIGTERM and SIGKILL, and how long an engine
	// may take to end after its last line. 0 stands for 5 seconds.
	Grace time.Duration
	Log   *slog.Logger // the engine's stderr, at debug; may be nil
	// Killed, if set, is called when a child had to be killed, with the reason.
	Killed func(reason string)
	// Started, if set, is told the process group of the program as soon as it runs.
	Started func(group int)
	// Limits, if set, are enforced: who passes one is killed, with an error that says which.
	Limits *Limits
	// Scratch, if set, is told to the engine as a directory that it may make and use; the
	// caller removes it.
	Scratch string
}

// Run starts the program, speaks the protocol with it and waits for its end. When ctx is
// done its process group gets SIGTERM and, after the grace, SIGKILL.
func (c *Command) Run(ctx context.Context, r Request, progress func(Progress)) (Result, error) {
	if err := r.check(); err != nil {
		return Result{}, err
	}
	request, err := c.marshal(r)
	if err != nil {
		return Result{}, failf("bad_request", phases.Permanent, "%v", err)
	}
	if err := ctx.Err(); err != nil {
		return Result{}, context.Cause(ctx)
	}
	ch, err := c.start(r.Phase, r.Cores)
	if err != nil {
		return Result{}, failf("engine_start", phases.Retryable, "cannot start engine %s: %v", c.name(), err)
	}
	defer ch.close()

	go ch.talk(append(request, '\n'), r.Limits)
	heard := make(chan verdict, 1)
	ended := make(chan struct{})
	go func() { heard <- listen(ch.guard.reader(lastWords{ch.stdout}), progress) }()
	go func() { ch.waitUnreaped(); close(ended) }()

	v, gotVerdict := verdict{}, false
	var why string // we killed it
	var grace <-chan time.Time
	done, over := ctx.Done(), ch.guard.over()
	for running := true; running; {
		select {
		case <-ended:
			running = false
		case v = <-heard:
			gotVerdict, heard = true, nil
			if v.bad != nil && why == "" {
				why = "protocol"
				ch.signal(syscall.SIGKILL)
			} else if grace == nil {
				grace = time.After(c.grace()) // it must end now
			}
		case <-done:
			done = nil
			why = "cancelled"
			ch.signal(syscall.SIGTERM)
			grace = time.After(c.grace())
		case <-grace:
			grace = nil
			if why == "" {
				why = "hung"
			}
			ch.signal(syscall.SIGKILL)
		case <-over:
			over = nil
			why = "limit"
			ch.signal(syscall.SIGKILL)
		}
	}
	// The leader has ended but is not reaped, so its id can't belong to anybody else yet:
	// what is left of its group dies now.
	ch.signal(syscall.SIGKILL)
	if !gotVerdict {
		// All that it will ever say is in the pipe by now. Its end may not be: a descendant
		// that left the group may still hold the pipe open.
		_ = ch.stdout.SetReadDeadline(time.Now())
		v = <-heard
	}
	state := ch.reap()
	ch.guard.end()
	if why != "" && c.Killed != nil {
		c.Killed(why)
	}
	if ctx.Err() != nil && (why == "cancelled" || v.result == nil) {
		return Result{}, context.Cause(ctx)
	}
	if passed := ch.guard.err(); passed != nil {
		return Result{}, passed
	}
	return c.judge(v, state, why, ch.stderr.tail())
}

func (c *Command) grace() time.Duration {
	if c.Grace > 0 {
		return c.Grace
	}
	return 5 * time.Second
}

func (c *Command) name() string {
	if c.Name != "" {
		return c.Name
	}
	return c.Path
}

// judge decides what the engine's words and its end come to.
func (c *Command) judge(v verdict, state *os.ProcessState, why, said string) (Result, error) {
	if said != "" {
		said = "; it said last: " + said
	}
	status, _ := state.Sys().(syscall.WaitStatus)
	switch {
	case v.bad != nil:
		return Result{}, failf("engine_garbage", phases.Retryable, "engine %s does not keep to the protocol: %v%s", c.name(), v.bad, said)
	case v.err != nil:
		return Result{}, v.err
	case why == "hung":
		return Result{}, failf("engine_hung", phases.Retryable, "engine %s closed its output or gave its result, but did not end within %v%s", c.name(), c.grace(), said)
	case status.Signaled():
		return Result{}, failf("engine_signal", phases.Retryable,
			"engine %s was killed by signal %d (%v): short of memory? (see dmesg)%s", c.name(), status.Signal(), status.Signal(), said)
	case status.ExitStatus() != 0:
		return Result{}, failf("engine_exit", phases.Retryable, "engine %s ended with exit code %d%s", c.name(), status.ExitStatus(), said)
	case v.result == nil:
		return Result{}, failf("engine_no_result", phases.Retryable, "engine %s ended with exit code 0 but without a result%s", c.name(), said)
	}
	return *v.result, nil
}

// child is a running engine.
type child struct {
	cmd    *exec.Cmd
	stdin  *os.File // our ends
	stdout *os.File
	stderr *tailWriter
	over   chan struct{} // closed when nobody listens to talk any more
	guard  *guard        // nil: no limits
}

func (c *Command) start(p phases.Step, cores []int) (*child, error) {
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, inR.Close(), inW.Close())
	}
	g := c.newGuard(p)
	ch := &child{stdin: inW, stdout: outR, stderr: &tailWriter{log: c.Log, wrote: g.wrote}, over: make(chan struct{}), guard: g}
	ch.cmd = exec.Command(c.Path, c.Args...)
	ch.cmd.Env = append(os.Environ(), c.Env...)
	ch.cmd.Stdin, ch.cmd.Stdout, ch.cmd.Stderr = inR, outW, ch.stderr
	ch.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	ch.cmd.WaitDelay = time.Second // for a descendant that left the group with our stderr
	pinErr, err := host.StartOn(cores, ch.cmd.Start)
	if pinErr != nil && c.Log != nil {
		c.Log.Warn("the kernel does not let an engine keep to its cores", "cores", cores, "error", pinErr)
	}
	inR.Close()
	outW.Close()
	if err != nil {
		ch.close()
		return nil, err
	}
	if c.Started != nil {
		c.Started(ch.cmd.Process.Pid)
	}
	g.watch(ch.cmd.Process.Pid)
	return ch, nil
}

// signal sends to the whole group. It must not be called once the leader is reaped.
func (ch *child) signal(s syscall.Signal) {
	_ = syscall.Kill(-ch.cmd.Process.Pid, s) // nobody left is as good
}

// waitUnreaped blocks until the leader has ended and leaves it a zombie.
func (ch *child) waitUnreaped() {
	for {
		err := unix.Waitid(unix.P_PID, ch.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

func (ch *child) reap() *os.ProcessState {
	_ = ch.cmd.Wait() // the state says it all
	return ch.cmd.ProcessState
}

func (ch *child) close() {
	close(ch.over)
	ch.stdout.Close()
	ch.stdin.Close()
}

// talk writes the request and then the controls, and leaves stdin open.
func (ch *child) talk(request []byte, limits <-chan int64) {
	if _, err := ch.stdin.Write(request); err != nil {
		return // it ended; its state will tell why
	}
	for {
		var n int64
		select {
		case n = <-limits:
		case <-ch.over:
			return
		}
		data, err := json.Marshal(control{Type: "limit", CopyBytesPerSec: n})
		if err != nil {
			return
		}
		if _, err := ch.stdin.Write(append(data, '\n')); err != nil {
			return
		}
	}
}

// lastWords reads a pipe. Once the deadline is over it still reads what is in the pipe,
// however late this process gets round to it (with hundreds of children that may be
// seconds), but waits for nothing more.
type lastWords struct{ *os.File }

func (l lastWords) Read(p []byte) (n int, err error) {
	n, err = l.File.Read(p)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return n, err
	}
	raw, err := l.File.SyscallConn()
	if err != nil {
		return 0, err
	}
	var readErr error
	// The pipe is non-blocking, as all that the runtime polls.
	if err := raw.Control(func(fd uintptr) { n, readErr = unix.Read(int(fd), p) }); err != nil {
		return 0, err
	}
	if n <= 0 || readErr != nil {
		return 0, io.EOF // empty
	}
	return n, nil
}

// verdict is what an engine said.
type verdict struct {
	result *Result
	err    *Error
	bad    error // it said something that is not of the protocol
}

// listen reads an engine's lines up to its last one, or the end.
func listen(r io.Reader, progress func(Progress)) verdict {
	lines := bufio.NewReaderSize(r, 64<<10)
	for {
		data, err := boundedLine(lines)
		switch {
		case errors.Is(err, errLongLine):
			return verdict{bad: err}
		case err != nil: // the end, or the deadline
			return verdict{}
		}
		var kind struct {
			Type string `json:"type"`
		}
		if err := json.Unmarshal(data, &kind); err != nil {
			return verdict{bad: fmt.Errorf("%q is not JSON: %w", shorten(data), err)}
		}
		switch kind.Type {
		case "progress":
			var p Progress
			if err := json.Unmarshal(data, &p); err != nil {
				return verdict{bad: fmt.Errorf("progress: %w", err)}
			}
			if progress != nil {
				progress(p)
			}
		case "result":
			var result Result
			if err := json.Unmarshal(data, &result); err != nil {
				return verdict{bad: fmt.Errorf("result: %w", err)}
			}
			return expectEnd(lines, verdict{result: &result})
		case "error":
			var e Error
			if err := json.Unmarshal(data, &e); err != nil {
				return verdict{bad: fmt.Errorf("error: %w", err)}
			}
			return verdict{err: asError(&e)}
		default:
			return verdict{bad: fmt.Errorf("a line of type %q", kind.Type)}
		}
	}
}

// expectEnd refuses a result that something was written after, as far as it is here by
// now: one who writes two results can't be believed in either.
func expectEnd(r *bufio.Reader, v verdict) verdict {
	if r.Buffered() == 0 {
		return v
	}
	rest, _ := r.Peek(r.Buffered())
	if len(bytes.TrimSpace(rest)) > 0 {
		return verdict{bad: fmt.Errorf("%q after its result", shorten(rest))}
	}
	return v
}

func shorten(data []byte) []byte { return data[:min(len(data), 120)] }

// tailWriter keeps the end of what an engine writes to stderr, and logs its lines.
type tailWriter struct {
	log   *slog.Logger
	wrote func(int) // counts the bytes
	mu    sync.Mutex
	kept  []byte
	part  []byte // of a line
}

const tailSize = 1000

// Write never fails: what people may read must not stop an engine.
func (w *tailWriter) Write(p []byte) (int, error) {
	w.wrote(len(p))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept = append(w.kept, p[max(0, len(p)-tailSize):]...)
	w.kept = w.kept[max(0, len(w.kept)-tailSize):]
	if w.log != nil {
		w.part = append(w.part, p...)
		for {
			text, rest, found := bytes.Cut(w.part, []byte{'\n'})
			if !found {
				break
			}
			w.log.Debug("engine", "says", string(text[:min(len(text), tailSize)]))
			w.part = append([]byte(nil), rest...)
		}
		if len(w.part) > tailSize {
			w.part = nil
		}
	}
	return len(p), nil
}

func (w *tailWriter) tail() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.TrimSpace(strings.ToValidUTF8(string(w.kept), "?"))
}
