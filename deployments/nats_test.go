package deployments_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/oklog/ulid/v2"

	"sealfleet/internal/bus"
	"sealfleet/internal/phases"
)

// user makes an nkey: its public half for the server's environment, its seed in a file.
func user(t *testing.T, variable string) (seedFile string) {
	t.Helper()
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(variable, public)
	seedFile = filepath.Join(t.TempDir(), variable)
	if err := os.WriteFile(seedFile, seed, 0o600); err != nil {
		t.Fatal(err)
	}
	return seedFile
}

// TestHostPermissionsSuffice runs a server with accounts.conf, and does on it what a host
// does, with what one host is allowed there; and what it must not be able to.
func TestHostPermissionsSuffice(t *testing.T) {
	dispatcherSeed, hostSeed := user(t, "DISPATCHER_NKEY"), user(t, "HOST_NKEY")
	user(t, "SYS_NKEY")
	o, err := server.ProcessConfigFile("nats/accounts.conf")
	if err != nil {
		t.Fatal(err)
	}
	o.Host, o.Port, o.StoreDir, o.JetStream, o.NoSigs, o.NoLog = "127.0.0.1", server.RANDOM_PORT, t.TempDir(), true, true, true
	srv, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	defer srv.WaitForShutdown()
	defer srv.Shutdown()
	if !srv.ReadyForConnections(time.Minute) {
		t.Fatal("the server does not start")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	denied := &denials{}
	connect := func(role bus.Role, name, seed string) *bus.Bus {
		b, err := bus.Connect(ctx, bus.Config{URL: srv.ClientURL(), Nkey: seed, Role: role, StateDir: t.TempDir()}, name, slog.New(denied))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Close)
		return b
	}
	const name = "p1-host-1"
	d := connect(bus.RoleDispatcher, "dispatcher-d1", dispatcherSeed)
	if _, err := d.Apply(ctx, []string{group}); err != nil {
		t.Fatal(err)
	}
	h := connect(bus.RoleHost, name, hostSeed)

	if err := h.Announce(ctx, name, "10.0.0.1", 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	stop, err := h.Serve(bus.Service{Kind: bus.ConsumerService, Name: name, Status: func() any { return "well" }})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	heard := make(chan bus.HostStatus, 1)
	unwatch, err := d.WatchHosts(func(_ string, s bus.HostStatus) {
		select {
		case heard <- s:
		default:
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer unwatch()

	// A task of p1 is issued, taken, claimed, extended, done and acknowledged.
	sector := phases.SectorID(1000, 1)
	event := func(kind phases.EventType, host, prev, claim string) phases.Event {
		return phases.Event{
			V: phases.Version, ID: ulid.Make().String(), Type: kind, Group: group, Sector: sector, Step: phases.P1, Issue: 1, Attempt: 1,
			Host: host, PrevID: prev, ClaimID: claim, At: time.Now().UTC(),
		}
	}
	issued := event(phases.Issued, "dispatcher-d1", "", "")
	seq, err := d.Append(ctx, issued, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.PublishTask(ctx, phases.Task{
		V: phases.Version, Group: group, Sector: sector, Step: phases.P1, Issue: 1, Attempt: 1, IssuedID: issued.ID, IssuedSeq: seq,
		Spec: phases.Spec{Miner: 1000, Number: 1, ProofType: 5},
	}); err != nil {
		t.Fatal(err)
	}
	lease, err := h.Fetch(ctx, group, phases.P1, 10*time.Second)
	if err != nil || lease == nil {
		t.Fatalf("no task: %v", err)
	}
	claimed := event(phases.Claimed, name, issued.ID, "c1")
	if seq, err = h.Append(ctx, claimed, seq); err != nil {
		t.Fatal(err)
	}
	if last, err := h.Last(ctx, group, sector, phases.P1); err != nil || last == nil || last.ID != claimed.ID {
		t.Errorf("the chain ends with %+v (%v)", last, err)
	}
	if err := lease.Extend(); err != nil {
		t.Error(err)
	}
	done := event(phases.Done, name, claimed.ID, "c1")
	done.Result = &phases.Result{Code: "ok"}
	if _, err = h.Append(ctx, done, seq); err != nil {
		t.Error(err)
	}
	if err := lease.Ack(ctx); err != nil {
		t.Error(err)
	}
	if _, err := h.Controls(ctx, bus.ControlDrain); err != nil {
		t.Errorf("controls: %v", err)
	}
	if err := h.Notice(group, name, bus.NoticeStatus, bus.HostStatus{Host: name}); err != nil {
		t.Error(err)
	}
	select {
	case <-heard:
	case <-ctx.Done():
		t.Error("the host's status was not heard")
	}
	operator := raw(t, srv.ClientURL(), dispatcherSeed)
	for _, subject := range []string{"$SRV.PING", bus.StatusSubject(bus.ConsumerService, name)} {
		if _, err := operator.Request(subject, nil, 10*time.Second); err != nil {
			t.Errorf("%s: %v", subject, err)
		}
	}
	if text := denied.String(); text != "" {
		t.Errorf("the host was denied what it needs: %s", text)
	}

	// What it must not: write as another, end a sector, take other phases, read all.
	host := raw(t, srv.ClientURL(), hostSeed)
	for _, subject := range []string{
		"ev.group1." + sector + ".p1.p1-host-2", "ev.group1." + sector + ".sector.p1-host-1", "ev.group2." + sector + ".p1.p1-host-1",
		"$JS.API.CONSUMER.MSG.NEXT.SEAL_TASKS.group1-p2", "$JS.API.STREAM.MSG.GET.SEAL_EVENTS", "$JS.API.STREAM.PURGE.SEAL_TASKS",
		"$JS.API.STREAM.DELETE.SEAL_EVENTS", "ctl.drain.p1-host-2", "seal.group1.p1." + sector + ".9",
	} {
		if err := host.Publish(subject, []byte("{}")); err != nil {
			t.Fatal(err)
		}
		if err := host.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := host.LastError(); !errors.Is(err, nats.ErrPermissionViolation) || !strings.Contains(err.Error(), subject) {
			t.Errorf("a host may publish to %s: %v", subject, err)
		}
	}
}

func raw(t *testing.T, url, seed string) *nats.Conn {
	t.Helper()
	o, err := nats.NkeyOptionFromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(url, o, nats.CustomInboxPrefix("_INBOX_p1-host-1"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// denials keeps what a bus logs of permissions.
type denials struct {
	mu   sync.Mutex
	text strings.Builder
}

func (d *denials) String() string { d.mu.Lock(); defer d.mu.Unlock(); return d.text.String() }

func (d *denials) Enabled(context.Context, slog.Level) bool { return true }
func (d *denials) WithAttrs([]slog.Attr) slog.Handler       { return d }
func (d *denials) WithGroup(string) slog.Handler            { return d }
func (d *denials) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "denies") {
		d.mu.Lock()
		defer d.mu.Unlock()
		r.Attrs(func(a slog.Attr) bool { d.text.WriteString(a.String()); return true })
	}
	return nil
}

// The cluster's file must be one that the server reads, but for what each farm fills in.
func TestClusterConfigurationIsRead(t *testing.T) {
	user(t, "DISPATCHER_NKEY")
	user(t, "HOST_NKEY")
	user(t, "SYS_NKEY")
	t.Setenv("SERVER_NAME", "nats1")
	text, err := os.ReadFile("nats/sealfleet.conf")
	if err != nil {
		t.Fatal(err)
	}
	// The certificates are the farm's.
	without := regexp.MustCompile(`(?s)\n *tls \{.*?\n *\}`).ReplaceAllString(string(text), "")
	accounts, err := filepath.Abs("nats/accounts.conf")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(accounts, filepath.Join(dir, "accounts.conf")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "sealfleet.conf")
	if err := os.WriteFile(file, []byte(without), 0o644); err != nil {
		t.Fatal(err)
	}
	o, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if o.ServerName != "nats1" || !o.SyncAlways || o.PingInterval != 10*time.Second || o.MaxPingsOut != 2 || o.Cluster.Name != "sealfleet" || len(o.Routes) != 3 || len(o.Accounts) != 2 {
		t.Errorf("%q %v %v %d %q %d routes %d accounts", o.ServerName, o.SyncAlways, o.PingInterval, o.MaxPingsOut, o.Cluster.Name, len(o.Routes), len(o.Accounts))
	}
}
