package chaos

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a program of the fleet under a supervisor, as systemd would be: whenever it
// ends it is started again after a moment, until the run is over.
type process struct {
	name string
	path string
	args []string
	env  func() []string // of the next start
	dir  string          // of its log
	kind string

	// One fault at a time has the process, and one its clock.
	fault, setting sync.Mutex
	clock          time.Duration // how far it is off for good; guarded by setting

	mu     sync.Mutex
	cmd    *exec.Cmd
	ended  chan struct{} // of the running program; closed when it has ended
	away   bool          // a fault keeps it from being started
	over   bool
	starts int
	// exits tells how it ended when nobody had killed it.
	exits  []string
	killed bool // by us, this time
}

// restartAfter is how long the supervisor waits.
const restartAfter = 300 * time.Millisecond

func (p *process) logPath() string { return filepath.Join(p.dir, p.name+".log") }

// start starts the program and keeps it running.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.startLocked()
}

func (p *process) startLocked() error {
	log, err := os.OpenFile(p.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	if _, err := os.Stat(p.clockPath()); err != nil {
		if err := p.setClock(0); err != nil {
			return err
		}
	}
	cmd := exec.Command(p.path, p.args...)
	cmd.Env = append(append(plainEnvironment(), p.env()...), skewVariable+"="+p.clockPath())
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.starts++
	p.cmd, p.killed, p.ended = cmd, false, make(chan struct{})
	ended := p.ended
	go func() {
		err := cmd.Wait()
		p.mu.Lock()
		if !p.killed {
			p.exits = append(p.exits, fmt.Sprint(err))
		}
		p.mu.Unlock()
		close(ended)
		time.Sleep(restartAfter) // the supervisor's pause, and no wait for anything
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.over && !p.away && p.ended == ended {
			if err := p.startLocked(); err != nil {
				p.exits = append(p.exits, err.Error())
			}
		}
	}()
	return nil
}

// plainEnvironment is this process's environment without what would set up a daemon.
func plainEnvironment() []string {
	var env []string
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		if slices.Contains([]string{"PATH", "HOME", "USER", "TMPDIR", "LANG", "TZ", "GOCOVERDIR"}, name) {
			env = append(env, e)
		}
	}
	return env
}

func (p *process) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s == syscall.SIGKILL || s == syscall.SIGTERM {
		p.killed = true
	}
	select {
	case <-p.ended:
	default:
		_ = p.cmd.Process.Signal(s) // it may have ended this moment
	}
}

// crash kills the program as a power cut would, and keeps it away for a while.
func (p *process) crash(away time.Duration) error { return p.end(syscall.SIGKILL, away) }

// end ends the program by a signal, and keeps it away for a while.
func (p *process) end(s syscall.Signal, away time.Duration) error {
	p.mu.Lock()
	p.away = true
	ended := p.ended
	p.mu.Unlock()
	p.signal(s)
	select {
	case <-ended:
	case <-time.After(gentle):
		p.signal(syscall.SIGKILL)
		<-ended
	}
	time.Sleep(away) // what the fault is about
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = false
	if p.over {
		return nil
	}
	return p.startLocked()
}

// gentle is how long SIGTERM may take.
const gentle = 20 * time.Second

// stop ends the program for good, gently first. The error tells that it had to be killed.
func (p *process) stop() error {
	p.mu.Lock()
	p.over = true
	ended := p.ended
	p.mu.Unlock()
	if ended == nil {
		return nil
	}
	p.signal(syscall.SIGCONT)
	p.signal(syscall.SIGTERM)
	select {
	case <-ended:
		return nil
	case <-time.After(gentle):
		p.signal(syscall.SIGKILL)
		<-ended
		return fmt.Errorf("%s did not stop within %v", p.name, gentle)
	}
}

// panics returns what its log says of a panic or of a fatal error of the runtime.
func (p *process) panics() error {
	data, err := os.ReadFile(p.logPath())
	if err != nil {
		return err
	}
	text := string(data)
	for _, word := range []string{"panic:", "fatal error:", "WARNING: DATA RACE", "unexpected fault address"} {
		if i := strings.Index(text, word); i >= 0 {
			return errors.New(p.name + ": " + text[max(0, i-200):min(len(text), i+3000)])
		}
	}
	return nil
}

// processesOf returns the ids of living processes whose environment has a text and whose
// command line has a word; an empty word is in every one.
func processesOf(environ, word string) (pids []int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is right
	for _, dir := range dirs {
		env, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err != nil || !strings.Contains(string(env), environ) {
			continue // ended, or somebody else's
		}
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || !strings.Contains(string(line), word) {
			continue
		}
		var pid int
		if _, err := fmt.Sscan(filepath.Base(dir), &pid); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func commandLine(pid int) string {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return err.Error()
	}
	return strings.ReplaceAll(string(line), "\x00", " ")
}
