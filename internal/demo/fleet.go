// Package demo runs a whole fleet on one machine in a directory of its own: a dispatcher
// with its embedded NATS server and any number of consumers, each a real process with
// real files. The demo shows one sector's way through it; the end-to-end tests use it to
// break things.
package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"sealfleet/internal/bus"
)

// Fleet is a dispatcher and its consumers below one directory.
type Fleet struct {
	Dir string   // state, the sealing share, storage nodes and logs lie in it
	Bin string   // directory with the programs dispatcher and consumer
	Env []string // added to every process's environment

	mu    sync.Mutex
	procs []*Process
}

// State is the directory of what the programs remember.
func (f *Fleet) State() string { return filepath.Join(f.Dir, "state") }

// Sealer is the directory that the consumers seal in.
func (f *Fleet) Sealer() string { return filepath.Join(f.Dir, "sealer") }

// Node is the directory of a storage node.
func (f *Fleet) Node(name string) string { return filepath.Join(f.Dir, "nodes", name) }

func (f *Fleet) logPath(name string) string { return filepath.Join(f.Dir, name+".log") }

// Prepare makes the directories.
func (f *Fleet) Prepare(nodes ...string) error {
	dirs := []string{f.State(), f.Sealer()}
	for _, n := range nodes {
		dirs = append(dirs, f.Node(n))
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// Process is a running program of the fleet.
type Process struct {
	Name string
	cmd  *exec.Cmd
	done chan struct{}
	err  error // valid when done is closed
	log  string
}

// environment is that of this process without what would set up a daemon, and with what
// the fleet says.
func (f *Fleet) environment(more []string) []string {
	var env []string
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		keep := slices.Contains([]string{"PATH", "HOME", "USER", "TMPDIR", "LANG", "TZ", "TERM", "GOCOVERDIR", "FIL_PROOFS_PARAMETER_CACHE", "BELLMAN_PROOF_THREADS"}, name)
		if keep {
			env = append(env, e)
		}
	}
	env = append(env, "STATE_DIR="+f.State(), "HTTP_LISTEN=off", "LOG_FORMAT=text", "LOG_LEVEL=DEBUG")
	return append(append(env, f.Env...), more...)
}

// Dispatcher starts a dispatcher. It listens on a free port, which others find in State.
func (f *Fleet) Dispatcher(name string, env ...string) (*Process, error) {
	return f.start(name, "dispatcher", append([]string{"DISPATCHER_NAME=" + name, "SERVER_LISTEN=127.0.0.1:0"}, env...))
}

// Consumer starts a consumer with the given slots.
func (f *Fleet) Consumer(name, workers string, env ...string) (*Process, error) {
	return f.start(name, "consumer", append([]string{"HOST_NAME=" + name, "IP=127.0.0.1", "WORKERS=" + workers, "LOCAL_DIR=" + f.Sealer()}, env...))
}

func (f *Fleet) start(name, program string, env []string) (*Process, error) {
	log, err := os.OpenFile(f.logPath(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &Process{Name: name, done: make(chan struct{}), log: log.Name()}
	p.cmd = exec.Command(filepath.Join(f.Bin, program), "serve")
	p.cmd.Env = f.environment(env)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// Ctrl-C in a terminal goes to the whole group; the fleet is stopped in order instead.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	go func() { p.err = p.cmd.Wait(); close(p.done) }()
	f.mu.Lock()
	f.procs = append(f.procs, p)
	f.mu.Unlock()
	return p, nil
}

// Signal sends a signal to the process.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Pid is the process's id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// ExitCode is the program's; call it when it has ended.
func (p *Process) ExitCode() int { return p.cmd.ProcessState.ExitCode() }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Stop ends the process gently, and by force after the patience.
func (p *Process) Stop(patience time.Duration) error {
	_ = p.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
	case <-time.After(patience):
		_ = p.Signal(syscall.SIGKILL)
		<-p.done
		return fmt.Errorf("%s did not stop within %v", p.Name, patience)
	}
	if p.err != nil {
		return fmt.Errorf("%s: %w", p.Name, p.err)
	}
	return nil
}

// Stop ends all processes, the last started first.
func (f *Fleet) Stop(patience time.Duration) error {
	f.mu.Lock()
	procs := f.procs
	f.procs = nil
	f.mu.Unlock()
	var errs []error
	for _, p := range slices.Backward(procs) {
		errs = append(errs, p.Stop(patience))
	}
	return errors.Join(errs...)
}

// Forget leaves a process that was meant to end out of Stop and Ended.
func (f *Fleet) Forget(p *Process) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.procs = slices.DeleteFunc(f.procs, func(q *Process) bool { return q == p })
}

// Process returns the last started program of a name that was not forgotten, or nil.
func (f *Fleet) Process(name string) *Process {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range slices.Backward(f.procs) {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// Log returns what the programs of one name have logged.
func (f *Fleet) Log(name string) string {
	data, err := os.ReadFile(f.logPath(name))
	if err != nil {
		return ""
	}
	return string(data)
}

// Ended returns an error if one of the processes has ended by itself.
func (f *Fleet) Ended() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.procs {
		select {
		case <-p.done:
			return fmt.Errorf("%s has ended: %v", p.Name, p.err)
		default:
		}
	}
	return nil
}

// Tails returns the end of each process's log.
func (f *Fleet) Tails(size int) string {
	var text strings.Builder
	logs, err := filepath.Glob(filepath.Join(f.Dir, "*.log"))
	if err != nil {
		return ""
	}
	for _, path := range logs {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		fmt.Fprintf(&text, "--- %s\n%s\n", filepath.Base(path), bytes.TrimSpace(data[max(0, len(data)-size):]))
	}
	return text.String()
}

// Run runs a verb of dispatcher or consumer and returns its output. The error has what it
// wrote to stderr.
func (f *Fleet) Run(ctx context.Context, program string, args ...string) (stdout string, err error) {
	cmd := exec.CommandContext(ctx, filepath.Join(f.Bin, program), args...)
	cmd.Env = f.environment([]string{"LOG_LEVEL=WARN"})
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, bytes.TrimSpace(errOut.Bytes()))
	}
	return out.String(), nil
}

// Connect connects to the fleet's bus as an operator, waiting for the dispatcher to be up
// and all its streams and consumers to be there.
func (f *Fleet) Connect(ctx context.Context) (*bus.Bus, error) {
	b, err := bus.Connect(ctx, bus.Config{StateDir: f.State(), AckWait: 2 * time.Minute}, "dispatcher-demo", slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, errors.Join(err, f.Ended())
	}
	for {
		changes, err := b.Plan(ctx, []string{"group1"})
		if err != nil {
			b.Close()
			return nil, err
		}
		// The dispatcher makes one after the other: the last one must be there too.
		if !slices.ContainsFunc(changes, func(c bus.Change) bool { return c.Action == bus.ActionCreate }) {
			return b, nil
		}
		if err := f.Ended(); err != nil {
			b.Close()
			return nil, err
		}
		select {
		case <-ctx.Done():
			b.Close()
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}
