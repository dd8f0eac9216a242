package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	"sealfleet/internal/bus"
	"sealfleet/internal/consume"
	"sealfleet/internal/engine"
	"sealfleet/internal/phases"
	"sealfleet/internal/storage"
)

const group = "group1"

type run struct {
	dir, node string
	hosts     int
	limit     int64 // bytes per second
	group     bool  // the limit is the group's, not the host's
	length    time.Duration
}

// counting is the builtin engine, and counts what its copies move.
type counting struct {
	moved   *atomic.Int64
	copying *atomic.Int32
}

func (c counting) Run(ctx context.Context, r engine.Request, tell func(engine.Progress)) (engine.Result, error) {
	c.copying.Add(1)
	defer c.copying.Add(-1)
	last := map[string]uint64{}
	return engine.Builtin{}.Run(ctx, r, func(p engine.Progress) {
		if p.Step == "copy" || p.Step == "verify" {
			c.moved.Add(int64(p.Done - last[p.Step]))
			last[p.Step] = p.Done
		}
		tell(p)
	})
}

func measure(ctx context.Context, r run) (report, error) {
	top, err := os.MkdirTemp(r.dir, "bench-copy-*")
	if err != nil {
		return report{}, err
	}
	defer os.RemoveAll(top) //nolint:errcheck // what stays lies in a temporary directory
	stored, err := os.MkdirTemp(r.node, "bench-copy-*")
	if err != nil {
		return report{}, err
	}
	defer os.RemoveAll(stored) //nolint:errcheck // what stays lies in a temporary directory
	server, err := bus.StartEmbedded(bus.ServerConfig{Listen: "127.0.0.1:0", StateDir: filepath.Join(top, "nats")}, slog.New(slog.DiscardHandler))
	if err != nil {
		return report{}, err
	}
	defer server.Close()
	b, err := bus.Connect(ctx, bus.Config{Server: server, StateDir: filepath.Join(top, "nats"), AckWait: time.Minute}, "dispatcher-bench", slog.New(slog.DiscardHandler))
	if err != nil {
		return report{}, err
	}
	defer b.Close()
	if _, err := b.Apply(ctx, []string{group}); err != nil {
		return report{}, err
	}
	own := r.limit / 1e6
	if r.group {
		own = 0
		value, err := json.Marshal(r.limit)
		if err != nil {
			return report{}, err
		}
		if _, err := b.SetControl(ctx, bus.Control{Key: bus.ControlLimit + "." + group, On: true, By: "bench", Value: value}); err != nil {
			return report{}, err
		}
	}
	// Every byte is moved twice: there, and back to be compared.
	size := int64(r.length.Seconds()*float64(r.limit)) / 2 / int64(r.hosts) &^ 4095
	e := counting{&atomic.Int64{}, &atomic.Int32{}}
	working, stop := context.WithCancel(ctx)
	var consumers sync.WaitGroup
	defer func() { stop(); consumers.Wait() }()
	for i := range r.hosts {
		if err := startHost(working, &consumers, r, i, own, top, stored, size, e); err != nil {
			return report{}, err
		}
	}
	done := make(chan error, 1)
	go func() { done <- ended(ctx, b, r.hosts) }()
	for i := range r.hosts {
		if err := issue(ctx, b, uint64(i)); err != nil {
			return report{}, err
		}
	}
	return sample(ctx, r, e, done)
}

// startHost starts a consumer of one slot, with a sector to copy on its share.
func startHost(ctx context.Context, wg *sync.WaitGroup, r run, i int, own int64, top, stored string, size int64, e engine.Engine) error {
	name, local, node := fmt.Sprintf("h%d", i), filepath.Join(top, "local"), filepath.Join(stored, fmt.Sprintf("node%d", i))
	l := storage.Layout{LocalDir: local, IP: "10.0.0.1", Sector: phases.SectorID(1000, uint64(i))}
	if err := errors.Join(l.Make(), os.MkdirAll(node, 0o755)); err != nil {
		return err
	}
	for _, f := range []string{"p_aux", "t_aux", "sc-02-data-tree-r-last.dat"} {
		if err := os.WriteFile(filepath.Join(l.Cache(), f), []byte("small"), 0o644); err != nil {
			return err
		}
	}
	f, err := os.Create(l.Sealed())
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return err
	}
	state := filepath.Join(top, "nats")
	log := slog.New(slog.DiscardHandler)
	b, err := bus.Connect(ctx, bus.Config{Role: bus.RoleHost, StateDir: state, AckWait: time.Minute}, name, log)
	if err != nil {
		return err
	}
	cfg := consume.Config{
		Workers: consume.Workers{{Num: 1, Phases: []phases.Step{phases.P5}}}, Groups: consume.Groups{group}, HostName: name, IP: "10.0.0.1",
		LocalDir: local, Nodes: consume.Nodes{{Name: "node", Dir: node, Weight: 1}}, CopyLimit: own,
		FetchWait: 5 * time.Second, Engine: consume.EngineBuiltin,
	}
	c := consume.New(cfg, b, e, prometheus.NewRegistry(), log)
	wg.Go(func() {
		defer b.Close()
		if err := c.Run(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "bench/copy:", err)
		}
	})
	return nil
}

func issue(ctx context.Context, b *bus.Bus, number uint64) error {
	ev := phases.Event{
		V: phases.Version, ID: ulid.Make().String(), Type: phases.Issued, Group: group, Sector: phases.SectorID(1000, number), Step: phases.P5,
		Issue: 1, Attempt: 1, Host: "dispatcher-bench", At: time.Now().UTC(), Inputs: map[string]string{"ip": "10.0.0.1"},
	}
	seq, err := b.Append(ctx, ev, 0)
	if err != nil {
		return err
	}
	return b.PublishTask(ctx, phases.Task{
		V: phases.Version, Group: group, Sector: ev.Sector, Step: phases.P5, Issue: 1, Attempt: 1, IssuedID: ev.ID, IssuedSeq: seq,
		Spec: phases.Spec{Miner: 1000, Number: number, ProofType: 5}, Inputs: ev.Inputs,
	})
}

// ended waits until so many copies are done.
func ended(ctx context.Context, b *bus.Bus, n int) error {
	enough := errors.New("enough")
	err := b.Follow(ctx, 1, func(e phases.Event) error {
		switch e.Type {
		case phases.Failed:
			return fmt.Errorf("%s: %s", e.Sector, e.Result.Message)
		case phases.Done:
			if n--; n == 0 {
				return enough
			}
		}
		return nil
	})
	if errors.Is(err, enough) {
		return nil
	}
	return err
}

// sample watches the copies until they are done.
func sample(ctx context.Context, r run, e counting, done <-chan error) (report, error) {
	const window = 10 * time.Second
	type at struct {
		when  time.Time
		moved int64
	}
	var all []at // while every host copies
	out := report{Hosts: r.hosts, Limit: float64(r.limit) / 1e6, Slowest: math.Inf(1)}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				return out, err
			}
			if len(all) < 2 || out.Windows == 0 {
				return out, errors.New("it was over before a window of ten seconds: make -for longer")
			}
			first, last := all[0], all[len(all)-1]
			out.Seconds, out.Moved = last.when.Sub(first.when).Seconds(), float64(last.moved-first.moved)/1e6
			out.Rate = out.Moved / out.Seconds
			out.Deviation = max(out.Fastest/out.Limit-1, 1-out.Slowest/out.Limit)
			return out, nil
		case <-tick.C:
			if int(e.copying.Load()) < r.hosts {
				continue
			}
			now := at{time.Now(), e.moved.Load()}
			all = append(all, now)
			for i := len(all) - 1; i >= 0; i-- {
				if took := now.when.Sub(all[i].when); took >= window {
					rate := float64(now.moved-all[i].moved) / took.Seconds() / 1e6
					out.Windows++
					out.Slowest, out.Fastest = min(out.Slowest, rate), max(out.Fastest, rate)
					break
				}
			}
		case <-ctx.Done():
			return out, ctx.Err()
		}
	}
}
