// Package alerts raises alarms without a Prometheus: it looks at a dispatcher's own
// metrics by the same conditions that the Prometheus rules in deployments/ have, which
// are made from the table here, and tells a webhook and the bus.
//
// # Once, whoever raises it
//
// All dispatchers see the same farm, and each looks for itself. What is told is written
// first to the control stream (alert.<name>.<labels>) by compare-and-set: of any number of
// dispatchers that find the same, one becomes the alarm's owner and tells; it repeats, and
// says when it is over. An owner that is gone is replaced by whoever finds its word stale.
// So an alarm outlives the dispatcher that raised it, is not told again because one
// restarts, and `dispatcher alerts` needs no dispatcher to be asked.
//
// FAIL: between the telling and the note that it was told a dispatcher may die; the alarm
// is then told twice. None is lost.
package alerts

import (
	"fmt"
	"strconv"
	"strings"
	"text/template"
	"time"
)

// Severity says how soon somebody must act.
type Severity string

// The severities.
const (
	Info     Severity = "info"     // to know
	Warning  Severity = "warning"  // today
	Critical Severity = "critical" // now
)

// look is how a rule looks at a metric.
type look int

const (
	lookNow      look = iota // its value
	lookIncrease             // how much it grew within the window
	lookPredict              // where it will be after the horizon, by the window's slope
)

// Rule is one condition. Its metric is a dispatcher's.
type Rule struct {
	Name     string
	Severity Severity
	More     map[string]string // labels beside the name, severity and By
	Metric   string
	Match    map[string]string // labels that the metric must have
	By       []string          // the labels of the alarm
	Look     look
	Window   time.Duration
	Horizon  time.Duration
	Below    bool // it is wrong below Limit; else above
	Limit    float64
	For      time.Duration // it must be wrong for so long
	Summary  string        // templates as Prometheus has them: $labels and $value
	Mend     string
	Local    bool   // of this dispatcher, not of the farm: told by it alone, and without the bus
	Examples string // which sectors to name: parked, overdue, deadline, waiting
	Absent   bool   // only a Prometheus can see it: nothing is left that could raise it
}

// Rules are all conditions. A page of docs/runbooks belongs to each name.
func Rules() []Rule {
	const group, phase = "group", "phase"
	atRisk := func(s Severity, used string) Rule {
		return Rule{
			Name: "DeadlineAtRisk", Severity: s, More: map[string]string{"used": used}, Metric: "sealfleet_deadline_sectors", Match: map[string]string{"used": used},
			By: []string{group, "deadline"}, Examples: "deadline",
			Summary: "{{ $value }} sectors of {{ $labels.group }} have used " + used + " % of the time to their {{ $labels.deadline }}",
			Mend:    "dispatcher backlog --group {{ $labels.group }} says which phase holds them up; dispatcher why ID says what one waits for",
		}
	}
	return []Rule{
		{
			Name: "SectorParked", Severity: Warning, Metric: "sealfleet_phase_parked", By: []string{group, phase}, Examples: "parked",
			Summary: "{{ $value }} sectors of {{ $labels.group }} are parked at {{ $labels.phase }}",
			Mend:    "dispatcher sectors --group {{ $labels.group }} --state parked; dispatcher why ID; then dispatcher redo ID --reason …",
		},
		{
			Name: "PhaseStuck", Severity: Warning, Metric: "sealfleet_phase_overdue", By: []string{group, phase}, Examples: "overdue",
			Summary: "{{ $value }} {{ $labels.phase }} of {{ $labels.group }} run much longer than such phases do",
			Mend:    "dispatcher sectors --group {{ $labels.group }} --state running --phase {{ $labels.phase }}; consumer doctor on its host",
		},
		{
			Name: "PhaseWithoutHost", Severity: Critical, Metric: "sealfleet_phase_unserved", By: []string{group, phase}, For: 15 * time.Second, Examples: "waiting",
			Summary: "{{ $value }} {{ $labels.phase }} of {{ $labels.group }} wait, and no living host offers a slot for them",
			Mend:    "start a consumer of {{ $labels.group }} with {{ $labels.phase }} in its WORKERS, or undrain one",
		},
		{
			Name: "PhaseFailing", Severity: Warning, Metric: "sealfleet_phase_failures_total", By: []string{group, phase, "code"}, Look: lookIncrease, Window: 30 * time.Minute, Limit: 5,
			Summary: "{{ $labels.phase }} of {{ $labels.group }} failed more than 5 times within 30 minutes with {{ $labels.code }}",
			Mend:    "dispatcher events --follow shows each failure with its host and its mend",
		},
		{
			Name: "CleaningBehind", Severity: Warning, Metric: "sealfleet_backlog_slots_needed", Match: map[string]string{phase: "p6"}, By: []string{group}, For: 5 * time.Minute,
			Summary: "p6 of {{ $labels.group }} falls behind: it needs {{ $value }} more slots, or the disks fill",
			Mend:    "dispatcher backlog --group {{ $labels.group }}; raise the number before p6 in WORKERS of its P6 hosts",
		},
		{
			Name: "DiskFullSoon", Severity: Critical, Metric: "sealfleet_host_disk_unpromised_bytes", By: []string{"host", "disk"},
			Look: lookPredict, Window: time.Hour, Horizon: 6 * time.Hour, Below: true, For: 5 * time.Minute,
			Summary: "{{ $labels.disk }} of {{ $labels.host }} will be full within 6 hours if it goes on like this",
			Mend:    "dispatcher backlog (is p6 behind?); consumer orphans on {{ $labels.host }}; for a storage node: set keep= or readonly in STORAGE_NODES and add another",
		},
		atRisk(Info, "50"), atRisk(Warning, "80"), atRisk(Critical, "95"),
		{
			Name: "StorageAuditFailed", Severity: Critical, Metric: "sealfleet_stored_bad", By: []string{"node"},
			Summary: "{{ $value }} stored sectors on {{ $labels.node }} cannot answer for their CommR, or cannot be read",
			Mend:    "consumer audit --all --node {{ $labels.node }} on a host that mounts it; mend the node, then dispatcher redo ID --phase p5 --reason … while the local files are there",
		},
		{
			Name: "RedeliveryStorm", Severity: Warning, Metric: "sealfleet_phase_takeovers_total", By: []string{group, phase}, Look: lookIncrease, Window: 10 * time.Minute, Limit: 10,
			Summary: "more than 10 {{ $labels.phase }} of {{ $labels.group }} were taken over from hosts that fell silent, within 10 minutes",
			Mend:    "see that the hosts reach NATS (sealfleet_bus_reconnects_total) and that ACK_WAIT is longer than your outages",
		},
		{
			Name: "HostSilent", Severity: Warning, Metric: "sealfleet_host_up", By: []string{"host"}, Below: true, Limit: 1,
			Summary: "{{ $labels.host }} has not been heard of for half a minute, and had not drained",
			Mend:    "systemctl status sealfleet-consumer on {{ $labels.host }}; its /readyz says what it lacks",
		},
		{
			Name: "DoctorRefuses", Severity: Warning, Metric: "sealfleet_host_findings", Match: map[string]string{"severity": "refuse"}, By: []string{"host"},
			Summary: "the doctor refuses {{ $value }} things on {{ $labels.host }}: it takes no p1",
			Mend:    "consumer doctor on {{ $labels.host }} names each with its mend (docs/doctor.md)",
		},
		{
			Name: "ChainUnreachable", Severity: Warning, Metric: "sealfleet_gate_errors_total", By: []string{phase}, Look: lookIncrease, Window: 5 * time.Minute, Limit: 5,
			Summary: "the chain could not be asked about {{ $labels.phase }} more than 5 times within 5 minutes",
			Mend:    "see that the chain's node is there and in sync; messages that are out are asked about again by themselves",
		},
		{
			Name: "EventsRejected", Severity: Warning, Metric: "sealfleet_events_rejected_total", By: []string{"reason"}, Look: lookIncrease, Window: 10 * time.Minute,
			Summary: "events were not believed within the last 10 minutes ({{ $labels.reason }})",
			Mend:    "the dispatcher's log has each; two consumers with one HOST_NAME, or somebody who writes by hand",
		},
		{
			Name: "CopiesMissing", Severity: Critical, Metric: "sealfleet_bus_stream_copies_missing", By: []string{"stream"}, For: 15 * time.Second,
			Summary: "{{ $labels.stream }} lacks {{ $value }} of its copies: one more server down may stop the fleet",
			Mend:    "nats server list; nats stream info {{ $labels.stream }}; bring the server back",
		},
		{
			Name: "BusUnreachable", Severity: Critical, Metric: "sealfleet_bus_connected", Below: true, Limit: 1, For: 30 * time.Second, Local: true,
			Summary: "a dispatcher cannot reach NATS: nothing new is handed out; running phases go on",
			Mend:    "nats server check connection; see that the servers run",
		},
		{
			Name: "LogWentBack", Severity: Critical, Metric: "sealfleet_bus_log_went_back", Local: true,
			Summary: "the event log lost events that it had acknowledged: the fleet has stopped",
			Mend:    "docs/operations.md, log went backwards: restore SEAL_EVENTS from a backup or a replica before anything else",
		},
		{
			Name: "DispatcherAbsent", Severity: Critical, Metric: "sealfleet_build_info", Match: map[string]string{"program": "dispatcher"}, For: 30 * time.Second, Absent: true,
			Summary: "no dispatcher answers: running phases go on, nothing follows on them",
			Mend:    "systemctl status sealfleet-dispatcher; its log says why it stopped",
		},
	}
}

// Names lists the names of the rules, each once.
func Names() []string {
	var names []string
	seen := map[string]bool{}
	for _, r := range Rules() {
		if !seen[r.Name] {
			seen[r.Name] = true
			names = append(names, r.Name)
		}
	}
	return names
}

// Page is the runbook's file name: SectorParked is sector-parked.md.
func Page(name string) string {
	var b strings.Builder
	for i, c := range name {
		if c >= 'A' && c <= 'Z' {
			if i > 0 {
				b.WriteByte('-')
			}
			c += 'a' - 'A'
		}
		b.WriteRune(c)
	}
	return b.String() + ".md"
}

// Expr is the rule as PromQL.
func (r Rule) Expr() string {
	sel := r.Metric
	if len(r.Match) > 0 {
		var pairs []string
		for _, k := range sortedKeys(r.Match) {
			pairs = append(pairs, k+"="+strconv.Quote(r.Match[k]))
		}
		sel += "{" + strings.Join(pairs, ",") + "}"
	}
	switch {
	case r.Absent:
		return "absent(" + sel + ")"
	case r.Look == lookIncrease:
		sel = "increase(" + sel + "[" + span(r.Window) + "])"
	case r.Look == lookPredict:
		sel = fmt.Sprintf("predict_linear(%s[%s], %d)", sel, span(r.Window), int(r.Horizon.Seconds()))
	}
	aggregate, compare := "max", ">"
	if r.Below {
		aggregate, compare = "min", "<"
	}
	if r.Local { // of each dispatcher: every one counts
		return fmt.Sprintf("%s %s %g", sel, compare, r.Limit)
	}
	return fmt.Sprintf("%s by (%s) (%s) %s %g", aggregate, strings.Join(r.By, ", "), sel, compare, r.Limit)
}

// span writes a duration as PromQL does.
func span(d time.Duration) string {
	switch {
	case d%time.Hour == 0 && d > 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Minute == 0 && d > 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// render fills in one of the rule's texts.
func render(text string, labels map[string]string, value float64) string {
	t, err := template.New("").Parse(`{{ $labels := .Labels }}{{ $value := .Value }}` + text)
	if err != nil {
		return text // a test renders every text
	}
	var b strings.Builder
	if err := t.Execute(&b, map[string]any{"Labels": labels, "Value": value}); err != nil {
		return text
	}
	return b.String()
}
