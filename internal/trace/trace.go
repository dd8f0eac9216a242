// Package trace tells a collector of traces (OpenTelemetry) what happened to a sector: one
// trace for each sector, a span for each attempt of each phase, and one for each wait for
// the chain. It is off unless an OTEL_ variable says where to send them.
//
// # Names that follow from the log
//
// A sector's trace id is a hash of its name, a task's span id one of its issued event's
// id, an attempt's one of its claim's. So a phase that outlives its consumer, a task that
// is published again and a dispatcher that takes over need no memory of a trace: whoever
// writes of the same thing writes under the same id. The header traceparent carries the
// same to programs that do not know this (and the decision whether to sample).
package trace

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	otrace "go.opentelemetry.io/otel/trace"

	"sealfleet/internal/phases"
	"sealfleet/internal/settings"
	"sealfleet/internal/version"
)

// Header is the W3C header's name. NATS headers are case-sensitive.
const Header = "traceparent"

// Tracer tells of sectors. A nil Tracer tells nothing.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   otrace.Tracer
	who      string
}

// Start returns a tracer if the environment asks for one, by OpenTelemetry's own variables
// (OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT and their like); else
// nil. program is dispatcher or consumer, who its name. What cannot be sent is dropped.
func Start(ctx context.Context, program, who string, log *slog.Logger) (*Tracer, error) {
	on, err := wanted(os.Getenv)
	if !on || err != nil {
		return nil, err
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_ENDPOINT: %w", err)
	}
	log.Info("traces are sent", "to", "OTEL_EXPORTER_OTLP_ENDPOINT")
	return with(ctx, program, who, sdk.WithBatcher(exporter))
}

// wanted tells whether traces are asked for.
func wanted(env func(string) string) (bool, error) {
	endpoint := env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") + env("OTEL_EXPORTER_OTLP_ENDPOINT")
	switch exporter := strings.ToLower(env("OTEL_TRACES_EXPORTER")); {
	case strings.EqualFold(env("OTEL_SDK_DISABLED"), "true"), exporter == "none":
		return false, nil
	case exporter != "" && exporter != "otlp":
		return false, &settings.Fault{Name: "OTEL_TRACES_EXPORTER", Value: exporter, Example: "otlp", Err: errors.New("unknown: use otlp or none")}
	case exporter == "" && endpoint == "":
		return false, nil
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		if p := env(name); p != "" && p != "http/protobuf" {
			return false, &settings.Fault{Name: name, Value: p, Example: "http/protobuf", Err: errors.New("only http/protobuf is spoken")}
		}
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"} {
		if e := env(name); e != "" && !strings.HasPrefix(e, "http://") && !strings.HasPrefix(e, "https://") {
			return false, &settings.Fault{Name: name, Value: e, Example: "http://127.0.0.1:4318", Err: errors.New("not an http or https URL")}
		}
	}
	return true, nil
}

// with makes a tracer; tests give it an exporter of their own.
func with(ctx context.Context, program, who string, exporter sdk.TracerProviderOption) (*Tracer, error) {
	res, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", "sealfleet-"+program), attribute.String("service.version", version.String()),
		attribute.String("service.instance.id", who), attribute.String("host.name", who),
	), resource.WithFromEnv()) // OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES have the last word
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	p := sdk.NewTracerProvider(exporter, sdk.WithResource(res), sdk.WithIDGenerator(ids{}))
	return &Tracer{p, p.Tracer("sealfleet"), who}, nil
}

// Stop sends what is left, for a moment.
func (t *Tracer) Stop() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	_ = t.provider.Shutdown(ctx) // the collector is away: nothing of the fleet depends on it
}

// wantIDs is the context's key of the ids that a span shall have.
type wantIDs struct{}

type pair struct {
	trace otrace.TraceID
	span  otrace.SpanID
}

// ids gives spans the ids that their context asks for.
type ids struct{}

func (ids) NewIDs(ctx context.Context) (otrace.TraceID, otrace.SpanID) {
	p, _ := ctx.Value(wantIDs{}).(pair)
	return p.trace, p.span
}

func (ids) NewSpanID(ctx context.Context, _ otrace.TraceID) otrace.SpanID {
	p, _ := ctx.Value(wantIDs{}).(pair)
	return p.span
}

// OfSector is the id of a sector's trace.
func OfSector(sector string) (id otrace.TraceID) {
	sum := sha256.Sum256([]byte("sealfleet sector " + sector))
	copy(id[:], sum[:])
	return id
}

func spanID(what string) (id otrace.SpanID) {
	sum := sha256.Sum256([]byte("sealfleet span " + what))
	copy(id[:], sum[:])
	return id
}

// parent is a span that somebody else tells of, or told.
func parent(sector, what string) otrace.SpanContext {
	return otrace.NewSpanContext(otrace.SpanContextConfig{TraceID: OfSector(sector), SpanID: spanID(what), TraceFlags: otrace.FlagsSampled, Remote: true})
}

func root(sector string) string { return "sector " + sector }

// format is the header's value of a span.
func format(sc otrace.SpanContext) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(otrace.ContextWithSpanContext(context.Background(), sc), carrier)
	return carrier[Header]
}

// OfTask is the header of a task's message, empty if there are no traces.
func (t *Tracer) OfTask(task phases.Task) string {
	if t == nil {
		return ""
	}
	return format(parent(task.Sector, task.IssuedID))
}

// OfEvent is the header of an event's message: the span that it is of.
func (t *Tracer) OfEvent(e phases.Event) string {
	if t == nil {
		return ""
	}
	switch {
	case e.ClaimID != "":
		return format(parent(e.Sector, e.ClaimID))
	case e.Type == phases.Issued:
		return format(parent(e.Sector, e.ID))
	}
	return format(parent(e.Sector, root(e.Sector)))
}

// span tells of something that began and has ended.
func (t *Tracer) span(name, what string, under otrace.SpanContext, kind otrace.SpanKind, sector string, from, to time.Time, fault string, attrs ...attribute.KeyValue) {
	ctx := context.WithValue(context.Background(), wantIDs{}, pair{OfSector(sector), spanID(what)})
	if under.IsValid() {
		ctx = otrace.ContextWithRemoteSpanContext(ctx, under)
	}
	_, s := t.tracer.Start(ctx, name, otrace.WithTimestamp(from), otrace.WithSpanKind(kind), otrace.WithAttributes(append(attrs, attribute.String("sealfleet.sector", sector))...))
	if fault != "" {
		s.SetStatus(codes.Error, fault)
	}
	if to.Before(from) {
		to = from
	}
	s.End(otrace.WithTimestamp(to))
}

func about(task phases.Task) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("sealfleet.group", task.Group), attribute.String("sealfleet.phase", string(task.Step)),
		attribute.Int("sealfleet.attempt", task.Attempt), attribute.Int("sealfleet.issue", task.Issue),
	}
}

// Issued tells that a task was published: the span from which its attempts hang.
func (t *Tracer) Issued(task phases.Task, at time.Time) {
	if t == nil {
		return
	}
	t.span("issue "+string(task.Step), task.IssuedID, parent(task.Sector, root(task.Sector)), otrace.SpanKindProducer, task.Sector, at, at, "", about(task)...)
}

// Attempt is how one went.
type Attempt struct {
	Header  string // of the task's message; empty: what it would be
	ClaimID string
	From    time.Time // the claim
	To      time.Time
	Code    string // ok, an error's code, lost or handed_back
	Message string // of a failure
	Bytes   int64
}

// Attempted tells of an attempt that has ended.
func (t *Tracer) Attempted(task phases.Task, a Attempt) {
	if t == nil {
		return
	}
	under := parent(task.Sector, task.IssuedID)
	if a.Header != "" {
		sc := otrace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{Header: a.Header}))
		if sc.IsValid() && sc.TraceID() == under.TraceID() {
			under = sc // with its decision whether to sample
		}
	}
	fault := ""
	if a.Code != "ok" {
		fault = a.Code
		if a.Message != "" {
			fault += ": " + a.Message
		}
	}
	attrs := append(about(task), attribute.String("sealfleet.host", t.who), attribute.String("sealfleet.code", a.Code))
	if a.Bytes > 0 {
		attrs = append(attrs, attribute.Int64("sealfleet.bytes", a.Bytes))
	}
	t.span(string(task.Step), a.ClaimID, under, otrace.SpanKindConsumer, task.Sector, a.From, a.To, fault, attrs...)
}

// Gate tells of a wait for the chain that has ended.
func (t *Tracer) Gate(task phases.Task, from, to time.Time, r *phases.Result) {
	if t == nil || r == nil {
		return
	}
	fault := ""
	if r.Class != "" {
		fault = r.Code + ": " + r.Message
	}
	t.span(string(task.Step), "gate "+task.IssuedID, parent(task.Sector, root(task.Sector)), otrace.SpanKindClient, task.Sector, from, to, fault,
		append(about(task), attribute.String("sealfleet.code", r.Code))...)
}

// Ended tells of a sector that has ended: the span that all others of it hang from.
func (t *Tracer) Ended(group, sector string, from, to time.Time, outcome phases.Status, reason string) {
	if t == nil {
		return
	}
	fault := ""
	if outcome != phases.StatusFinished {
		fault = string(outcome) + ": " + reason
	}
	t.span("sector "+sector, root(sector), otrace.SpanContext{}, otrace.SpanKindInternal, sector, from, to, fault,
		attribute.String("sealfleet.group", group), attribute.String("sealfleet.outcome", string(outcome)))
}
