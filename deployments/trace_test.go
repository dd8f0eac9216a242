package deployments_test

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"sealfleet/internal/bus"
	"sealfleet/internal/phases"
	"sealfleet/internal/trace"
)

// spans is a collector of traces.
type spans struct {
	mu  sync.Mutex
	all map[string]*otlp.Span // by span id
	of  map[string]string     // the service of each
}

func newCollector(t *testing.T) *spans {
	c := &spans{all: map[string]*otlp.Span{}, of: map[string]string{}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var req collector.ExportTraceServiceRequest
		if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &req) != nil {
			t.Errorf("%s: no traces (%v)", r.URL.Path, err)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, rs := range req.GetResourceSpans() {
			service := ""
			for _, a := range rs.GetResource().GetAttributes() {
				if a.GetKey() == "service.name" {
					service = a.GetValue().GetStringValue()
				}
			}
			for _, ss := range rs.GetScopeSpans() {
				for _, s := range ss.GetSpans() {
					id := hex.EncodeToString(s.GetSpanId())
					c.all[id], c.of[id] = s, service
				}
			}
		}
	}))
	t.Cleanup(srv.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", srv.URL)
	return c
}

func attr(s *otlp.Span, key string) string {
	for _, a := range s.GetAttributes() {
		if a.GetKey() == key {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}

// TestTraces seals sectors while a real collector listens.
func TestTraces(t *testing.T) {
	c := newCollector(t)
	f := newFleet(t)
	f.seal(5)
	f.until("the tombstones, which come after the spans", func() bool {
		for n := range uint64(4) { // the fifth is parked
			if stone, err := f.bus.Archived(f.ctx, phases.SectorID(1000, n+1)); err != nil || stone == nil {
				return false
			}
		}
		return true
	})
	f.headers()
	f.stop() // what has ended has been told of
	for _, tr := range f.tracers {
		tr.Stop() // sends what is left
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := range uint64(5) {
		sector := phases.SectorID(1000, n+1)
		traceID := trace.OfSector(sector).String()
		attempts, gates, roots := map[string]*otlp.Span{}, 0, 0
		for id, s := range c.all {
			if hex.EncodeToString(s.GetTraceId()) != traceID {
				if attr(s, "sealfleet.sector") == sector {
					t.Errorf("%s of %s is in another trace", s.GetName(), sector)
				}
				continue
			}
			up := c.all[hex.EncodeToString(s.GetParentSpanId())]
			switch {
			case strings.HasPrefix(s.GetName(), "sector "):
				roots++
			case s.GetName() == "precommit" || s.GetName() == "commit":
				gates++
			case !strings.HasPrefix(s.GetName(), "issue "):
				attempts[s.GetName()] = s
				if up == nil || up.GetName() != "issue "+s.GetName() || c.of[id] != "sealfleet-consumer" || attr(s, "sealfleet.host") != "h1" {
					t.Errorf("%s of %s hangs from %q, and is of %s", s.GetName(), sector, up.GetName(), c.of[id])
				}
			}
			if s.GetEndTimeUnixNano() < s.GetStartTimeUnixNano() {
				t.Errorf("%s of %s ends before it began", s.GetName(), sector)
			}
		}
		if n+1 == 5 { // its p3 fails
			if p3 := attempts["p3"]; p3.GetStatus().GetCode() != otlp.Status_STATUS_CODE_ERROR || !strings.Contains(p3.GetStatus().GetMessage(), "bad_memory: a bit flipped") || attempts["p4"] != nil {
				t.Errorf("the attempt that failed: %v", p3)
			}
			continue
		}
		if len(attempts) != len(phases.Phases()) || gates != 2 || roots != 1 {
			t.Errorf("%s: %d attempts, %d gates, %d roots", sector, len(attempts), gates, roots)
		}
	}
}

// headers looks at the messages themselves.
func (f *fleet) headers() {
	f.t.Helper()
	seed, err := nats.NkeyOptionFromSeed(f.srv.DispatcherSeed())
	if err != nil {
		f.t.Fatal(err)
	}
	nc, err := nats.Connect(f.srv.ClientURL(), seed)
	if err != nil {
		f.t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		f.t.Fatal(err)
	}
	s, err := js.Stream(f.ctx, bus.EventsStream)
	if err != nil {
		f.t.Fatal(err)
	}
	sector := phases.SectorID(1000, 1)
	claimed, err := s.GetLastMsgForSubject(f.ctx, "ev."+group+"."+sector+".p1.h1")
	if err != nil {
		f.t.Fatal(err)
	}
	if h := claimed.Header[trace.Header]; len(h) != 1 || !strings.HasPrefix(h[0], "00-"+trace.OfSector(sector).String()+"-") || !strings.HasSuffix(h[0], "-01") {
		f.t.Errorf("the header of an event: %q", claimed.Header)
	}
}

// Without an OTEL_ variable nothing is sent, and no message has the header.
func TestTracesAreOffByDefault(t *testing.T) {
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER"} {
		t.Setenv(name, "")
	}
	f := newFleet(t)
	for _, tr := range f.tracers {
		if tr != nil {
			t.Fatal("a tracer nobody asked for")
		}
	}
	var off *trace.Tracer
	if off.OfTask(phases.Task{}) != "" || off.OfEvent(phases.Event{}) != "" {
		t.Error("a header though there are no traces")
	}
}
