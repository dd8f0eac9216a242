package web_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"sealfleet/internal/version"
	"sealfleet/internal/web"
)

const token = "0123456789abcdef-a-token"

func start(t *testing.T, listen string, a web.Access, handle ...func(*web.Server)) *web.Server {
	t.Helper()
	s, err := web.New(listen, a, web.NewRegistry("test"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range handle {
		h(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

// certificate makes a self-signed one for 127.0.0.1 and the pool that trusts it.
func certificate(t *testing.T) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return write(t, "crt", certPEM), write(t, "key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})), pool
}

func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func get(t *testing.T, c *http.Client, url, bearer string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func TestHealthAndMetrics(t *testing.T) {
	s := start(t, "127.0.0.1:0", web.Access{})
	c := http.DefaultClient
	trouble := errors.New("bus: no server at nats://127.0.0.1:4222: start the dispatcher")
	s.Check("bus", func(context.Context) error { return trouble })
	s.Check("disk", func(context.Context) error { return nil })

	code, body := get(t, c, s.URL()+"/readyz", "")
	var h web.Health
	if err := json.Unmarshal([]byte(body), &h); err != nil {
		t.Fatal(err)
	}
	want := []web.CheckResult{{Name: "bus", Reason: trouble.Error()}, {Name: "disk", OK: true}}
	if code != http.StatusServiceUnavailable || h.Ready || len(h.Checks) != 2 || h.Checks[0] != want[0] || h.Checks[1] != want[1] {
		t.Fatalf("%d %s", code, body)
	}
	if code, body := get(t, c, s.URL()+"/livez", ""); code != http.StatusOK || body != "{\"live\":true}\n" {
		t.Fatalf("%d %s", code, body)
	}
	trouble = nil
	if code, body := get(t, c, s.URL()+"/readyz", ""); code != http.StatusOK || !strings.Contains(body, `"ready":true`) {
		t.Fatalf("%d %s", code, body)
	}
	code, body = get(t, c, s.URL()+"/metrics", "")
	if code != http.StatusOK {
		t.Fatalf("%d %s", code, body)
	}
	for _, name := range []string{`sealfleet_build_info{`, `version="` + version.String() + `"`, "go_goroutines ", "process_start_time_seconds "} {
		if !strings.Contains(body, name) {
			t.Errorf("/metrics has no %s", name)
		}
	}
	if code, _ := get(t, c, s.URL()+"/nothing", ""); code != http.StatusNotFound {
		t.Errorf("/nothing: %d", code)
	}
}

func TestSlowCheckIsNotWaitedForWhenTheRequestEnds(t *testing.T) {
	s := start(t, "127.0.0.1:0", web.Access{})
	never := make(chan struct{})
	defer close(never)
	s.Check("hangs", func(context.Context) error { <-never; return nil })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if h := s.Health(ctx); h.Ready || h.Checks[0].Reason == "" {
		t.Fatalf("%+v", h)
	}
}

func TestBeyondLoopbackNeedsTLSAndToken(t *testing.T) {
	cert, key, pool := certificate(t)
	tok := write(t, "token", []byte(token+"\n"))
	for name, a := range map[string]web.Access{
		"nothing":    {},
		"only token": {TokenFile: tok},
		"only TLS":   {TLSCert: cert, TLSKey: key},
	} {
		for _, listen := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "example.com:0"} {
			_, err := web.New(listen, a, web.NewRegistry("test"), slog.New(slog.DiscardHandler))
			if err == nil || !strings.Contains(err.Error(), "HTTP_TOKEN_FILE") {
				t.Errorf("%s on %s: %v", name, listen, err)
			}
		}
	}

	s := start(t, "0.0.0.0:0", web.Access{TLSCert: cert, TLSKey: key, TokenFile: tok})
	_, port, _ := net.SplitHostPort(s.Addr())
	url := "https://127.0.0.1:" + port
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}}
	defer c.CloseIdleConnections()
	s.Check("secret", func(context.Context) error { return errors.New("host p1-17 is down") })
	for _, bearer := range []string{"", "wrong", token[:len(token)-1]} {
		if code, body := get(t, c, url+"/metrics", bearer); code != http.StatusUnauthorized || strings.Contains(body, "sealfleet") {
			t.Errorf("token %q: %d %s", bearer, code, body)
		}
	}
	if code, body := get(t, c, url+"/metrics", token); code != http.StatusOK || !strings.Contains(body, "sealfleet_build_info") {
		t.Errorf("%d %s", code, body)
	}
	if code, body := get(t, c, url+"/readyz", ""); code != http.StatusServiceUnavailable || strings.Contains(body, "p1-17") {
		t.Errorf("reasons for strangers: %d %s", code, body)
	}
	if code, body := get(t, c, url+"/readyz", token); code != http.StatusServiceUnavailable || !strings.Contains(body, "p1-17") {
		t.Errorf("no reasons for a friend: %d %s", code, body)
	}
}

func TestBadSettings(t *testing.T) {
	cert, _, _ := certificate(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, test := range map[string]struct {
		listen string
		access web.Access
		want   string
	}{
		"port taken":   {taken.Addr().String(), web.Access{}, "the port is taken"},
		"no port":      {"127.0.0.1", web.Access{}, `HTTP_LISTEN="127.0.0.1"`},
		"no key":       {"127.0.0.1:0", web.Access{TLSCert: cert}, "set both"},
		"bad pair":     {"127.0.0.1:0", web.Access{TLSCert: cert, TLSKey: cert}, "HTTP_TLS_KEY"},
		"no such file": {"127.0.0.1:0", web.Access{TokenFile: "/nowhere/token"}, "/nowhere/token"},
		"short token":  {"127.0.0.1:0", web.Access{TokenFile: write(t, "token", []byte("short"))}, "at least 16"},
	} {
		_, err := web.New(test.listen, test.access, web.NewRegistry("test"), slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
	if s := start(t, web.Off, web.Access{}); s.URL() != "" {
		t.Errorf("off listens at %s", s.URL())
	}
}

func TestRegistryLint(t *testing.T) {
	problems, err := testutil.GatherAndLint(web.NewRegistry("test"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "sealfleet_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}
