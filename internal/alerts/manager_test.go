package alerts

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"sealfleet/internal/bus"
	"sealfleet/internal/settings"
)

// receiver is a webhook that keeps what it is told.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	bodies [][]byte
	auth   []string
	broken bool
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.broken {
			http.Error(w, "out of order", http.StatusBadGateway)
			return
		}
		var b json.RawMessage
		if err := json.NewDecoder(req.Body).Decode(&b); err != nil {
			t.Errorf("the webhook got no JSON: %v", err)
		}
		r.bodies = append(r.bodies, b)
		r.auth = append(r.auth, req.Header.Get("Authorization"))
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) breaks(is bool) { r.mu.Lock(); defer r.mu.Unlock(); r.broken = is }

// got returns what came since the last call, as status alertname group.
func (r *receiver) got(t *testing.T) (list []string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.bodies {
		var p Payload
		if err := json.Unmarshal(b, &p); err != nil || p.Version != "4" || len(p.Alerts) == 0 {
			t.Errorf("no payload of Alertmanager: %s (%v)", b, err)
		}
		for _, a := range p.Alerts {
			if a.Annotations["summary"] == "" || a.Annotations["mend"] == "" || a.Annotations["runbook_url"] == "" || a.Fingerprint == "" || a.StartsAt.IsZero() {
				t.Errorf("an alarm lacks something: %+v", a)
			}
			if (a.Status == Resolved) == a.EndsAt.IsZero() {
				t.Errorf("%s ends at %v", a.Status, a.EndsAt)
			}
			list = append(list, strings.Join([]string{a.Status, a.Labels["alertname"], a.Labels["group"]}, " "))
		}
	}
	r.bodies = nil
	return list
}

func (r *receiver) want(t *testing.T, what string, want ...string) {
	t.Helper()
	if got := r.got(t); strings.Join(got, ", ") != strings.Join(want, ", ") {
		t.Errorf("%s: told %q, want %q", what, got, want)
	}
}

// farm is a bus, and the number that dispatchers see.
type farm struct {
	t      *testing.T
	ctx    context.Context
	bus    *bus.Bus
	srv    *bus.Server
	hook   *receiver
	parked *prometheus.GaugeVec
	now    time.Time
}

func newFarm(t *testing.T) *farm {
	t.Helper()
	srv, err := bus.StartEmbedded(bus.ServerConfig{Listen: "127.0.0.1:0", StateDir: t.TempDir()}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	f := &farm{t: t, ctx: t.Context(), srv: srv, hook: newReceiver(t), now: time.Now()}
	f.bus = f.connect("d")
	if _, err := f.bus.Apply(f.ctx, []string{"group1"}); err != nil {
		t.Fatal(err)
	}
	f.parked = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "sealfleet_phase_parked"}, []string{"group", "phase"})
	return f
}

func (f *farm) connect(name string) *bus.Bus {
	f.t.Helper()
	b, err := bus.Connect(f.ctx, bus.Config{Server: f.srv, StateDir: f.t.TempDir()}, name, slog.New(slog.DiscardHandler))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(b.Close)
	return b
}

// dispatcher is one that looks when it is told to.
func (f *farm) dispatcher(name string) *Manager {
	r := prometheus.NewRegistry()
	r.MustRegister(f.parked)
	return New(Options{
		Config: Config{Webhook: f.hook.URL, Repeat: 4 * time.Hour, Every: time.Second, Runbooks: "docs/runbooks/"},
		Name:   name, Bus: f.bus, Gatherer: r, Registry: r, Log: slog.New(slog.DiscardHandler), Ready: func() error { return nil },
		Examples: func(what string, labels map[string]string) []string {
			return []string{what + " " + labels["phase"] + " s-t01000-1 on h1"}
		},
	})
}

// look has each look after a while, with what is on the bus.
func (f *farm) look(after time.Duration, all ...*Manager) {
	f.t.Helper()
	f.now = f.now.Add(after)
	for _, m := range all {
		list, err := f.bus.Controls(f.ctx, bus.ControlAlert)
		if err != nil {
			f.t.Fatal(err)
		}
		m.hearAlerts(list)
		if list, err = f.bus.Controls(f.ctx, bus.ControlMute); err != nil {
			f.t.Fatal(err)
		}
		m.hearMutes(list)
		m.step(f.ctx, f.now)
	}
}

const (
	isFiring = "firing SectorParked group1"
	isOver   = "resolved SectorParked group1"
)

func TestAlarmIsToldOnceByManyDispatchers(t *testing.T) {
	f := newFarm(t)
	heard := make(chan *nats.Msg, 16)
	nc, err := nats.Connect(f.srv.ClientURL(), mustNkey(t, f.srv.DispatcherSeed()))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.ChanSubscribe("alert.>", heard); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	d1, d2 := f.dispatcher("d1"), f.dispatcher("d2")
	f.look(0, d1, d2)
	f.hook.want(t, "nothing is wrong")

	f.parked.WithLabelValues("group1", "p3").Set(2)
	f.look(15*time.Second, d1, d2)
	f.hook.want(t, "the first look", isFiring)
	var p Payload
	if m := <-heard; json.Unmarshal(m.Data, &p) != nil || m.Subject != "alert.group1.SectorParked" || p.Status != Firing {
		t.Errorf("on the bus: %s %s", m.Subject, m.Data)
	}
	if e := p.Alerts[0].Annotations["examples"]; e != "parked p3 s-t01000-1 on h1" {
		t.Errorf("examples %q", e)
	}
	for range 8 {
		f.look(15*time.Second, d2, d1)
	}
	f.hook.want(t, "what stands")

	// A dispatcher that starts anew, and one that never saw it begin, say nothing either.
	d3 := f.dispatcher("d1")
	f.look(15*time.Second, d3, d2)
	f.hook.want(t, "after a restart")
	f.look(5*time.Hour, d3, d2)
	f.hook.want(t, "after ALERT_REPEAT", isFiring)

	list, err := List(f.ctx, f.bus, false)
	if err != nil || len(list) != 1 || list[0].State != Firing || list[0].Labels["phase"] != "p3" || list[0].Value != 2 {
		t.Fatalf("%+v %v", list, err)
	}

	f.parked.WithLabelValues("group1", "p3").Set(0)
	f.look(15*time.Second, d3, d2)
	f.hook.want(t, "a moment of health")
	f.look(unchanged, d3, d2)
	f.hook.want(t, "a minute of health", isOver)
	f.look(unchanged, d3, d2)
	f.hook.want(t, "when it is over")
	if list, err = List(f.ctx, f.bus, false); err != nil || len(list) != 0 {
		t.Errorf("%+v %v", list, err)
	}
	if list, err = List(f.ctx, f.bus, true); err != nil || len(list) != 1 || list[0].State != Resolved || list[0].EndsAt.IsZero() {
		t.Errorf("%+v %v", list, err)
	}
}

func mustNkey(t *testing.T, seed string) nats.Option {
	t.Helper()
	o, err := nats.NkeyOptionFromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestAnotherDispatcherTakesAnAlarmOver(t *testing.T) {
	f := newFarm(t)
	d1, d2 := f.dispatcher("d1"), f.dispatcher("d2")
	f.parked.WithLabelValues("group1", "p3").Set(1)
	f.look(0, d1, d2)
	f.hook.want(t, "it stands", isFiring)
	f.look(stale, d2) // d1 is gone
	f.hook.want(t, "told already")
	f.parked.WithLabelValues("group1", "p3").Set(0)
	f.look(15*time.Second, d2)
	f.look(unchanged, d2)
	f.hook.want(t, "d2 ends it", isOver)

	// An owner that died before it told leaves the telling to whoever looks a minute later.
	f.hook.breaks(true)
	f.parked.WithLabelValues("group1", "p3").Set(1)
	f.look(15*time.Second, d1)
	f.look(15*time.Second, d2)
	f.hook.breaks(false)
	f.look(15*time.Second, d2)
	f.hook.want(t, "its owner may still tell")
	f.look(untold, d2)
	f.hook.want(t, "nobody had told", isFiring)
}

func TestMutedAlarmIsNotTold(t *testing.T) {
	f := newFarm(t)
	mute := func(key string, on bool) {
		t.Helper()
		if _, err := f.bus.SetControl(f.ctx, bus.Control{Key: key, On: on, By: "bob@desk", Reason: "rack 3 moves", Until: f.now.Add(2 * time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	mute(MuteKey("SectorParked", "group1"), true)
	d := f.dispatcher("d1")
	f.parked.WithLabelValues("group1", "p3").Set(1)
	f.parked.WithLabelValues("group2", "p3").Set(1)
	f.look(0, d)
	f.hook.want(t, "group1 is muted", "firing SectorParked group2")
	list, err := List(f.ctx, f.bus, false)
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v %v", list, err)
	}
	for _, a := range list {
		if (a.MutedBy == "bob@desk") != (a.Group() == "group1") {
			t.Errorf("%s is muted by %q", a.Group(), a.MutedBy)
		}
	}
	before := f.seq()
	f.look(15*time.Second, d)
	if f.seq() != before {
		t.Error("a muted alarm is written at every look")
	}
	mute(MuteKey("SectorParked", "group1"), false)
	f.look(15*time.Second, d)
	f.hook.want(t, "unmuted, and still so", isFiring)

	mute(MuteKey(All, All), true)
	f.parked.WithLabelValues("group3", "p3").Set(1)
	f.look(15*time.Second, d)
	f.hook.want(t, "all is muted")
	f.look(3*time.Hour, d)
	f.hook.want(t, "a mute ends by itself", "firing SectorParked group3")
}

// seq is the highest sequence of an alarm on the bus.
func (f *farm) seq() (highest uint64) {
	f.t.Helper()
	list, err := f.bus.Controls(f.ctx, bus.ControlAlert)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, c := range list {
		highest = max(highest, c.Seq)
	}
	return highest
}

func TestWebhookThatFailsIsToldAgain(t *testing.T) {
	f := newFarm(t)
	d := f.dispatcher("d1")
	f.hook.breaks(true)
	f.parked.WithLabelValues("group1", "p3").Set(1)
	f.look(0, d)
	f.look(15*time.Second, d)
	f.hook.breaks(false)
	f.look(15*time.Second, d)
	f.hook.want(t, "when it is back", isFiring)
	f.hook.breaks(true)
	f.parked.WithLabelValues("group1", "p3").Set(0)
	f.look(15*time.Second, d)
	f.look(unchanged, d)
	f.hook.breaks(false)
	f.look(15*time.Second, d)
	f.hook.want(t, "the end, when it is back", isOver)
}

func TestBusThatIsAwayIsToldToTheWebhookAlone(t *testing.T) {
	f := newFarm(t)
	d := f.dispatcher("d1")
	r := prometheus.NewRegistry()
	connected := prometheus.NewGauge(prometheus.GaugeOpts{Name: "sealfleet_bus_connected"})
	r.MustRegister(connected)
	d.o.Gatherer = r
	f.bus.Close()
	d.step(f.ctx, f.now)
	f.hook.want(t, "at once")
	d.step(f.ctx, f.now.Add(time.Minute))
	f.hook.want(t, "after its time", "firing BusUnreachable ")
	d.step(f.ctx, f.now.Add(2*time.Minute))
	f.hook.want(t, "what stands")
	connected.Set(1)
	d.step(f.ctx, f.now.Add(3*time.Minute))
	d.step(f.ctx, f.now.Add(3*time.Minute+unchanged))
	f.hook.want(t, "it is back", "resolved BusUnreachable ")
}

func TestAlertmanagerAndToken(t *testing.T) {
	f := newFarm(t)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("s3cret-s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var c Config
	if err := settings.LoadFrom(&c, map[string]string{"ALERT_WEBHOOK": f.hook.URL + "/api/v2/alerts", "ALERT_WEBHOOK_TOKEN_FILE": token}); err != nil {
		t.Fatal(err)
	}
	d := f.dispatcher("d1")
	d.o.Config, d.post = c, newPoster(&c)
	f.parked.WithLabelValues("group1", "p3").Set(1)
	f.look(0, d)
	f.look(amRepeat, d)
	f.hook.mu.Lock()
	defer f.hook.mu.Unlock()
	if len(f.hook.bodies) != 2 {
		t.Fatalf("an Alertmanager is told %d times in two minutes", len(f.hook.bodies))
	}
	var list []PayloadAlert
	if err := json.Unmarshal(f.hook.bodies[1], &list); err != nil || len(list) != 1 || !list[0].EndsAt.After(f.now.Add(amRepeat)) {
		t.Errorf("%s %v", f.hook.bodies[1], err)
	}
	if f.hook.auth[0] != "Bearer s3cret-s3cret" {
		t.Errorf("token: %q", f.hook.auth[0])
	}
}

func TestBadSettingsAreRefusedWithoutTheirSecrets(t *testing.T) {
	for name, set := range map[string]map[string]string{
		"ALERT_WEBHOOK":            {"ALERT_WEBHOOK": "ftp://user:s3cret@h/x"},
		"ALERT_EVERY":              {"ALERT_EVERY": "5ms"},
		"ALERT_REPEAT":             {"ALERT_REPEAT": "1s"},
		"ALERT_WEBHOOK_TOKEN_FILE": {"ALERT_WEBHOOK": "http://example.com/s3cret", "ALERT_WEBHOOK_TOKEN_FILE": "/nowhere"},
	} {
		err := settings.LoadFrom(&Config{}, set)
		if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	err := newPoster(&Config{Webhook: "http://127.0.0.1:1/s3cret"}).post(t.Context(), []*Alert{{}}, time.Now())
	if err == nil || strings.Contains(fmt.Sprint(err), "s3cret") {
		t.Errorf("the error of a post: %v", err)
	}
}

func TestLogThatWentBackIsToldOnceThoughTheDispatcherIsStartedAgain(t *testing.T) {
	hook, dir := newReceiver(t), t.TempDir()
	c := Config{Webhook: hook.URL, Repeat: time.Hour, Runbooks: "docs/runbooks/"}
	log := slog.New(slog.DiscardHandler)
	hook.breaks(true)
	TellWentBack(t.Context(), c, "d1", dir, bus.ErrWentBack, log)
	hook.breaks(false)
	for range 3 {
		TellWentBack(t.Context(), c, "d1", dir, bus.ErrWentBack, log)
	}
	hook.want(t, "three starts", "firing LogWentBack ")
}
