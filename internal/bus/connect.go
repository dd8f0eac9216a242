package bus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Pings find a blackholed connection in half a minute. Without them a dead host's
// waiting pull swallows a task, and nobody knows for four minutes.
const (
	pingInterval = 10 * time.Second
	pingsOut     = 2
)

// Connect connects, and keeps trying until ctx ends: it logs each failure and never gives
// up on its own. Once connected it reconnects by itself for ever. The client name shows
// in the server's connection list; a host's is its name.
func Connect(ctx context.Context, c Config, clientName string, log *slog.Logger) (*Bus, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	b := newBus(c, clientName, log)
	wait := 250 * time.Millisecond
	for {
		err := b.connect()
		if err == nil {
			break
		}
		b.log.Warn("cannot reach NATS, trying again", "error", err, "in", wait)
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
		case <-time.After(wait + rand.N(wait/4)):
		}
		wait = min(2*wait, 10*time.Second)
	}
	if err := b.checkLog(ctx); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

func (c Config) check() error {
	if c.AckWait != 0 && c.AckWait < 100*time.Millisecond {
		return fmt.Errorf("ACK_WAIT=%s is too short for a heartbeat: use 30s or more", c.AckWait)
	}
	if c.Replicas < 0 || c.Replicas > 5 {
		return fmt.Errorf("STREAM_REPLICAS=%d: use 1 on one server, 3 on a cluster of three", c.Replicas)
	}
	if (c.Cert == "") != (c.Key == "") {
		return errors.New("NATS_CERT and NATS_KEY belong together: set both or none")
	}
	return nil
}

// connect makes one try. The credentials are read anew each time: the embedded server's
// seed may only appear when its dispatcher starts for the first time.
func (b *Bus) connect() error {
	url, opts, err := b.options()
	if err != nil {
		return err
	}
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		return fmt.Errorf("%s: %w", orInProcess(url), err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return err
	}
	b.nc, b.js = nc, js
	b.mu.Lock()
	b.up = time.Now()
	b.mu.Unlock()
	return nil
}

func orInProcess(url string) string {
	if url == "" {
		return "the embedded server"
	}
	return url
}

func (b *Bus) options() (url string, opts []nats.Option, err error) {
	c := b.cfg
	opts = []nats.Option{
		nats.Name(b.client),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(500 * time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, 500*time.Millisecond),
		nats.IgnoreAuthErrorAbort(), // an operator may be exchanging the keys
		// Nothing is buffered while the connection is down: whoever writes must know
		// that it was not written, and its chain may move on meanwhile.
		nats.ReconnectBufSize(-1),
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(pingsOut),
		nats.Timeout(5 * time.Second),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { b.disconnected(err) }),
		nats.ReconnectHandler(func(*nats.Conn) { b.reconnected() }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { b.asyncError(err) }),
	}
	if b.cfg.Role == RoleHost {
		opts = append(opts, nats.CustomInboxPrefix("_INBOX_"+b.client))
	}
	if c.Server != nil {
		opts = append(opts, nats.InProcessServer(c.Server.ns))
		seed, err := nats.NkeyOptionFromSeed(c.Server.DispatcherSeed())
		if err != nil {
			return "", nil, fmt.Errorf("%s: %w", c.Server.DispatcherSeed(), err)
		}
		return "", append(opts, seed), nil
	}
	url = c.URL
	nkey := c.Nkey
	if url == "" {
		l, err := readLocal(c.StateDir)
		if err != nil {
			return "", nil, err
		}
		url = l.URL
		if nkey == "" && c.Creds == "" && c.User == "" && c.Token == "" {
			nkey = l.seed(c.StateDir, c.Role)
		}
	}
	auth, err := c.auth(nkey)
	return url, append(opts, auth...), err
}

func (c Config) auth(nkey string) ([]nats.Option, error) {
	var opts []nats.Option
	for _, f := range [...]struct{ name, path string }{
		{"NATS_CREDS", c.Creds}, {"NATS_NKEY", nkey}, {"NATS_CERT", c.Cert}, {"NATS_KEY", c.Key}, {"NATS_CA", c.CA},
	} {
		if f.path == "" {
			continue
		}
		file, err := os.Open(f.path)
		if err != nil {
			return nil, fmt.Errorf("%s=%q: %w; make it readable for this user", f.name, f.path, err)
		}
		_ = file.Close() // only its readability was asked for
	}
	if c.Creds != "" {
		opts = append(opts, nats.UserCredentials(c.Creds))
	}
	if nkey != "" {
		o, err := nats.NkeyOptionFromSeed(nkey)
		if err != nil {
			return nil, fmt.Errorf("NATS_NKEY=%q: %w", nkey, err)
		}
		opts = append(opts, o)
	}
	switch {
	case c.Token != "":
		opts = append(opts, nats.Token(c.Token))
	case c.User != "" && c.Password == "":
		opts = append(opts, nats.Token(c.User))
	case c.User != "":
		opts = append(opts, nats.UserInfo(c.User, c.Password))
	}
	if c.CA != "" {
		opts = append(opts, nats.RootCAs(c.CA))
	}
	if c.Cert != "" {
		opts = append(opts, nats.ClientCert(c.Cert, c.Key))
	}
	if c.CA != "" || c.Cert != "" || strings.HasPrefix(c.URL, "tls://") {
		opts = append(opts, nats.Secure(&tls.Config{MinVersion: tls.VersionTLS12}))
	}
	return opts, nil
}
