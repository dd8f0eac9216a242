package trace

import (
	"context"
	"strings"
	"testing"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"sealfleet/internal/phases"
)

func task() phases.Task {
	return phases.Task{Group: "group1", Sector: phases.SectorID(1000, 7), Step: phases.P1, Issue: 2, Attempt: 1, IssuedID: "01J0000000000000000000000A"}
}

// Two programs that never spoke name the same span alike, and a consumer that started
// anew without the message's header does too.
func TestIDsFollowFromTheLog(t *testing.T) {
	ctx := context.Background()
	seen := tracetest.NewInMemoryExporter()
	var tracers []*Tracer
	for _, who := range []string{"d1", "h1"} {
		tr, err := with(ctx, "test", who, sdk.WithSyncer(seen))
		if err != nil {
			t.Fatal(err)
		}
		defer tr.Stop()
		tracers = append(tracers, tr)
	}
	began := time.Unix(1000, 0)
	tracers[0].Issued(task(), began)
	for _, header := range []string{tracers[0].OfTask(task()), "", "nonsense", "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"} {
		tracers[1].Attempted(task(), Attempt{Header: header, ClaimID: "c1", From: began, To: began.Add(3 * time.Hour), Code: "ok"})
	}
	spans := seen.GetSpans()
	if len(spans) != 5 {
		t.Fatalf("%d spans", len(spans))
	}
	for _, s := range spans[1:] {
		if s.Parent.SpanID() != spans[0].SpanContext.SpanID() || s.SpanContext.TraceID() != OfSector(task().Sector) || s.SpanContext.SpanID() != spans[1].SpanContext.SpanID() {
			t.Errorf("%s hangs from %s, want %s", s.SpanContext.SpanID(), s.Parent.SpanID(), spans[0].SpanContext.SpanID())
		}
		if s.EndTime.Sub(s.StartTime) != 3*time.Hour {
			t.Errorf("it took %s", s.EndTime.Sub(s.StartTime))
		}
	}
	if e := tracers[1].OfEvent(phases.Event{Sector: task().Sector, ClaimID: "c1"}); !strings.Contains(e, spans[1].SpanContext.SpanID().String()) {
		t.Errorf("the header of the claim's events: %s", e)
	}
}

// A task whose dispatcher decided not to sample is not sampled by the host either.
func TestDecisionNotToSampleIsKept(t *testing.T) {
	seen := tracetest.NewInMemoryExporter()
	tr, err := with(context.Background(), "test", "h1", sdk.WithSyncer(seen))
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Stop()
	header := strings.TrimSuffix(tr.OfTask(task()), "-01") + "-00"
	tr.Attempted(task(), Attempt{Header: header, ClaimID: "c1", Code: "ok"})
	if n := len(seen.GetSpans()); n != 0 {
		t.Errorf("%d spans", n)
	}
}

func TestWantedByTheStandardVariables(t *testing.T) {
	for _, test := range []struct {
		env  map[string]string
		on   bool
		want string // in the error
	}{
		{nil, false, ""},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, true, ""},
		{map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://c/v1/traces"}, true, ""},
		{map[string]string{"OTEL_TRACES_EXPORTER": "otlp"}, true, ""},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, false, ""},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, false, ""},
		{map[string]string{"OTEL_TRACES_EXPORTER": "zipkin"}, false, "OTEL_TRACES_EXPORTER"},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "c:4317"}, false, "OTEL_EXPORTER_OTLP_ENDPOINT"},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, false, "OTEL_EXPORTER_OTLP_PROTOCOL"},
	} {
		on, err := wanted(func(name string) string { return test.env[name] })
		if on != test.on || (err != nil) != (test.want != "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: %v %v", test.env, on, err)
		}
	}
}

func TestNilTracerTellsNothing(t *testing.T) {
	var tr *Tracer
	tr.Issued(task(), time.Now())
	tr.Attempted(task(), Attempt{})
	tr.Gate(task(), time.Now(), time.Now(), &phases.Result{})
	tr.Ended("g", "s", time.Now(), time.Now(), phases.StatusFinished, "")
	tr.Stop()
}
