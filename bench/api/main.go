// Command web measures the HTTP API of a dispatcher that knows many sectors: how soon it
// is ready, its first overview, its lists, and how soon an event reaches who watches.
//
//	go run ./bench/api -sectors 100000
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"sealfleet/bench/history"
	"sealfleet/internal/api"
	"sealfleet/internal/bus"
	"sealfleet/internal/chain"
	"sealfleet/internal/dispatch"
	"sealfleet/internal/phases"
	"sealfleet/internal/web"
)

// report is what was measured: seconds, but for the counts.
type report struct {
	Sectors      int                 `json:"sectors"`
	Events       uint64              `json:"events"`
	Start        float64             `json:"start_seconds"`     // until the log is read
	Overview     float64             `json:"first_overview_ms"` // right after that
	Requests     map[string]quantile `json:"requests"`          // by path
	EventToWatch quantile            `json:"event_to_watcher"`  // from before its write to its arrival
	Heap         uint64              `json:"heap_bytes"`        // of dispatcher and server together
	Machine      string              `json:"machine"`
}

type quantile struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50_ms"`
	P95   float64 `json:"p95_ms"`
}

func main() {
	sectors := flag.Int("sectors", 100_000, "sectors that the dispatcher knows; a tenth of them has ended")
	requests := flag.Int("requests", 100, "requests of each kind")
	keep := flag.Duration("keep", 0, "go on serving for this long after the measurements (for a browser)")
	flag.Parse()
	if err := run(*sectors, *requests, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "bench/api:", err)
		os.Exit(1)
	}
}

const groups = 4

func run(sectors, requests int, keep time.Duration) error {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "sealfleet-bench-web-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory
	log := slog.New(slog.DiscardHandler)
	server, err := bus.StartEmbedded(bus.ServerConfig{Listen: "127.0.0.1:0", StateDir: dir}, log) // not synced: what is measured comes after
	if err != nil {
		return err
	}
	defer server.Close()
	b, err := bus.Connect(ctx, bus.Config{StateDir: dir, Server: server}, "dispatcher-bench", log)
	if err != nil {
		return err
	}
	defer b.Close()
	var names []string
	for i := range groups {
		names = append(names, fmt.Sprint("group", i+1))
	}
	if _, err := b.Apply(ctx, names); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "writing the history of %d sectors …\n", sectors)
	if err := history.Write(ctx, b, sectors, groups); err != nil {
		return err
	}

	site, err := web.New("127.0.0.1:0", web.Access{}, prometheus.NewRegistry(), log)
	if err != nil {
		return err
	}
	site.HandleSpec()
	front := api.New(site)
	d := dispatch.New(b, dispatch.Options{Name: "bench", Chain: chain.NewDev(chain.DevConfig{Seed: "bench", Epoch: 30 * time.Second}, nil, nil), Groups: names, Log: log})
	metrics := bus.NewMetrics(b)
	r := report{Sectors: sectors, Requests: map[string]quantile{}, Machine: fmt.Sprintf("%s/%s, %d CPUs", runtime.GOOS, runtime.GOARCH, runtime.NumCPU())}
	ctx, cancel := context.WithCancel(ctx)
	var g errgroup.Group
	defer func() { cancel(); _ = g.Wait() }()
	started := time.Now()
	g.Go(func() error { return site.Serve(ctx) })
	g.Go(func() error { return d.Run(ctx) })
	g.Go(func() error {
		front.Run(ctx, api.Options{Dispatcher: d, Bus: b, BusMetrics: metrics, Groups: names, Version: "bench", Log: log})
		return nil
	})
	for d.Ready() != nil {
		time.Sleep(time.Millisecond)
	}
	r.Start, r.Events = time.Since(started).Seconds(), d.Position()
	first := time.Now()
	if err := get(site.URL() + "/v1/overview"); err != nil {
		return err
	}
	r.Overview = ms(time.Since(first))
	for _, path := range []string{
		"/v1/overview", "/v1/sectors", "/v1/sectors?sort=-age", "/v1/sectors?sort=wait&state=running", "/v1/sectors?q=1000-77", "/v1/failed", "/v1/jobs?limit=100", "/v1/groups", "/v1/sectors/s-t01000-5",
	} {
		var took []time.Duration
		for range requests {
			at := time.Now()
			if err := get(site.URL() + path); err != nil {
				return err
			}
			took = append(took, time.Since(at))
		}
		r.Requests[path] = quantiles(took)
	}
	if r.EventToWatch, err = watch(ctx, b, site.URL(), sectors, requests); err != nil {
		return err
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	r.Heap = m.HeapAlloc
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	if err := enc.Encode(r); err != nil {
		return err
	}
	if keep > 0 {
		fmt.Fprintln(os.Stderr, "serving on", site.URL())
		time.Sleep(keep)
	}
	return nil
}

func get(url string) error {
	res, err := http.Get(url) //nolint:noctx // a measurement
	if err != nil {
		return err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %d %s", url, res.StatusCode, data)
	}
	return err
}

// watch measures from before an event is written to its arrival at a reader of the stream.
func watch(ctx context.Context, b *bus.Bus, url string, from, n int) (quantile, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/v1/stream", nil)
	if err != nil {
		return quantile{}, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return quantile{}, err
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	var took []time.Duration
	for i := range n {
		id := phases.SectorID(2000, uint64(from+i))
		at := time.Now()
		_, err := b.Append(ctx, phases.Event{
			V: phases.Version, ID: ulid.Make().String(), Type: phases.Submitted, Group: "group1", Sector: id, Step: phases.SectorEnd, Host: phases.DispatcherName("bench"),
			At: at, Spec: &phases.Spec{Miner: 2000, Number: uint64(from + i), ProofType: 8},
		}, 0)
		if err != nil {
			return quantile{}, err
		}
		for lines.Scan() && !strings.Contains(lines.Text(), `"`+id+`"`) {
		}
		took = append(took, time.Since(at))
	}
	return quantiles(took), lines.Err()
}

func quantiles(took []time.Duration) quantile {
	slices.Sort(took)
	at := func(q float64) float64 { return ms(took[min(int(q*float64(len(took))), len(took)-1)]) }
	return quantile{len(took), at(.5), at(.95)}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
