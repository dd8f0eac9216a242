package main

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"sealfleet/internal/bus"
	"sealfleet/internal/command"
	"sealfleet/internal/consume"
	"sealfleet/internal/engine"
	"sealfleet/internal/host"
	"sealfleet/internal/keep"
	"sealfleet/internal/logs"
	"sealfleet/internal/trace"
	"sealfleet/internal/version"
	"sealfleet/internal/web"
)

func serveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Pull phases and run them until told to stop",
		Long: `serve is this host's consumer. It is set up by environment variables, which are listed below.
SIGTERM or SIGINT stops it gently: it pulls nothing more, gives running phases DRAIN_TIMEOUT, then
stops them with all their processes and hands their tasks back, checkpoints kept. A second signal ends
it at once; so does SIGHUP: what runs then goes on, and the next consumer of this HOST_NAME takes it up
(within ORPHAN_LIMIT). Use SIGHUP to exchange the program while p1 works.`,
		Args: command.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd) },
	}
}

func serve(cmd *cobra.Command) error {
	var cfg consume.Config
	if err := load(&cfg); err != nil {
		return err
	}
	if err := cfg.CheckNodes(); err != nil {
		return command.UsageError{Err: err}
	}
	log := logs.New(cmd.ErrOrStderr(), cfg.Log).With(logs.Host, cfg.HostName)
	registry := web.NewRegistry("consumer")
	site, err := web.New(cfg.HTTPListen, cfg.HTTP, registry, log)
	if err != nil {
		return command.UsageError{Err: err}
	}
	site.Check("bus", func(context.Context) error { return errors.New("connecting to NATS") })
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	rounds, err := checkHost(ctx, &cfg, registry, log)
	if err != nil {
		return err
	}
	site.Check("doctor", func(context.Context) error { return rounds.ready() })
	g, _ := errgroup.WithContext(ctx)
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx)) // a drain is watched through it
	g.Go(func() error {
		err := site.Serve(serving)
		cancel() // nothing without it
		return err
	})
	err = work(ctx, &cfg, rounds, site, registry, log)
	host.Notify("STOPPING=1")
	cancel()
	stopServing()
	return errors.Join(err, g.Wait())
}

// nameWait is how long another consumer of this name has to answer.
const nameWait = 1500 * time.Millisecond

// work runs everything that needs the bus.
func work(ctx context.Context, cfg *consume.Config, rounds *rounds, site *web.Server, registry *prometheus.Registry, log *slog.Logger) error {
	tracer, err := trace.Start(ctx, "consumer", cfg.HostName, log)
	if err != nil {
		return command.UsageError{Err: err}
	}
	defer tracer.Stop()
	cfg.Bus.Tracer = tracer
	b, err := bus.Connect(ctx, cfg.Bus, cfg.HostName, log)
	if err != nil {
		if ctx.Err() != nil {
			return nil // told to stop before there was a connection
		}
		return err
	}
	defer b.Close()
	if err := b.Announce(ctx, cfg.HostName, cfg.IP, nameWait); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	group, step, err := clockQueue(cfg)
	if err != nil {
		return command.UsageError{Err: err}
	}
	go b.FollowClock(ctx, group, step)
	c := consume.New(*cfg, b, engine.Noop{}, registry, log)
	if cfg.Engine != consume.EngineNoop {
		journal, err := keep.Open(filepath.Join(cfg.Bus.StateDir, "consumer-"+cfg.HostName))
		if err != nil {
			return err
		}
		defer journal.Close() //nolint:errcheck // the end of the process closes it anyway
		// The program that runs, even if an upgrade has put another one in its place.
		c.Keep(journal, keep.Program{Path: "/proc/self/exe", Args: []string{keepCommand}, OrphanLimit: cfg.OrphanLimit})
	}
	defer rounds.begin(ctx, c, b, registry)()
	registry.MustRegister(bus.NewMetrics(b))
	site.Check("bus", func(context.Context) error { return b.Connected() })
	site.Check("queues", func(context.Context) error { return c.Ready() })
	site.Check("admission", func(context.Context) error { return c.Waiting() })
	stop, err := b.Serve(bus.Service{
		Kind: bus.ConsumerService, Name: cfg.HostName, Description: "does the phases of sealing on " + cfg.HostName, Status: func() any { return c.Status() },
		Metadata: map[string]string{"groups": strings.Join(cfg.Groups, ","), "workers": cfg.Workers.String(), "ip": cfg.IP, "engine": string(cfg.Engine), "release": version.String()},
	})
	if err != nil {
		return err
	}
	defer stop()
	log.Info("consuming", "version", version.String(), "ip", cfg.IP, "http", site.URL(), "engine", string(cfg.Engine))
	host.Notify("READY=1")
	// Until the end of a drain, which may take hours.
	watched, unwatch := context.WithCancel(context.WithoutCancel(ctx))
	defer unwatch()
	go host.Watchdog(watched, func() { _ = c.Waiting() }) // it takes the locks that a hang would hold
	return c.Run(ctx)
}
