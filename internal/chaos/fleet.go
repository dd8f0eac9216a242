package chaos

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"sealfleet/internal/bus"
	"sealfleet/internal/chaos/ledger"
	"sealfleet/internal/quietport"
)

// Programs builds what a run needs into a directory: the dispatcher, the consumer with
// the ledger in it, and the NATS server of go.mod, all with a clock that can be set.
func Programs(ctx context.Context, dir string, args ...string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	overlay, err := clockOverlay(ctx, dir)
	if err != nil {
		return fmt.Errorf("build the programs: %w", err)
	}
	args = append([]string{"build", "-tags", "chaos", "-overlay", overlay, "-o", dir + string(filepath.Separator)}, args...)
	args = append(args, "sealfleet/cmd/dispatcher", "sealfleet/cmd/consumer", "github.com/nats-io/nats-server/v2")
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return nil
}

const (
	group    = "group1"
	miner    = 1000
	userOps  = "dispatcher"
	userHost = "host"
	password = "chaos-on-loopback" // of servers that live as long as a run
)

// fleet is all processes of a run, below one directory.
type fleet struct {
	Options
	dir string
	log *slog.Logger

	servers     []*process // NATS; with Servers 0 the first dispatcher has it inside
	dispatchers []*process
	consumers   []*process
	addresses   []string  // of the servers
	links       [][]*link // of each consumer, to each server
}

func (f *fleet) ledgerPath() string { return filepath.Join(f.dir, "ledger.jsonl") }
func (f *fleet) sealer() string     { return filepath.Join(f.dir, "sealer") }
func (f *fleet) node(i int) string  { return filepath.Join(f.dir, "nodes", fmt.Sprintf("node%d", i+1)) }

const storageNodes = 2

// processes are all of them, in the order in which they are started.
func (f *fleet) processes() []*process {
	all := append([]*process{}, f.servers...)
	return append(append(all, f.dispatchers...), f.consumers...)
}

func newFleet(o Options, log *slog.Logger) (*fleet, error) {
	f := &fleet{Options: o, dir: o.Dir, log: log}
	for _, dir := range []string{f.sealer(), f.node(0), f.node(1)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	for range max(o.Servers, 1) {
		address, err := quietport.Address()
		if err != nil {
			return nil, err
		}
		f.addresses = append(f.addresses, address)
	}
	if err := f.addServers(); err != nil {
		return nil, err
	}
	for i := range o.Dispatchers {
		f.dispatchers = append(f.dispatchers, f.dispatcher(i))
	}
	for i := range o.Consumers {
		var way []*link
		for _, address := range f.addresses {
			l, err := newLink(address)
			if err != nil {
				return nil, err
			}
			way = append(way, l)
		}
		f.links = append(f.links, way)
		f.consumers = append(f.consumers, f.consumer(i))
	}
	return f, nil
}

// addServers prepares NATS servers of their own: one, or a cluster.
func (f *fleet) addServers() error {
	var routes []string
	var clusters []string
	for range f.Servers {
		address, err := quietport.Address()
		if err != nil {
			return err
		}
		clusters = append(clusters, address)
		routes = append(routes, "nats-route://"+address)
	}
	for i := range f.Servers {
		name := fmt.Sprintf("n%d", i+1)
		var b strings.Builder
		fmt.Fprintf(&b, "server_name: %s\nlisten: %s\nping_interval: \"10s\"\nping_max: 2\n", name, f.addresses[i])
		fmt.Fprintf(&b, "jetstream { store_dir: %q, sync_interval: always }\n", filepath.Join(f.dir, name))
		fmt.Fprintf(&b, "authorization { users: [ {user: %s, password: %q}, {user: %s, password: %q} ] }\n", userOps, password, userHost, password)
		if f.Servers > 1 {
			// Without no_advertise clients would learn the servers' own addresses, and leave
			// their proxies behind.
			fmt.Fprintf(&b, "cluster { name: chaos, listen: %s, no_advertise: true, routes: [ %s ] }\n", clusters[i], strings.Join(routes, ", "))
		}
		path := filepath.Join(f.dir, name+".conf")
		if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
			return err
		}
		f.servers = append(f.servers, &process{
			name: name, kind: "server", path: filepath.Join(f.Bin, "nats-server"), args: []string{"-c", path}, dir: f.dir,
			env: func() []string { return []string{"STATE_DIR=" + filepath.Join(f.dir, name)} }, // so that it is found in /proc
		})
	}
	return nil
}

// urls are the servers' own addresses.
func (f *fleet) urls() string {
	var list []string
	for _, address := range f.addresses {
		list = append(list, "nats://"+address)
	}
	return strings.Join(list, ",")
}

// seeds of the embedded server, which the first dispatcher makes.
func (f *fleet) seed(name string) string { return filepath.Join(f.dir, "d1", "nats", name) }

// busEnv is how a program reaches the servers.
func (f *fleet) busEnv(host bool, urls string) []string {
	env := []string{"NATS_URL=" + urls, "ACK_WAIT=" + f.AckWait.String(), fmt.Sprintf("STREAM_REPLICAS=%d", max(f.Servers, 1)), "HTTP_LISTEN=off", "LOG_FORMAT=text", "LOG_LEVEL=DEBUG"}
	switch {
	case f.Servers == 0 && host:
		return append(env, "NATS_NKEY="+f.seed("host.nk"))
	case f.Servers == 0:
		return append(env, "NATS_NKEY="+f.seed("dispatcher.nk"))
	case host:
		return append(env, "NATS_USER="+userHost, "NATS_PASSWORD="+password)
	}
	return append(env, "NATS_USER="+userOps, "NATS_PASSWORD="+password)
}

// policyEnv is what makes a run short: an operator's hand is never needed.
var policyEnv = []string{
	"BACKLOG_P1_HOLD=0",
	"MAX_ATTEMPTS=1000", "RETRY_DELAY=100ms", "TRANSIENT_DELAY=100ms", "MAX_DELAY=1s", "SWEEP_EVERY=1s", "TASK_SILENCE=5s",
	"DEV_CHAIN_EPOCH=20ms", "DEV_CHAIN_REQUIRE_SNARK=false",
	// Epochs are short, and a run lasts many of them. These are two hours: less than clocks
	// are set wrong by.
	"DEV_CHAIN_TICKET_EPOCHS=360000", "DEV_CHAIN_COMMIT_WITHIN=360000",
}

func (f *fleet) dispatcher(i int) *process {
	name := fmt.Sprintf("d%d", i+1)
	return &process{
		name: name, kind: "dispatcher", path: filepath.Join(f.Bin, "dispatcher"), args: []string{"serve"}, dir: f.dir,
		env: func() []string {
			env := append([]string{"DISPATCHER_NAME=" + name, "STATE_DIR=" + filepath.Join(f.dir, name)}, policyEnv...)
			urls := f.urls()
			if f.Servers == 0 && i == 0 {
				urls = "" // it has the server inside
				env = append(env, "SERVER_LISTEN="+f.addresses[0])
			}
			env = append(env, f.busEnv(false, urls)...)
			if urls == "" {
				env = append(env, "NATS_NKEY=")
			}
			return env
		},
	}
}

func (f *fleet) consumer(i int) *process {
	name := fmt.Sprintf("h%d", i+1)
	return &process{
		name: name, kind: "consumer", path: filepath.Join(f.Bin, "consumer"), args: []string{"serve"}, dir: f.dir,
		env: func() []string {
			var urls []string
			for _, l := range f.links[i] {
				urls = append(urls, "nats://"+l.addr())
			}
			nodes := fmt.Sprintf("node1=%s,node2=%s", f.node(0), f.node(1))
			env := []string{
				"HOST_NAME=" + name, fmt.Sprintf("IP=127.0.0.%d", i+1), "STATE_DIR=" + filepath.Join(f.dir, name), "WORKERS=" + f.Workers,
				"LOCAL_DIR=" + f.sealer(), "STORAGE_NODES=" + nodes, "SNARK=none", "CLEAN_SEALED=true", "AUDIT_INTERVAL=0s", "FETCH_WAIT=5s", "TIDY_EVERY=2s", "DRAIN_TIMEOUT=1s",
				ledger.PathVariable + "=" + f.ledgerPath(), ledger.WorkVariable + "=" + f.Work.String(), fmt.Sprintf("%s=%d", ledger.FailVariable, f.FailPerMille),
			}
			if f.Env != nil {
				env = append(env, f.Env...)
			}
			return append(env, f.busEnv(true, strings.Join(urls, ","))...)
		},
	}
}

// start starts everything, but only so many of the consumers, and returns when the streams are
// there.
func (f *fleet) start(ctx context.Context, consumers int) (*bus.Bus, error) {
	for _, p := range append(append([]*process{}, f.servers...), f.dispatchers[0]) {
		if err := p.start(); err != nil {
			return nil, err
		}
	}
	if f.Servers == 0 {
		if err := waitFor(ctx, func() bool { _, err := os.Stat(f.seed("host.nk")); return err == nil }); err != nil {
			return nil, fmt.Errorf("the embedded server made no seeds: %w", err)
		}
	}
	b, err := f.connect(ctx, "witness")
	if err != nil {
		return nil, err
	}
	for _, p := range append(append([]*process{}, f.dispatchers[1:]...), f.consumers[:consumers]...) {
		if err := p.start(); err != nil {
			b.Close()
			return nil, err
		}
	}
	err = waitFor(ctx, func() bool {
		plan, err := b.Plan(ctx, []string{group})
		for _, c := range plan {
			err = errors.Join(err, map[bool]error{true: errors.New("missing")}[c.Action == bus.ActionCreate])
		}
		return err == nil
	})
	if err != nil {
		b.Close()
		return nil, fmt.Errorf("the streams did not appear: %w", err)
	}
	return b, nil
}

// connect reaches the servers as an operator, past all proxies.
func (f *fleet) connect(ctx context.Context, name string) (*bus.Bus, error) {
	state := filepath.Join(f.dir, name)
	if err := os.MkdirAll(state, 0o755); err != nil {
		return nil, err
	}
	c := bus.Config{URL: f.urls(), StateDir: state, AckWait: f.AckWait, Replicas: max(f.Servers, 1)}
	if f.Servers == 0 {
		c.Nkey = f.seed("dispatcher.nk")
	} else {
		c.User, c.Password = userOps, password
	}
	return bus.Connect(ctx, c, "dispatcher-"+name, slog.New(slog.DiscardHandler))
}

// raw is a plain connection: an operator with the nats CLI, or a host that lies.
func (f *fleet) raw(host bool) (*nats.Conn, error) {
	opts := []nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(200 * time.Millisecond), nats.RetryOnFailedConnect(true)}
	user := userOps
	seed := "dispatcher.nk"
	if host {
		user, seed = userHost, "host.nk"
	}
	if f.Servers == 0 {
		o, err := nats.NkeyOptionFromSeed(f.seed(seed))
		if err != nil {
			return nil, err
		}
		opts = append(opts, o)
	} else {
		opts = append(opts, nats.UserInfo(user, password))
	}
	return nats.Connect(f.urls(), opts...)
}

// stop ends all processes, consumers first.
func (f *fleet) stop() (err error) {
	all := f.processes()
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].ended != nil {
			err = errors.Join(err, all[i].stop())
		}
	}
	for _, way := range f.links {
		for _, l := range way {
			l.close()
		}
	}
	return err
}

// waitFor asks until something is so, or ctx ends.
func waitFor(ctx context.Context, is func() bool) error {
	for !is() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}
