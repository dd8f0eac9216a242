package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/renameio/v2"
	"github.com/nats-io/nats-server/v2/server"
)

// ServerConfig is how the dispatcher's embedded server runs. It is used if NATS_URL is empty.
type ServerConfig struct {
	Listen string `env:"SERVER_LISTEN" envDefault:"127.0.0.1:4222" desc:"where the embedded NATS server listens; another address than loopback needs SERVER_CERT and SERVER_KEY" example:"0.0.0.0:4222"`
	Cert   string `env:"SERVER_CERT" desc:"TLS certificate of the embedded server, PEM file" example:"/etc/sealfleet/server.pem"`
	Key    string `env:"SERVER_KEY" desc:"key of SERVER_CERT, PEM file" example:"/etc/sealfleet/server.key"`
	Sync   bool   `env:"SERVER_SYNC" envDefault:"true" desc:"sync every write to disk; false may lose two minutes of events at a power cut" example:"true"`

	// StateDir is Config.StateDir; streams, seeds and the URL lie in its nats directory.
	StateDir string
}

// Server is an embedded NATS server.
type Server struct {
	ns    *server.Server
	dir   string
	lock  *flock.Flock
	local local
	lines *serverLog
}

// startTimeout is how long recovery of a store may take before it is called a failure.
const startTimeout = 2 * time.Minute

// StartEmbedded starts the server, and waits until it can be used. On its first run it
// makes the nkey seeds, which only this user can read. It refuses an address that others
// can reach without TLS, and a store that another process uses.
func StartEmbedded(c ServerConfig, log *slog.Logger) (*Server, error) {
	host, port, err := c.address()
	if err != nil {
		return nil, err
	}
	if c.StateDir == "" {
		return nil, errors.New("STATE_DIR is empty: the embedded server needs a directory for its streams (example: STATE_DIR=/var/lib/sealfleet)")
	}
	dir := natsDir(c.StateDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("STATE_DIR=%q: %w; make it writable for this user", c.StateDir, err)
	}
	lock := flock.New(filepath.Join(dir, "lock"))
	if ok, err := lock.TryLock(); err != nil || !ok {
		return nil, errors.Join(fmt.Errorf("another dispatcher runs its embedded server in %s: give this one another STATE_DIR, or the other's address as NATS_URL", dir), err)
	}
	s := &Server{dir: dir, lock: lock}
	if err := s.run(c, host, port, log); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (c ServerConfig) address() (host string, port int, err error) {
	fault := func(err error) error {
		return fmt.Errorf("SERVER_LISTEN=%q: %w (example: 127.0.0.1:4222)", c.Listen, err)
	}
	host, p, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return "", 0, fault(err)
	}
	if port, err = strconv.Atoi(p); err != nil || port < -1 || port > 65535 {
		return "", 0, fault(errors.New("the port is not a number from 1 to 65535"))
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	if (c.Cert == "") != (c.Key == "") {
		return "", 0, errors.New("SERVER_CERT and SERVER_KEY belong together: set both or none")
	}
	ip := net.ParseIP(host)
	if loopback := host == "localhost" || ip != nil && ip.IsLoopback(); !loopback && c.Cert == "" {
		return "", 0, fault(errors.New("other machines can reach this address, and it would speak to them in clear: set SERVER_CERT and SERVER_KEY, or listen on 127.0.0.1"))
	}
	return host, port, nil
}

func (s *Server) run(c ServerConfig, host string, port int, log *slog.Logger) error {
	dispatcher, err := ensureSeed(s.DispatcherSeed())
	if err != nil {
		return err
	}
	hosts, err := ensureSeed(s.HostSeed())
	if err != nil {
		return err
	}
	name, err := os.Hostname()
	if err != nil {
		name = "unnamed"
	}
	o := &server.Options{
		ServerName: "sealfleet-" + name, Host: host, Port: port,
		JetStream: true, StoreDir: filepath.Join(s.dir, "store"), SyncAlways: c.Sync,
		PingInterval: pingInterval, MaxPingsOut: pingsOut,
		NoSigs: true, NoLog: true,
		Nkeys: []*server.NkeyUser{
			{Nkey: dispatcher},
			{Nkey: hosts, Permissions: hostPermissions()},
		},
	}
	if c.Cert != "" {
		if o.TLSConfig, err = server.GenTLSConfig(&server.TLSConfigOpts{CertFile: c.Cert, KeyFile: c.Key}); err != nil {
			return fmt.Errorf("SERVER_CERT=%q: %w", c.Cert, err)
		}
		o.TLSTimeout = 5
	}
	if s.ns, err = server.NewServer(o); err != nil {
		return fmt.Errorf("embedded NATS server: %w", err)
	}
	lines := &serverLog{log: log, fatal: make(chan string, 1)}
	s.lines = lines
	s.ns.SetLoggerV2(lines, false, false, false)
	go s.ns.Start()
	for began := time.Now(); !s.ns.ReadyForConnections(100 * time.Millisecond); {
		select {
		case why := <-lines.fatal:
			return fmt.Errorf("the embedded NATS server cannot run on SERVER_LISTEN=%q with its store in %s: %s", c.Listen, o.StoreDir, why)
		default:
		}
		if time.Since(began) > startTimeout {
			return fmt.Errorf("the embedded NATS server did not start within %s: see the lines above", startTimeout)
		}
	}
	s.local = local{URL: s.url(host, c.Cert != ""), DispatcherSeed: filepath.Base(s.DispatcherSeed()), HostSeed: filepath.Base(s.HostSeed()), PID: os.Getpid()}
	return s.local.write(s.dir)
}

func (s *Server) url(host string, tls bool) string {
	scheme := "nats"
	if tls {
		scheme = "tls"
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		// A certificate names the machine; it cannot name 0.0.0.0.
		if name, err := os.Hostname(); err == nil {
			host = name
		}
	}
	port := s.ns.Addr().(*net.TCPAddr).Port
	return scheme + "://" + net.JoinHostPort(host, strconv.Itoa(port))
}

// hostPermissions are those of all hosts that use the embedded server's one host seed.
// A server with a user for each host can be stricter: see docs/operations.
func hostPermissions() *server.Permissions {
	return &server.Permissions{
		Publish: &server.SubjectPermission{
			Allow: []string{
				"$JS.API.CONSUMER.INFO." + TasksStream + ".*",
				"$JS.API.CONSUMER.MSG.NEXT." + TasksStream + ".*",
				"$JS.API.DIRECT.GET." + EventsStream + ".ev.>",
				"$JS.API.DIRECT.GET." + ControlStream,
				"$JS.ACK." + TasksStream + ".>", "$JS.ACK.*.*." + TasksStream + ".>",
				eventSubjects, presencePrefix + "*", claimsSubject("*"), NoticeSubject("*", "*", "*"),
				asidePrefix + string(AsideTask) + ".*", asidePrefix + string(AsideNewer) + ".*",
			},
			Deny: []string{"ev.*.*.sector.*", "ev.*.*.*.dispatcher"},
		},
		Subscribe: &server.SubjectPermission{Deny: []string{"$SYS.>", "_INBOX.>"}},
		Response:  &server.ResponsePermission{MaxMsgs: 1, Expires: time.Minute}, // to who asks for a claim
	}
}

// ClientURL is where other programs reach the server.
func (s *Server) ClientURL() string { return s.local.URL }

// DispatcherSeed is the file with the nkey seed of dispatchers and operators.
func (s *Server) DispatcherSeed() string { return filepath.Join(s.dir, "dispatcher.nk") }

// HostSeed is the file with the nkey seed of hosts: copy it to each of them.
func (s *Server) HostSeed() string { return filepath.Join(s.dir, "host.nk") }

// Hint is what to type so that the nats CLI reaches the server.
func (s *Server) Hint() string {
	return "export NATS_URL=" + s.ClientURL() + " NATS_NKEY=" + s.DispatcherSeed()
}

// ErrStoreHealed says that the store's disk was full and has room again. NATS remembers a
// failed write for as long as it runs and refuses all that follow, so it must be started
// again.
var ErrStoreHealed = errors.New("the disk of the embedded server was full and has room again: the server must start again")

// Healed returns ErrStoreHealed when the store's disk was full and has room again; nil when
// ctx ends first.
func (s *Server) Healed(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if s.lines.full.Load() && s.room() {
			return ErrStoreHealed
		}
	}
}

// room tells whether the store's disk takes a few blocks.
func (s *Server) room() bool {
	const some = 4 << 20
	f, err := os.CreateTemp(s.dir, ".room-*")
	if err != nil {
		return false
	}
	defer os.Remove(f.Name())
	_, err = f.Write(make([]byte, some))
	return errors.Join(err, f.Sync(), f.Close()) == nil
}

// Close stops the server and waits for it.
func (s *Server) Close() {
	if s.ns != nil {
		s.ns.Shutdown()
		s.ns.WaitForShutdown()
	}
	_ = s.lock.Unlock() // the process's end would do it as well
}

// local is what the embedded server leaves in its directory for the programs of this
// machine: where it listens, and which seeds open it.
type local struct {
	URL            string `json:"url"`
	DispatcherSeed string `json:"dispatcher_seed"` // in the same directory
	HostSeed       string `json:"host_seed"`
	PID            int    `json:"pid"`
}

func natsDir(stateDir string) string { return filepath.Join(stateDir, "nats") }

const localFile = "server.json"

func (l local) write(dir string) error {
	data, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(dir, localFile), append(data, '\n'), 0o644)
}

func readLocal(stateDir string) (local, error) {
	path := filepath.Join(natsDir(stateDir), localFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return local{}, fmt.Errorf("NATS_URL is empty, and no dispatcher with an embedded server was found: %w; set NATS_URL (example: nats://nats1:4222), or STATE_DIR to that of the dispatcher", err)
	}
	var l local
	if err := json.Unmarshal(data, &l); err != nil {
		return local{}, fmt.Errorf("%s: %w", path, err)
	}
	return l, nil
}

func (l local) seed(stateDir string, r Role) string {
	if r == RoleHost {
		return filepath.Join(natsDir(stateDir), l.HostSeed)
	}
	return filepath.Join(natsDir(stateDir), l.DispatcherSeed)
}
