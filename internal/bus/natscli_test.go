package bus

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sealfleet/internal/phases"
)

// natsCLIVersion is the one that the Makefile pins.
const natsCLIVersion = "v0.5.1"

// natsCLI returns the real nats program: that of NATS_CLI, the one that make put into
// .tools/bin, or one built now.
func natsCLI(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("NATS_CLI"); path != "" {
		return path
	}
	if path, err := filepath.Abs("../../.tools/bin/nats"); err == nil {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	if testing.Short() {
		t.Skip("the nats CLI is not there: make .tools/bin/nats, or run without -short")
	}
	bin := t.TempDir()
	build := exec.Command("go", "install", "github.com/nats-io/natscli/nats@"+natsCLIVersion)
	build.Env = append(os.Environ(), "GOBIN="+bin, "GOFLAGS=-mod=mod")
	build.Dir = bin // outside of this module
	if out, err := build.CombinedOutput(); err != nil {
		t.Skipf("the nats CLI cannot be built here: %v\n%s", err, out)
	}
	return filepath.Join(bin, "nats")
}

// cli makes a call of the nats CLI with what Server.Hint tells operators to export.
func (f *fleet) cli(ctx context.Context, t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.CommandContext(ctx, natsCLI(t), args...)
	home := t.TempDir()
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "NATS_") {
			c.Env = append(c.Env, v)
		}
	}
	c.Env = append(c.Env, "HOME="+home, "XDG_CONFIG_HOME="+home, "COLUMNS=200")
	c.Env = append(c.Env, strings.Fields(strings.TrimPrefix(f.server.Hint(), "export "))...)
	return c
}

func (f *fleet) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := f.cli(testContext(t), t, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("nats %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// wholeLine tells whether some line of a table has all of these cells.
func wholeLine(table string, cells ...string) bool {
	for line := range strings.Lines(table) {
		has := true
		for _, c := range cells {
			has = has && strings.Contains(line, c)
		}
		if has {
			return true
		}
	}
	return false
}

func TestTheNATSCommandLineReadsWell(t *testing.T) {
	f := newFleet(t, nil)
	ctx := testContext(t)
	if _, err := f.Append(ctx, event(phases.Issued, phases.P1, "dispatcher-a"), 0); err != nil {
		t.Fatal(err)
	}

	// Somebody watches the tasks while they are published.
	watch := f.cli(ctx, t, "sub", "seal.group1.p1.>")
	out, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	watch.Stderr = watch.Stdout
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	until := func(word string) string {
		t.Helper()
		var read strings.Builder
		for lines.Scan() {
			read.WriteString(lines.Text() + "\n")
			if strings.Contains(lines.Text(), word) {
				return read.String()
			}
		}
		t.Fatalf("nats sub never said %q:\n%s", word, read.String())
		return ""
	}
	until("Subscribing on seal.group1.p1.>")
	// It says so a moment before it does: tasks are published until it sees one.
	seen := make(chan struct{})
	go func() {
		for n := 1; ; n++ {
			if err := f.PublishTask(ctx, task(n)); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-seen:
				return
			default:
				pause(ctx, 0)
			}
		}
	}()
	until("seal.group1.p1.s-t01000-")
	until(`"sector":"s-t01000-`)
	close(seen)
	_ = watch.Process.Kill() // it would wait for ever
	_ = watch.Wait()         // killed

	streams := f.run(t, "stream", "report")
	for _, s := range []string{EventsStream, TasksStream, ArchiveStream, ControlStream, AsideStream} {
		if !wholeLine(streams, s, "File") {
			t.Errorf("nats stream report has no line for %s:\n%s", s, streams)
		}
	}
	consumers := f.run(t, "consumer", "report", TasksStream)
	for _, p := range phases.Phases() {
		if !wholeLine(consumers, Durable("group1", p), "Pull", "Explicit") {
			t.Errorf("nats consumer report has no line for group1-%s:\n%s", p, consumers)
		}
	}
	if info := f.run(t, "stream", "info", EventsStream); !strings.Contains(info, "every event of every sector") || !strings.Contains(info, ManagedKey) {
		t.Errorf("nats stream info:\n%s", info)
	}
	if info := f.run(t, "consumer", "info", TasksStream, "group1-p2"); !strings.Contains(info, "PreCommitPhase2") || !strings.Contains(info, "seal.group1.p2.>") {
		t.Errorf("nats consumer info:\n%s", info)
	}
	if events := f.run(t, "stream", "get", EventsStream, "1"); !strings.Contains(events, `"type":"issued"`) {
		t.Errorf("nats stream get:\n%s", events)
	}
	// The thresholds in the metadata are ones that the CLI's checks understand.
	for _, args := range [][]string{
		{"server", "check", "stream", "--stream", TasksStream},
		{"server", "check", "consumer", "--stream", TasksStream, "--consumer", "group1-p1"},
		{"server", "check", "consumer", "--stream", EventsStream, "--consumer", DispatcherDurable},
	} {
		if check := f.run(t, args...); !strings.Contains(check, "OK") {
			t.Errorf("nats %s:\n%s", strings.Join(args, " "), check)
		}
	}
}
