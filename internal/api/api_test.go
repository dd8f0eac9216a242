package api_test

import (
	"bufio"
	"bytes"
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

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/prometheus/client_golang/prometheus"

	"sealfleet/internal/api"
	"sealfleet/internal/api/apitest"
	"sealfleet/internal/bus"
	"sealfleet/internal/chain"
	"sealfleet/internal/dispatch"
	"sealfleet/internal/phases"
	"sealfleet/internal/web"
)

const (
	group    = "group1"
	patience = 5 * time.Minute // for what must come, on a machine with other work; no test asserts time
)

// farm is a dispatcher with its API over an embedded server, and a host in this process.
type farm struct {
	*testing.T
	ctx    context.Context
	bus    *bus.Bus
	host   *bus.Bus
	d      *dispatch.Dispatcher
	url    string
	router routers.Router
	// fail tells how a task of the host ends; nil or an empty code: well.
	fail func(phases.Task) *phases.Result
}

func newFarm(t *testing.T, access web.Access) *farm {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
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
	site, err := web.New("127.0.0.1:0", access, prometheus.NewRegistry(), log)
	must(t, err)
	site.HandleSpec()
	site.HandleSession()
	front := api.New(site)
	f.d = dispatch.New(f.bus, dispatch.Options{
		Name: "test", Groups: []string{group}, Chain: chain.NewDev(chain.DevConfig{Seed: "test"}, nil, nil), Grace: 50 * time.Millisecond, GatePoll: 20 * time.Millisecond,
		Policy: phases.Policy{MaxAttempts: 1, RetryDelay: time.Millisecond, TransientDelay: time.Hour, MaxDelay: time.Hour},
	})
	metrics := bus.NewMetrics(f.bus)
	f.url = site.URL()
	done := make(chan struct{}, 3)
	go func() { _ = site.Serve(ctx); done <- struct{}{} }()
	go func() { _ = f.d.Run(ctx); done <- struct{}{} }()
	metrics.Ask(ctx)
	go func() {
		front.Run(ctx, api.Options{Dispatcher: f.d, Bus: f.bus, BusMetrics: metrics, Groups: []string{group}, Version: "v0", Log: log})
		done <- struct{}{}
	}()
	t.Cleanup(func() {
		cancel()
		for range 3 {
			<-done
		}
	})
	doc, err := openapi3.NewLoader().LoadFromData(web.Spec)
	must(t, err)
	doc.Servers = nil
	f.router, err = gorillamux.NewRouter(doc)
	must(t, err)
	f.until("the dispatcher is ready", func() bool {
		code, _ := f.raw(http.MethodGet, "/v1/overview", "", nil)
		return f.d.Ready() == nil && code == http.StatusOK
	})
	return f
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (f *farm) until(what string, is func() bool) {
	f.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-f.ctx.Done():
			f.Fatal("never happened: ", what)
		}
	}
}

// raw asks without looking at the specification.
func (f *farm) raw(method, path, body string, header map[string]string) (int, []byte) {
	f.Helper()
	req, err := http.NewRequestWithContext(f.ctx, method, f.url+path, strings.NewReader(body))
	must(f.T, err)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for k, v := range header {
		req.Header.Set(k, v)
		if k == "Host" {
			req.Host = v
		}
	}
	res, err := http.DefaultClient.Do(req)
	must(f.T, err)
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	must(f.T, err)
	return res.StatusCode, data
}

// ask asks, and holds the request (if it is a good one) and the answer against the specification.
func (f *farm) ask(method, path, body string, want int) map[string]any {
	f.Helper()
	code, data := f.raw(method, path, body, nil)
	if code != want {
		f.Fatalf("%s %s: %d, want %d: %s", method, path, code, want, data)
	}
	req, err := http.NewRequestWithContext(f.ctx, method, path, bytes.NewReader([]byte(body)))
	must(f.T, err)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	route, params, err := f.router.FindRoute(req)
	must(f.T, err)
	in := &openapi3filter.RequestValidationInput{Request: req, PathParams: params, Route: route, Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true}}
	if want == http.StatusOK {
		if err := openapi3filter.ValidateRequest(f.ctx, in); err != nil {
			f.Errorf("%s %s: the request is not as specified: %v", method, path, err)
		}
	}
	out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: code, Header: http.Header{"Content-Type": {"application/json"}}, Options: in.Options}
	out.SetBodyBytes(data)
	if err := openapi3filter.ValidateResponse(f.ctx, out); err != nil {
		f.Errorf("%s %s: the answer is not as specified: %v\n%s", method, path, err, data)
	}
	var v map[string]any
	must(f.T, json.Unmarshal(data, &v))
	return v
}

func (f *farm) get(path string) map[string]any {
	f.Helper()
	return f.ask(http.MethodGet, path, "", 200)
}

// refused asks for what must be refused, and returns the error.
func (f *farm) refused(method, path, body string, status int, code string) map[string]any {
	f.Helper()
	v := f.ask(method, path, body, status)
	e, _ := v["error"].(map[string]any)
	if e["code"] != code {
		f.Errorf("%s %s: code %v, want %s (%v)", method, path, e["code"], code, e["message"])
	}
	return e
}

func (f *farm) submit(from, n int) {
	f.Helper()
	var specs []string
	for i := range n {
		specs = append(specs, fmt.Sprintf(`{"miner":1000,"number":%d,"proof_type":5}`, from+i))
	}
	v := f.ask(http.MethodPost, "/v1/sectors", fmt.Sprintf(`{"by":"me@here","group":"group1","sectors":[%s]}`, strings.Join(specs, ",")), 200)
	if len(v["items"].([]any)) != n {
		f.Fatalf("submitted %v", v)
	}
}

// work has the host do all tasks of the steps until the farm ends.
func (f *farm) work(steps ...phases.Step) {
	h := apitest.Host{Bus: f.host, Name: "h1", Group: group, Fail: f.fail}
	h.Work(f.ctx, steps...)
}

func (f *farm) state(sector string) string {
	f.Helper()
	return f.get("/v1/sectors/" + sector)["state"].(string)
}

const act = `{"by":"me@here","reason":"for the test"}`

func TestEverythingAnswersAsSpecified(t *testing.T) {
	f := newFarm(t, web.Access{})
	f.fail = func(task phases.Task) *phases.Result {
		if task.Spec.Number == 3 && task.Step == phases.P1 && task.Issue == 1 {
			return &phases.Result{Code: "no_memory", Class: phases.Retryable, Message: "short of memory"}
		}
		return nil
	}
	for _, path := range []string{"/v1/overview", "/v1/sectors", "/v1/failed", "/v1/jobs", "/v1/hosts", "/v1/groups", "/v1/backlog", "/v1/stats", "/v1/bus", "/v1/legacy", "/v1/controls"} {
		f.get(path) // an empty farm
	}
	f.submit(1, 3)
	f.work(phases.P1)
	f.until("sector 3 is parked", func() bool { return f.state("s-t01000-3") == "parked" })
	f.until("the others wait for p2", func() bool { return f.get("/v1/jobs?phase=p2&state=waiting")["total"].(float64) == 2 })
	must(t, f.host.Notice(group, "h1", bus.NoticeStatus, bus.HostStatus{
		V: 1, Host: "h1", Groups: []string{group}, At: time.Now(), Since: time.Now(), Version: "v0", Model: "Test CPU",
		Slots: []bus.HostSlots{{Entry: "2:p1", Phases: []phases.Step{phases.P1}, Slots: 2}}, Jobs: []bus.HostJob{},
	}))
	f.until("the host is known", func() bool { return len(f.get("/v1/hosts?state=up")["items"].([]any)) == 1 })
	for _, path := range []string{
		"/v1/overview", "/v1/sectors?state=parked", "/v1/sectors?q=1000-2&sort=-age", "/v1/sectors/s-t01000-1", "/v1/sectors/f01000-3", "/v1/sectors/s-t01000-1/events",
		"/v1/sectors/s-t01000-1/why", "/v1/sectors/s-t01000-3/why", "/v1/failed?state=parked&code=no_memory", "/v1/jobs", "/v1/hosts", "/v1/hosts/h1", "/v1/groups", "/v1/backlog?group=group1",
		"/v1/stats?phase=p1", "/v1/bus", "/v1/legacy?result_status=2", "/v1/controls?all=true",
	} {
		f.get(path)
	}
	var overview map[string]any
	f.until("the overview counts them", func() bool { // it may be a quarter of a second old
		overview = f.get("/v1/overview")
		s := overview["sectors"].(map[string]any)
		return s["sealing"] == 2.0 && s["parked"] == 1.0
	})
	if p := overview["phases"].([]any)[1].(map[string]any); p["phase"] != "p2" || p["waiting"] != 2.0 || p["running"] != 0.0 {
		t.Errorf("p2: %v", p)
	}
	if p := overview["phases"].([]any)[0].(map[string]any); p["done_per_hour"] != 2.0 || p["failed_per_hour"] != 1.0 || p["parked"] != 1.0 {
		t.Errorf("p1: %v", p)
	}
	failed := f.get("/v1/failed")["items"].([]any)
	if x := failed[0].(map[string]any); len(failed) != 1 || x["sector"] != "s-t01000-3" || x["state"] != "parked" || x["code"] != "no_memory" || x["redo"] != true {
		t.Errorf("failed: %v", failed)
	}
	if x := f.get("/v1/legacy?result_status=2")["items"].([]any); len(x) != 1 || x[0].(map[string]any)["phase_name"] != "PreCommitPhase1" {
		t.Errorf("legacy: %v", x)
	}

	// What operators do, and what they hear if it makes no sense.
	f.refused(http.MethodPost, "/v1/sectors/s-t01000-1/redo", act, 409, "not_parked")
	f.refused(http.MethodPost, "/v1/sectors/s-t01000-3/redo", `{"by":"me@here"}`, 400, "bad_request")
	f.refused(http.MethodPost, "/v1/sectors/s-t01000-3/redo", `{"by":"me@here","reason":"x","phase":"p9"}`, 400, "bad_request")
	f.refused(http.MethodPost, "/v1/sectors/s-t01000-3/redo", `{"by":"me@here","reason":"x","what":1}`, 400, "bad_request")
	f.refused(http.MethodPost, "/v1/sectors", `{"by":"me@here","group":"group1","sectors":[{"miner":1000,"number":1,"proof_type":5}]}`, 409, "exists")
	f.refused(http.MethodPost, "/v1/groups/group9/pause", act, 404, "unknown_group")
	f.refused(http.MethodPost, "/v1/hosts/h2/drain", act, 404, "unknown_host")
	if e := f.refused(http.MethodGet, "/v1/sectors/s-t01000-4", "", 404, "unknown_sector"); len(e["near"].([]any)) != 3 {
		t.Errorf("near: %v", e)
	}
	f.refused(http.MethodGet, "/v1/sectors/nonsense", "", 400, "bad_sector")
	f.refused(http.MethodGet, "/v1/sectors?state=strange", "", 400, "bad_query")
	f.refused(http.MethodGet, "/v1/sectors?limit=0", "", 400, "bad_query")
	f.refused(http.MethodGet, "/v1/sectors?colour=red", "", 400, "bad_query")
	f.refused(http.MethodGet, "/v1/sectors?cursor=nonsense", "", 400, "bad_cursor")

	f.ask(http.MethodPost, "/v1/sectors/s-t01000-2/pause", act, 200)
	f.until("it is paused", func() bool { return f.get("/v1/sectors?state=paused")["total"].(float64) == 1 })
	f.refused(http.MethodPost, "/v1/sectors/s-t01000-2/pause", act, 409, "refused")
	f.ask(http.MethodPost, "/v1/sectors/s-t01000-2/resume", act, 200)
	f.ask(http.MethodPost, "/v1/groups/group1/phases/p2/pause", act, 200)
	f.until("p2 is paused", func() bool { return len(f.get("/v1/controls?kind=pause")["items"].([]any)) == 1 })
	f.ask(http.MethodPost, "/v1/groups/group1/phases/p2/resume", act, 200)
	f.until("p2 is not paused", func() bool { return len(f.get("/v1/controls?kind=pause")["items"].([]any)) == 0 })
	if h := f.get("/v1/controls/pause.group1.p2")["items"].([]any); len(h) != 2 {
		t.Errorf("history %v", h)
	}
	f.refused(http.MethodGet, "/v1/controls/pause.group1.p5", "", 404, "unknown_control")
	f.ask(http.MethodPost, "/v1/hosts/h1/drain", act, 200)
	f.until("h1 drains", func() bool { return len(f.get("/v1/hosts?state=draining")["items"].([]any)) == 1 })
	f.ask(http.MethodPost, "/v1/hosts/h1/undrain", act, 200)

	// Redo: many at once, each answered for by itself.
	many := f.ask(http.MethodPost, "/v1/redo", `{"by":"me@here","reason":"memory added","sectors":["s-t01000-3","s-t01000-1","s-t01000-99"]}`, 200)
	if many["redone"] != 1.0 || many["refused"] != 2.0 {
		t.Errorf("redo: %v", many)
	}
	f.until("sector 3 goes on", func() bool { return f.state("s-t01000-3") == "sealing" })
	said := f.get("/v1/sectors/s-t01000-3")["operator"].([]any)
	if last := said[len(said)-1].(map[string]any); last["type"] != "redo" || last["by"] != "dispatcher-me-here" || last["reason"] != "memory added" {
		t.Errorf("the audit says %v", last)
	}
	f.until("its failure is mended", func() bool { return f.get("/v1/failed")["total"].(float64) == 0 })
	f.ask(http.MethodPost, "/v1/sectors/s-t01000-1/cancel", act, 200)
	f.work(phases.P2, phases.P3, phases.P4, phases.P5, phases.P6)
	f.until("all have ended", func() bool {
		return f.get("/v1/sectors?state=finished")["total"].(float64) == 2 && f.get("/v1/sectors?state=cancelled")["total"].(float64) == 1
	})
	f.refused(http.MethodPost, "/v1/sectors/s-t01000-2/cancel", act, 409, "refused")
	for _, path := range []string{"/v1/overview", "/v1/sectors?sort=ended", "/v1/sectors/s-t01000-2", "/v1/sectors/s-t01000-2/why", "/v1/stats", "/v1/groups", "/v1/jobs"} {
		f.get(path)
	}
}

// Who submits past this dispatcher, as the CLI does, and asks at once, is not told that there is
// no such sector because the dispatcher has yet to read of it.
func TestASectorIsKnownAsSoonAsItIsSubmitted(t *testing.T) {
	f := newFarm(t, web.Access{})
	for n := range uint64(50) {
		_, err := dispatch.Submit(f.ctx, f.bus, group, "me@here", []phases.Spec{{Miner: 1000, Number: n, ProofType: 5}}, nil)
		must(t, err)
		if code, body := f.raw(http.MethodGet, "/v1/sectors/"+phases.SectorID(1000, n)+"/why", "", nil); code != http.StatusOK {
			t.Fatalf("sector %d: %d %s", n, code, body)
		}
	}
}

// The old habit: result_status from 2 to 1 has the phase done again, and the log says who.
func TestSettingResultStatusIsAnAuditedRedo(t *testing.T) {
	f := newFarm(t, web.Access{})
	f.fail = func(task phases.Task) *phases.Result {
		if task.Issue == 1 {
			return &phases.Result{Code: "broken", Class: phases.Permanent, Message: "broken"}
		}
		return nil
	}
	f.submit(1, 1)
	f.work(phases.P1)
	f.until("it is parked", func() bool { return f.state("s-t01000-1") == "parked" })
	f.refused(http.MethodPatch, "/v1/legacy/s-t01000-1/p1", `{"by":"old@hand","reason":"as ever","result_status":2}`, 400, "bad_request")
	f.ask(http.MethodPatch, "/v1/legacy/s-t01000-1/p1", `{"by":"old@hand","reason":"as ever","result_status":1}`, 200)
	f.until("p1 is done", func() bool {
		rows := f.get("/v1/legacy?phase=p1")["items"].([]any)
		return len(rows) == 1 && rows[0].(map[string]any)["is_finished"] == 1.0 && rows[0].(map[string]any)["result_status"] == 0.0
	})
}

func TestPagesHoldEverythingOnce(t *testing.T) {
	f := newFarm(t, web.Access{})
	const n = 25
	f.submit(1, n)
	f.until("all are known", func() bool { return f.get("/v1/sectors")["total"].(float64) == n })
	for _, list := range []string{"/v1/sectors?sort=-number", "/v1/sectors?sort=wait", "/v1/jobs?phase=p1", "/v1/legacy?phase=p2"} {
		f.until("all are listed", func() bool { return f.get(list)["total"].(float64) == n })
		seen, cursor := map[string]bool{}, ""
		for pages := 1; ; pages++ {
			page := f.get(list + "&limit=7" + cursor)
			for _, item := range page["items"].([]any) {
				id := item.(map[string]any)["sector"].(string)
				if seen[id] {
					t.Errorf("%s: %s comes twice", list, id)
				}
				seen[id] = true
			}
			next, more := page["next"].(string)
			if !more {
				if pages != 4 || len(seen) != n {
					t.Errorf("%s: %d pages, %d sectors", list, pages, len(seen))
				}
				break
			}
			cursor = "&cursor=" + next
		}
	}
	first := f.get("/v1/sectors?limit=7")["next"].(string)
	f.refused(http.MethodGet, "/v1/jobs?limit=7&cursor="+first, "", 400, "bad_cursor") // another list's
	f.refused(http.MethodGet, "/v1/sectors?sort=age&cursor="+first, "", 400, "bad_cursor")
}

func TestARequestThatIsSentAgainDoesNothingTwice(t *testing.T) {
	f := newFarm(t, web.Access{})
	key := map[string]string{"Idempotency-Key": "my-request-1"}
	body := `{"by":"me@here","group":"group1","sectors":[{"miner":1000,"number":1,"proof_type":5}]}`
	code, first := f.raw(http.MethodPost, "/v1/sectors", body, key)
	again, second := f.raw(http.MethodPost, "/v1/sectors", body, key)
	if code != 200 || again != 200 || !bytes.Equal(first, second) {
		t.Errorf("%d %s, then %d %s", code, first, again, second)
	}
	if code, data := f.raw(http.MethodPost, "/v1/sectors", strings.Replace(body, `"number":1`, `"number":2`, 1), key); code != 409 || !strings.Contains(string(data), "key_reused") {
		t.Errorf("another body: %d %s", code, data)
	}
	if code, _ := f.raw(http.MethodPost, "/v1/sectors", body, map[string]string{"Idempotency-Key": "my"}); code != 400 {
		t.Errorf("a short key: %d", code)
	}
}

func TestOtherSitesAndLargeBodiesAreRefused(t *testing.T) {
	f := newFarm(t, web.Access{})
	f.submit(1, 1)
	for _, c := range []struct {
		header map[string]string
		code   string
		status int
	}{
		{map[string]string{"Origin": "https://evil.example"}, "cross_origin", 403},
		{map[string]string{"Sec-Fetch-Site": "cross-site"}, "cross_origin", 403},
		{map[string]string{"Host": "evil.example"}, "bad_host", 421},
	} {
		code, data := f.raw(http.MethodPost, "/v1/sectors/s-t01000-1/pause", act, c.header)
		if code != c.status || !strings.Contains(string(data), `"`+c.code+`"`) {
			t.Errorf("%v: %d %s", c.header, code, data)
		}
	}
	code, data := f.raw(http.MethodPost, "/v1/sectors", `{"by":"`+strings.Repeat("x", 5<<20)+`"}`, nil)
	if code != http.StatusRequestEntityTooLarge || !strings.Contains(string(data), "too_large") {
		t.Errorf("a large body: %d %s", code, data)
	}
	if f.get("/v1/sectors/s-t01000-1")["paused"] != nil {
		t.Error("another site has paused it")
	}
}

func TestTokenOrSession(t *testing.T) {
	path := t.TempDir() + "/token"
	must(t, os.WriteFile(path, []byte("a-token-that-is-long-enough"), 0o600))
	f := &farm{T: t}
	// newFarm asks without a token: it would wait for ever.
	log := slog.New(slog.DiscardHandler)
	site, err := web.New("127.0.0.1:0", web.Access{TokenFile: path}, prometheus.NewRegistry(), log)
	must(t, err)
	site.HandleSession()
	api.New(site)
	ctx, cancel := context.WithCancel(t.Context())
	f.ctx, f.url = ctx, site.URL()
	done := make(chan error, 1)
	go func() { done <- site.Serve(ctx) }()
	defer func() { cancel(); <-done }()
	if code, data := f.raw(http.MethodGet, "/v1/overview", "", nil); code != 401 || !strings.Contains(string(data), "unauthorized") {
		t.Errorf("without a token: %d %s", code, data)
	}
	bearer := map[string]string{"Authorization": "Bearer a-token-that-is-long-enough"}
	if code, data := f.raw(http.MethodGet, "/v1/overview", "", bearer); code != 503 || !strings.Contains(string(data), "starting") {
		t.Errorf("with a token: %d %s", code, data)
	}
	if code, _ := f.raw(http.MethodPost, "/v1/session", `{"token":"wrong"}`, nil); code != 401 {
		t.Errorf("a wrong token signs in: %d", code)
	}
	res, err := http.Post(f.url+"/v1/session", "application/json", strings.NewReader(`{"token":"a-token-that-is-long-enough"}`))
	must(t, err)
	res.Body.Close()
	if len(res.Cookies()) != 1 || !res.Cookies()[0].HttpOnly || res.Cookies()[0].SameSite != http.SameSiteStrictMode {
		t.Fatalf("cookies %v", res.Cookies())
	}
	cookie := map[string]string{"Cookie": res.Cookies()[0].String()}
	if code, _ := f.raw(http.MethodGet, "/v1/overview", "", cookie); code != 503 {
		t.Errorf("with a session: %d", code)
	}
}

// message is one of the stream's.
type message struct{ kind, id, data string }

type reader struct {
	res   *http.Response
	lines *bufio.Scanner
}

func (f *farm) stream(path string, header map[string]string) *reader {
	f.Helper()
	req, err := http.NewRequestWithContext(f.ctx, http.MethodGet, f.url+path, nil)
	must(f.T, err)
	for k, v := range header {
		req.Header.Set(k, v)
	}
	res, err := http.DefaultClient.Do(req)
	must(f.T, err)
	f.Cleanup(func() { res.Body.Close() })
	if res.Header.Get("Content-Type") != "text/event-stream" {
		f.Fatalf("%d %v", res.StatusCode, res.Header)
	}
	return &reader{res, bufio.NewScanner(res.Body)}
}

func (r *reader) next(t *testing.T) (m message) {
	t.Helper()
	for r.lines.Scan() {
		name, value, _ := strings.Cut(r.lines.Text(), ": ")
		switch name {
		case "event":
			m.kind = value
		case "id":
			m.id = value
		case "data":
			m.data = value
		case "":
			return m
		}
	}
	t.Fatal("the stream ended: ", r.lines.Err())
	return m
}

func TestStreamTellsAndResumes(t *testing.T) {
	f := newFarm(t, web.Access{})
	all := f.stream("/v1/stream", nil)
	if m := all.next(t); m.kind != "heartbeat" {
		t.Fatalf("first %+v", m)
	}
	f.submit(1, 1)
	var first message
	for first.kind != "event" {
		first = all.next(t)
	}
	if !strings.Contains(first.data, `"submitted"`) || first.id == "" {
		t.Fatalf("%+v", first)
	}
	issued := all.next(t)
	if !strings.Contains(issued.data, `"issued"`) || strings.Contains(issued.data, "inputs") {
		t.Fatalf("%+v", issued)
	}
	all.res.Body.Close()

	// Who comes back gets what it missed, and nothing twice.
	again := f.stream("/v1/stream", map[string]string{"Last-Event-ID": first.id})
	again.next(t) // heartbeat
	if m := again.next(t); m.id != issued.id {
		t.Errorf("resumed with %+v, want %+v", m, issued)
	}
	// What is too long ago is a reset: so it is for who comes from before this dispatcher's start.
	if code, data := f.raw(http.MethodGet, "/v1/stream", "", map[string]string{"Last-Event-ID": "nonsense"}); code != 400 {
		t.Errorf("%d %s", code, data)
	}
	f.ask(http.MethodPost, "/v1/groups/group1/pause", act, 200)
	for m := again.next(t); m.kind != "control"; m = again.next(t) {
		if m.kind == "reset" {
			t.Fatal("a reset without a reason")
		}
	}
	other := f.stream("/v1/stream?sector=s-t01000-2", nil)
	other.next(t)
	f.submit(2, 1)
	if m := other.next(t); !strings.Contains(m.data, "s-t01000-2") {
		t.Errorf("another sector's: %+v", m)
	}
}
