package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"sealfleet/internal/alerts"
	"sealfleet/internal/api"
	"sealfleet/internal/bus"
	"sealfleet/internal/chain"
	"sealfleet/internal/command"
	"sealfleet/internal/dispatch"
	"sealfleet/internal/host"
	"sealfleet/internal/logs"
	"sealfleet/internal/phases"
	"sealfleet/internal/trace"
	"sealfleet/internal/version"
	"sealfleet/internal/web"
	"sealfleet/internal/web/page"
)

func serveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Hand out phases until told to stop",
		Long: `serve runs a dispatcher, with an embedded NATS server unless NATS_URL names another one.
Any number of dispatchers may run on one bus. SIGTERM or SIGINT stops it; the hosts go on
with what they do, and another dispatcher (or this one, started again) goes on from there.`,
		Args: command.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd) },
	}
}

// softMemory is from where on memory is collected however often it takes: with a hundred
// thousand sectors and ten thousand hosts' requests waiting, dispatcher and embedded server
// together stay under 1 GiB (bench/scale).
const softMemory = 800 << 20

func serve(cmd *cobra.Command) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400) // much is allocated, little is kept: a third less CPU for each phase
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(softMemory)
	}
	var cfg serveConfig
	if err := load(&cfg, &cfg.Bus); err != nil {
		return err
	}
	log := logs.New(cmd.ErrOrStderr(), cfg.Log)
	if err := writable(cfg.Bus.StateDir); err != nil {
		return err
	}
	registry := web.NewRegistry("dispatcher")
	site, err := web.New(cfg.HTTPListen, cfg.HTTP, registry, log)
	if err != nil {
		return command.UsageError{Err: err}
	}
	site.HandleSpec()
	site.HandleSession()
	for _, pattern := range page.Patterns {
		site.HandleOpen(pattern, page.Handler())
	}
	if err := leaveFront(cfg.Bus.StateDir, frontDoor{URL: site.URL(), CA: cfg.HTTP.TLSCert, TokenFile: cfg.HTTP.TokenFile}); err != nil {
		return err
	}
	front := api.New(site)
	g, ctx := errgroup.WithContext(cmd.Context())
	site.Check("bus", func(context.Context) error { return errors.New("connecting to NATS") })
	g.Go(func() error { return site.Serve(ctx) })
	g.Go(func() error { return hand(ctx, &cfg, site, front, registry, log) })
	err = g.Wait()
	if errors.Is(err, bus.ErrWentBack) {
		ctx, cancel := context.WithTimeout(context.Background(), wentBackPatience)
		alerts.TellWentBack(ctx, cfg.Alerts, cfg.Name, cfg.Bus.StateDir, err, log)
		cancel()
	}
	if errors.Is(err, bus.ErrStoreHealed) {
		log.Warn("starting again in the same process", "why", err)
		return syscall.Exec("/proc/self/exe", os.Args, os.Environ())
	}
	host.Notify("STOPPING=1")
	if err == nil {
		log.Info("stopped")
	}
	return err
}

// wentBackPatience is how long the last alarm may take to be told.
const wentBackPatience = 15 * time.Second

// hand runs everything that needs the bus.
func hand(ctx context.Context, cfg *serveConfig, site *web.Server, front *api.API, registry *prometheus.Registry, log *slog.Logger) (err error) {
	if cfg.Bus.URL == "" {
		cfg.Server.StateDir = cfg.Bus.StateDir
		if err := free(cfg.Server.Listen); err != nil {
			return err
		}
		server, failure := bus.StartEmbedded(cfg.Server, log)
		if failure != nil {
			return failure
		}
		defer server.Close()
		cfg.Bus.Server = server
		healing, heal := context.WithCancelCause(ctx)
		defer heal(nil)
		go func() { heal(server.Healed(healing)) }()
		ctx = healing
		defer func() {
			if cause := context.Cause(healing); errors.Is(cause, bus.ErrStoreHealed) {
				err = cause
			}
		}()
		log.Info("the embedded NATS server runs", "url", server.ClientURL(), "nats_cli", server.Hint())
	}
	tracer, err := trace.Start(ctx, "dispatcher", cfg.Name, log)
	if err != nil {
		return command.UsageError{Err: err}
	}
	defer tracer.Stop()
	cfg.Bus.Tracer = tracer
	b, err := bus.Connect(ctx, cfg.Bus, "dispatcher-"+cfg.Name, log)
	if err != nil {
		if ctx.Err() != nil {
			return nil // told to stop before there was a connection
		}
		return err
	}
	defer b.Close()
	if err := prepare(ctx, b, cfg.Groups, log); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	go b.FollowClock(ctx, cfg.Groups[0], phases.P1)
	metrics := dispatch.NewMetrics()
	busMetrics := bus.NewMetrics(b)
	registry.MustRegister(metrics, busMetrics)
	d := dispatch.New(b, dispatch.Options{
		Name: cfg.Name, Policy: cfg.Policy.policy(), Chain: chain.NewDev(cfg.Chain, newVerifier(cfg.Parameters, cfg.SelfMade), b.Now),
		Groups: cfg.Groups, Log: log, Metrics: metrics, SweepEvery: cfg.Sweep, Silence: cfg.Silence, HoldP1: cfg.Policy.HoldP1, Window: cfg.Policy.window(),
	})
	alarms := alerts.New(alerts.Options{
		Config: cfg.Alerts, Name: cfg.Name, Bus: b, Gatherer: registry, Registry: registry, Ready: d.Ready, Examples: d.Examples, Log: log,
	})
	stop, err := b.Serve(bus.Service{
		Kind: bus.DispatcherService, Name: cfg.Name, Description: "hands out the phases of sealing", Status: func() any { return d.Status() },
		Metadata: map[string]string{"groups": strings.Join(cfg.Groups, ","), "release": version.String()},
	})
	if err != nil {
		return err
	}
	defer stop()
	site.Check("bus", func(context.Context) error { return b.Connected() })
	site.Check("dispatcher", func(context.Context) error { return d.Ready() })
	log.Info("dispatching", "version", version.String(), "name", cfg.Name, "groups", []string(cfg.Groups), "http", site.URL(), "chain", "development")
	host.Notify("READY=1")
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { busMetrics.Follow(ctx); return nil })
	g.Go(func() error { alarms.Run(ctx); return nil })
	g.Go(func() error {
		front.Run(ctx, api.Options{
			Dispatcher: d, Bus: b, BusMetrics: busMetrics, Groups: cfg.Groups, Version: version.String(), Check: checkSpec, Log: log,
		})
		return nil
	})
	g.Go(func() error { host.Watchdog(ctx, func() { d.Status() }); return nil })
	g.Go(func() error { return d.Run(ctx) })
	return g.Wait()
}

// prepare makes the streams and consumers that are missing. A bus that is away, or a
// cluster that has no leader yet, is waited for, as Connect does.
func prepare(ctx context.Context, b *bus.Bus, groups []string, log *slog.Logger) error {
	apply := func() (changes []bus.Change, err error) {
		if changes, err = b.Apply(ctx, groups); err == nil {
			err = b.LearnClock(ctx, groups[0], phases.P1) // before anything is dated, or judged by its date
		}
		return changes, err
	}
	changes, err := apply()
	for wait := 250 * time.Millisecond; errors.Is(err, bus.ErrUnreachable); wait = min(2*wait, 10*time.Second) {
		log.Warn("cannot prepare the bus, trying again", "error", err, "in", wait)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
		changes, err = apply()
	}
	if err != nil {
		return fmt.Errorf("prepare the bus: %w", err)
	}
	for _, c := range changes {
		if c.Action != bus.ActionNone {
			log.Info("prepared the bus", "what", c.Kind, "name", c.Name, "action", c.Action, "detail", c.Detail)
		}
	}
	return nil
}

// free tells plainly that the embedded server's port is taken; the server itself would
// only say so in its log, after a while.
func free(listen string) error {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return command.UsageError{Err: fmt.Errorf("SERVER_LISTEN=%q: the port is taken, perhaps by another dispatcher or NATS server: choose another, or give that server's address as NATS_URL: %w", listen, err)}
	}
	if err != nil {
		return command.UsageError{Err: fmt.Errorf("SERVER_LISTEN=%q: %w", listen, err)}
	}
	return l.Close()
}

// writable makes the state directory, and tells plainly if it cannot be used.
func writable(dir string) error {
	mend := fmt.Sprintf("(mend: mkdir -p %s && chown %d %s, or set STATE_DIR)", dir, os.Geteuid(), dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return command.UsageError{Err: fmt.Errorf("STATE_DIR=%q: %w %s", dir, err, mend)}
	}
	f, err := os.CreateTemp(dir, ".writable-*")
	if err != nil {
		return command.UsageError{Err: fmt.Errorf("STATE_DIR=%q cannot be written: %w %s", dir, err, mend)}
	}
	_ = f.Close()
	return os.Remove(filepath.Join(dir, filepath.Base(f.Name())))
}
