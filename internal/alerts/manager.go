package alerts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"sealfleet/internal/bus"
)

// Options are what a Manager needs besides its settings.
type Options struct {
	Config
	Name     string // this dispatcher's, as it shows in the alarms' audit
	Bus      *bus.Bus
	Gatherer prometheus.Gatherer
	// Ready tells whether the metrics are to be believed yet: the log has been read.
	Ready func() error
	// Examples names sectors for an alarm; may be nil.
	Examples func(what string, labels map[string]string) []string
	Registry prometheus.Registerer
	Log      *slog.Logger
}

// Manager raises alarms until its Run ends.
type Manager struct {
	o     Options
	rules []Rule
	post  *poster

	posts  *prometheus.CounterVec
	firing *prometheus.GaugeVec

	mu     sync.Mutex
	shared map[string]bus.Control // the alarms on the bus, by key
	mutes  []bus.Control

	// Only step uses these.
	past    history
	began   time.Time
	pending map[string]time.Time // since when what was found is wrong
	well    map[string]time.Time // since when it is well again
	local   map[string]*Alert    // of rules that are Local
	owed    map[string]*Alert    // ends of local alarms that are not told yet
}

const (
	refresh   = 5 * time.Minute  // how often an owner says that it still sees its alarm
	stale     = 11 * time.Minute // an owner that has not said so is gone
	untold    = time.Minute      // an owner that has not told its alarm by then is gone
	unchanged = time.Minute      // how long something must be well before it is over
)

// New prepares one.
func New(o Options) *Manager {
	m := &Manager{
		o: o, rules: Rules(), post: newPoster(&o.Config), shared: map[string]bus.Control{}, pending: map[string]time.Time{}, well: map[string]time.Time{},
		local: map[string]*Alert{}, owed: map[string]*Alert{},
		posts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sealfleet_alert_posts_total", Help: "Posts of alarms to ALERT_WEBHOOK by result: ok or failed.",
		}, []string{"result"}),
		firing: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sealfleet_alerts_firing", Help: "Alarms that stand, as this dispatcher sees them.",
		}, []string{"alertname", "severity"}),
	}
	for _, result := range []string{"ok", "failed"} {
		m.posts.WithLabelValues(result)
	}
	o.Registry.MustRegister(m.posts, m.firing)
	return m
}

// Run looks at every interval until ctx ends. Trouble with the bus does not end it: it is
// among what is looked for.
func (m *Manager) Run(ctx context.Context) {
	var watching sync.WaitGroup
	defer watching.Wait()
	for _, w := range []struct {
		kind string
		fn   func([]bus.Control)
	}{{bus.ControlAlert, m.hearAlerts}, {bus.ControlMute, m.hearMutes}} {
		watching.Go(func() {
			for ctx.Err() == nil {
				if err := m.o.Bus.WatchControls(ctx, w.fn, w.kind); err != nil && ctx.Err() == nil {
					m.o.Log.Debug("cannot follow the alarms on the bus, trying again", "error", err)
				}
				select {
				case <-time.After(time.Second):
				case <-ctx.Done():
				}
			}
		})
	}
	tick := time.NewTicker(m.o.Every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			m.step(ctx, time.Now())
		case <-ctx.Done():
			return
		}
	}
}

func (m *Manager) hearAlerts(list []bus.Control) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range list {
		m.keep(c)
	}
}

// keep takes a control that was read or written, unless a newer one is known.
func (m *Manager) keep(c bus.Control) {
	if old, known := m.shared[c.Key]; !known || c.Seq > old.Seq {
		m.shared[c.Key] = c
	}
}

func (m *Manager) hearMutes(list []bus.Control) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mutes = list
}

func (m *Manager) known(now time.Time) (map[string]bus.Control, mutes) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.shared), mutesOf(m.mutes, now)
}

// step looks once, and tells what is new.
func (m *Manager) step(ctx context.Context, now time.Time) {
	if err := m.o.Ready(); err != nil && m.o.Bus.Connected() == nil {
		return // still reading the log: what it says is old
	}
	fams, err := m.o.Gatherer.Gather()
	if err != nil {
		m.o.Log.Warn("some metrics cannot be gathered; alarms that hang on them are not raised", "error", err)
	}
	wrong := m.look(fams, now)
	m.tellLocal(ctx, wrong, now)
	if m.o.Bus.Connected() == nil {
		m.tellShared(ctx, wrong, now)
	}
}

// look finds what is wrong, and has been for long enough, by the alarm's key.
func (m *Manager) look(fams []*dto.MetricFamily, now time.Time) map[string]found {
	first := m.began.IsZero()
	if first {
		m.began = now
	}
	seen, wrong := map[string]bool{}, map[string]found{}
	m.firing.Reset()
	for _, f := range m.past.evaluate(m.rules, fams, now, first) {
		key := controlKey(f.labels)
		seen[key] = true
		if m.pending[key].IsZero() {
			m.pending[key] = now
		}
		if now.Sub(m.pending[key]) >= f.rule.For {
			wrong[key] = f
			m.firing.WithLabelValues(f.rule.Name, string(f.rule.Severity)).Inc()
		}
	}
	m.settle(seen, now)
	return wrong
}

// settle forgets since when something was wrong that has been well for a while: what comes
// and goes is one alarm.
func (m *Manager) settle(seen map[string]bool, now time.Time) {
	for key := range m.pending {
		switch {
		case seen[key]:
			delete(m.well, key)
		case m.well[key].IsZero():
			m.well[key] = now
		case now.Sub(m.well[key]) >= unchanged:
			delete(m.well, key)
			delete(m.pending, key)
		}
	}
}

// make makes the alarm of what was found.
func (m *Manager) make(f found, since, now time.Time) *Alert {
	a := &Alert{
		Name: f.rule.Name, Severity: f.rule.Severity, State: Firing, Labels: f.labels, Value: f.value, StartsAt: since.UTC(), SeenAt: now.UTC(),
		Annotations: map[string]string{
			"summary": render(f.rule.Summary, f.labels, f.value), "mend": render(f.rule.Mend, f.labels, f.value), "runbook_url": m.o.Runbook(f.rule.Name),
		},
	}
	if m.o.Examples != nil && f.rule.Examples != "" {
		if list := m.o.Examples(f.rule.Examples, f.labels); len(list) > 0 {
			a.Annotations["examples"] = strings.Join(list, "; ")
		}
	}
	return a
}

// tellLocal tells the alarms that are this dispatcher's own.
func (m *Manager) tellLocal(ctx context.Context, wrong map[string]found, now time.Time) {
	_, muted := m.known(now)
	var told []*Alert
	for key, f := range wrong {
		if !f.rule.Local {
			continue
		}
		a := m.make(f, m.pending[key], now)
		a.Labels = maps.Clone(a.Labels)
		a.Labels["dispatcher"] = m.o.Name
		if old := m.local[key]; old != nil {
			a.StartsAt, a.NotifiedAt = old.StartsAt, old.NotifiedAt
		}
		m.local[key] = a
		if _, is := muted.of(a.Labels); !is && now.Sub(a.NotifiedAt) >= m.post.repeat(&m.o.Config) {
			told = append(told, a)
		}
	}
	for key, a := range m.local {
		if _, still := wrong[key]; still || !m.pending[key].IsZero() {
			continue
		}
		delete(m.local, key)
		if !a.NotifiedAt.IsZero() {
			a.State, a.EndsAt = Resolved, now.UTC()
			m.owed[key] = a
		}
	}
	for _, a := range m.owed {
		told = append(told, a)
	}
	if m.send(ctx, told, now) {
		for _, a := range told {
			a.NotifiedAt = now.UTC()
		}
		clear(m.owed)
	}
}

// send posts, and tells the bus. Nothing to send was sent.
func (m *Manager) send(ctx context.Context, list []*Alert, now time.Time) bool {
	if len(list) == 0 {
		return true
	}
	for _, a := range list {
		log := slog.LevelWarn
		if a.State == Resolved {
			log = slog.LevelInfo
		}
		m.o.Log.Log(ctx, log, "alarm "+a.State+": "+a.Annotations["summary"], "alert", a.Name, "severity", a.Severity, "mend", a.Annotations["mend"])
		if m.o.Bus.Connected() == nil {
			if err := m.o.Bus.TellAlert(a.Group(), a.Name, payloadOf([]*Alert{a})); err != nil {
				m.o.Log.Debug("an alarm could not be told on the bus", "alert", a.Name, "error", err)
			}
		}
	}
	if m.post == nil {
		return true
	}
	if err := m.post.post(ctx, list, now); err != nil {
		m.posts.WithLabelValues("failed").Inc()
		m.o.Log.Error("alarms could not be posted, trying again", "alarms", len(list), "error", err, "in", m.o.Every)
		return false
	}
	m.posts.WithLabelValues("ok").Inc()
	return true
}

// tellShared tells the alarms of the farm that fall to this dispatcher.
func (m *Manager) tellShared(ctx context.Context, wrong map[string]found, now time.Time) {
	shared, muted := m.known(now)
	var told []*Alert
	tell := func(a *Alert) {
		if _, is := muted.of(a.Labels); !is {
			told = append(told, a)
		}
	}
	for key, f := range wrong {
		if f.rule.Local {
			continue
		}
		a := m.make(f, m.pending[key], now)
		c, old := shared[key], &Alert{}
		if c.On {
			var err error
			if old, err = decode(c); err != nil {
				m.o.Log.Warn("an alarm on the bus is written anew", "error", err)
				old = &Alert{}
			}
			a.StartsAt, a.NotifiedAt = old.StartsAt, old.NotifiedAt
		}
		age := now.Sub(old.SeenAt)
		mine := c.On && c.By == m.o.Name
		_, silent := muted.of(a.Labels)
		if c.On && !mine && age < stale && (silent || !old.NotifiedAt.IsZero() || age < untold) {
			continue // its owner sees to it
		}
		if news := a.Annotations["summary"] != old.Annotations["summary"]; !mine || age >= refresh || news && age >= untold {
			if !m.write(ctx, key, a, true) {
				continue // another dispatcher was first
			}
		}
		if now.Sub(a.NotifiedAt) >= m.post.repeat(&m.o.Config) {
			tell(a)
		}
	}
	for key, c := range shared {
		if !c.On || !m.pending[key].IsZero() || now.Sub(m.began) < unchanged {
			continue
		}
		a, err := decode(c)
		if err != nil {
			continue
		}
		if c.By != m.o.Name && now.Sub(a.SeenAt) < stale {
			continue
		}
		a.State, a.EndsAt = Resolved, now.UTC()
		if m.write(ctx, key, a, false) && !a.NotifiedAt.IsZero() {
			tell(a)
		}
	}
	if !m.send(ctx, told, now) {
		m.again(ctx, told)
		return
	}
	for _, a := range told {
		a.NotifiedAt = now.UTC()
		m.write(ctx, controlKey(a.Labels), a, a.State == Firing)
	}
}

// again takes back what ends could not be told, so that the next look tells them.
func (m *Manager) again(ctx context.Context, told []*Alert) {
	for _, a := range told {
		if a.State == Resolved {
			a.EndsAt = time.Time{}
			m.write(ctx, controlKey(a.Labels), a, true)
		}
	}
}

// write puts an alarm on the bus, if nobody has since it was read.
func (m *Manager) write(ctx context.Context, key string, a *Alert, on bool) bool {
	value, err := json.Marshal(a)
	if err != nil {
		return false
	}
	m.mu.Lock()
	last := m.shared[key].Seq
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, err := m.o.Bus.SetControlAfter(ctx, bus.Control{Key: key, On: on, By: m.o.Name, Reason: a.Annotations["summary"], Value: value}, last)
	if err != nil {
		if !errors.Is(err, bus.ErrConflict) && ctx.Err() == nil {
			m.o.Log.Warn("an alarm could not be written to the bus", "alert", a.Name, "error", fmt.Errorf("%s: %w", key, err))
		}
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keep(c)
	return true
}
