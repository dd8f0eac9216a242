// Package deployments_test checks what lies in this directory against real programs: a
// dispatcher and a consumer that have sealed, and the numbers that they then tell.
package deployments_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"sealfleet/internal/alerts"
	"sealfleet/internal/bus"
	"sealfleet/internal/chain"
	"sealfleet/internal/consume"
	"sealfleet/internal/dispatch"
	"sealfleet/internal/engine"
	"sealfleet/internal/host"
	"sealfleet/internal/phases"
	"sealfleet/internal/settings"
	"sealfleet/internal/trace"
	"sealfleet/internal/web"
)

const group = "group1"

// metric is one metric as it is described.
type metric struct {
	Name, Type, Help string
	Labels           []string
	Programs         []string
}

// recorder is a registry that also keeps what is described, because a metric that has no
// value yet is not gathered.
type recorder struct {
	*prometheus.Registry
	t         *testing.T
	described map[string]*metric
}

func newRecorder(t *testing.T, program string) *recorder {
	return &recorder{Registry: web.NewRegistry(program), t: t, described: map[string]*metric{}}
}

var descRE = regexp.MustCompile(`^Desc\{fqName: "([^"]*)", help: "(.*?)", (?:unit: "[^"]*", )?constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)

func (r *recorder) Register(c prometheus.Collector) error {
	ch := make(chan *prometheus.Desc)
	go func() { c.Describe(ch); close(ch) }()
	for d := range ch {
		m := descRE.FindStringSubmatch(d.String())
		if m == nil {
			r.t.Errorf("cannot read %s", d)
			continue
		}
		is := &metric{Name: m[1], Type: "gauge", Help: strings.ReplaceAll(m[2], `\"`, `"`)}
		if m[4] != "" {
			is.Labels = strings.Split(m[4], ",")
		}
		switch c.(type) {
		case *prometheus.HistogramVec, prometheus.Histogram:
			is.Type = "histogram"
		}
		if strings.HasSuffix(is.Name, "_total") {
			is.Type = "counter"
		}
		r.described[is.Name] = is
	}
	return r.Registry.Register(c)
}

func (r *recorder) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		if err := r.Register(c); err != nil {
			r.t.Fatal(err)
		}
	}
}

// fleet is a dispatcher and a consumer on one bus.
type fleet struct {
	t                    *testing.T
	ctx                  context.Context
	bus                  *bus.Bus
	host                 *bus.Bus
	dispatcher, consumer *recorder
	submitted            uint64
	srv                  *bus.Server
	stop                 func() // ends all of it, and waits
	tracers              []*trace.Tracer
	webhook              chan alerts.Payload // what alarms were posted
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	tracer := func(program, who string) *trace.Tracer {
		tr, err := trace.Start(ctx, program, who, log)
		if err != nil {
			t.Fatal(err)
		}
		return tr
	}
	dir := t.TempDir()
	srv, err := bus.StartEmbedded(bus.ServerConfig{Listen: "127.0.0.1:0", StateDir: dir}, log)
	if err != nil {
		t.Fatal(err)
	}
	connect := func(c bus.Config, name string) *bus.Bus {
		c.StateDir = dir
		b, err := bus.Connect(ctx, c, name, log)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Close)
		return b
	}
	f := &fleet{t: t, ctx: ctx, webhook: make(chan alerts.Payload, 64), dispatcher: newRecorder(t, "dispatcher"), consumer: newRecorder(t, "consumer")}
	f.tracers = []*trace.Tracer{tracer("dispatcher", "d1"), tracer("consumer", "h1")}
	f.srv = srv
	f.bus = connect(bus.Config{Server: srv, Tracer: f.tracers[0]}, "dispatcher-d1")
	f.host = connect(bus.Config{Role: bus.RoleHost, Tracer: f.tracers[1]}, "h1")
	if _, err := f.bus.Apply(ctx, []string{group}); err != nil {
		t.Fatal(err)
	}
	metrics := dispatch.NewMetrics()
	busMetrics := bus.NewMetrics(f.bus)
	f.dispatcher.MustRegister(metrics, busMetrics)
	d := dispatch.New(f.bus, dispatch.Options{
		Name: "d1", Chain: chain.NewDev(chain.DevConfig{Seed: "metrics"}, nil, nil), Groups: []string{group}, Log: log, Metrics: metrics,
		GatePoll: 10 * time.Millisecond, HoldP1: 50,
		Policy: phases.Policy{MaxAttempts: 1, RetryDelay: time.Millisecond, TransientDelay: time.Millisecond, MaxDelay: time.Second},
	})

	var cfg consume.Config
	if err := settings.LoadFrom(&cfg, map[string]string{
		"WORKERS": "8:p1,p2,p3,p4,p5,p6", "HOST_NAME": "h1", "IP": "127.0.0.1", "LOCAL_DIR": dir, "ENGINE": "noop", "FETCH_WAIT": "1s", "STATE_DIR": dir,
	}); err != nil {
		t.Fatal(err)
	}
	cfg.Bus.Role = bus.RoleHost
	checkup := consume.NewCheckup(consume.NewDoctor(&cfg, host.NewCores(0), &host.Prober{}), cfg.Groups, f.consumer, log)
	checkup.Look(ctx)
	c := consume.New(cfg, f.host, failing{}, f.consumer, log)
	c.Admit(checkup, host.NewCores(0), f.consumer)
	f.consumer.MustRegister(bus.NewMetrics(f.host))

	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var p alerts.Payload
		if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
			t.Error(err)
		}
		select {
		case f.webhook <- p:
		case <-ctx.Done():
		}
	}))
	t.Cleanup(hook.Close)
	alarms := alerts.New(alerts.Options{
		Config: alerts.Config{Webhook: hook.URL, Every: 20 * time.Millisecond, Repeat: time.Hour, Runbooks: "docs/runbooks/"},
		Name:   "d1", Bus: f.bus, Gatherer: f.dispatcher, Registry: f.dispatcher, Ready: d.Ready, Examples: d.Examples, Log: log,
	})
	alarmed := make(chan struct{})
	go func() { alarms.Run(ctx); close(alarmed) }()

	ended := make(chan error, 2)
	go func() { ended <- d.Run(ctx) }()
	go func() { ended <- c.Run(ctx) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		<-alarmed
		srv.Close()
	})
	t.Cleanup(f.stop)
	f.until("the dispatcher", func() bool { return d.Ready() == nil })
	return f
}

// failing is an engine that does nothing, and cannot do it for every fifth sector's p3.
type failing struct{ engine.Noop }

func (failing) Run(ctx context.Context, r engine.Request, p func(engine.Progress)) (engine.Result, error) {
	if r.Phase == phases.P3 && r.Number%5 == 0 {
		return engine.Result{}, &engine.Error{Code: "bad_memory", Class: phases.Permanent, Message: "a bit flipped"}
	}
	return engine.Noop{}.Run(ctx, r, p)
}

// seal submits n sectors, and waits until each has ended or is parked.
func (f *fleet) seal(n uint64) {
	f.t.Helper()
	specs := make([]phases.Spec, n)
	for i := range specs {
		f.submitted++
		specs[i] = phases.Spec{Miner: 1000, Number: f.submitted, ProofType: 5}
	}
	if _, err := dispatch.Submit(f.ctx, f.bus, group, "test", specs, nil); err != nil {
		f.t.Fatal(err)
	}
	parked := float64(f.submitted / 5)
	f.until("the sectors", func() bool {
		fams := f.gather(f.dispatcher)
		return value(fams, "sealfleet_sectors", "finished") == float64(f.submitted)-parked && value(fams, "sealfleet_sectors", "parked") == parked
	})
}

// until waits for what has no signal of its own: a number in a registry.
func (f *fleet) until(what string, is func() bool) {
	f.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	patience := time.After(5 * time.Minute)
	for !is() {
		select {
		case <-tick.C:
		case <-patience:
			rows, err := dispatch.List(f.ctx, f.bus, phases.DefaultPolicy(), 0, dispatch.Filter{})
			f.t.Fatalf("waited five minutes for %s: %+v %v", what, rows, err)
		}
	}
}

func (f *fleet) gather(r *recorder) map[string]*dto.MetricFamily {
	f.t.Helper()
	list, err := r.Gather()
	if err != nil {
		f.t.Fatal(err)
	}
	fams := map[string]*dto.MetricFamily{}
	for _, m := range list {
		fams[m.GetName()] = m
	}
	return fams
}

// value adds up the series of a metric one of whose labels has a value.
func value(fams map[string]*dto.MetricFamily, name, label string) (sum float64) {
	for _, m := range fams[name].GetMetric() {
		if label == "" || slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetValue() == label }) {
			sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return sum
}
