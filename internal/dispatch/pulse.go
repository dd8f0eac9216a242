package dispatch

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"sealfleet/internal/phases"
)

// pulses count what ended in the last hour, and keep how long phases took on each host.
// They follow from the log, as meters do.
type pulses struct {
	mu   sync.Mutex
	of   map[station]*pulse
	took map[tookAt]*ring[time.Duration]
}

// pulse has a count for each of the last sixty minutes, in the place of its number modulo 60.
type pulse struct {
	minutes [60]struct {
		minute       int64
		done, failed int
	}
}

type tookAt struct {
	host string
	step phases.Step
	size string
}

// mostTook bounds what is kept of hosts, whose names come from the wire.
const mostTook = 50_000

func newPulses() *pulses {
	return &pulses{of: map[station]*pulse{}, took: map[tookAt]*ring[time.Duration]{}}
}

func (p *pulses) take(e *phases.Event, before *phases.StepState, proofType int) {
	if e.Type != phases.Done && e.Type != phases.Failed {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	at := station{e.Group, e.Step}
	c := p.of[at]
	if c == nil {
		c = &pulse{}
		p.of[at] = c
	}
	minute := e.At.Unix() / 60
	m := &c.minutes[minute%60]
	if m.minute < minute {
		m.minute, m.done, m.failed = minute, 0, 0
	}
	if m.minute == minute {
		if e.Type == phases.Done {
			m.done++
		} else {
			m.failed++
		}
	}
	if e.Type != phases.Done || !e.Step.IsPhase() {
		return
	}
	key := tookAt{e.Host, e.Step, phases.SizeName(proofType)}
	r := p.took[key]
	if r == nil {
		if len(p.took) >= mostTook {
			return
		}
		r = &ring[time.Duration]{}
		p.took[key] = r
	}
	r.add(max(e.At.Sub(before.ClaimedAt), 0))
}

// hour is what ended in the hour before now.
func (p *pulses) hour(at station, now time.Time) (done, failed int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.of[at]
	if c == nil {
		return 0, 0
	}
	for _, m := range c.minutes {
		if age := now.Unix()/60 - m.minute; age >= 0 && age < 60 {
			done += m.done
			failed += m.failed
		}
	}
	return done, failed
}

// PhaseStats are how long a phase takes on hosts with one model of processor.
type PhaseStats struct {
	Phase phases.Step `json:"phase"`
	Size  string      `json:"size"`
	Model string      `json:"model"` // empty: the hosts did not tell
	Hosts int         `json:"hosts"`
	Count int         `json:"count"` // attempts that succeeded, the last 256 of each host
	P50   float64     `json:"p50_seconds"`
	P95   float64     `json:"p95_seconds"`
}

// stats gathers what the hosts took, by model. only may be nil.
func (p *pulses) stats(model func(host string) string, only func(phases.Step) bool) []PhaseStats {
	type key struct {
		step        phases.Step
		size, model string
	}
	all := map[key][]time.Duration{}
	hosts := map[key]int{}
	p.mu.Lock()
	for at, r := range p.took {
		if only != nil && !only(at.step) {
			continue
		}
		k := key{at.step, at.size, model(at.host)}
		all[k] = append(all[k], r.items...)
		hosts[k]++
	}
	p.mu.Unlock()
	out := []PhaseStats{}
	for k, took := range all {
		slices.Sort(took)
		out = append(out, PhaseStats{
			Phase: k.step, Size: k.size, Model: k.model, Hosts: hosts[k], Count: len(took),
			P50: quantile(took, .5).Seconds(), P95: quantile(took, .95).Seconds(),
		})
	}
	slices.SortFunc(out, func(a, b PhaseStats) int {
		return cmp.Or(stepIndex(a.Phase)-stepIndex(b.Phase), cmp.Compare(a.Size, b.Size), cmp.Compare(a.Model, b.Model))
	})
	return out
}
