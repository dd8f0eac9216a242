package web

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Check tells whether one thing that the daemon needs is there: nil, or why not.
type Check func(ctx context.Context) error

// CheckResult is one check's answer in /readyz.
type CheckResult struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"`
}

// Health is the answer of /readyz.
type Health struct {
	Ready  bool          `json:"ready"`
	Checks []CheckResult `json:"checks"`
}

const checkWithin = 2 * time.Second

type checks struct {
	mu    sync.Mutex
	names []string
	funcs map[string]Check
}

// Check adds a named check to /readyz, or replaces the one of that name.
func (s *Server) Check(name string, c Check) {
	s.checks.mu.Lock()
	defer s.checks.mu.Unlock()
	if s.checks.funcs == nil {
		s.checks.funcs = map[string]Check{}
	}
	if _, known := s.checks.funcs[name]; !known {
		s.checks.names = append(s.checks.names, name)
	}
	s.checks.funcs[name] = c
}

// Health runs all checks side by side; one that takes longer than two seconds has failed.
func (s *Server) Health(ctx context.Context) Health {
	s.checks.mu.Lock()
	names := slices.Clone(s.checks.names)
	funcs := make([]Check, len(names))
	for i, n := range names {
		funcs[i] = s.checks.funcs[n]
	}
	s.checks.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	h := Health{Ready: true, Checks: make([]CheckResult, len(names))}
	answers := make([]chan error, len(names))
	for i, check := range funcs {
		answers[i] = make(chan error, 1)
		go func() { answers[i] <- check(ctx) }()
	}
	for i, name := range names {
		var err error
		select {
		case err = <-answers[i]:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		h.Checks[i] = CheckResult{Name: name, OK: err == nil}
		if err != nil {
			h.Checks[i].Reason = err.Error()
			h.Ready = false
		}
	}
	return h
}

// livez says that the process answers; it checks nothing, because a restart mends
// nothing of what /readyz complains about.
func (s *Server) livez(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]bool{"live": true})
}

// readyz tells anybody whether the daemon is ready, and those with the token why not.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	h := s.Health(r.Context())
	status := http.StatusOK
	if !h.Ready {
		status = http.StatusServiceUnavailable
	}
	if !s.authorized(r) {
		writeJSON(w, status, map[string]bool{"ready": h.Ready})
		return
	}
	writeJSON(w, status, h)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // the client has gone: nobody is left to tell
}
