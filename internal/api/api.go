// Package api is a dispatcher's HTTP API, as internal/web/openapi.yaml specifies it: what is
// to be known of the fleet, and what operators ask of it. Numbers come from the functions of
// package dispatch that the operator's verbs use.
//
// What it protects. Reads never block the pipeline: they work on copies. A browser that is
// slow is cut off. Requests that change something must come from this site's own pages or
// from a program (no other origin), are small, say who asks and why, and become events or
// controls in the log. On loopback there is no token, so the name by which the server was
// asked must be a loopback one: another site's page could otherwise reach it under a name
// of its own (DNS rebinding).
//
// Limits. Idempotency keys are remembered by the dispatcher that was asked, until it ends or
// ten thousand newer ones came.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"sealfleet/internal/bus"
	"sealfleet/internal/dispatch"
	"sealfleet/internal/web"
)

// Schema is the version that every answer carries.
const Schema = "sealfleet.v1"

// Options are what the API needs.
type Options struct {
	Dispatcher *dispatch.Dispatcher
	Bus        *bus.Bus
	BusMetrics *bus.Metrics
	Groups     []string
	Version    string
	// Check looks at a submission's sectors; nil: nothing but their form is looked at.
	Check dispatch.Checker
	Log   *slog.Logger
}

// API answers.
type API struct {
	Options
	controls controls
	alarms   alarms
	keys     *keys
	streams  atomic.Int32 // readers of the stream
	started  atomic.Bool
}

// New makes the API's handlers on a site. Until Run is called they say that the dispatcher
// is starting.
func New(site *web.Server) *API {
	a := &API{keys: newKeys()}
	a.controls.known = map[string]bus.Control{}
	a.routes(site)
	return a
}

// Run answers for a dispatcher, and keeps up with what operators set, until ctx ends.
func (a *API) Run(ctx context.Context, o Options) {
	a.Options = o
	a.started.Store(true)
	for ctx.Err() == nil {
		if err := a.Bus.WatchControls(ctx, a.controls.set, operatorKinds...); err != nil && ctx.Err() == nil {
			a.Log.Warn("the API cannot follow controls, trying again", "error", err)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
	}
}

func (a *API) routes(site *web.Server) {
	look := func(pattern string, f func(*http.Request) (any, error)) {
		site.Handle(pattern, a.guard(func(w http.ResponseWriter, r *http.Request) {
			v, err := f(r)
			answer(w, v, err)
		}))
	}
	act := func(pattern string, f func(*http.Request, []byte) (any, error)) {
		site.Handle(pattern, a.guard(func(w http.ResponseWriter, r *http.Request) { a.once(w, r, f) }))
	}
	look("GET /v1/overview", a.overview)
	look("GET /v1/sectors", a.sectors)
	look("GET /v1/sectors/{sector}", a.sector)
	look("GET /v1/sectors/{sector}/events", a.sectorEvents)
	look("GET /v1/sectors/{sector}/why", a.why)
	look("GET /v1/failed", a.failed)
	look("GET /v1/jobs", a.jobs)
	look("GET /v1/hosts", a.hosts)
	look("GET /v1/hosts/{host}", a.host)
	look("GET /v1/groups", a.groups)
	look("GET /v1/backlog", a.backlog)
	look("GET /v1/stats", a.stats)
	look("GET /v1/bus", a.busView)
	look("GET /v1/legacy", a.legacy)
	look("GET /v1/controls", a.listControls)
	look("GET /v1/controls/{key}", a.controlHistory)
	site.Handle("GET /v1/stream", a.guard(a.stream))

	act("POST /v1/sectors", a.submit)
	act("POST /v1/sectors/{sector}/redo", a.redoOne)
	act("POST /v1/sectors/{sector}/cancel", a.cancel)
	act("POST /v1/sectors/{sector}/pause", a.pauseSector)
	act("POST /v1/sectors/{sector}/resume", a.resumeSector)
	act("POST /v1/redo", a.redoMany)
	act("POST /v1/hosts/{host}/drain", a.drain)
	act("POST /v1/hosts/{host}/undrain", a.undrain)
	act("POST /v1/groups/{group}/pause", a.pauseGroup)
	act("POST /v1/groups/{group}/resume", a.resumeGroup)
	act("POST /v1/groups/{group}/phases/{phase}/pause", a.pauseGroup)
	act("POST /v1/groups/{group}/phases/{phase}/resume", a.resumeGroup)
	act("PATCH /v1/legacy/{sector}/{phase}", a.legacySet)
	site.Handle("/v1/", a.guard(func(w http.ResponseWriter, r *http.Request) {
		answer(w, nil, failf(http.StatusNotFound, "not_found", "there is no %s %s", r.Method, r.URL.Path).mended("GET /v1/openapi.yaml lists what there is"))
	}))
}

// guard refuses what comes from another site.
func (a *API) guard(h http.HandlerFunc) http.Handler {
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answer(w, nil, failf(http.StatusForbidden, "cross_origin", "the request comes from another site's page"))
	}))
	checked := protection.Handler(h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		if !sameHost(r) {
			answer(w, nil, failf(http.StatusMisdirectedRequest, "bad_host", "this server is not %q", r.Host).mended("ask by the address that it listens on"))
			return
		}
		if !a.started.Load() {
			answer(w, nil, failf(http.StatusServiceUnavailable, "starting", "the dispatcher is not connected to NATS yet").mended("/readyz says what it waits for"))
			return
		}
		checked.ServeHTTP(w, r)
	})
}

// sameHost tells whether a server that listens on loopback was asked by a loopback name.
func sameHost(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return true
	}
	ip, _, err := net.SplitHostPort(local.String())
	if err != nil || !net.ParseIP(ip).IsLoopback() {
		return true
	}
	name := r.Host
	if h, _, err := net.SplitHostPort(r.Host); err == nil {
		name = h
	}
	name = strings.Trim(name, "[]")
	parsed := net.ParseIP(name)
	return strings.EqualFold(name, "localhost") || parsed != nil && parsed.IsLoopback()
}

// fault is an error with a code that programs can rely on.
type fault struct {
	status  int
	Code    string   `json:"code"`
	Message string   `json:"message"`
	Mend    string   `json:"mend,omitempty"`
	Near    []string `json:"near,omitempty"`
}

func (f *fault) Error() string { return f.Message }

func (f *fault) mended(how string) *fault { f.Mend = how; return f }

func failf(status int, code, format string, args ...any) *fault {
	return &fault{status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

// faultOf says what an error of the rooms below is to who asks.
func faultOf(err error) *fault {
	var f *fault
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &large):
		return failf(http.StatusRequestEntityTooLarge, "too_large", "the body is larger than %d bytes", large.Limit).mended("send it in parts")
	case errors.Is(err, dispatch.ErrUnknown):
		return failf(http.StatusNotFound, "unknown_sector", "%v", err)
	case errors.Is(err, dispatch.ErrExists):
		return failf(http.StatusConflict, "exists", "%v", err)
	case errors.Is(err, dispatch.ErrRefused):
		return failf(http.StatusConflict, "refused", "%v", err)
	case errors.Is(err, dispatch.ErrBadSpec):
		return failf(http.StatusUnprocessableEntity, "bad_spec", "%v", err)
	case errors.Is(err, bus.ErrUnreachable), errors.Is(err, bus.ErrNoStream):
		return failf(http.StatusServiceUnavailable, "bus_unreachable", "%v", err).mended("see that NATS runs; what runs goes on")
	case errors.Is(err, context.Canceled):
		return failf(499, "internal", "the client went away")
	}
	return failf(http.StatusInternalServerError, "internal", "%v", err)
}

// answer writes a value or an error.
func answer(w http.ResponseWriter, v any, err error) {
	status, body := encode(v, err)
	write(w, status, body)
}

func encode(v any, err error) (status int, body []byte) {
	status = http.StatusOK
	if err != nil {
		f := faultOf(err)
		status, v = f.status, map[string]any{"error": f}
	}
	body, err = json.Marshal(v)
	if err != nil {
		return http.StatusInternalServerError, []byte(`{"error":{"code":"internal","message":"the answer cannot be written"}}`)
	}
	return status, body
}

func write(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // the client has gone: nobody is left to tell
}

// decode reads a body strictly: a member that is not known is a mistake that would change
// what is asked for.
func decode(body []byte, v any) error {
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return failf(http.StatusBadRequest, "bad_request", "the body cannot be used: %v", err).mended("GET /v1/openapi.yaml says what it has")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return failf(http.StatusBadRequest, "bad_request", "something follows the body's JSON")
	}
	return nil
}
