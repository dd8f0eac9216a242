package alerts

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"

	"sealfleet/docs/runbooks"
)

// story is a number as it goes, and what must be told of it when. Prometheus' own promtool
// hears the same stories (sealfleet.rules.test.yaml is made from them), so that its rules
// and ours are seen to agree.
type story struct {
	alert  string
	series []string // metric{labels}: values, in promtool's notation, one each 15 s
	quiet  string   // when nothing may be told yet
	at     string   // when it must be told
	labels map[string]string
	value  float64
}

var stories = []story{
	{"SectorParked", []string{`sealfleet_phase_parked{group="g1",phase="p3"}: 0x9 2x60`, `sealfleet_phase_parked{group="g1",phase="p4"}: 0x70`}, "2m", "3m", l("severity", "warning", "group", "g1", "phase", "p3"), 2},
	{"PhaseStuck", []string{`sealfleet_phase_overdue{group="g1",phase="p1"}: 0x9 1x60`}, "2m", "3m", l("severity", "warning", "group", "g1", "phase", "p1"), 1},
	{"PhaseWithoutHost", []string{`sealfleet_phase_unserved{group="g1",phase="p2"}: 0x9 4x60`}, "2m30s", "3m", l("severity", "critical", "group", "g1", "phase", "p2"), 4},
	{"PhaseFailing", []string{`sealfleet_phase_failures_total{group="g1",phase="p5",code="no_space"}: 1x40 3+1x20 23x40`}, "10m", "16m", l("severity", "warning", "group", "g1", "phase", "p5", "code", "no_space"), 0},
	{"CleaningBehind", []string{`sealfleet_backlog_slots_needed{group="g1",phase="p6"}: 3x60`, `sealfleet_backlog_slots_needed{group="g1",phase="p2"}: 3x60`}, "4m", "6m", l("severity", "warning", "group", "g1"), 3},
	{"DiskFullSoon", []string{`sealfleet_host_disk_unpromised_bytes{host="h1",disk="LOCAL_DIR"}: 1000000000000-1000000000x400`, `sealfleet_host_disk_unpromised_bytes{host="h2",disk="LOCAL_DIR"}: 1000000000000x400`}, "", "40m", l("severity", "critical", "host", "h1", "disk", "LOCAL_DIR"), 0},
	{"DeadlineAtRisk", []string{`sealfleet_deadline_sectors{group="g1",deadline="precommit",used="50"}: 7x60`, `sealfleet_deadline_sectors{group="g1",deadline="precommit",used="80"}: 0x60`}, "", "1m", l("severity", "info", "group", "g1", "deadline", "precommit", "used", "50"), 7},
	{"DeadlineAtRisk", []string{`sealfleet_deadline_sectors{group="g1",deadline="commit",used="80"}: 2x60`}, "", "1m", l("severity", "warning", "group", "g1", "deadline", "commit", "used", "80"), 2},
	{"DeadlineAtRisk", []string{`sealfleet_deadline_sectors{group="g1",deadline="commit",used="95"}: 1x60`}, "", "1m", l("severity", "critical", "group", "g1", "deadline", "commit", "used", "95"), 1},
	{"StorageAuditFailed", []string{`sealfleet_stored_bad{node="node1"}: 0x9 1x60`}, "2m", "3m", l("severity", "critical", "node", "node1"), 1},
	{"RedeliveryStorm", []string{`sealfleet_phase_takeovers_total{group="g1",phase="p1"}: 5x40 40x40`, `sealfleet_phase_takeovers_total{group="g1",phase="p2"}: 5x40 7x40`}, "10m", "15m", l("severity", "warning", "group", "g1", "phase", "p1"), 0},
	{"HostSilent", []string{`sealfleet_host_up{host="h1"}: 1x9 0x60`, `sealfleet_host_up{host="h2"}: 1x70`}, "2m", "3m", l("severity", "warning", "host", "h1"), 0},
	{"DoctorRefuses", []string{`sealfleet_host_findings{host="h1",severity="refuse"}: 0x9 2x60`, `sealfleet_host_findings{host="h1",severity="warn"}: 5x70`}, "2m", "3m", l("severity", "warning", "host", "h1"), 2},
	{"ChainUnreachable", []string{`sealfleet_gate_errors_total{phase="precommit"}: 2x40 2+3x40`}, "10m", "14m", l("severity", "warning", "phase", "precommit"), 0},
	{"EventsRejected", []string{`sealfleet_events_rejected_total{reason="claim"}: 1x40 2x40`}, "10m", "12m", l("severity", "warning", "reason", "claim"), 0},
	{"CopiesMissing", []string{`sealfleet_bus_stream_copies_missing{stream="SEAL_EVENTS"}: 0x9 1x60`}, "2m30s", "3m", l("severity", "critical", "stream", "SEAL_EVENTS"), 1},
	{"BusUnreachable", []string{`sealfleet_bus_connected: 1x9 0x60`}, "2m45s", "3m15s", l("severity", "critical"), 0},
	{"LogWentBack", []string{`sealfleet_bus_log_went_back: 0x9 1x60`}, "2m", "3m", l("severity", "critical"), 1},
	{"DispatcherAbsent", []string{`sealfleet_build_info{program="dispatcher"}: 1x9 stale _x60`, `sealfleet_build_info{program="consumer"}: 1x70`}, "2m", "4m", l("severity", "critical", "program", "dispatcher"), 1},
}

func l(pairs ...string) map[string]string {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return m
}

const lookEvery = 15 * time.Second

// samples reads promtool's notation: 1x3 is 1 1 1 1, 1+2x3 is 1 3 5 7.
func samples(t *testing.T, text string) (values []float64) {
	t.Helper()
	num := func(s string) float64 {
		v, err := strconv.ParseFloat(s, 64)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		return v
	}
	for _, word := range strings.Fields(text) {
		if word == "stale" || strings.HasPrefix(word, "_") {
			return values // only what Prometheus alone can see ends so
		}
		head, times, _ := strings.Cut(word, "x")
		step := 0.0
		if i := strings.LastIndexAny(head, "+-"); i > 0 {
			head, step = head[:i], num(head[i:])
		}
		for i := range int(num(times)) + 1 {
			values = append(values, num(head)+step*float64(i))
		}
	}
	return values
}

// family is what a registry would give for a series at one moment.
func family(t *testing.T, series string, v float64) *dto.MetricFamily {
	t.Helper()
	name, labels, _ := strings.Cut(strings.TrimSuffix(series, "}"), "{")
	m := &dto.Metric{}
	if labels != "" {
		for pair := range strings.SplitSeq(labels, ",") {
			k, quoted, _ := strings.Cut(pair, "=")
			value, err := strconv.Unquote(quoted)
			if err != nil {
				t.Fatal(series, err)
			}
			m.Label = append(m.Label, &dto.LabelPair{Name: proto.String(k), Value: proto.String(value)})
		}
	}
	if strings.HasSuffix(name, "_total") {
		m.Counter = &dto.Counter{Value: proto.Float64(v)}
	} else {
		m.Gauge = &dto.Gauge{Value: proto.Float64(v)}
	}
	return &dto.MetricFamily{Name: proto.String(name), Metric: []*dto.Metric{m}}
}

// looker is a manager without a bus: it only looks.
func looker() *Manager { return New(Options{Registry: prometheus.NewRegistry()}) }

func TestEachRuleTellsItsStory(t *testing.T) {
	told := map[string]bool{}
	for _, s := range stories {
		told[s.alert] = true
		if s.alert == "DispatcherAbsent" {
			continue // only a Prometheus can see it
		}
		m := looker()
		at, err := time.ParseDuration(s.at)
		if err != nil {
			t.Fatal(err)
		}
		quiet := time.Duration(-1)
		if s.quiet != "" {
			if quiet, err = time.ParseDuration(s.quiet); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Unix(0, 0)
		for i := 0; time.Duration(i)*lookEvery <= at; i++ {
			byName := map[string]*dto.MetricFamily{}
			var fams []*dto.MetricFamily
			for _, line := range s.series {
				series, values, _ := strings.Cut(line, ": ")
				all := samples(t, values)
				f := family(t, series, all[min(i, len(all)-1)])
				if known := byName[f.GetName()]; known != nil {
					known.Metric = append(known.Metric, f.GetMetric()...)
					continue
				}
				byName[f.GetName()] = f
				fams = append(fams, f)
			}
			wrong := m.look(fams, began.Add(time.Duration(i)*lookEvery))
			if time.Duration(i)*lookEvery == quiet && len(wrong) > 0 {
				t.Errorf("%s: told at %s already: %v", s.alert, s.quiet, wrong)
			}
			if time.Duration(i)*lookEvery != at {
				continue
			}
			want := maps.Clone(s.labels)
			want["alertname"] = s.alert
			f, is := wrong[controlKey(want)]
			if !is || len(wrong) != 1 || !maps.Equal(f.labels, want) {
				t.Errorf("%s at %s: %v, want %v alone", s.alert, s.at, wrong, want)
			} else if f.rule.Look == lookNow && f.value != s.value {
				t.Errorf("%s: value %g, want %g", s.alert, f.value, s.value)
			}
		}
	}
	for _, name := range Names() {
		if !told[name] {
			t.Errorf("%s has no story", name)
		}
	}
}

func TestWhatComesAndGoesIsOneAlarm(t *testing.T) {
	m := looker()
	now := time.Unix(0, 0)
	at := func(after time.Duration, v float64) int {
		now = now.Add(after)
		return len(m.look([]*dto.MetricFamily{family(t, `sealfleet_phase_parked{group="g1",phase="p1"}`, v)}, now))
	}
	if at(0, 1) != 1 || at(15*time.Second, 0) != 0 {
		t.Error("it is told when it is so")
	}
	key := controlKey(l("alertname", "SectorParked", "severity", "warning", "group", "g1", "phase", "p1"))
	since := m.pending[key]
	at(15*time.Second, 1)
	if m.pending[key] != since || since.IsZero() {
		t.Error("half a minute of health began a new alarm")
	}
	at(15*time.Second, 0)
	at(unchanged, 0)
	if !m.pending[key].IsZero() {
		t.Error("it is not over after a minute of health")
	}
}

// rulesDir is where what Prometheus reads lies.
const rulesDir = "../../deployments/prometheus/"

type testFile struct {
	RuleFiles []string   `yaml:"rule_files"`
	Interval  string     `yaml:"evaluation_interval"`
	Tests     []testCase `yaml:"tests"`
}

type testCase struct {
	Name     string       `yaml:"name"`
	Interval string       `yaml:"interval"`
	Series   []testSeries `yaml:"input_series"`
	Alerts   []testAlert  `yaml:"alert_rule_test"`
}

type testSeries struct {
	Series string `yaml:"series"`
	Values string `yaml:"values"`
}

type testAlert struct {
	At   string     `yaml:"eval_time"`
	Name string     `yaml:"alertname"`
	Want []expected `yaml:"exp_alerts"`
}

type expected struct {
	Labels      map[string]string `yaml:"exp_labels"`
	Annotations map[string]string `yaml:"exp_annotations"`
}

// TestRulesOfPrometheus writes what Prometheus reads, or compares it; make check-rules has
// promtool judge it.
func TestRulesOfPrometheus(t *testing.T) {
	const base = "docs/runbooks/"
	rules, err := PrometheusRules(base)
	if err != nil {
		t.Fatal(err)
	}
	upToDate(t, "sealfleet.rules.yaml", rules)
	f := testFile{RuleFiles: []string{"sealfleet.rules.yaml"}, Interval: lookEvery.String()}
	for _, s := range stories {
		c := testCase{Name: s.alert, Interval: lookEvery.String()}
		for _, line := range s.series {
			series, values, _ := strings.Cut(line, ": ")
			c.Series = append(c.Series, testSeries{series, values})
		}
		var rule *Rule
		for _, r := range Rules() {
			if r.Name == s.alert && (r.More["used"] == s.labels["used"]) {
				rule = &r
			}
		}
		if rule == nil {
			t.Fatalf("no rule for %s", s.alert)
		}
		if s.quiet != "" {
			c.Alerts = append(c.Alerts, testAlert{At: s.quiet, Name: s.alert, Want: []expected{}})
		}
		c.Alerts = append(c.Alerts, testAlert{At: s.at, Name: s.alert, Want: []expected{{s.labels, map[string]string{
			"summary": render(rule.Summary, s.labels, s.value), "mend": render(rule.Mend, s.labels, s.value), "runbook_url": base + Page(s.alert),
		}}}})
		f.Tests = append(f.Tests, c)
	}
	var b bytes.Buffer
	b.WriteString("# Made from internal/alerts/rules_test.go by `make docs`; do not edit. promtool test rules reads it (make check-rules).\n")
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(f), enc.Close()); err != nil {
		t.Fatal(err)
	}
	upToDate(t, "sealfleet.rules.test.yaml", b.Bytes())
}

func upToDate(t *testing.T, name string, want []byte) {
	t.Helper()
	if os.Getenv("UPDATE_DOCS") != "" {
		if err := os.WriteFile(rulesDir+name, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	is, err := os.ReadFile(rulesDir + name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(is, want) {
		t.Errorf("%s is not what internal/alerts says: run make docs", name)
	}
}

func TestEveryAlarmHasItsPage(t *testing.T) {
	pages := map[string]bool{}
	for _, name := range Names() {
		text, err := runbooks.Pages.ReadFile(Page(name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		pages[Page(name)] = true
		for _, part := range []string{"# " + name + "\n", "## What it means\n", "## How to look\n", "## The mend\n"} {
			if !strings.Contains(string(text), part) {
				t.Errorf("%s lacks %q", Page(name), part)
			}
		}
	}
	all, err := runbooks.Pages.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if !pages[e.Name()] {
			t.Errorf("docs/runbooks/%s belongs to no alarm", e.Name())
		}
	}
}

func TestTextsAreFilledIn(t *testing.T) {
	for _, r := range Rules() {
		labels := map[string]string{}
		for _, k := range r.By {
			labels[k] = "some-" + k
		}
		for _, text := range []string{r.Summary, r.Mend} {
			got := render(text, labels, 3)
			if strings.Contains(got, "{{") || strings.Contains(got, "<no value>") {
				t.Errorf("%s: %q", r.Name, got)
			}
			if strings.Contains(text, "$labels.") && !strings.Contains(got, "some-") {
				t.Errorf("%s: no label in %q", r.Name, got)
			}
		}
	}
	if got, want := render("{{ $value }} of {{ $labels.a }}", l("a", "b"), 2), "2 of b"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestKeysOfTwoAlarmsAreTwo(t *testing.T) {
	seen := map[string]string{}
	for _, host := range []string{"a.b", "a_b", "a/b", strings.Repeat("x", 41), strings.Repeat("x", 42), ""} {
		key := controlKey(l("alertname", "HostSilent", "host", host))
		if other, is := seen[key]; is {
			t.Errorf("%q and %q have the key %s", host, other, key)
		}
		seen[key] = host
		if n := strings.Count(key, "."); n != 2 {
			t.Errorf("%q: %d dots in %s", host, n, key)
		}
	}
}
