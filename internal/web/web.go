// Package web is the operations HTTP server of both daemons: /metrics for Prometheus,
// /livez and /readyz for whoever restarts or routes, with reasons that people can read.
//
// It listens on the loopback interface. Any other address is refused unless traffic is
// encrypted and asked for with a token, because what it tells (hosts, groups, rates) is
// nobody else's business, and because later handlers change things.
package web

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Off as a listen address means: no HTTP server.
const Off = "off"

// Access is who may ask, and how. HTTP_LISTEN is each daemon's own setting, because
// their default ports differ.
type Access struct {
	TLSCert   string `env:"HTTP_TLS_CERT" desc:"certificate of the HTTP server, a PEM file; needed to listen beyond loopback" example:"/etc/sealfleet/http.crt"`
	TLSKey    string `env:"HTTP_TLS_KEY" desc:"key of that certificate, a PEM file" example:"/etc/sealfleet/http.key"`
	TokenFile string `env:"HTTP_TOKEN_FILE" desc:"file with the bearer token that requests must carry; needed to listen beyond loopback" example:"/etc/sealfleet/http.token"`
}

// Server is the operations HTTP server of one daemon.
type Server struct {
	log      *slog.Logger
	mux      *http.ServeMux
	http     *http.Server
	listener net.Listener
	token    *[32]byte // SHA-256 of it; nil: nobody is asked for one
	checks   checks
	secure   bool
}

const (
	minToken   = 16      // bytes; shorter ones can be guessed
	maxBody    = 4 << 20 // ten thousand sectors to submit
	maxHeaders = 16 << 10
	stopWithin = 5 * time.Second
)

// New binds listen (host:port, or Off) and prepares the server; Serve answers. The
// registry is what /metrics shows.
func New(listen string, a Access, registry *prometheus.Registry, log *slog.Logger) (*Server, error) {
	s := &Server{log: log, mux: http.NewServeMux()}
	if listen == Off {
		return s, nil
	}
	if err := s.readToken(a); err != nil {
		return nil, err
	}
	tlsConfig, err := readTLS(a)
	if err != nil {
		return nil, err
	}
	if err := s.mayListen(listen, tlsConfig != nil); err != nil {
		return nil, err
	}
	s.listener, err = new(net.ListenConfig).Listen(context.Background(), "tcp", listen)
	if err != nil {
		return nil, explainListen(listen, err)
	}
	if tlsConfig != nil {
		s.listener, s.secure = tls.NewListener(s.listener, tlsConfig), true
	}
	s.mux.HandleFunc("GET /livez", s.livez)
	s.mux.HandleFunc("GET /readyz", s.readyz)
	s.mux.Handle("GET /metrics", s.Authorized(promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		Registry: registry, MaxRequestsInFlight: 4, Timeout: 20 * time.Second,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	})))
	s.http = &http.Server{
		Handler:           http.MaxBytesHandler(s.mux, maxBody),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeaders,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return s, nil
}

func (s *Server) readToken(a Access) error {
	if a.TokenFile == "" {
		return nil
	}
	text, err := os.ReadFile(a.TokenFile)
	if err != nil {
		return fmt.Errorf("HTTP_TOKEN_FILE=%q: %w", a.TokenFile, err)
	}
	token := strings.TrimSpace(string(text))
	if len(token) < minToken {
		return fmt.Errorf("HTTP_TOKEN_FILE=%q: the token has %d characters, and needs at least %d (mend: openssl rand -hex 32 > %s)",
			a.TokenFile, len(token), minToken, a.TokenFile)
	}
	sum := sha256.Sum256([]byte(token))
	s.token = &sum
	return nil
}

func readTLS(a Access) (*tls.Config, error) {
	if a.TLSCert == "" && a.TLSKey == "" {
		return nil, nil
	}
	if a.TLSCert == "" || a.TLSKey == "" {
		return nil, errors.New("HTTP_TLS_CERT and HTTP_TLS_KEY go together: set both, or neither")
	}
	pair, err := tls.LoadX509KeyPair(a.TLSCert, a.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("HTTP_TLS_CERT=%q, HTTP_TLS_KEY=%q: %w", a.TLSCert, a.TLSKey, err)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"}, // http.Server negotiates HTTP/2 only if told so here
	}, nil
}

func (s *Server) mayListen(listen string, encrypted bool) error {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("HTTP_LISTEN=%q: %w (example: HTTP_LISTEN=\"127.0.0.1:9470\", or \"off\")", listen, err)
	}
	if isLoopback(host) || encrypted && s.token != nil {
		return nil
	}
	return fmt.Errorf("HTTP_LISTEN=%q can be reached by other machines: set HTTP_TLS_CERT, HTTP_TLS_KEY and HTTP_TOKEN_FILE, or listen on 127.0.0.1", listen)
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func explainListen(listen string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("HTTP_LISTEN=%q: the port is taken, perhaps by another daemon on this host: choose another, port 0 for any, or \"off\": %w", listen, err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("HTTP_LISTEN=%q: ports below 1024 need a privilege: choose a higher one: %w", listen, err)
	}
	return fmt.Errorf("HTTP_LISTEN=%q: %w", listen, err)
}

// Handle adds a handler that asks for the token, where there is one. The pattern is that
// of http.ServeMux. Call it before Serve.
func (s *Server) Handle(pattern string, h http.Handler) { s.mux.Handle(pattern, s.Authorized(h)) }

// HandleOpen adds a handler that answers anybody who can connect: for what is no secret,
// such as the page's files. Call it before Serve.
func (s *Server) HandleOpen(pattern string, h http.Handler) { s.mux.Handle(pattern, h) }

// Authorized lets only requests with the token through to h.
func (s *Server) Authorized(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.authorized(r) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			if strings.HasPrefix(r.URL.Path, "/v1/") {
				writeFault(w, http.StatusUnauthorized, "unauthorized", "send the token of HTTP_TOKEN_FILE as Authorization: Bearer …, or sign in by POST /v1/session")
				return
			}
			http.Error(w, "send the token of HTTP_TOKEN_FILE as Authorization: Bearer …", http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func (s *Server) authorized(r *http.Request) bool {
	if s.token == nil || s.hasSession(r) {
		return true
	}
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	sum := sha256.Sum256([]byte(strings.TrimSpace(given)))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(sum[:], s.token[:]) == 1
}

// Addr is where the server listens, empty if it is off.
func (s *Server) Addr() string {
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}

// URL is where the server can be asked, empty if it is off.
func (s *Server) URL() string {
	switch {
	case s.listener == nil:
		return ""
	case s.secure:
		return "https://" + s.Addr()
	}
	return "http://" + s.Addr()
}

// Serve answers until ctx ends, then lets requests under way finish within seconds.
func (s *Server) Serve(ctx context.Context) error {
	if s.listener == nil {
		<-ctx.Done()
		return nil
	}
	ended := make(chan error, 1)
	go func() { ended <- s.http.Serve(s.listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("HTTP server on %s: %w", s.Addr(), err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
	defer cancel()
	if err := s.http.Shutdown(stop); err != nil {
		s.log.Warn("HTTP requests were cut off at stop", "error", err)
		return s.http.Close()
	}
	return nil
}
