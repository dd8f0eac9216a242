// Command bus measures the fleet's bus: a real dispatcher on an embedded server, and
// slots that do nothing. It prints one JSON object.
//
//	go run ./bench/bus                  # all runs
//	go run ./bench/bus -run "not synced"  # those with this in their name
//
// Throughput counts completed phases (gates are not counted, though they are done).
// Hand-off is the time from the completion event of a phase (written and acknowledged) to
// the start of the next phase (its claim written and acknowledged), where no gate lies
// between: p1 to p2, and p3 to p4 and p5.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strings"
	"time"
)

type options struct {
	slots    int
	seconds  time.Duration
	inFlight int
	sync     bool
	tcp      bool
	log      *slog.Logger
}

// report is what one run gave.
type report struct {
	Name         string  `json:"name"`
	Sync         bool    `json:"sync"`
	Slots        int     `json:"slots"`
	InFlight     int     `json:"sectors_in_flight"`
	Seconds      float64 `json:"seconds"`
	Phases       int     `json:"phases"`
	PerSecond    float64 `json:"phases_per_second"`
	Handoffs     int     `json:"handoffs"`
	HandoffP50   float64 `json:"handoff_p50_ms"`
	HandoffP99   float64 `json:"handoff_p99_ms"`
	EventWrites  float64 `json:"events_per_phase"`
	CPUPerPhase  float64 `json:"cpu_microseconds_per_phase"`
	SectorsEnded int     `json:"sectors_ended"`
}

func main() {
	run := flag.String("run", "", "only the runs with this in their name")
	slots := flag.Int("slots", 20, "slots, spread over the phases")
	seconds := flag.Duration("for", 8*time.Second, "length of each run")
	inFlight := flag.Int("sectors", 200, "sectors in flight in the throughput runs")
	profile := flag.String("cpuprofile", "", "write a CPU profile to this file")
	tcp := flag.Bool("tcp", false, "connect the dispatcher over TCP instead of in process")
	verbose := flag.Bool("v", false, "log")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			fatal(err)
		}
		defer f.Close() //nolint:errcheck // a profile
		if err := pprof.StartCPUProfile(f); err != nil {
			fatal(err)
		}
		defer pprof.StopCPUProfile()
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400) // as the dispatcher does: much is allocated, little is kept
	}
	o := options{slots: *slots, seconds: *seconds, tcp: *tcp, log: slog.New(slog.DiscardHandler)}
	if *verbose {
		o.log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	var reports []report
	for _, r := range []struct {
		name     string
		inFlight int
		sync     bool
	}{
		{"throughput, synced", *inFlight, true},
		{"throughput, not synced", *inFlight, false},
		{"hand-off, one sector", 1, true},
		{"hand-off, twenty sectors", 20, true},
	} {
		if !strings.Contains(r.name, *run) {
			continue
		}
		o.inFlight, o.sync = r.inFlight, r.sync
		got, err := measure(ctx, o)
		if err != nil {
			fatal(fmt.Errorf("%s: %w", r.name, err))
		}
		got.Name = r.name
		reports = append(reports, got)
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	if err := out.Encode(map[string]any{"cores": runtime.GOMAXPROCS(0), "go": runtime.Version(), "runs": reports}); err != nil {
		fatal(err)
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "bench/bus:", err)
	os.Exit(1)
}

func percentile(sorted []time.Duration, p float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	i := min(int(float64(len(sorted))*p), len(sorted)-1)
	return float64(sorted[i].Microseconds()) / 1000
}

func sortDurations(d []time.Duration) { slices.Sort(d) }
