package keep

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealfleet/internal/engine"
	"sealfleet/internal/phases"
)

const patience = 2 * time.Minute // for what must come; no test asserts time

// toy is the engine of this test's keepers. It says that it runs, and does as the file
// "plan" of the sector's cache says when that comes.
type toy struct{ started func(int) }

func (e toy) Run(ctx context.Context, r engine.Request, progress func(engine.Progress)) (engine.Result, error) {
	progress(engine.Progress{Step: "begun", Done: 1, Total: 2})
	switch r.Inputs["plan"] {
	case "fail":
		return engine.Result{}, &engine.Error{Code: "no_space", Class: phases.Transient, Message: "full"}
	case "panic":
		panic("by plan")
	case "exit":
		os.Exit(7)
	case "program": // a program in a group of its own that would go on for ever
		cmd := exec.Command("sleep", "1000")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			return engine.Result{}, err
		}
		e.started(cmd.Process.Pid)
		progress(engine.Progress{Step: "program", Done: uint64(cmd.Process.Pid), Total: 1 << 40})
		if r.Inputs["ignore"] != "" {
			_ = cmd.Wait()
		}
	}
	if r.Inputs["limits"] != "" {
		n := <-r.Limits
		return engine.Result{Bytes: n}, nil
	}
	if gate := r.Inputs["gate"]; gate != "" { // a FIFO: opening it waits for who lets us go on
		opened := make(chan struct{})
		go func() {
			if f, err := os.OpenFile(gate, os.O_RDONLY, 0); err == nil {
				f.Close()
			}
			close(opened)
		}()
		select {
		case <-opened:
		case <-ctx.Done():
			return engine.Result{}, context.Cause(ctx)
		}
	}
	return engine.Result{Outputs: map[string]string{"by": fmt.Sprint(os.Getpid())}}, nil
}

func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 3 && os.Args[1] == "keep":
		os.Exit(Serve(os.Args[2], func(started func(int)) (engine.Engine, error) { return toy{started}, nil }))
	case len(os.Args) == 4 && os.Args[1] == "consumer": // starts a keeper and dies
		os.Exit(mortal(os.Args[2], os.Args[3]))
	}
	os.Exit(m.Run())
}

func program() Program {
	return Program{Path: "/proc/self/exe", Args: []string{"keep"}, OrphanLimit: time.Hour, Grace: patience}
}

func request(inputs map[string]string) engine.Request {
	return engine.Request{V: engine.Version, Phase: phases.P1, Sector: "s-t01000-1", Inputs: inputs}
}

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func begin(t *testing.T, s *Store, claim string) *Kept {
	t.Helper()
	k, err := s.Begin(Job{Claim: claim, Reply: "reply", Task: phases.Task{Sector: "s-t01000-1", Step: phases.P1}, ClaimedAt: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func start(t *testing.T, k *Kept, p Program, inputs map[string]string) {
	t.Helper()
	if pinErr, err := k.Start(p, request(inputs)); err != nil || pinErr != nil {
		t.Fatal(err, pinErr)
	}
	t.Cleanup(func() { k.signal(syscall.SIGKILL) })
}

func gate(t *testing.T) (path string, open func()) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "gate")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, func() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
}

func TestOutcomes(t *testing.T) {
	s := open(t, t.TempDir())
	for i, c := range []struct{ plan, code string }{
		{"", ""}, {"fail", "no_space"}, {"panic", "panic"}, {"exit", "engine_exit"},
	} {
		k := begin(t, s, fmt.Sprint("claim", i))
		start(t, k, program(), map[string]string{"plan": c.plan})
		var seen []engine.Progress
		r, took, err := k.Wait(t.Context(), program(), func(p engine.Progress) { seen = append(seen, p) })
		var failure *engine.Error
		switch {
		case c.code == "" && (err != nil || r.Outputs["by"] == "" || took <= 0):
			t.Errorf("%q: %+v, %v, %v", c.plan, r, took, err)
		case c.code != "" && (!errors.As(err, &failure) || failure.Code != c.code):
			t.Errorf("%q: %v", c.plan, err)
		}
		if len(seen) != 1 || seen[0].Step != "begun" {
			t.Errorf("%q: progress %v", c.plan, seen)
		}
		if err := k.Forget(); err != nil {
			t.Fatal(err)
		}
	}
	if jobs, err := s.Jobs(); err != nil || len(jobs) != 0 {
		t.Fatalf("left in the journal: %v, %v", jobs, err)
	}
}

// mortal is a consumer that starts a keeper, hears that it runs, and is killed.
func mortal(dir, gatePath string) int {
	s, err := Open(dir)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	k, err := s.Begin(Job{Claim: "old", Task: phases.Task{Sector: "s-t01000-1", Step: phases.P1}, ClaimedAt: time.Now()})
	if err == nil {
		_, err = k.Start(Program{Path: "/proc/self/exe", Args: []string{"keep"}, OrphanLimit: orphanLimit()}, request(map[string]string{"gate": gatePath}))
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	_, _, _ = k.Wait(context.Background(), Program{}, func(engine.Progress) {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	})
	return 1
}

func orphanLimit() time.Duration {
	d, _ := time.ParseDuration(os.Getenv("TEST_ORPHAN_LIMIT"))
	return d
}

func killedConsumer(t *testing.T, dir, gatePath, limit string) *Kept {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "consumer", dir, gatePath)
	cmd.Env = append(os.Environ(), "TEST_ORPHAN_LIMIT="+limit)
	out, err := cmd.CombinedOutput()
	var ended *exec.ExitError
	if !errors.As(err, &ended) || ended.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("%v\n%s", err, out)
	}
	jobs, err := open(t, dir).Jobs()
	if err != nil || len(jobs) != 1 || jobs[0].Claim != "old" || !jobs[0].Started() || jobs[0].Rebooted() {
		t.Fatalf("the journal has %v, %v", jobs, err)
	}
	t.Cleanup(func() { jobs[0].signal(syscall.SIGKILL) })
	return jobs[0]
}

func TestAKeeperOutlivesItsConsumerAndIsRejoined(t *testing.T) {
	path, let := gate(t)
	k := killedConsumer(t, t.TempDir(), path, "1h")
	pid := k.running(pidFile)
	if pid == 0 {
		t.Fatal("the keeper died with its consumer")
	}
	go let()
	r, _, err := k.Wait(t.Context(), program(), nil)
	if err != nil || r.Outputs["by"] != fmt.Sprint(pid) {
		t.Fatalf("%+v, %v; the keeper is %d", r, err, pid)
	}
}

func TestWhatEndedMeanwhileIsThere(t *testing.T) {
	path, let := gate(t)
	k := killedConsumer(t, t.TempDir(), path, "1h")
	let()
	if _, _, err := k.Wait(t.Context(), program(), nil); err != nil {
		t.Fatal(err)
	}
	r, _, err := k.Wait(t.Context(), program(), nil) // as often as one likes
	if err != nil || r.Outputs["by"] == "" {
		t.Fatalf("%+v, %v", r, err)
	}
}

func TestAKeeperWithoutAConsumerStopsAfterTheLimit(t *testing.T) {
	path, _ := gate(t)
	dir := t.TempDir()
	cmd := exec.Command("/proc/self/exe", "consumer", dir, path)
	cmd.Env = append(os.Environ(), "TEST_ORPHAN_LIMIT=0s")
	_ = cmd.Run()
	// Not opened: nobody holds the lock.
	s := &Store{dir: dir}
	jobs, err := s.Jobs()
	if err != nil || len(jobs) != 1 {
		t.Fatal(jobs, err)
	}
	if _, _, err := jobs[0].Wait(t.Context(), program(), nil); !errors.Is(err, ErrStopped) || !strings.Contains(err.Error(), "ORPHAN_LIMIT") {
		t.Fatalf("got %v", err)
	}
}

func TestKillTakesKeeperAndProgram(t *testing.T) {
	for _, stubborn := range []string{"", "yes"} {
		s := open(t, t.TempDir())
		k := begin(t, s, "claim")
		p := program()
		inputs := map[string]string{"plan": "program", "ignore": stubborn}
		if stubborn == "" {
			inputs["gate"], _ = gate(t)
		} else {
			p.Grace = time.Millisecond // it does not hear SIGTERM
		}
		start(t, k, p, inputs)
		ctx, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("lost")
		group := 0
		_, _, err := k.Wait(ctx, p, func(at engine.Progress) {
			if at.Step == "program" {
				group = int(at.Done)
				cancel(cause)
			}
		})
		if !errors.Is(err, cause) || group == 0 {
			t.Fatalf("%v, group %d", err, group)
		}
		if k.running(pidFile) != 0 || k.running(engineFile) != 0 {
			t.Fatal("something still runs")
		}
	}
}

func TestLimitsReachTheKeeper(t *testing.T) {
	k := begin(t, open(t, t.TempDir()), "claim")
	start(t, k, program(), map[string]string{"limits": "yes"})
	told := false
	r, _, err := k.Wait(t.Context(), program(), func(engine.Progress) {
		if told = true; k.Limit(12345) != nil {
			t.Error("cannot tell a limit")
		}
	})
	if err != nil || r.Bytes != 12345 || !told {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := k.Limit(1); err != nil { // it has ended
		t.Fatal(err)
	}
}

func TestOnlyOneConsumerHasTheJournal(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if _, err := Open(dir); !errors.Is(err, ErrInUse) {
		t.Fatalf("got %v", err)
	}
	s.Close()
	open(t, dir)
}

func TestADamagedEntryHidesNoOther(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	begin(t, s, "good")
	begin(t, s, "bad")
	begin(t, s, "empty")
	if err := os.WriteFile(filepath.Join(dir, jobsDir, "bad", jobFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, jobsDir, "empty", jobFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	jobs, err := s.Jobs()
	if len(jobs) != 1 || jobs[0].Claim != "good" || err == nil || !strings.Contains(err.Error(), "bad") {
		t.Fatalf("%v, %v", jobs, err)
	}
	if _, _, err := jobs[0].Wait(t.Context(), program(), nil); !errors.Is(err, ErrStopped) {
		t.Fatalf("one that was never started: %v", err)
	}
}

// What a claim's holder can't know must not be guessed: a keeper that vanished on a machine
// that was not started again is a failed attempt, one that went with the machine is not.
func TestAKilledKeeperFailsAndARebootDoesNot(t *testing.T) {
	path, _ := gate(t)
	k := killedConsumer(t, t.TempDir(), path, "1h")
	k.signal(syscall.SIGKILL)
	var failure *engine.Error
	if _, _, err := k.Wait(t.Context(), program(), nil); !errors.As(err, &failure) || failure.Code != "engine_no_result" {
		t.Fatalf("got %v", err)
	}
	k.Boot = "another"
	if _, _, err := k.Wait(t.Context(), program(), nil); !errors.Is(err, ErrStopped) {
		t.Fatalf("got %v", err)
	}
}

func TestProgressWithoutAReaderIsDropped(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := &teller{fd: int(f.Fd())}
	if err := unix.SetNonblock(w.fd, true); err != nil { // Fd made it blocking
		t.Fatal(err)
	}
	for i := range 20_000 { // more than a pipe holds; a step of its own each, so none is left out
		w.tell(engine.Progress{Step: fmt.Sprint("step", i)})
	}
	buf := make([]byte, 1<<20)
	n, err := unix.Read(w.fd, buf)
	if err != nil || !bytes.HasPrefix(buf[:n], []byte(`{"step":"step0"`)) || buf[n-1] != '\n' {
		t.Fatalf("%d bytes, %v", n, err)
	}
}
