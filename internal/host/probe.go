package host

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A hung mount puts whoever touches it into uninterruptible sleep, and a process that has a
// thread there may not even be killed. So places are only looked at by a helper: a child
// process that reads a Place as JSON from stdin and writes its findings, one JSON object
// on a line, as it makes them, and last a line {"code":"end"}. If it does not end in
// time it is killed, and if it can't be killed it is left behind; as long as one is left
// behind for a path, no other is sent after it.

const endOfProbe = "end"

// ServeProbe is the helper. It returns the exit code.
func ServeProbe(in io.Reader, out io.Writer) int {
	var p Place
	if err := json.NewDecoder(in).Decode(&p); err != nil {
		fmt.Fprintln(out, "not a place:", err)
		return 2
	}
	enc := json.NewEncoder(out)
	p.check(func(f Finding) { _ = enc.Encode(f) }) // nobody reads any more: it will be killed
	if enc.Encode(Finding{Code: endOfProbe}) != nil {
		return 1
	}
	return 0
}

// Prober sends helpers.
type Prober struct {
	Path string   // of the program
	Args []string // that make it call ServeProbe
	Env  []string // its whole environment

	mu   sync.Mutex
	lost map[string]time.Time // path → since when a helper is stuck there
}

// reapWithin is how long a killed helper has to go away before it is left behind.
const reapWithin = 200 * time.Millisecond

// Look sends a helper to a place, and waits for it until ctx is done or within has passed.
func (p *Prober) Look(ctx context.Context, place Place, within time.Duration) []Finding {
	if since, stuck := p.stuck(place.Path); stuck {
		return []Finding{hung(place, fmt.Sprintf("a helper that looked at it at %s is still stuck there", since.Format(time.TimeOnly)))}
	}
	request, err := json.Marshal(place)
	if err != nil {
		return []Finding{probeFailed(place, err.Error())}
	}
	cmd := exec.Command(p.Path, p.Args...)
	cmd.Env = p.Env
	cmd.Stdin = bytes.NewReader(request)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var said tail
	cmd.Stderr = &said
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return []Finding{probeFailed(place, err.Error())}
	}
	// Copying its stderr must not keep us waiting for somebody who has it open.
	cmd.WaitDelay = reapWithin
	if err := cmd.Start(); err != nil {
		return []Finding{probeFailed(place, err.Error())}
	}
	lines := make(chan Finding)
	over := make(chan struct{}) // nobody listens any more
	ended := make(chan error, 1)
	go func() {
		readFindings(stdout, lines, over)
		ended <- cmd.Wait()
	}()
	defer close(over)

	timer := time.NewTimer(within)
	defer timer.Stop()
	var list []Finding
	for complete := false; ; {
		select {
		case f := <-lines:
			if f.Code == endOfProbe {
				complete = true
			} else {
				list = append(list, f)
			}
		case err := <-ended:
			if !complete {
				list = append(list, probeFailed(place, fmt.Sprintf("the helper ended early: %v %s", err, said.String())))
			}
			return list
		case <-timer.C:
			p.abandon(cmd, place.Path, ended)
			return append(list, hung(place, fmt.Sprintf("no answer within %s", within)))
		case <-ctx.Done():
			p.abandon(cmd, place.Path, ended)
			return append(list, probeFailed(place, context.Cause(ctx).Error()))
		}
	}
}

// abandon kills a helper. One that does not go away is remembered until it does.
func (p *Prober) abandon(cmd *exec.Cmd, path string, ended <-chan error) {
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it may just have ended
	timer := time.NewTimer(reapWithin)
	defer timer.Stop()
	select {
	case <-ended: // how does not matter: it was killed
		return
	case <-timer.C:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lost == nil {
		p.lost = map[string]time.Time{}
	}
	p.lost[path] = time.Now()
	go func() {
		<-ended
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.lost, path)
	}()
}

func (p *Prober) stuck(path string) (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	since, stuck := p.lost[path]
	return since, stuck
}

func readFindings(r io.Reader, lines chan<- Finding, over <-chan struct{}) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var f Finding
		if json.Unmarshal(s.Bytes(), &f) != nil || f.Code == "" {
			continue // its end will be missing
		}
		select {
		case lines <- f:
		case <-over:
			return
		}
	}
}

func hung(p Place, why string) Finding {
	// Only the table of mounts is read here: nothing that could hang.
	from := p.Path
	if list, err := Mounts(); err == nil {
		if m, found := mountOf(list, p.Path); found {
			from = fmt.Sprintf("%s (%s)", p.Path, m)
		}
	}
	return found("path_hung", Refuse, p.Subject, "see that the exporting host or the disk is up (dmesg); then umount -l "+p.Path+" && mount "+p.Path,
		"%s: hung mount or stale handle: %s", from, why)
}

func probeFailed(p Place, why string) Finding {
	return found("probe_failed", Warn, p.Subject, "run consumer doctor as the service's user, and look at its log", "%s could not be looked at: %s", p.Path, strings.TrimSpace(why))
}

// tail keeps the beginning of what a helper complains of.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(data []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if room := 500 - len(t.b); room > 0 {
		t.b = append(t.b, data[:min(room, len(data))]...)
	}
	return len(data), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
