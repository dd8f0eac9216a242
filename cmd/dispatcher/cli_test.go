package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"sealfleet/internal/bus"
	"sealfleet/internal/dispatch"
	"sealfleet/internal/phases"
	"sealfleet/internal/sealcore"
)

// run runs a command in this process, as main does.
func run(args ...string) (stdout, stderr string, code int) {
	return runContext(context.Background(), args...)
}

func runContext(ctx context.Context, args ...string) (string, string, int) {
	var out, errs bytes.Buffer
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&errs)
	err := root.ExecuteContext(ctx)
	if err != nil {
		errs.WriteString("dispatcher: " + err.Error() + "\n")
	}
	return out.String(), errs.String(), exitCode(err)
}

// logBuffer keeps a log, and lets one wait for a line.
type logBuffer struct {
	mu    sync.Mutex
	text  bytes.Buffer
	grown chan struct{}
}

func newLogBuffer() *logBuffer { return &logBuffer{grown: make(chan struct{}, 1)} }

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() {
		select {
		case l.grown <- struct{}{}:
		default:
		}
	}()
	return l.text.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// waitFor returns the JSON line with this message.
func (l *logBuffer) waitFor(t *testing.T, msg string) map[string]any {
	t.Helper()
	deadline := time.After(patience)
	for {
		for line := range strings.SplitSeq(l.String(), "\n") {
			var m map[string]any
			if json.Unmarshal([]byte(line), &m) == nil && m["msg"] == msg {
				return m
			}
		}
		select {
		case <-l.grown:
		case <-deadline:
			t.Fatalf("no line %q in:\n%s", msg, l.String())
		}
	}
}

// setup gives the test an environment of its own.
func setup(t *testing.T) (stateDir string) {
	t.Helper()
	stateDir = t.TempDir()
	for name, value := range map[string]string{
		"STATE_DIR": stateDir, "SERVER_LISTEN": "127.0.0.1:0", "HTTP_LISTEN": "127.0.0.1:0", "NATS_URL": "", "SERVER_SYNC": "false",
		"DEV_CHAIN_EPOCH": "1ms", "DEV_CHAIN_REQUIRE_SNARK": "false", "RETRY_DELAY": "1ms", "TRANSIENT_DELAY": "1ms", "LOG_FORMAT": "json", "SEAL_GROUPS": "group1", "NOTIFY_SOCKET": "",
	} {
		t.Setenv(name, value)
	}
	return stateDir
}

// serving runs serve until the test ends, and returns its HTTP address.
func serving(t *testing.T) (url string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	log := newLogBuffer()
	root := newRoot()
	root.SetArgs([]string{"serve"})
	root.SetErr(log)
	ended := make(chan error, 1)
	go func() { ended <- root.ExecuteContext(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v\n%s", err, log)
		}
	})
	return log.waitFor(t, "dispatching")["http"].(string)
}

// hosting runs a host that does nothing in no time, with a host's permissions.
func hosting(t *testing.T, stateDir string, result func(phases.Task) *phases.Result) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	b, err := bus.Connect(ctx, bus.Config{StateDir: stateDir, Role: bus.RoleHost}, "host1", discard())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	for _, step := range phases.Phases() {
		wg.Go(func() {
			for ctx.Err() == nil {
				if lease, err := b.Fetch(ctx, "group1", step, time.Second); err == nil && lease != nil {
					work(ctx, b, lease, result)
				}
			}
		})
	}
}

func work(ctx context.Context, b *bus.Bus, l *bus.Lease, result func(phases.Task) *phases.Result) {
	task := l.Task
	e := phases.Event{
		V: phases.Version, ID: ulid.Make().String(), Type: phases.Claimed, Group: task.Group, Sector: task.Sector, Step: task.Step,
		Issue: task.Issue, Attempt: task.Attempt, ClaimID: ulid.Make().String(), PrevID: task.IssuedID, Host: "host1", At: time.Now().UTC(),
	}
	seq, err := b.Append(ctx, e, task.IssuedSeq)
	if err != nil {
		return
	}
	hash := func(b string) string { return strings.Repeat(b, 32) }
	outputs := map[phases.Step]map[string]string{
		phases.P1: {"comm_d": hash("01")}, phases.P2: {"comm_r": hash("02")}, phases.P4: {"proof": "", "snark": "none: every vanilla proof verified, no SNARK made"},
		phases.P5: {"receipt": `{"node":"node1","path":"/store","files":[{"name":"sealed/` + task.Sector + `","size":2048,"sha256":"ab"}]}`},
	}
	e.ID, e.PrevID, e.Type, e.Result = ulid.Make().String(), e.ID, phases.Done, &phases.Result{Code: "ok", Seconds: 0.01, Outputs: outputs[task.Step]}
	if task.Step == phases.P6 {
		e.Result.Bytes = 4096
	}
	if r := result(task); r != nil {
		e.Type, e.Result = phases.Failed, r
	}
	if _, err := b.Append(ctx, e, seq); err == nil {
		_ = l.Ack(ctx) // it comes again, and is stale
	}
}

func TestSealAndLook(t *testing.T) {
	dir := setup(t)
	url := serving(t)
	hosting(t, dir, func(task phases.Task) *phases.Result {
		if task.Spec.Number == 9 && task.Step == phases.P2 {
			return &phases.Result{Code: "corrupt", Class: phases.Permanent, Message: "a label does not verify: redo p1"}
		}
		return nil
	})
	out, errs, code := run("submit", "--miner", "1000", "--sector", "7", "--count", "2", "--size", "2KiB", "--cc", "--wait")
	if code != exitOK || !strings.Contains(out, "s-t01000-7") || strings.Count(out, "finished") != 2 || !strings.Contains(errs, "p6") {
		t.Fatalf("%d\n%s\n%s", code, out, errs)
	}
	out, errs, code = run("submit", "--miner", "f01000", "--sector", "9", "--proof-type", "5", "--cc", "--wait")
	if code != exitFailure || !strings.Contains(out, "parked") || !strings.Contains(errs, "did not finish") {
		t.Fatalf("%d\n%s\n%s", code, out, errs)
	}

	var rows []struct {
		Sector, State string
		Now           []struct{ Phase, State string }
	}
	until(t, says("s-t01000-9"), "sectors", "--state", "parked") // the dispatcher takes the log's last event up a moment later
	if out, errs, code = run("sectors", "--output", "json"); code != exitOK || json.Unmarshal([]byte(out), &rows) != nil || len(rows) != 3 {
		t.Fatalf("%d\n%s\n%s", code, out, errs)
	}
	if r := rows[2]; r.Sector != "s-t01000-9" || r.State != "parked" || len(r.Now) != 1 || r.Now[0].Phase != "p2" || r.Now[0].State != "parked" {
		t.Errorf("%+v", r)
	}
	if out, _, _ = run("sectors", "-o", "ndjson", "--state", "finished"); strings.Count(out, "\n") != 2 {
		t.Errorf("finished sectors:\n%s", out)
	}
	out, errs, code = run("sector", "1000/7", "--log")
	for _, want := range []string{"gate precommit", "landed", "commit by", "met", "submitted", "claimed", "finished", "p1", "host1", "no SNARK was made", "node1 /store", "4.0 KiB", "comm r", "accepted_without_snark"} {
		if code != exitOK || !strings.Contains(out, want) {
			t.Errorf("sector has no %q: %d\n%s\n%s", want, code, out, errs)
		}
	}
	out, _, code = run("sector", "s-t01000-9", "-o", "json")
	var d dispatch.Detail
	if err := json.Unmarshal([]byte(out), &d); code != exitOK || err != nil || len(d.Attempts) != 2 || d.Attempts[1].Result.Code != "corrupt" {
		t.Errorf("%d %v\n%s", code, err, out)
	}
	if out, errs, code = run("sector", "f01000-77"); code != exitNotFound || !strings.Contains(errs, "did you mean s-t01000-7") {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
	testWhy(t)
	testLimit(t)
	testAside(t, dir)
	testFarm(t)
	testStops(t)
	testOperate(t)
	testEventsAndBus(t, dir)

	res, err := http.Get(url + "/readyz")
	if err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("/readyz: %v %v", res, err)
	}
	_ = res.Body.Close()
	testMetricsPage(t, url)
}

// Prometheus's own linter has nothing to say about our names, and no sector is in a label.
func testMetricsPage(t *testing.T, url string) {
	t.Helper()
	res, err := http.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	page, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.New(bytes.NewReader(page)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "sealfleet_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	for _, want := range []string{
		`sealfleet_sectors{group="group1",state="finished"} 2`, `sealfleet_events_total{phase="p6",type="done"}`,
		`sealfleet_tasks_issued_total{group="group1",phase="p4"} 2`, "sealfleet_bus_connected 1", `sealfleet_build_info{`,
		`sealfleet_phase_waiting{group="group1",phase="p6"} 0`, `sealfleet_phase_oldest_wait_seconds{group="group1",phase="p6"} 0`,
		`sealfleet_backlog_slots_needed{group="group1",phase="p6"} 0`, `sealfleet_p1_held{group="group1"} 0`,
		`sealfleet_phase_wait_seconds_bucket{group="group1",phase="p1",le="216000"}`,
	} {
		if !strings.Contains(string(page), want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
	if strings.Contains(string(page), "s-t01000") {
		t.Error("a sector's id is in a label")
	}
}

func testOperate(t *testing.T) {
	t.Helper()
	for _, test := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"submit", "--miner", "1000", "--sector", "7", "--size", "2KiB", "--cc"}, exitConflict, "s-t01000-7"},
		{[]string{"submit", "--miner", "1000", "--sector", "70", "--size", "2KiB", "--cc", "--group", "group9"}, exitUsage, "group9"},
		{[]string{"redo", "1000/7", "--reason", "x"}, exitUsage, "not parked"},
		{[]string{"redo", "1000/7", "--phase", "p1", "--reason", "x"}, exitConflict, "ended"},
		{[]string{"redo", "1000/8888", "--phase", "p1", "--reason", "x"}, exitNotFound, "s-t01000-8"},
		{[]string{"redo", "1000/9"}, exitUsage, "--reason"},
		{[]string{"cancel", "1000/9", "--reason", "x"}, exitUsage, "--yes"},
		{[]string{"cancel", "1000/7", "--reason", "x", "--yes"}, exitConflict, "cannot be cancelled"},
		{[]string{"redo", "1000/9", "--phase", "PreCommitPhase1", "--reason", "bad memory"}, exitOK, ""},
	} {
		out, errs, code := run(test.args...)
		if code != test.code || !strings.Contains(errs, test.says) {
			t.Errorf("%v: %d, want %d and %q\n%s\n%s", test.args, code, test.code, test.says, out, errs)
		}
	}
	if out, errs, code := run("cancel", "1000/9", "--reason", "given up", "--yes"); code != exitOK {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
}

func testEventsAndBus(t *testing.T, dir string) {
	t.Helper()
	out, errs, code := run("events", "--sector", "1000/9", "-o", "ndjson")
	var last struct {
		Sequence           uint64
		Type, Sector, Host string
	}
	types := map[string]int{}
	for line := range strings.SplitSeq(strings.TrimSpace(out), "\n") {
		if err := json.Unmarshal([]byte(line), &last); err != nil || last.Sequence == 0 || last.Sector != "s-t01000-9" {
			t.Fatalf("%v: %s", err, line)
		}
		types[last.Type]++
	}
	if code != exitOK || types["redo"] != 2 || types["failed"] == 0 || types["submitted"] != 1 {
		t.Errorf("%d %v\n%s", code, types, errs)
	}
	// Following from the beginning shows the same events, until it is interrupted.
	ctx, cancel := context.WithCancel(context.Background())
	follow := newLogBuffer()
	root := newRoot()
	root.SetArgs([]string{"events", "--follow", "--from", "1", "--sector", "1000/7"})
	root.SetOut(follow)
	done := make(chan error, 1)
	go func() { done <- root.ExecuteContext(ctx) }()
	for !strings.Contains(follow.String(), "finished") {
		select {
		case <-follow.grown:
		case <-time.After(patience):
			t.Fatalf("no finished event in:\n%s", follow)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("events --follow: %v", err)
	}
	if out, errs, code = run("bus", "plan"); code != exitOK || strings.Contains(out, "create") || !strings.Contains(out, "SEAL_TASKS/group1-p4") {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
	if out, errs, code = run("bus", "apply", "--group", "2"); code != exitOK || !strings.Contains(out, "SEAL_TASKS/group2-p1") {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
	out, errs, code = run("bus", "env")
	if code != exitOK || !strings.Contains(out, "export NATS_URL='nats://127.0.0.1:") || !strings.Contains(out, "export NATS_NKEY='"+dir) {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
}

func TestBadInput(t *testing.T) {
	setup(t)
	piece := filepath.Join(t.TempDir(), "piece")
	if err := os.WriteFile(piece, make([]byte, 2032), 0o600); err != nil {
		t.Fatal(err)
	}
	submit := func(more ...string) []string {
		return append([]string{"submit", "--miner", "1000", "--sector", "7"}, more...)
	}
	for _, test := range []struct {
		args []string
		says string
	}{
		{[]string{"submitt"}, "unknown command"},
		{[]string{"submit", "--bogus"}, "--bogus"},
		{[]string{"submit"}, "--miner and --sector"},
		{submit("--cc"), "--size or --proof-type"},
		{submit("--size", "3KiB", "--cc"), "2KiB"},
		{submit("--size", "16KiB", "--cc"), "toy shape"},
		{submit("--proof-type", "10", "--cc"), "proof type 10"},
		{submit("--size", "2KiB", "--proof-type", "5", "--cc"), "use one of them"},
		{submit("--size", "2KiB"), "--piece FILE"},
		{submit("--size", "2KiB", "--cc", "--piece", piece), "exclude"},
		{submit("--size", "2KiB", "--cc", "--count", "0"), "--count 0"},
		{submit("--size", "2KiB", "--cc", "--group", "Group 1"), "Group 1"},
		{submit("--size", "2KiB", "--cc", "-o", "xml"), "table, json or ndjson"},
		{[]string{"submit", "--miner", "x", "--sector", "7", "--size", "2KiB", "--cc"}, "--miner"},
		{[]string{"sector"}, "accepts 1 arg"},
		{[]string{"sector", "seven"}, "s-t01000-7"},
		{[]string{"sector", "99999999999999999999/7"}, "value out of range"},
		{[]string{"sectors", "--state", "broken"}, "parked"},
		{[]string{"sectors", "--phase", "p7"}, "p7"},
		{[]string{"events", "--follow", "-o", "json"}, "ndjson"},
		{[]string{"redo", "1000/7", "--reason", "x", "--phase", "p9"}, "p9"},
		{[]string{"serve", "now"}, "unknown command"},
	} {
		out, errs, code := run(test.args...)
		if code != exitUsage || !strings.Contains(errs, test.says) {
			t.Errorf("%v: %d, want %d and %q\n%s\n%s", test.args, code, exitUsage, test.says, out, errs)
		}
	}
}

// The pieces are looked at before the bus is.
func TestCheckSpec(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, size int) phases.Piece {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		return phases.Piece{Path: path}
	}
	for _, test := range []struct {
		name   string
		pieces []phases.Piece
		says   string
	}{
		{"none", nil, ""},
		{"one that fills it", []phases.Piece{file("a", 2032)}, ""},
		{"two halves", []phases.Piece{file("b", 1016), file("c", 1016)}, ""},
		{"not 127·2^k", []phases.Piece{file("d", 1000)}, "127·2^k"},
		{"empty", []phases.Piece{file("e", 0)}, "127·2^k"},
		{"too large", []phases.Piece{file("f", 4064)}, "larger than the sector"},
		{"overflow", []phases.Piece{file("g", 2032), file("h", 127)}, "do not fit"},
		{"missing", []phases.Piece{{Path: filepath.Join(dir, "nowhere")}}, "no such file"},
		{"a directory", []phases.Piece{{Path: dir}}, "not a regular file"},
	} {
		spec := phases.Spec{Miner: 1000, Number: 7, ProofType: 5, Pieces: test.pieces}
		err := checkSpec(context.Background(), &spec)
		if test.says == "" && err != nil || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
			t.Errorf("%s: %v, want %q", test.name, err, test.says)
		}
		if err == nil && len(spec.Pieces) > 0 && spec.Pieces[0].UnpaddedSize == 0 {
			t.Errorf("%s: the size was not filled in", test.name)
		}
	}
}

func TestUnreachable(t *testing.T) {
	setup(t)
	out, errs, code := run("sectors", "--timeout", "50ms")
	if code != exitUnreachable || !strings.Contains(errs, "NATS_URL") {
		t.Errorf("no server ever: %d\n%s\n%s", code, out, errs)
	}
	t.Setenv("NATS_URL", "nats://127.0.0.1:1")
	out, errs, code = run("sectors", "--timeout", "50ms")
	if code != exitUnreachable || !strings.Contains(errs, "127.0.0.1:1") {
		t.Errorf("wrong address: %d\n%s\n%s", code, out, errs)
	}
}

func TestServeRefuses(t *testing.T) {
	dir := setup(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, value, says string }{
		{"SERVER_LISTEN", taken.Addr().String(), "the port is taken"},
		{"HTTP_LISTEN", taken.Addr().String(), "the port is taken"},
		{"HTTP_LISTEN", "0.0.0.0:0", "HTTP_TOKEN_FILE"},
		{"STATE_DIR", filepath.Join(file, "state"), "STATE_DIR"},
		{"SEAL_GROUPS", "Group One", "SEAL_GROUPS"},
		{"SEAL_GROUP", "group1", "SEAL_GROUPS"},
		{"DEV_CHAIN_EPOCH", "soon", "DEV_CHAIN_EPOCH"},
		{"DEV_CHAIN_FAIL_COMMIT", "some", "DEV_CHAIN_FAIL_COMMIT"},
		{"MAX_ATTEMPTS", "0", "MAX_ATTEMPTS"},
		{"SWEEP_EVERY", "-1s", "SWEEP_EVERY"},
		{"DISPATCHER_NAME", "a b", "DISPATCHER_NAME"},
		{"LOG_LEVEL", "LOUD", "LOG_LEVEL"},
	} {
		t.Run(test.name+"="+test.value, func(t *testing.T) {
			t.Setenv(test.name, test.value)
			if _, errs, code := run("serve"); code != exitUsage || !strings.Contains(errs, test.says) {
				t.Errorf("%d\n%s", code, errs)
			}
		})
	}
	serving(t)
	if _, errs, code := run("serve"); code == exitOK || !strings.Contains(errs, dir) || !strings.Contains(errs, "another dispatcher") {
		t.Errorf("a second one on the same state directory: %d\n%s", code, errs)
	}
}

func TestHelpNamesTheEnvironment(t *testing.T) {
	setup(t)
	for cmd, names := range map[string][]string{
		"serve":   {"SEAL_GROUPS", "NATS_URL", "SERVER_LISTEN", "HTTP_LISTEN", "DEV_CHAIN_EPOCH", "MAX_ATTEMPTS", "LOG_LEVEL", "STATE_DIR"},
		"sectors": {"NATS_URL", "STATE_DIR"},
	} {
		out, _, code := run(cmd, "--help")
		for _, name := range names {
			if code != exitOK || !strings.Contains(out, name) {
				t.Errorf("%s --help: %d, no %s", cmd, code, name)
			}
		}
	}
	if out, _, _ := run("--help"); !strings.Contains(out, "Exit codes") || strings.Contains(out, "\n  man ") {
		t.Errorf("%s", out)
	}
}

// The binary starts, tells systemd and people that it is ready, and stops in order.
func TestBinary(t *testing.T) {
	setup(t)
	binary := filepath.Join(t.TempDir(), "dispatcher")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	socket := filepath.Join(t.TempDir(), "notify")
	notified, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notified.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	cmd := exec.Command(binary, "serve")
	log := newLogBuffer()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill() //nolint:errcheck // it has ended, if all went well
	told := func(want string) {
		t.Helper()
		buf := make([]byte, 100)
		_ = notified.SetReadDeadline(time.Now().Add(patience))
		n, err := notified.Read(buf)
		if err != nil || string(buf[:n]) != want {
			t.Fatalf("%q, %v, want %q\n%s", buf[:n], err, want, log)
		}
	}
	told("READY=1")
	if out, err := exec.Command(binary, "submit", "--miner", "1000", "--sector", "7", "--size", "2KiB", "--cc").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	told("STOPPING=1")
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, log)
	}
	for _, args := range [][]string{{"version"}, {"completion", "bash"}, {"man", t.TempDir()}} {
		if out, err := exec.Command(binary, args...).CombinedOutput(); err != nil {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
	out, err := exec.Command(binary, "sector", "seven").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitUsage {
		t.Errorf("%v\n%s", err, out)
	}
}

// Names of sizes are one thing in lists and in the proof.
func TestSizeNames(t *testing.T) {
	for proofType := range 10 {
		if p, err := sealcore.ForProofType(proofType); err != nil || p.Name != phases.SizeName(proofType) {
			t.Errorf("proof type %d: %s, want %s (%v)", proofType, phases.SizeName(proofType), p.Name, err)
		}
	}
}
