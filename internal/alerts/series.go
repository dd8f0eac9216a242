package alerts

import (
	"maps"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// sample is one value at a time.
type sample struct {
	at time.Time
	v  float64
}

// history keeps the samples of the series that rules look back on.
type history struct {
	series map[string]*past // by metric and labels
}

type past struct {
	window  time.Duration
	samples []sample
	seen    time.Time
}

// mostSamples of one series: an hour's worth at the default interval.
const mostSamples = 512

func (h *history) add(key string, window time.Duration, s sample) *past {
	if h.series == nil {
		h.series = map[string]*past{}
	}
	p := h.series[key]
	if p == nil {
		p = &past{window: window}
		h.series[key] = p
	}
	p.seen = s.at
	p.samples = append(p.samples, s)
	from := s.at.Add(-p.window)
	for len(p.samples) > 0 && p.samples[0].at.Before(from) || len(p.samples) > mostSamples {
		p.samples = p.samples[1:]
	}
	return p
}

// forget drops the series that were not there at a time.
func (h *history) forget(now time.Time) {
	for k, p := range h.series {
		if p.seen.Before(now) {
			delete(h.series, k)
		}
	}
}

// increase is how much a counter grew within the window; a fall is a restart from 0. A
// series that appears later than the first look grew from 0: a counter's first value
// comes with what it counts.
func (p *past) increase() (sum float64) {
	for i := 1; i < len(p.samples); i++ {
		if d := p.samples[i].v - p.samples[i-1].v; d >= 0 {
			sum += d
		} else {
			sum += p.samples[i].v
		}
	}
	return sum
}

// predict is where the series will be after the horizon, by the line that fits it best.
// Too short a past says nothing.
func (p *past) predict(horizon time.Duration) (float64, bool) {
	n := float64(len(p.samples))
	if n < 3 {
		return 0, false
	}
	last := p.samples[len(p.samples)-1].at
	if last.Sub(p.samples[0].at) < p.window/4 {
		return 0, false
	}
	var sx, sy, sxx, sxy float64
	for _, s := range p.samples {
		x := s.at.Sub(last).Seconds()
		sx, sy, sxx, sxy = sx+x, sy+s.v, sxx+x*x, sxy+x*s.v
	}
	slope := (n*sxy - sx*sy) / (n*sxx - sx*sx)
	return (sy-slope*sx)/n + slope*horizon.Seconds(), true
}

// found is one thing that is wrong.
type found struct {
	rule   *Rule
	labels map[string]string // of the alarm, its name and severity included
	value  float64
}

// key tells alarms apart.
func (f found) key() string { return keyOf(f.labels) }

func keyOf(labels map[string]string) string {
	var b strings.Builder
	for _, k := range sortedKeys(labels) {
		b.WriteString(k + "=" + labels[k] + "\x00")
	}
	return b.String()
}

// evaluate looks at what was gathered at a time. The first look at counters only learns
// where they stand.
func (h *history) evaluate(rules []Rule, fams []*dto.MetricFamily, now time.Time, first bool) []found {
	byName := map[string]*dto.MetricFamily{}
	for _, f := range fams {
		byName[f.GetName()] = f
	}
	var all []found
	for i := range rules {
		r := &rules[i]
		if r.Absent {
			continue
		}
		worst := map[string]found{}
		for _, m := range byName[r.Metric].GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if !matches(labels, r.Match) {
				continue
			}
			v, known := h.value(r, labels, m.GetGauge().GetValue()+m.GetCounter().GetValue(), now, first)
			if !known || (r.Below && v >= r.Limit) || (!r.Below && v <= r.Limit) {
				continue
			}
			f := found{rule: r, labels: r.labels(labels), value: v}
			k := f.key()
			if other, there := worst[k]; !there || r.Below && v < other.value || !r.Below && v > other.value {
				worst[k] = f
			}
		}
		for _, k := range sortedKeys(worst) {
			all = append(all, worst[k])
		}
	}
	h.forget(now)
	return all
}

func matches(labels, want map[string]string) bool {
	for k, v := range want {
		if labels[k] != v {
			return false
		}
	}
	return true
}

// value is what a rule looks at.
func (h *history) value(r *Rule, labels map[string]string, v float64, now time.Time, first bool) (float64, bool) {
	if r.Look == lookNow {
		return v, true
	}
	key := r.Name + "\x00" + keyOf(labels)
	if r.Look == lookIncrease && !first && (h.series == nil || h.series[key] == nil) {
		h.add(key, r.Window, sample{now.Add(-time.Nanosecond), 0})
	}
	p := h.add(key, r.Window, sample{now, v})
	if r.Look == lookPredict {
		return p.predict(r.Horizon)
	}
	return p.increase(), true
}

// labels are those of an alarm.
func (r *Rule) labels(of map[string]string) map[string]string {
	l := map[string]string{"alertname": r.Name, "severity": string(r.Severity)}
	maps.Copy(l, r.More)
	for _, k := range r.By {
		l[k] = of[k]
	}
	return l
}
