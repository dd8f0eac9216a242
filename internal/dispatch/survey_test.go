package dispatch

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"sealfleet/internal/bus"
	"sealfleet/internal/phases"
)

// told gathers what a board and hosts tell at a time.
type told map[string]float64

func tell(t *testing.T, b *board, h *hostBook, now time.Time) told {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(collectorFunc(func(ch chan<- prometheus.Metric) {
		b.survey(now).collect(ch, b.backlog(now), h.offers(now))
		h.collect(ch, now)
	}))
	fams, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := told{}
	for _, f := range fams {
		for _, m := range f.GetMetric() {
			all[f.GetName()+labelsOf(m)] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return all
}

type collectorFunc func(chan<- prometheus.Metric)

func (f collectorFunc) Describe(chan<- *prometheus.Desc)    {}
func (f collectorFunc) Collect(ch chan<- prometheus.Metric) { f(ch) }

func labelsOf(m *dto.Metric) (s string) {
	for _, l := range m.GetLabel() {
		s += " " + l.GetValue()
	}
	return s
}

func (all told) want(t *testing.T, key string, v float64) {
	t.Helper()
	if got, ok := all[key]; !ok || got != v {
		t.Errorf("%s: %v (there: %v), want %v", key, got, ok, v)
	}
}

// line appends events to a board as the log would.
type line struct {
	b    *board
	seq  uint64
	last map[string]string
}

func (l *line) add(e phases.Event) {
	l.seq++
	key := e.Sector + string(e.Step)
	e.V, e.ID, e.Seq, e.Group, e.PrevID = phases.Version, fmt.Sprintf("e%d", l.seq), l.seq, group, l.last[key]
	if e.Issue == 0 && e.Step != phases.SectorEnd {
		e.Issue, e.Attempt = 1, 1
	}
	if e.Host == "" {
		e.Host = "dispatcher-test"
	}
	l.last[key] = e.ID
	if c := l.b.take(e); c.rejected != nil {
		panic(c.rejected)
	}
}

// p1 has a sector's p1 issued, with a ticket that is good until then, and claimed.
func (l *line) p1(number uint64, at time.Time, by time.Time) string {
	id := phases.SectorID(1000, number)
	l.add(phases.Event{Type: phases.Submitted, Sector: id, Step: phases.SectorEnd, At: at, Spec: &phases.Spec{Miner: 1000, Number: number, ProofType: 5}})
	l.add(phases.Event{Type: phases.Issued, Sector: id, Step: phases.P1, At: at, Inputs: map[string]string{phases.InputPrecommitBy: by.Format(time.RFC3339)}})
	l.add(phases.Event{Type: phases.Claimed, Sector: id, Step: phases.P1, At: at, Host: "h1", ClaimID: "c" + id})
	return id
}

func (l *line) end(id string, kind phases.EventType, at time.Time, r phases.Result) {
	l.add(phases.Event{Type: kind, Sector: id, Step: phases.P1, At: at, Host: "h1", ClaimID: "c" + id, Result: &r})
}

func TestSurveyTellsWhatIsOverdueParkedAndNearItsDeadline(t *testing.T) {
	start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	l := &line{b: newBoard(phases.DefaultPolicy(), 0, 0), last: map[string]string{}}
	deadline := start.Add(20 * time.Hour)
	for n := range uint64(5) {
		id := l.p1(n, start, deadline)
		l.end(id, phases.Done, start.Add(time.Hour), phases.Result{Code: "ok"})
	}
	stuck := l.p1(7, start, deadline)
	bad := l.p1(8, start, deadline)
	l.end(bad, phases.Failed, start.Add(time.Minute), phases.Result{Code: "bad", Class: phases.Permanent})
	h := newHostBook()

	now := start.Add(3*time.Hour - time.Second)
	all := tell(t, l.b, h, now)
	all.want(t, "sealfleet_phase_overdue group1 p1", 0)
	all.want(t, "sealfleet_phase_parked group1 p1", 1)
	all.want(t, "sealfleet_sectors group1 parked", 1)
	all.want(t, "sealfleet_deadline_sectors precommit group1 50", 0)

	now = start.Add(10 * time.Hour)
	all = tell(t, l.b, h, now)
	all.want(t, "sealfleet_phase_overdue group1 p1", 1) // three times the hour that the others took
	all.want(t, "sealfleet_phase_oldest_run_seconds group1 p1", 36000)
	all.want(t, "sealfleet_deadline_margin_seconds precommit group1", 36000)
	all.want(t, "sealfleet_deadline_used_ratio precommit group1", .5)
	all.want(t, "sealfleet_deadline_sectors precommit group1 50", 7)
	all.want(t, "sealfleet_deadline_sectors precommit group1 80", 0)

	// An attempt more has the same ticket, and its clock goes on.
	l.end(stuck, phases.Failed, now, phases.Result{Code: "killed", Class: phases.Retryable})
	l.add(phases.Event{Type: phases.Issued, Sector: stuck, Step: phases.P1, Issue: 2, Attempt: 2, At: now, Inputs: map[string]string{phases.InputPrecommitBy: deadline.Format(time.RFC3339)}})
	all = tell(t, l.b, h, start.Add(19*time.Hour))
	all.want(t, "sealfleet_deadline_sectors precommit group1 95", 7)
	all.want(t, "sealfleet_phase_overdue group1 p1", 0)
}

func TestUnservedMeansThatNoLivingHostOffersThePhase(t *testing.T) {
	start := time.Now()
	l := &line{b: newBoard(phases.DefaultPolicy(), 0, 0), last: map[string]string{}}
	id := phases.SectorID(1000, 1)
	l.add(phases.Event{Type: phases.Submitted, Sector: id, Step: phases.SectorEnd, At: start, Spec: &phases.Spec{Miner: 1000, Number: 1, ProofType: 5}})
	l.add(phases.Event{Type: phases.Issued, Sector: id, Step: phases.P1, At: start})
	h := newHostBook()
	status := bus.HostStatus{Host: "h1", Groups: []string{group}, Slots: []bus.HostSlots{{Entry: "2:p1", Phases: []phases.Step{phases.P1}, Slots: 2}}}
	all := tell(t, l.b, h, start)
	all.want(t, "sealfleet_phase_unserved group1 p1", 1)
	all.want(t, "sealfleet_phase_unserved group1 p2", 0)

	h.hear(group, status)
	all = tell(t, l.b, h, time.Now())
	all.want(t, "sealfleet_phase_unserved group1 p1", 0)
	all.want(t, "sealfleet_phase_slots group1 p1", 2)
	all.want(t, "sealfleet_host_up h1", 1)

	later := time.Now().Add(2 * hostSilent)
	all = tell(t, l.b, h, later)
	all.want(t, "sealfleet_phase_unserved group1 p1", 1)
	all.want(t, "sealfleet_host_up h1", 0)

	// One that has drained is not missed when it goes.
	status.Draining = true
	h.hear(group, status)
	all = tell(t, l.b, h, time.Now())
	all.want(t, "sealfleet_host_draining h1", 1)
	all.want(t, "sealfleet_phase_unserved group1 p1", 1)
	if _, there := tell(t, l.b, h, later)["sealfleet_host_up h1"]; there {
		t.Error("a host that drained and went is still told of")
	}
}

func TestAuditsAreKeptUntilALaterOneIsWell(t *testing.T) {
	h := newHostBook()
	b := newBoard(phases.DefaultPolicy(), 0, 0)
	say := func(sector, result string) {
		h.audited(group, "h1", bus.StoredAudit{Node: "node1", Sector: sector, Result: result})
	}
	say("s-t01000-1", bus.AuditBad)
	say("s-t01000-1", bus.AuditUnreadable)
	say("s-t01000-2", bus.AuditBad)
	say("s-t01000-3", "whatever")
	tell(t, b, h, time.Now()).want(t, "sealfleet_stored_bad node1", 2)
	say("s-t01000-1", bus.AuditOK)
	tell(t, b, h, time.Now()).want(t, "sealfleet_stored_bad node1", 1)
}

func TestLabelsFromTheWireAreBounded(t *testing.T) {
	w := bus.NewWords(2)
	for _, test := range [][2]string{{"a", "a"}, {"b", "b"}, {"c", "other"}, {"a", "a"}, {"", "other"}} {
		if got := w.Known(test[0]); got != test[1] {
			t.Errorf("%q is %q, want %q", test[0], got, test[1])
		}
	}
	h := newHostBook()
	for i := range mostHosts + 5 {
		h.hear(group, bus.HostStatus{Host: fmt.Sprint("h", i)})
	}
	if len(h.hosts) != mostHosts {
		t.Errorf("%d hosts are kept", len(h.hosts))
	}
}
