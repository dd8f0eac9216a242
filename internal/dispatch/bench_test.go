package dispatch

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"sealfleet/internal/chain"
	"sealfleet/internal/phases"
)

// BenchmarkPhases measures completed phases per second, with one dispatcher, an embedded
// server and hosts that do nothing. Run it with -benchtime=500x: an iteration is a sector,
// six phases. inflight is the number of sectors that are sealed at the same time.
func BenchmarkPhases(b *testing.B) {
	for _, synced := range []bool{true, false} {
		for _, inflight := range []int{1, 20} {
			b.Run(fmt.Sprintf("synced=%v/inflight=%d", synced, inflight), func(b *testing.B) { benchPhases(b, synced, inflight) })
		}
	}
}

func benchPhases(b *testing.B, synced bool, inflight int) {
	f := newFleetOn(b, b.TempDir(), synced)
	o := impatient("d", chain.NewDev(instant(), nil, nil))
	o.Grace, o.SweepEvery = time.Second, 15*time.Second // as in production
	f.dispatch(o)
	for i := range max(1, inflight/6+1) {
		f.hosts(fmt.Sprint("h", i))
	}
	var (
		ended   = make(chan struct{}, inflight)
		doneAt  = map[string]time.Time{}
		handoff []time.Duration
		phased  atomic.Int64
	)
	go func() {
		_ = f.bus.Follow(f.ctx, 1, func(e phases.Event) error {
			switch {
			case e.Type == phases.Done && e.Step.IsPhase():
				phased.Add(1)
				doneAt[e.Sector] = e.At
			case e.Type == phases.Claimed && e.Step != phases.P1:
				handoff = append(handoff, e.At.Sub(doneAt[e.Sector]))
			case e.Type == phases.Finished:
				delete(doneAt, e.Sector)
				ended <- struct{}{}
			}
			return nil
		})
	}()
	b.ResetTimer()
	next := 0
	for ; next < min(inflight, b.N); next++ {
		f.submit(uint64(next), 1)
	}
	for range b.N {
		<-ended
		if next < b.N {
			if _, err := submitOne(f.ctx, f.bus, group, "bench", specs(uint64(next), 1)[0]); err != nil {
				b.Fatal(err)
			}
			next++
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(phased.Load())/b.Elapsed().Seconds(), "phases/s")
	slices.Sort(handoff)
	if n := len(handoff); n > 0 {
		b.ReportMetric(handoff[n/2].Seconds()*1e3, "handoff-p50-ms")
		b.ReportMetric(handoff[n*99/100].Seconds()*1e3, "handoff-p99-ms")
	}
}
