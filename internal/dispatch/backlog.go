package dispatch

import (
	"fmt"
	"math"
	"slices"
	"time"

	"sealfleet/internal/phases"
)

// Traffic is what was measured of one phase of one group.
type Traffic struct {
	Group   string
	Phase   phases.Step
	Waiting int             // tasks that a host could do now
	Running int             //
	Oldest  time.Duration   // the longest wait of those that wait
	Held    int             // p1 only: sectors that are not started because others must be cleaned first
	Slots   int             // known slots: what the hosts did at once, see meter
	Hosts   int             // that were seen to do it
	Took    []time.Duration // of the last attempts that succeeded, from claim to end, in any order
	Arrived []time.Time     // when the last tasks came, oldest first
	Full    bool            // Arrived has no room for older ones
}

// Advice says how a phase of a group keeps up, and how many more slots it needs.
type Advice struct {
	Group    string      `json:"group"`
	Phase    phases.Step `json:"phase"`
	Waiting  int         `json:"waiting"`
	Running  int         `json:"running"`
	Oldest   float64     `json:"oldest_wait_seconds"`
	P50      float64     `json:"p50_seconds"` // of the last attempts that succeeded; 0: none was seen
	P95      float64     `json:"p95_seconds"`
	Measured int         `json:"measured"` // how many those are
	PerHour  float64     `json:"arrivals_per_hour"`
	Slots    int         `json:"slots"` // seen at work
	Need     int         `json:"need_more_slots"`
	Held     int         `json:"held,omitempty"` // p1: sectors not started because others must be cleaned first
	Why      string      `json:"why"`
}

// catchUp is how soon a backlog should be worked off: within it, disks do not fill. For
// a phase that takes long it is twice what nearly all of its runs take.
const catchUp = time.Hour

// Advise works out the advice for one phase of one group as of now.
//
// Work comes at a rate a, measured over the time h in which a backlog should be worked
// off (catchUp, or longer for long phases), and takes m on average. c slots do c/m a
// second. Beyond what free slots take at once, x tasks wait; to do what comes and to work
// x off within h needs m·(a + x/h) slots.
//
// p1 is the exception: what waits for it is the operator's plan, not a backlog, and more
// p1 would make every other backlog longer.
func Advise(t Traffic, now time.Time) Advice {
	took := slices.Sorted(slices.Values(t.Took))
	p50, p95, mean := quantile(took, .5), quantile(took, .95), average(took)
	horizon := max(catchUp, 2*p95)
	rate := arrivals(t, now, horizon)
	a := Advice{
		Group: t.Group, Phase: t.Phase, Waiting: t.Waiting, Running: t.Running, Oldest: t.Oldest.Seconds(),
		P50: p50.Seconds(), P95: p95.Seconds(), Measured: len(took), PerHour: rate * 3600, Slots: t.Slots, Held: t.Held,
	}
	slots := max(t.Slots, t.Running)
	excess := max(t.Waiting-(slots-t.Running), 0)
	switch {
	case t.Waiting == 0 && t.Running == 0 && len(t.Arrived) == 0:
		a.Why = "nothing came yet"
	case slots == 0 && t.Waiting > 0:
		a.Need = 1
		a.Why = fmt.Sprintf("no consumer of %s was seen to do %s: add %s to the WORKERS of one", t.Group, t.Phase, t.Phase)
	case t.Held > 0:
		a.Why = fmt.Sprintf("%s held back until others are cleaned: see the phases behind", count(t.Held, "sector is", "sectors are"))
	case slots == 0:
		a.Why = "nothing waits"
	case len(took) == 0 && excess > 0:
		a.Why = fmt.Sprintf("%d more than there are slots; none has ended yet, so what is needed is not known", excess)
	case len(took) == 0:
		a.Why = "keeps up; none has ended yet"
	case t.Phase == phases.P1:
		a.Why = p1Why(excess, slots, mean)
	default:
		a.Need, a.Why = need(t, slots, excess, rate, mean, horizon)
	}
	return a
}

func need(t Traffic, slots, excess int, rate float64, mean, horizon time.Duration) (int, string) {
	const slack = 1e-9 // so that 3.0000000001 slots are 3
	busy := rate * mean.Seconds()
	wanted := int(math.Ceil(busy + float64(excess)/horizon.Seconds()*mean.Seconds() - slack))
	more := max(wanted-slots, 0)
	spare := float64(slots)/mean.Seconds() - rate
	switch {
	case more > 0:
		return more, fmt.Sprintf("%.3g come an hour and each takes %s: that keeps %.2g of %s busy; to work off the %d that wait within %s takes %s",
			rate*3600, people(mean), busy, count(slots, "slot", "slots"), excess, people(horizon), count(wanted, "slot", "slots"))
	case excess == 0:
		return 0, "keeps up"
	default:
		return 0, fmt.Sprintf("works off the %d that wait in %s", excess, people(time.Duration(float64(excess)/spare*float64(time.Second))))
	}
}

func p1Why(excess, slots int, mean time.Duration) string {
	if excess == 0 {
		return "a slot is free for each that waits"
	}
	rounds := float64(excess) / float64(slots)
	return fmt.Sprintf("%s do the %d that wait in about %s; more p1 only if the phases behind keep up",
		count(slots, "slot", "slots"), excess, people(time.Duration(rounds*float64(mean))))
}

// arrivals is how many tasks come in a second: over the last horizon, or over the time
// that is remembered if that is shorter.
func arrivals(t Traffic, now time.Time, horizon time.Duration) float64 {
	since, over := now.Add(-horizon), horizon
	n := 0
	for _, at := range t.Arrived {
		if at.After(since) {
			n++
		}
	}
	if t.Full && n == len(t.Arrived) && n > 0 {
		// FAIL of the clock: an arrival in the future would make the rate negative.
		over = max(now.Sub(t.Arrived[0]), time.Second)
	}
	return float64(n) / over.Seconds()
}

// quantile of sorted durations by the nearest rank, 0 if there are none.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(int(math.Ceil(q*float64(len(sorted))))-1, 0)]
}

// average is at least a microsecond, so that a phase that takes nothing can be counted with.
func average(all []time.Duration) time.Duration {
	var sum time.Duration
	for _, d := range all {
		sum += d
	}
	return max(sum/time.Duration(max(len(all), 1)), time.Microsecond)
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprint(n, " ", many)
}

// people rounds a duration to what people read.
func people(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	}
	d = d.Round(time.Minute)
	return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
}
