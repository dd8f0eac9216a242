package deployments_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"sealfleet/internal/alerts"
	"sealfleet/internal/bus"
	"sealfleet/internal/phases"
)

// TestMetrics looks at the numbers of a dispatcher and a consumer that have sealed.
func TestMetrics(t *testing.T) {
	f := newFleet(t)
	f.tell(3)
	f.seal(10)
	f.alarmed("SectorParked", "StorageAuditFailed")

	before := map[string]int{}
	for _, r := range []*recorder{f.dispatcher, f.consumer} {
		problems, err := testutil.GatherAndLint(r)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
		for name, fam := range f.gather(r) {
			before[name] += len(fam.GetMetric())
			f.bounded(fam)
		}
	}

	// What grows with the number of sectors would fill a Prometheus.
	f.seal(40)
	after := map[string]int{}
	for _, r := range []*recorder{f.dispatcher, f.consumer} {
		for name, fam := range f.gather(r) {
			after[name] += len(fam.GetMetric())
		}
	}
	for name, n := range after {
		// A series begins with its first value; the words (types, codes, phases) are few.
		if strings.HasPrefix(name, "sealfleet_") && n > before[name]+2 {
			t.Errorf("%s: %d series after 10 sectors, %d after 50", name, before[name], n)
		}
	}
	f.checkTable()
}

// alarmed waits until alarms were posted, each once; nothing that is well may be among them.
func (f *fleet) alarmed(names ...string) {
	f.t.Helper()
	told := map[string]alerts.PayloadAlert{}
	for len(told) < len(names) {
		select {
		case p := <-f.webhook:
			for _, a := range p.Alerts {
				name := a.Labels["alertname"]
				if _, again := told[name]; again || !slices.Contains(names, name) {
					f.t.Fatalf("%s was told: %+v", name, a)
				}
				told[name] = a
			}
		case <-time.After(time.Minute):
			f.t.Fatalf("told of %v, want %q", told, names)
		}
	}
	a := told["SectorParked"]
	if a.Labels["group"] != group || a.Labels["phase"] != "p3" || !strings.Contains(a.Annotations["examples"], "on h1: bad_memory: a bit flipped") {
		f.t.Errorf("%+v", a)
	}
}

// sectorRE finds a sector, a hash or an event's id in a label.
var sectorRE = regexp.MustCompile(`s-t0\d+-\d+|[0-9a-f]{16}|[0-9A-HJKMNP-TV-Z]{26}`)

const mostSeries = 150 // of one metric, for one group and one host

func (f *fleet) bounded(fam *dto.MetricFamily) {
	f.t.Helper()
	if len(fam.GetMetric()) > mostSeries {
		f.t.Errorf("%s has %d series", fam.GetName(), len(fam.GetMetric()))
	}
	for _, m := range fam.GetMetric() {
		for _, l := range m.GetLabel() {
			if sectorRE.MatchString(l.GetValue()) || l.GetName() == "sector" || l.GetName() == "claim" {
				f.t.Errorf("%s has a label %s=%q", fam.GetName(), l.GetName(), l.GetValue())
			}
		}
		if h := m.GetHistogram(); h != nil && strings.HasPrefix(fam.GetName(), "sealfleet_phase_") {
			const longest = 60 * 3600 // the old note's 32 GiB sector
			b := h.GetBucket()
			if last := b[len(b)-1].GetUpperBound(); last < longest {
				f.t.Errorf("%s: its buckets end at %g s, a sector takes up to %d", fam.GetName(), last, longest)
			}
		}
	}
}

// tell has a host tell of itself and of its audits, as consumers do.
func (f *fleet) tell(n int) {
	f.t.Helper()
	for i := range n {
		name := fmt.Sprintf("h%d", i+1)
		status := bus.HostStatus{
			V: phases.Version, Host: name, Groups: []string{group}, At: time.Now(), MemoryTotal: 1 << 40, MemoryFree: 1 << 39, CopyRate: 1e6,
			Slots:    []bus.HostSlots{{Entry: "8:p1", Phases: phases.Phases(), Slots: 8}},
			Disks:    []bus.HostDisk{{Name: "LOCAL_DIR", Path: "/sealer", Total: 1 << 40, Free: 1 << 39}},
			Findings: []bus.HostFound{{Code: "open_files", Severity: "warn"}},
		}
		if err := f.host.Notice(group, name, bus.NoticeStatus, status); err != nil {
			f.t.Fatal(err)
		}
	}
	audit := bus.StoredAudit{Node: "node1", Sector: phases.SectorID(1000, 1), Result: bus.AuditBad, At: time.Now()}
	if err := f.host.Notice(group, "h1", bus.NoticeAudit, audit); err != nil {
		f.t.Fatal(err)
	}
	f.until("what hosts told", func() bool {
		fams := f.gather(f.dispatcher)
		return value(fams, "sealfleet_host_up", "") == float64(n) && value(fams, "sealfleet_stored_bad", "node1") == 1 &&
			value(fams, "sealfleet_phase_slots", "p1") == float64(8*n)
	})
}

const metricsDoc = "../docs/metrics.md"

const tableBegins, tableEnds = "<!-- table: made by make docs -->\n", "<!-- end of the table -->\n"

// checkTable compares docs/metrics.md with what the programs describe.
func (f *fleet) checkTable() {
	f.t.Helper()
	f.askBus()
	all := map[string]*metric{}
	for program, r := range map[string]*recorder{"dispatcher": f.dispatcher, "consumer": f.consumer} {
		for name, fam := range f.gather(r) {
			if d := r.described[name]; d != nil {
				d.Type = strings.ToLower(fam.GetType().String())
			}
			if strings.HasPrefix(name, "sealfleet_") && r.described[name] == nil {
				r.described[name] = &metric{Name: name, Type: strings.ToLower(fam.GetType().String()), Help: fam.GetHelp(), Labels: []string{"program", "version", "goversion"}}
			}
		}
		for name, d := range r.described {
			if all[name] == nil {
				all[name] = d
			}
			if o := all[name]; o.Help != d.Help || !slices.Equal(o.Labels, d.Labels) {
				f.t.Errorf("%s means two things: %q by %v, %q by %v", name, o.Help, o.Labels, d.Help, d.Labels)
			}
			all[name].Programs = append(all[name].Programs, program)
		}
	}
	var table bytes.Buffer
	table.WriteString("| metric | type | labels | told by | what |\n|---|---|---|---|---|\n")
	for _, m := range slices.SortedFunc(maps.Values(all), func(a, b *metric) int { return cmp.Compare(a.Name, b.Name) }) {
		slices.Sort(m.Programs)
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s | %s |\n", m.Name, m.Type, strings.Join(m.Labels, ", "), strings.Join(m.Programs, ", "), strings.ReplaceAll(m.Help, "|", `\|`))
	}
	page, err := os.ReadFile(metricsDoc)
	if err != nil {
		f.t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(page), tableBegins)
	_, tail, ok2 := strings.Cut(rest, tableEnds)
	if !ok || !ok2 {
		f.t.Fatalf("%s lacks the marks of its table", metricsDoc)
	}
	want := head + tableBegins + table.String() + tableEnds + tail
	if want == string(page) {
		return
	}
	if os.Getenv("UPDATE_DOCS") == "" {
		for line := range strings.SplitSeq(table.String(), "\n") {
			if !strings.Contains(string(page), line+"\n") {
				f.t.Errorf("missing: %s", line)
			}
		}
		f.t.Errorf("%s is not what the programs tell: run make docs", metricsDoc)
		return
	}
	if err := os.WriteFile(metricsDoc, []byte(want), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

// askBus has the numbers of the streams there, and looks whether they are of sense.
func (f *fleet) askBus() {
	f.t.Helper()
	m := bus.NewMetrics(f.bus)
	m.Ask(context.Background())
	if n := testutil.CollectAndCount(m, "sealfleet_bus_durable_pending"); n != 1+len(phases.Phases()) {
		f.t.Errorf("%d durables are told of", n)
	}
	problems, err := testutil.CollectAndLint(m)
	if err != nil || len(problems) > 0 {
		f.t.Errorf("%v %v", problems, err)
	}
}
