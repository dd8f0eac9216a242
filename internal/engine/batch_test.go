package engine

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sealfleet/internal/phases"
	"sealfleet/internal/sealcore/sealtest"
)

func init() {
	engines["batch"] = func(args []string) int {
		if err := (Batch{Most: 3, Wait: time.Minute}).Serve(context.Background(), args[0]); err != nil {
			say(err.Error())
			return 1
		}
		return 0
	}
	for name, alone := range map[string]Engine{"batched": nowhere{}, "batchedOrAlone": Builtin{}} {
		engines[name] = func(args []string) int {
			return Serve(os.Stdin, os.Stdout, Batched{Engine: alone, Socket: args[0], Start: func() error { return nil }})
		}
	}
}

// nowhere is an engine that must not be used.
type nowhere struct{}

func (nowhere) Run(context.Context, Request, func(Progress)) (Result, error) {
	return Result{}, errors.New("p1 went on alone")
}

// batchMember is a sector's own process.
type batchMember struct {
	*Bench
	command *Command
	group   atomic.Int64
	mu      sync.Mutex
	steps   []string
	result  Result
	err     error
}

func (m *batchMember) p1(ctx context.Context, at func(step string)) {
	m.command.Started = func(group int) { m.group.Store(int64(group)) }
	m.result, m.err = m.command.Run(ctx, m.request(phases.P1, map[string]string{"ticket": m.Ticket}), func(p Progress) {
		m.mu.Lock()
		fresh := !slices.Contains(m.steps, p.Step)
		m.steps = append(m.steps, p.Step)
		m.mu.Unlock()
		if fresh && at != nil {
			at(p.Step)
		}
	})
}

// startBatch starts a batch in a process of its own, and members, the first of which is the
// vector's sector. It returns what waits for the batch's end.
func startBatch(t *testing.T, v sealtest.Seal, socket, member string) ([]*batchMember, *batchMember, func() error) {
	t.Helper()
	batch := &batchMember{command: command(t, "batch", socket)}
	ch, err := batch.command.start(phases.P1, nil)
	if err != nil {
		t.Fatal(err)
	}
	batch.group.Store(int64(ch.cmd.Process.Pid))
	t.Cleanup(ch.close)
	members := make([]*batchMember, 3)
	for i := range members {
		members[i] = &batchMember{Bench: benchOf(t, v, t.TempDir()), command: command(t, member, socket)}
		members[i].Number += uint64(i)
		members[i].Phases = []phases.Step{phases.P1}
		if err := members[i].Check(); err != nil {
			t.Fatal(err)
		}
	}
	return members, batch, ch.cmd.Wait
}

func checkMember(t *testing.T, v sealtest.Seal, m *batchMember) {
	t.Helper()
	if m.err != nil {
		t.Fatalf("sector %d: %v (%v)", m.Number, m.err, m.steps)
	}
	if m.Number == v.SectorNumber {
		for name, want := range v.CacheAfterP1 {
			sealtest.CheckFile(t, filepath.Join(m.Dir, "cache", name), want)
		}
	}
	if want := hexOf(v.ReplicaID); (m.result.Outputs["replica_id"] == want) != (m.Number == v.SectorNumber) {
		t.Errorf("sector %d: replica id %s", m.Number, m.result.Outputs["replica_id"])
	}
}

// The process of one sector is killed: its p1 ends, those of the others go on, and it resumes.
func TestBatchOutlivesAMember(t *testing.T) {
	v := sealtest.LoadVector(t, "8m")
	members, _, ended := startBatch(t, v, filepath.Join(t.TempDir(), "s"), "batched")
	killed := members[1]
	var wg sync.WaitGroup
	for _, m := range members {
		wg.Go(func() {
			m.p1(t.Context(), func(step string) {
				if m == killed && strings.HasPrefix(step, "layer 2") {
					_ = syscall.Kill(-int(m.group.Load()), syscall.SIGKILL)
				}
			})
		})
	}
	wg.Wait()
	if err := ended(); err != nil {
		t.Errorf("the batch: %v", err)
	}
	checkMember(t, v, members[0])
	checkMember(t, v, members[2])
	hasCode(t, killed.err, "engine_signal")
	killed.command = command(t, "builtin")
	killed.p1(t.Context(), nil)
	checkMember(t, v, killed)
	if !slices.Contains(killed.steps, "resumed at layer 2/2") {
		t.Errorf("the killed one did not resume: %v", killed.steps)
	}
}

// One that is cancelled is told when nothing of its p1 goes on any more.
func TestBatchCancelsOne(t *testing.T) {
	v := sealtest.LoadVector(t, "8m")
	members, _, ended := startBatch(t, v, filepath.Join(t.TempDir(), "s"), "batched")
	own, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() {
			ctx := t.Context()
			if i == 1 {
				ctx = own
			}
			m.p1(ctx, func(step string) {
				if i == 1 && strings.HasPrefix(step, "layer 1") {
					cancel()
				}
			})
		})
	}
	wg.Wait()
	if err := ended(); err != nil {
		t.Errorf("the batch: %v", err)
	}
	checkMember(t, v, members[0])
	checkMember(t, v, members[2])
	if !errors.Is(members[1].err, context.Canceled) {
		t.Errorf("the cancelled one: %v", members[1].err)
	}
}

// The batch's process dies: each sector goes on alone from its last good layer.
func TestMembersOutliveTheBatch(t *testing.T) {
	v := sealtest.LoadVector(t, "8m")
	members, batch, ended := startBatch(t, v, filepath.Join(t.TempDir(), "s"), "batchedOrAlone")
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() {
			m.p1(t.Context(), func(step string) {
				if i == 0 && strings.HasPrefix(step, "layer 2") {
					_ = syscall.Kill(int(batch.group.Load()), syscall.SIGKILL)
				}
			})
		})
	}
	wg.Wait()
	if err := ended(); err == nil {
		t.Error("the batch was not killed")
	}
	for _, m := range members {
		checkMember(t, v, m)
	}
	if !slices.Contains(members[0].steps, "resumed at layer 2/2") {
		t.Errorf("the first one did not resume: %v", members[0].steps)
	}
}

// A batch takes no more than it may; whoever comes then begins another. All end well.
func TestBatchAfterBatch(t *testing.T) {
	v := sealtest.LoadVector(t, "2k")
	socket := filepath.Join(t.TempDir(), strings.Repeat("a-long-name-", 12), "s") // longer than a socket's may be
	if err := os.Mkdir(filepath.Dir(socket), 0o700); err != nil {
		t.Fatal(err)
	}
	var batches atomic.Int32
	var serving, wg sync.WaitGroup
	e := Batched{Engine: nowhere{}, Socket: socket, Start: func() error {
		serving.Go(func() {
			b := Batch{Most: 2}
			if members, err := b.open(socket); err != nil || len(members) > 0 {
				batches.Add(1)
				if err == nil {
					err = b.run(t.Context(), members)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
		return nil
	}}
	for i := range 5 {
		b := benchOf(t, v, t.TempDir())
		b.Number += uint64(i)
		if b.Phases = b.Phases[:1]; b.Check() != nil {
			t.Fatal(b.Check())
		}
		wg.Go(func() {
			r, err := e.Run(t.Context(), b.request(phases.P1, map[string]string{"ticket": b.Ticket}), nil)
			if err != nil || r.Outputs["comm_d"] != hexOf(v.CommD) {
				t.Errorf("sector %d: %v, %v", b.Number, r.Outputs, err)
			}
		})
	}
	wg.Wait()
	serving.Wait()
	if n := batches.Load(); n < 3 {
		t.Errorf("%d batches for five sectors in twos", n)
	}
}

// What is no p1 is refused, and does not take a place.
func TestBatchRefuses(t *testing.T) {
	v := sealtest.LoadVector(t, "2k")
	socket := filepath.Join(t.TempDir(), "s")
	served := make(chan error, 1)
	go func() { served <- Batch{Most: 1}.Serve(t.Context(), socket) }()
	e := Batched{Engine: nowhere{}, Socket: socket, Start: func() error { return nil }}
	b := benchOf(t, v, t.TempDir())
	if err := b.Check(); err != nil {
		t.Fatal(err)
	}
	good := b.request(phases.P1, map[string]string{"ticket": b.Ticket})
	bad := good
	bad.Inputs = map[string]string{"ticket": "no hex"}
	_, err := e.Run(t.Context(), bad, nil)
	hasCode(t, err, "bad_request")
	for _, text := range []string{"hello\n", `{"v":1,"phase":"p2"}` + "\n", `{"v":9}` + "\n"} {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		v := listen(conn, nil)
		conn.Close()
		if v.err == nil || v.err.Code != "bad_request" {
			t.Errorf("%q: %+v", text, v)
		}
	}
	if _, err := e.Run(t.Context(), good, nil); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func hasCode(t *testing.T, err error, code string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("%v, want code %s", err, code)
	}
}
