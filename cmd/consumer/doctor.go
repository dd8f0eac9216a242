package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"sealfleet/internal/bus"
	"sealfleet/internal/command"
	"sealfleet/internal/consume"
	"sealfleet/internal/host"
	"sealfleet/internal/phases"
	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/porepsnark"
	"sealfleet/internal/sealcore/poseidon"
)

// probeCommand is the hidden subcommand that looks at one directory for the doctor.
const probeCommand = "probe"

// runProbe is that helper: it may hang with the file system that it looks at.
func runProbe() int { return host.ServeProbe(os.Stdin, os.Stdout) }

// errRefused is the doctor's verdict: the findings have been printed already.
var errRefused = errors.New("this host must not work before what the doctor refused is mended")

func doctorCommand() *cobra.Command {
	output := "table"
	quiet := false
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look at this host, and name what would stop or spoil its work, with the mend",
		Long: `doctor checks what serve checks at its start, before each p1 and every DOCTOR_INTERVAL: the directories
of the settings (there, writable, on the file system that they should be on, fast enough, with
space), the storage nodes, open files, processor, cores, memory, the clock and p4's parameters. It
is set up by the same environment variables as serve; run it as the service's user. With healthy
storage it takes less than two seconds; a file system that does not answer costs DOCTOR_LIMIT.

Exit codes: 0 nothing is refused (warnings may be); 1 something is; 2 bad settings.
Each code is described in docs/doctor.md.`,
		Example: `  SECTOR_SIZE=32GiB EXPECT_MOUNT=/sealer=ext4:/dev/md1 consumer doctor
  consumer doctor --output json | jq '.findings[] | select(.severity=="refuse")'`,
		Args: command.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" && output != "ndjson" {
				return command.Usagef("--output %q: use table, json or ndjson", output)
			}
			var cfg consume.Config
			if err := load(&cfg); err != nil {
				return err
			}
			if err := cfg.CheckNodes(); err != nil {
				return command.UsageError{Err: err}
			}
			doctor := newDoctor(&cfg, host.NewCores(cfg.Doctor.ReservedCores))
			doctor.Clock = clockOnce(&cfg)
			report := doctor.Run(cmd.Context(), 0, false)
			if err := cmd.Context().Err(); err != nil {
				return errors.New("interrupted")
			}
			if err := printReport(cmd.OutOrStdout(), output, report, quiet); err != nil {
				return err
			}
			if report.Worst == host.Refuse {
				return errRefused
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", output, "table, json or ndjson")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "in the table, only what is to be mended")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "ndjson"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// newDoctor makes the doctor of these settings, without a clock to compare with.
func newDoctor(cfg *consume.Config, cores *host.Cores) *host.Doctor {
	// The helper gets nothing of the environment: there are secrets in it, and it needs none.
	prober := &host.Prober{Path: "/proc/self/exe", Args: []string{probeCommand}, Env: helperEnv()}
	d := consume.NewDoctor(cfg, cores, prober)
	d.Kernels = "Poseidon: " + poseidon.Kernel()
	if cfg.Engine == consume.EngineBuiltin && cfg.Proof.SNARK == consume.SNARKGroth16 {
		d.Parameters = func(sector uint64) error { return parametersFor(cfg.Proof, sector) }
	}
	return d
}

// parametersFor tells whether p4 could prove sectors of a size now. If the size is not known, one
// that can be proved is enough.
func parametersFor(c consume.ProofConfig, sector uint64) error {
	var faults []error
	for proofType := 5; proofType <= 9; proofType++ {
		p, err := sealcore.ForProofType(proofType)
		if err != nil {
			return err
		}
		if sector != 0 && p.SectorSize != sector {
			continue
		}
		err = porepsnark.Ready(p, c.Parameters, porepsnark.Options{SelfMadeParametersForProduction: c.SelfMade})
		var memory *porepsnark.MemoryError
		if err == nil || errors.As(err, &memory) { // memory is another check's
			return nil
		}
		faults = append(faults, fmt.Errorf("%s: %w", p.Name, err))
	}
	if sector == 0 {
		return fmt.Errorf("%s has parameters of no size of sector: %w", c.Parameters, faults[0])
	}
	return errors.Join(faults...)
}

// clockOnce asks the server for its time over a connection of its own, and gives up soon:
// the doctor is of use without a bus, too.
func clockOnce(cfg *consume.Config) func(context.Context) (time.Duration, time.Duration, error) {
	return func(ctx context.Context) (time.Duration, time.Duration, error) {
		b, err := bus.Connect(ctx, cfg.Bus, cfg.HostName, slog.New(slog.DiscardHandler))
		if err != nil {
			return 0, 0, err
		}
		defer b.Close()
		return clockOf(b, cfg)(ctx)
	}
}

func clockOf(b *bus.Bus, cfg *consume.Config) func(context.Context) (time.Duration, time.Duration, error) {
	return func(ctx context.Context) (time.Duration, time.Duration, error) {
		group, step, err := clockQueue(cfg)
		if err != nil {
			return 0, 0, err
		}
		return b.Clock(ctx, group, step)
	}
}

// clockQueue is a queue that this host may ask about.
func clockQueue(cfg *consume.Config) (group string, step phases.Step, err error) {
	if len(cfg.Groups) == 0 {
		return "", "", errors.New("no group")
	}
	step = phases.P1
	if len(cfg.Workers) > 0 {
		step = cfg.Workers[0].Phases[0]
	}
	return cfg.Groups[0], step, nil
}

func printReport(w io.Writer, output string, r host.Report, quiet bool) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	switch output {
	case "json":
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	case "ndjson":
		for _, f := range r.Findings {
			if err := enc.Encode(f); err != nil {
				return err
			}
		}
		return nil
	}
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "SEVERITY\tCODE\tSUBJECT\tEVIDENCE")
	for _, f := range r.Findings {
		if quiet && f.Mend == "" {
			continue
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", f.Severity, f.Code, f.Subject, strings.ReplaceAll(f.Evidence, "\n", "; "))
		if f.Mend != "" {
			fmt.Fprintf(tw, "\t\t\tmend: %s\n", f.Mend)
		}
	}
	fmt.Fprintf(tw, "\n%s: %s, %d findings in %.1f s\n", r.Host, r.Worst, len(r.Findings), r.Seconds)
	return tw.Flush()
}

// helperEnv is the little that a Go program wants of its environment.
func helperEnv() []string {
	env := []string{"GOMAXPROCS=1"}
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "SEALFLEET_TEST_CONSUMER"} {
		if v, set := os.LookupEnv(name); set {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// rounds are the doctor's, for serve. nil: an engine that does nothing needs none.
type rounds struct {
	cfg     *consume.Config
	doctor  *host.Doctor
	checkup *consume.Checkup
	cores   *host.Cores
}

// checkHost has the doctor look at this host for the first time; what he refuses is an error.
func checkHost(ctx context.Context, cfg *consume.Config, r prometheus.Registerer, log *slog.Logger) (*rounds, error) {
	if cfg.Engine == consume.EngineNoop {
		return nil, nil
	}
	cores := host.NewCores(cfg.Doctor.ReservedCores)
	doctor := newDoctor(cfg, cores)
	checkup := consume.NewCheckup(doctor, cfg.Groups, r, log)
	if err := checkup.Look(ctx).Refused(); err != nil {
		return nil, command.UsageError{Err: fmt.Errorf("the doctor refuses this host (see docs/doctor.md):\n%w", err)}
	}
	log.Info("the doctor lets this host work", "cores", cores.Note())
	return &rounds{cfg, doctor, checkup, cores}, nil
}

// ready returns nil, or what must be mended.
func (r *rounds) ready() error {
	if r == nil {
		return nil
	}
	return r.checkup.Ready()
}

// begin has the consumer admit tasks by what the doctor finds and the host has, and makes the
// rounds until ctx ends; the returned function waits for their end.
func (r *rounds) begin(ctx context.Context, c *consume.Consumer, b *bus.Bus, registry prometheus.Registerer) (wait func()) {
	if r == nil {
		return func() {}
	}
	r.checkup.OnBus(b, r.cfg.HostName, clockOf(b, r.cfg))
	c.Admit(r.checkup, r.cores, registry)
	var running sync.WaitGroup
	running.Go(func() { r.checkup.Run(ctx) })
	return running.Wait
}
