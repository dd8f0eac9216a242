package host

import (
	"cmp"
	"fmt"
	"slices"
)

// Severity says what a finding means for the work of this host.
type Severity string

// The severities, from good to bad.
const (
	OK     Severity = "ok"     // looked at, and fine
	Info   Severity = "info"   // a fact worth knowing
	Warn   Severity = "warn"   // work goes on, and something will hurt
	Refuse Severity = "refuse" // work would fail, or come too late: it must not begin
)

var severities = []Severity{OK, Info, Warn, Refuse}

func (s Severity) rank() int { return slices.Index(severities, s) }

// Finding is what one check of the doctor came to. Its JSON is a contract.
type Finding struct {
	Code     string   `json:"code"` // of what was found wrong; for ok and info what was looked at
	Severity Severity `json:"severity"`
	Subject  string   `json:"subject"`        // the path, setting or part that it is about
	Evidence string   `json:"evidence"`       // what was seen, with numbers
	Mend     string   `json:"mend,omitempty"` // what to do about it; empty for ok and info
}

// Error makes a finding readable as the reason why something does not go on.
func (f Finding) Error() string {
	text := f.Subject + ": " + f.Evidence
	if f.Mend != "" {
		text += "; mend: " + f.Mend
	}
	return text + " [" + f.Code + "]"
}

// Worst returns the worst severity of a list, OK for an empty one.
func Worst(list []Finding) Severity {
	worst := OK
	for _, f := range list {
		if f.Severity.rank() > worst.rank() {
			worst = f.Severity
		}
	}
	return worst
}

// Refusals returns the findings that forbid work.
func Refusals(list []Finding) []Finding {
	var refused []Finding
	for _, f := range list {
		if f.Severity == Refuse {
			refused = append(refused, f)
		}
	}
	return refused
}

// sortFindings puts the worst first, and the rest in an order that does not change from
// run to run.
func sortFindings(list []Finding) {
	slices.SortStableFunc(list, func(a, b Finding) int {
		return cmp.Or(b.Severity.rank()-a.Severity.rank(), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Subject, b.Subject))
	})
}

func found(code string, s Severity, subject, mend, evidence string, args ...any) Finding {
	return Finding{Code: code, Severity: s, Subject: subject, Evidence: fmt.Sprintf(evidence, args...), Mend: mend}
}
