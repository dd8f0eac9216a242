//go:build browser

package page_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sealfleet/internal/api"
	"sealfleet/internal/api/apitest"
	"sealfleet/internal/bus"
	"sealfleet/internal/chain"
	"sealfleet/internal/dispatch"
	"sealfleet/internal/phases"
	"sealfleet/internal/web"
	"sealfleet/internal/web/page"
)

const (
	group    = "group1"
	patience = 2 * time.Minute // for what must come; no test asserts time
)

// farm is a dispatcher with its page and API over an embedded NATS server, and a host in
// this process, whose phases take no time.
type farm struct {
	*testing.T
	ctx  context.Context
	bus  *bus.Bus
	host *bus.Bus
	url  string
	// fail tells how a task of the host ends; nil, or nil from it: well.
	fail func(phases.Task) *phases.Result
}

type farmOptions struct {
	access web.Access
	hold   int // HoldP1
	// before runs on the bus before the dispatcher reads the log.
	before func(*farm)
	// unasked: do not wait until the API answers.
	unasked bool
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newFarm(t *testing.T, o farmOptions) *farm {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	dir := t.TempDir()
	server, err := bus.StartEmbedded(bus.ServerConfig{Listen: "127.0.0.1:0", StateDir: dir}, log)
	must(t, err)
	t.Cleanup(server.Close)
	connect := func(c bus.Config, name string) *bus.Bus {
		c.StateDir = dir
		b, err := bus.Connect(ctx, c, name, log)
		must(t, err)
		t.Cleanup(b.Close)
		return b
	}
	f := &farm{T: t, ctx: ctx, bus: connect(bus.Config{Server: server}, "dispatcher-test"), host: connect(bus.Config{Role: bus.RoleHost}, "h1")}
	_, err = f.bus.Apply(ctx, []string{group})
	must(t, err)
	if o.before != nil {
		o.before(f)
	}
	site, err := web.New("127.0.0.1:0", o.access, prometheus.NewRegistry(), log)
	must(t, err)
	site.HandleSession()
	for _, p := range page.Patterns {
		site.HandleOpen(p, page.Handler())
	}
	front := api.New(site)
	f.url = site.URL()
	d := dispatch.New(f.bus, dispatch.Options{
		Name: "test", Groups: []string{group}, HoldP1: o.hold, Chain: chain.NewDev(chain.DevConfig{Seed: "test"}, nil, nil), Grace: 50 * time.Millisecond, GatePoll: 20 * time.Millisecond,
		Policy: phases.Policy{MaxAttempts: 1, RetryDelay: time.Millisecond, TransientDelay: time.Hour, MaxDelay: time.Hour},
	})
	metrics := bus.NewMetrics(f.bus)
	done := make(chan struct{}, 3)
	go func() { _ = site.Serve(ctx); done <- struct{}{} }()
	go func() { _ = d.Run(ctx); done <- struct{}{} }()
	metrics.Ask(ctx)
	go func() {
		front.Run(ctx, api.Options{Dispatcher: d, Bus: f.bus, BusMetrics: metrics, Groups: []string{group}, Version: "v0", Log: log})
		done <- struct{}{}
	}()
	t.Cleanup(func() {
		cancel()
		for range 3 {
			<-done
		}
	})
	if !o.unasked {
		f.until("the dispatcher is ready", func() bool {
			code, _ := f.ask(http.MethodGet, "/v1/overview", "")
			return d.Ready() == nil && code == http.StatusOK
		})
	}
	return f
}

func (f *farm) until(what string, is func() bool) {
	f.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for !is() {
		select {
		case <-tick.C:
		case <-late:
			f.Fatal("never happened: ", what)
		}
	}
}

func (f *farm) ask(method, path, body string) (int, []byte) {
	f.Helper()
	req, err := http.NewRequestWithContext(f.ctx, method, f.url+path, strings.NewReader(body))
	must(f.T, err)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	must(f.T, err)
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	must(f.T, err)
	return res.StatusCode, data
}

// get reads an answer of the API into v.
func (f *farm) get(path string, v any) {
	f.Helper()
	code, data := f.ask(http.MethodGet, path, "")
	if code != http.StatusOK {
		f.Fatalf("%s: %d %s", path, code, data)
	}
	must(f.T, json.Unmarshal(data, v))
}

func (f *farm) submit(from, n int) {
	f.Helper()
	specs := make([]string, n)
	for i := range n {
		specs[i] = fmt.Sprintf(`{"miner":1000,"number":%d,"proof_type":5}`, from+i)
	}
	body := fmt.Sprintf(`{"by":"me@here","group":%q,"sectors":[%s]}`, group, strings.Join(specs, ","))
	if code, data := f.ask(http.MethodPost, "/v1/sectors", body); code != http.StatusOK {
		f.Fatalf("submit: %d %.300s", code, data)
	}
}

func (f *farm) state(sector string) string {
	f.Helper()
	var s struct {
		State string `json:"state"`
	}
	f.get("/v1/sectors/"+sector, &s)
	return s.State
}

// work has the host do all tasks of the steps until the farm ends.
func (f *farm) work(steps ...phases.Step) {
	h := apitest.Host{Bus: f.host, Name: "h1", Group: group, Fail: f.fail}
	h.Work(f.ctx, steps...)
}

// firstFails has p1 of one sector fail for good, the first time.
func firstFails(number uint64) func(phases.Task) *phases.Result {
	return func(t phases.Task) *phases.Result {
		if t.Spec.Number == number && t.Step == phases.P1 && t.Issue == 1 {
			return &phases.Result{Code: "no_memory", Class: phases.Retryable, Message: "short of memory: 12 GiB of 56 GiB"}
		}
		return nil
	}
}

// tell has a host tell of itself.
func (f *farm) tell(host string) {
	f.Helper()
	must(f.T, f.host.Notice(group, host, bus.NoticeStatus, bus.HostStatus{
		V: 1, Host: host, Groups: []string{group}, At: time.Now(), Since: time.Now(), Version: "v0", Model: "Test CPU",
		Slots: []bus.HostSlots{{Entry: "10:p1", Phases: []phases.Step{phases.P1}, Slots: 10}}, Jobs: []bus.HostJob{},
	}))
}
