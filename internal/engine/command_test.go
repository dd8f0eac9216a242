package engine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sealfleet/internal/phases"
)

// The test binary is also the engine: abusive ones by name, and the real ones.
func TestMain(m *testing.M) {
	if name := os.Getenv("SEALFLEET_TEST_ENGINE"); name != "" {
		os.Exit(engines[name](os.Args[1:]))
	}
	os.Exit(m.Run())
}

func command(t *testing.T, name string, args ...string) *Command {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &Command{Path: self, Args: args, Env: []string{"SEALFLEET_TEST_ENGINE=" + name}, Grace: 5 * time.Second}
}

func request() Request {
	return Request{V: Version, Phase: phases.P1, Sector: "s-t01000-7", Inputs: map[string]string{"ticket": "00"}}
}

func say(text string) { fmt.Println(text) }

// hang waits for the test to kill it, or to die.
func hang() int {
	bufio.NewReader(os.Stdin).ReadString('\n')
	_, _ = os.Stdin.Read(make([]byte, 1))
	return 9
}

const good = `{"type":"result","outputs":{"comm_d":"ab"},"bytes":7,"message":"fine"}`

var engines = map[string]func(args []string) int{
	"good":    func([]string) int { say(`{"type":"progress","step":"x","done":1,"total":2}`); say(good); return 0 },
	"extra":   func([]string) int { say(`{"type":"progress","step":"x","of":"a later release"}`); say(good); return 0 },
	"silent":  func([]string) int { return 0 },
	"garbage": func([]string) int { say("hello, world"); return hang() },
	"unknown": func([]string) int { say(`{"type":"bonus"}`); return hang() },
	"binary":  func([]string) int { os.Stdout.Write(make([]byte, 4096)); say(""); return hang() },
	"endless": func([]string) int {
		for {
			if _, err := os.Stdout.Write([]byte(strings.Repeat("a", 1<<16))); err != nil {
				return 1
			}
		}
	},
	"wrongtype": func([]string) int { say(`{"type":"result","outputs":["x"]}`); return hang() },
	"twice":     func([]string) int { say(good + "\n" + good); return 0 },
	"exit3":     func([]string) int { fmt.Fprintln(os.Stderr, "the disk sings"); return 3 },
	"goodexit3": func([]string) int { say(good); return 3 },
	"error": func([]string) int {
		say(`{"type":"error","code":"no_space","class":"transient","message":"full"}`)
		return 1
	},
	"errorexit0": func([]string) int { say(`{"type":"error","code":"x","class":"permanent","message":"no"}`); return 0 },
	"vague":      func([]string) int { say(`{"type":"error","class":"odd","message":"?"}`); return 1 },
	"killed":     func([]string) int { syscall.Kill(os.Getpid(), syscall.SIGKILL); select {} },
	"terminated": func([]string) int { syscall.Kill(os.Getpid(), syscall.SIGTERM); select {} }, // nohup would keep it from SIGHUP
	"mute":       func([]string) int { os.Stdout.Close(); return hang() },
	"wonthalt":   func([]string) int { say(good); return hang() },
	"noread":     func([]string) int { say(good); return 0 },
	"manyerrors": func([]string) int {
		for range 100_000 {
			fmt.Fprintln(os.Stderr, "noise")
		}
		say(good)
		return 0
	},
	"family":     family,
	"grandchild": func(args []string) int { return hold(args[0], true) },
	"limits":     limits,
	"noop":       func([]string) int { return Serve(os.Stdin, os.Stdout, Noop{}) },
	"sleeper":    func([]string) int { return Serve(os.Stdin, os.Stdout, sleeper{}) },
	"parent":     parent,
	"builtin":    func([]string) int { return Serve(os.Stdin, os.Stdout, Builtin{}) },
}

func TestProtocolAbuse(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]Error{
		"silent":     {Code: "engine_no_result"},
		"garbage":    {Code: "engine_garbage", Message: "hello, world"},
		"unknown":    {Code: "engine_garbage", Message: "bonus"},
		"binary":     {Code: "engine_garbage"},
		"endless":    {Code: "engine_garbage", Message: "bytes"},
		"wrongtype":  {Code: "engine_garbage", Message: "result"},
		"twice":      {Code: "engine_garbage", Message: "after its result"},
		"exit3":      {Code: "engine_exit", Message: "the disk sings"},
		"goodexit3":  {Code: "engine_exit", Message: "exit code 3"},
		"error":      {Code: "no_space", Class: phases.Transient, Message: "full"},
		"errorexit0": {Code: "x", Class: phases.Permanent, Message: "no"},
		"vague":      {Code: "phase_failed", Message: "?"},
		"killed":     {Code: "engine_signal", Message: "killed"},
		"terminated": {Code: "engine_signal", Message: "terminated"},
		"mute":       {Code: "engine_hung"},
		"wonthalt":   {Code: "engine_hung"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := command(t, name)
			if want.Code == "engine_hung" {
				c.Grace = 50 * time.Millisecond
			}
			result, err := c.Run(t.Context(), request(), nil)
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got %+v, %v", result, err)
			}
			if want.Class == "" {
				want.Class = phases.Retryable
			}
			if e.Code != want.Code || e.Class != want.Class || !strings.Contains(e.Message, want.Message) {
				t.Errorf("got %+v, want %+v", *e, want)
			}
		})
	}
}

func TestGoodEngines(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"good", "extra", "noread", "manyerrors"} {
		var seen []Progress
		result, err := command(t, name).Run(t.Context(), request(), func(p Progress) { seen = append(seen, p) })
		if err != nil || result.Outputs["comm_d"] != "ab" || result.Bytes != 7 || result.Message != "fine" {
			t.Errorf("%s: %+v, %v", name, result, err)
		}
		if name == "good" && (len(seen) != 1 || seen[0] != Progress{"x", 1, 2}) {
			t.Errorf("progress %v", seen)
		}
	}
}

// What an engine said before its end counts, however late its parent listens.
func TestLastWordsAreHeardLate(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close() // open all the time, as by a descendant that left the group
	progress := strings.Repeat(`{"type":"progress","step":"x","done":1,"total":2}`+"\n", 1000)
	if _, err := w.WriteString(progress + good + "\n"); err != nil {
		t.Fatal(err)
	}
	if err := r.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if v := listen(lastWords{r}, nil); v.result == nil || v.result.Outputs["comm_d"] != "ab" {
		t.Errorf("heard %+v", v)
	}
}

func TestEngineThatCannotStart(t *testing.T) {
	t.Parallel()
	notExecutable := filepath.Join(t.TempDir(), "engine")
	if err := os.WriteFile(notExecutable, []byte("#!/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/absent/engine", notExecutable, t.TempDir()} {
		_, err := (&Command{Path: path}).Run(t.Context(), request(), nil)
		var e *Error
		if !errors.As(err, &e) || e.Code != "engine_start" || !strings.Contains(e.Message, path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestRequestsThatNoEngineTakes(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*Request){
		"version": func(r *Request) { r.V++ }, "gate": func(r *Request) { r.Phase = phases.Precommit }, "phase": func(r *Request) { r.Phase = "p9" },
	} {
		r := request()
		spoil(&r)
		_, err := Noop{}.Run(t.Context(), r, nil)
		var e *Error
		if !errors.As(err, &e) || e.Code != "bad_request" || e.Class != phases.Permanent {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// hold tells that it lives by holding a lock on a file, until it is killed.
func hold(path string, ignoreTerm bool) int {
	if ignoreTerm {
		signal.Ignore(syscall.SIGTERM)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
	}
	if err == nil {
		err = os.WriteFile(path+".pid", []byte(strconv.Itoa(os.Getpid())), 0o600)
	}
	if err == nil {
		err = os.Rename(path+".pid", path+".up")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	select {}
}

// family starts a grandchild, waits until it is up, and then does as it is told.
func family(args []string) int {
	path, what := args[0], args[1]
	self, _ := os.Executable()
	cmd := exec.Command(self, path)
	cmd.Env = append(os.Environ(), "SEALFLEET_TEST_ENGINE=grandchild")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr // it keeps our pipes open
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for {
		if _, err := os.Stat(path + ".up"); err == nil {
			break
		}
		time.Sleep(time.Millisecond) // in the child; nothing to wait on across processes
	}
	switch what {
	case "end":
		say(good)
		return 0
	case "crash":
		return 3
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
	}
	say(`{"type":"progress","step":"up","done":0,"total":1}`)
	select {}
}

// dead blocks until nobody holds the lock of path, which had a holder.
func dead(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Stat(path + ".up"); err != nil {
		t.Fatal("the grandchild never lived:", err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// Blocks until the kernel has closed the grandchild's files; the test's own time limit
	// is the failure.
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
}

func TestGrandchildrenDieWithTheEngine(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"end", "crash"} {
		lock := filepath.Join(t.TempDir(), "lock")
		result, err := command(t, "family", lock, what).Run(t.Context(), request(), nil)
		if (err == nil) != (what == "end") {
			t.Errorf("%s: %+v, %v", what, result, err)
		}
		dead(t, lock)
	}
}

func TestCancelKillsTheWholeGroup(t *testing.T) {
	t.Parallel()
	errLost := errors.New("claim lost")
	for _, what := range []string{"obey", "stubborn"} {
		lock := filepath.Join(t.TempDir(), "lock")
		ctx, cancel := context.WithCancelCause(t.Context())
		c := command(t, "family", lock, what)
		c.Grace = 50 * time.Millisecond
		var killed []string
		c.Killed = func(why string) { killed = append(killed, why) }
		_, err := c.Run(ctx, request(), func(p Progress) {
			if p.Step == "up" {
				cancel(errLost)
			}
		})
		if !errors.Is(err, errLost) {
			t.Errorf("%s: %v", what, err)
		}
		if len(killed) != 1 || killed[0] != "cancelled" {
			t.Errorf("%s: killed %v", what, killed)
		}
		dead(t, lock)
	}
	if _, err := command(t, "good").Run(cancelled(t), request(), nil); !errors.Is(err, context.Canceled) {
		t.Error("started although cancelled:", err)
	}
}

func cancelled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// sleeper works until it is stopped, and holds the lock that the request names meanwhile.
type sleeper struct{}

func (sleeper) Run(ctx context.Context, r Request, progress func(Progress)) (Result, error) {
	if path := r.Inputs["lock"]; path != "" {
		go hold(path, false)
	}
	progress(Progress{Step: "asleep", Done: uint64(os.Getpid()), Total: 1 << 40})
	<-ctx.Done()
	return Result{}, ctx.Err()
}

// parent runs a sleeper and tells when it is up; the test then kills the parent alone.
func parent(args []string) int {
	self, _ := os.Executable()
	c := &Command{Path: self, Env: []string{"SEALFLEET_TEST_ENGINE=sleeper"}}
	r := request()
	r.Inputs["lock"] = args[0]
	c.Run(context.Background(), r, func(Progress) { say("up") })
	return 0
}

func TestEngineDiesWithItsParent(t *testing.T) {
	t.Parallel()
	lock := filepath.Join(t.TempDir(), "lock")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, lock)
	cmd.Env = append(os.Environ(), "SEALFLEET_TEST_ENGINE=parent")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if text, err := bufio.NewReader(out).ReadString('\n'); text != "up\n" {
		t.Fatal(text, err)
	}
	for { // the lock is taken by another goroutine than the one that says "up"
		if _, err := os.Stat(lock + ".up"); err == nil {
			break
		}
		if t.Context().Err() != nil {
			t.Fatal("sleeper never held its lock")
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	dead(t, lock)
}

func TestSigtermStopsAnEngineGently(t *testing.T) {
	t.Parallel()
	c := command(t, "sleeper")
	c.Grace = time.Hour // SIGTERM must do
	ctx, cancel := context.WithCancel(t.Context())
	_, err := c.Run(ctx, request(), func(Progress) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}

	// A signal from outside is told from a cancellation by us.
	_, err = c.Run(t.Context(), request(), func(p Progress) { syscall.Kill(int(p.Done), syscall.SIGTERM) })
	var e *Error
	if !errors.As(err, &e) || e.Code != "killed" || e.Class != phases.Transient {
		t.Error(err)
	}
}

// limits tells the limits that it is given as progress.
func limits([]string) int { return Serve(os.Stdin, os.Stdout, limitTeller{}) }

type limitTeller struct{}

func (limitTeller) Run(ctx context.Context, r Request, progress func(Progress)) (Result, error) {
	progress(Progress{Step: "start", Done: uint64(r.Copy.BytesPerSec)})
	for i := 0; ; i++ {
		select {
		case n := <-r.Limits:
			progress(Progress{Step: fmt.Sprint(i), Done: uint64(n)})
			if n == 0 {
				return Result{}, nil
			}
		case <-ctx.Done():
			return Result{}, ctx.Err()
		}
	}
}

func TestCopyLimitReachesTheChild(t *testing.T) {
	t.Parallel()
	r := request()
	r.Phase, r.Copy = phases.P5, &Copy{Node: "node1", Dir: "/mnt", BytesPerSec: 500}
	ch := make(chan int64, 1)
	r.Limits = ch
	var got []uint64
	next := []int64{250, 1 << 40, 0}
	_, err := command(t, "limits").Run(t.Context(), r, func(p Progress) {
		got = append(got, p.Done)
		if len(next) > 0 {
			ch <- next[0]
			next = next[1:]
		}
	})
	if err != nil || fmt.Sprint(got) != fmt.Sprint([]uint64{500, 250, 1 << 40, 0}) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestServeRefusesBadRequests(t *testing.T) {
	t.Parallel()
	for name, in := range map[string]string{
		"nothing": "", "no JSON": "hello\n", "a number": "7\n", "another version": `{"v":99,"phase":"p1"}` + "\n", "no phase": `{"v":1}` + "\n",
	} {
		var out strings.Builder
		code := serve(t.Context(), strings.NewReader(in), &out, Noop{}, func() {})
		var l struct{ Type, Code, Class string }
		if err := json.Unmarshal([]byte(out.String()), &l); err != nil || l.Type != "error" || l.Code != "bad_request" || l.Class != "permanent" || code != 2 {
			t.Errorf("%s: code %d, %s", name, code, out.String())
		}
	}
}
