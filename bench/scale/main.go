// Command scale measures a dispatcher with its embedded server, as one process, at the size
// of a large farm: many sectors known, many hosts' requests waiting.
//
//	go run ./bench/scale -sectors 100000 -pulls 10000
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"sealfleet/bench/history"
	"sealfleet/internal/bus"
	"sealfleet/internal/phases"
	"sealfleet/internal/quietport"
)

type report struct {
	Sectors int     `json:"sectors"`
	Pulls   int     `json:"waiting_pulls"`
	Start   float64 `json:"start_seconds"`     // from the program's start until /readyz says so
	Started uint64  `json:"rss_bytes_ready"`   // then
	Waiting uint64  `json:"rss_bytes_waiting"` // with all pulls waiting, a while later
	Peak    uint64  `json:"rss_bytes_peak"`
}

const (
	groups      = 4
	connections = 500 // hosts; their pulls are spread over them
	settle      = 20 * time.Second
)

func main() {
	sectors := flag.Int("sectors", 100_000, "sectors that the dispatcher knows")
	pulls := flag.Int("pulls", 10_000, "requests for tasks that wait at the server")
	flag.Parse()
	if err := run(*sectors, *pulls); err != nil {
		fmt.Fprintln(os.Stderr, "bench/scale:", err)
		os.Exit(1)
	}
}

func run(sectors, pulls int) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	dir, err := os.MkdirTemp("", "sealfleet-bench-scale-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory
	program := filepath.Join(dir, "dispatcher")
	if out, err := exec.Command("go", "build", "-o", program, "./cmd/dispatcher").CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w: %s", err, out)
	}
	state := filepath.Join(dir, "state")
	fmt.Fprintf(os.Stderr, "writing the history of %d sectors …\n", sectors)
	if err := prepare(ctx, state, sectors); err != nil {
		return err
	}
	r := report{Sectors: sectors, Pulls: pulls}
	site, err := quietport.Address()
	if err != nil {
		return err
	}
	cmd := exec.Command(program, "serve")
	cmd.Env = append(os.Environ(), "STATE_DIR="+state, "SERVER_LISTEN=127.0.0.1:0", "HTTP_LISTEN="+site, "SEAL_GROUPS=1,2,3,4", "DISPATCHER_NAME=bench", "BACKLOG_P1_HOLD=0")
	started := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Wait() }()
	for !ready(site) {
		if time.Since(started) > 10*time.Minute {
			return errors.New("the dispatcher does not get ready")
		}
		time.Sleep(20 * time.Millisecond)
	}
	r.Start, r.Started = time.Since(started).Seconds(), memory(cmd.Process.Pid, "VmRSS")
	var g errgroup.Group
	for i := range connections {
		b, err := bus.Connect(ctx, bus.Config{StateDir: state, Role: bus.RoleHost}, fmt.Sprint("host", i), slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		defer b.Close()
		for j := range pulls / connections {
			g.Go(func() error {
				_, err := b.Fetch(ctx, fmt.Sprint("group", j%groups+1), phases.P3, 10*time.Minute)
				return err
			})
		}
	}
	time.Sleep(settle) // what memory is after a while is what is measured
	r.Waiting, r.Peak = memory(cmd.Process.Pid, "VmRSS"), memory(cmd.Process.Pid, "VmHWM")
	cancel()
	_ = g.Wait() // they were cancelled
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

func prepare(ctx context.Context, state string, sectors int) error {
	log := slog.New(slog.DiscardHandler)
	server, err := bus.StartEmbedded(bus.ServerConfig{Listen: "127.0.0.1:0", StateDir: state}, log) // not synced: what is measured comes after
	if err != nil {
		return err
	}
	defer server.Close()
	b, err := bus.Connect(ctx, bus.Config{StateDir: state, Server: server}, "dispatcher-bench", log)
	if err != nil {
		return err
	}
	defer b.Close()
	if _, err := b.Apply(ctx, []string{"group1", "group2", "group3", "group4"}); err != nil {
		return err
	}
	return history.Write(ctx, b, sectors, groups)
}

func ready(site string) bool {
	res, err := http.Get("http://" + site + "/readyz") //nolint:noctx // a measurement
	if err != nil {
		return false
	}
	defer res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// memory reads a line of a process's status, in bytes; 0 if it has ended.
func memory(pid int, name string) uint64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if rest, is := strings.CutPrefix(line, name+":"); is {
			kib, err := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				return 0
			}
			return kib << 10
		}
	}
	return 0
}
