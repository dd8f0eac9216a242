// Command copy measures p5's copies: real consumers with buses of their own on an embedded
// server, real files. It prints one JSON object.
//
//	go run ./bench/copy -dir /sealer -node /mnt/node1
//
// Each run copies sparse files from -dir to -node, which may be one. Rates are of all bytes
// that are moved, reading back included, over every window of ten seconds in which all
// hosts copy. deviation is the largest distance of such a window from the limit.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

type report struct {
	Name      string  `json:"name"`
	Hosts     int     `json:"hosts"`
	Limit     float64 `json:"limit_mb_per_second"` // 10^6 bytes
	Seconds   float64 `json:"seconds"`
	Moved     float64 `json:"moved_mb"`
	Rate      float64 `json:"mb_per_second"`
	Windows   int     `json:"windows"`
	Slowest   float64 `json:"slowest_window_mb_per_second"`
	Fastest   float64 `json:"fastest_window_mb_per_second"`
	Deviation float64 `json:"deviation"` // 0.03 is 3 %
	CPU       float64 `json:"cpu_seconds"`
}

func main() {
	dir := flag.String("dir", "", "directory of the source (default: a temporary one)")
	node := flag.String("node", "", "directory that is copied to (default: a temporary one)")
	limit := flag.Int64("limit", 500, "MB per second")
	length := flag.Duration("for", 25*time.Second, "about how long each run takes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var reports []report
	for _, r := range []struct {
		name  string
		hosts int
		group bool
	}{
		{"one host, its own limit", 1, false},
		{"four hosts share the group's limit", 4, true},
	} {
		before := cpu()
		got, err := measure(ctx, run{dir: *dir, node: *node, hosts: r.hosts, limit: *limit * 1e6, group: r.group, length: *length})
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench/copy: %s: %v\n", r.name, err)
			os.Exit(1)
		}
		got.Name, got.CPU = r.name, cpu()-before
		reports = append(reports, got)
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	if err := out.Encode(map[string]any{"cores": runtime.GOMAXPROCS(0), "go": runtime.Version(), "runs": reports}); err != nil {
		fmt.Fprintln(os.Stderr, "bench/copy:", err)
		os.Exit(1)
	}
}

// cpu returns the seconds of CPU that this process has used.
func cpu() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
