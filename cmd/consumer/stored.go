package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"sealfleet/internal/bus"
	"sealfleet/internal/command"
	"sealfleet/internal/consume"
	"sealfleet/internal/host"
	"sealfleet/internal/phases"
	"sealfleet/internal/storage"
)

// busPatience is how long the verbs try to reach the bus.
const busPatience = 10 * time.Second

// ask connects to the bus for one question. The bus lives until done is called.
func ask(ctx context.Context, cfg *consume.Config) (b *bus.Bus, done func(), err error) {
	short, cancel := context.WithTimeout(ctx, busPatience)
	defer cancel()
	b, err = bus.Connect(short, cfg.Bus, cfg.HostName, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, nil, err
	}
	return b, b.Close, nil
}

func settingsOf() (*consume.Config, error) {
	var cfg consume.Config
	if err := load(&cfg); err != nil {
		return nil, err
	}
	return &cfg, nil
}

func cleanCommand() *cobra.Command {
	var sector, ip string
	var dry, sealed, unsealed bool
	output := outputTable
	cmd := &cobra.Command{
		Use:   "clean --dry-run --sector s-t01000-7",
		Short: "Show what p6 would remove of a sector",
		Long: `clean shows which files of a sector p6 would remove, how many bytes that frees, and what it would
leave alone because no phase writes such a name. It removes nothing: that is p6's, which asks the
chain of events, looks at the stored copy again, and is issued by the dispatcher. To have p6 done
again: dispatcher redo SECTOR --phase p6.`,
		Args: command.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !dry {
				return command.Usagef("this command only shows: add --dry-run. To have p6 done again: dispatcher redo %s --phase p6", sector)
			}
			if _, _, err := phases.ParseSectorID(sector); err != nil {
				return command.Usagef("--sector: %w", err)
			}
			if err := output.check(); err != nil {
				return err
			}
			cfg, err := settingsOf()
			if err != nil {
				return err
			}
			if ip == "" {
				ip = cfg.IP
			}
			plan, err := storage.Clean{
				Of:    storage.Layout{LocalDir: cfg.LocalDir, IP: ip, Sector: sector},
				Cache: true, Unsealed: unsealed, Sealed: sealed || cfg.CleanSealed, DryRun: true, CheckDevice: host.CheckOrigin,
			}.Run(cmd.Context())
			if err != nil {
				return err
			}
			return output.print(cmd.OutOrStdout(), plan, func(w io.Writer) error { return cleanTable(w, plan) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&sector, "sector", "", "the sector: s-t01000-7")
	f.StringVar(&ip, "ip", "", "address of the P1 host whose share it is on (default: this host's)")
	f.BoolVar(&dry, "dry-run", false, "show, and remove nothing")
	f.BoolVar(&unsealed, "unsealed", true, "with the unsealed copy, as p6 does")
	f.BoolVar(&sealed, "sealed", false, "with the local sealed file, as p6 does with CLEAN_SEALED or of a sector that was given up")
	output.add(cmd)
	return cmd
}

func cleanTable(w io.Writer, plan storage.Cleaned) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, r := range plan.Removed {
		fmt.Fprintf(tw, "remove\t%s\t%s\n", humanize.IBytes(uint64(r.Bytes)), r.Path)
	}
	for _, path := range plan.Kept {
		fmt.Fprintf(tw, "keep\t\t%s\n", path)
	}
	fmt.Fprintf(tw, "frees\t%s\t%d files\n", humanize.IBytes(uint64(plan.Freed)), len(plan.Removed))
	return tw.Flush()
}

// orphanReport is what orphans prints; its JSON is a contract.
type orphanReport struct {
	Groups  []string         `json:"groups"` // whose sectors were asked for
	Orphans []consume.Orphan `json:"orphans"`
	Bytes   int64            `json:"bytes"`
	Freed   int64            `json:"freed"`          // with --remove
	Kept    []string         `json:"kept,omitempty"` // what --remove left alone
}

func orphansCommand() *cobra.Command {
	var remove, yes bool
	output := outputTable
	cmd := &cobra.Command{
		Use:   "orphans",
		Short: "List what lies on this host's share and belongs to no live sector",
		Long: `orphans looks at LOCAL_DIR/nfs/IP/{cache,sealed,unsealed} and asks the bus about each sector there. It
lists what no event of SEAL_GROUPS names and what did not change for an hour, and what is left of
sectors that have ended (but not the sealed files of finished ones). --remove --yes removes what is
listed, by p6's rules: only names that the phases write, never through a link.`,
		Args: command.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := output.check(); err != nil {
				return err
			}
			if remove && !yes {
				return command.Usagef("--remove deletes files: look at the list first, then add --yes")
			}
			cfg, err := settingsOf()
			if err != nil {
				return err
			}
			b, done, err := ask(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			defer done()
			states := &consume.BusStates{Bus: b, Groups: cfg.Groups}
			list, err := consume.FindOrphans(cmd.Context(), cfg, states, time.Now())
			if err != nil {
				return err
			}
			report := orphanReport{Groups: cfg.Groups, Orphans: list}
			if list == nil {
				report.Orphans = []consume.Orphan{}
			}
			for _, o := range list {
				report.Bytes += o.Bytes
			}
			if remove && len(list) > 0 {
				if states.Known() == 0 {
					return errors.New("this bus knows none of the sectors here: nothing was removed; is it the right one, and are these the right SEAL_GROUPS?")
				}
				if err := removeOrphans(cmd.Context(), cfg, list, &report); err != nil {
					return err
				}
			}
			return output.print(cmd.OutOrStdout(), report, func(w io.Writer) error { return orphanTable(w, report, remove) })
		},
	}
	f := cmd.Flags()
	f.BoolVar(&remove, "remove", false, "remove what is listed")
	f.BoolVar(&yes, "yes", false, "confirm --remove")
	output.add(cmd)
	return cmd
}

func removeOrphans(ctx context.Context, cfg *consume.Config, list []consume.Orphan, report *orphanReport) error {
	var faults []error
	for _, o := range list {
		done, err := o.Remove(ctx, cfg, false)
		report.Freed += done.Freed
		report.Kept = append(report.Kept, done.Kept...)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", o.Path, err))
		}
	}
	return errors.Join(faults...)
}

func orphanTable(w io.Writer, r orphanReport, removed bool) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, o := range r.Orphans {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", o.Path, humanize.IBytes(uint64(o.Bytes)), o.Since.Format(time.DateTime), o.Why)
	}
	for _, path := range r.Kept {
		fmt.Fprintf(tw, "%s\t\t\tkept: no phase writes such a name\n", path)
	}
	what := "remove them with --remove --yes"
	if removed {
		what = humanize.IBytes(uint64(r.Freed)) + " freed"
	}
	if len(r.Orphans) == 0 {
		what = "nothing to do"
	}
	fmt.Fprintf(tw, "%d orphans, %s; %s (groups asked: %s)\n", len(r.Orphans), humanize.IBytes(uint64(r.Bytes)), what, strings.Join(r.Groups, ","))
	return tw.Flush()
}

// errAudit is the verdict of an audit; the findings have been printed already.
var errAudit = errors.New("some stored sectors are bad or cannot be read")

func auditCommand() *cobra.Command {
	var sector, node string
	var all bool
	samples := 0
	output := outputTable
	cmd := &cobra.Command{
		Use:   "audit (--sector s-t01000-7 | --all)",
		Short: "Have stored sectors answer random challenges against their CommR",
		Long: `audit draws random leaves of stored sectors and proves them: from the sealed file through tree R to
CommR_last, and with CommC to the CommR that p2 reported to the chain of events. It is what serve
does every AUDIT_INTERVAL. It reads some KiB a sample, of an object store too, and changes nothing.

Exit codes: 0 all are good; 1 some are bad or cannot be read; 3 nothing to audit; 5 no bus.`,
		Example: `  consumer audit --all --samples 64
  consumer audit --sector s-t01000-7 --node node1 --output json`,
		Args: command.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := output.check(); err != nil {
				return err
			}
			if (sector != "") == all {
				return command.Usagef("say what to audit: --sector s-t01000-7, or --all")
			}
			if sector != "" {
				if _, _, err := phases.ParseSectorID(sector); err != nil {
					return command.Usagef("--sector: %w", err)
				}
			}
			cfg, err := settingsOf()
			if err != nil {
				return err
			}
			if samples == 0 {
				samples = max(cfg.Audit.Samples, 1)
			}
			if samples < 0 {
				return command.Usagef("--samples %d: use 1 or more", samples)
			}
			b, done, err := ask(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			defer done()
			list, err := auditAll(cmd.Context(), cfg, consume.Auditor{Bus: b, Groups: cfg.Groups}, node, sector, samples)
			if err != nil {
				return err
			}
			for _, found := range list {
				if err := consume.TellAudit(b, cfg, found); err != nil {
					fmt.Fprintln(cmd.ErrOrStderr(), "the dispatchers were not told:", err)
				}
			}
			if err := output.print(cmd.OutOrStdout(), list, func(w io.Writer) error { return auditTable(w, list) }); err != nil {
				return err
			}
			if len(list) == 0 {
				return errNothing
			}
			if slices.ContainsFunc(list, func(a consume.Audited) bool {
				return a.Result == consume.AuditBad || a.Result == consume.AuditUnreadable
			}) {
				return errAudit
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&sector, "sector", "", "only this one")
	f.BoolVar(&all, "all", false, "every sector on this host's storage nodes")
	f.StringVar(&node, "node", "", "only on this storage node")
	f.IntVar(&samples, "samples", 0, "challenges per sector (default: AUDIT_SAMPLES)")
	output.add(cmd)
	return cmd
}

// errNothing says that nothing was found.
var errNothing = errors.New("no such sector on this host's storage nodes")

func auditAll(ctx context.Context, cfg *consume.Config, a consume.Auditor, node, only string, samples int) ([]consume.Audited, error) {
	out := []consume.Audited{}
	found := false
	for _, n := range cfg.Nodes {
		if node != "" && n.Name != node {
			continue
		}
		found = true
		list, err := a.Sectors(ctx, n)
		if err != nil {
			return nil, err
		}
		for _, sector := range list {
			if only != "" && sector != only {
				continue
			}
			got, err := a.Audit(ctx, n, sector, samples)
			if err != nil {
				return nil, err
			}
			out = append(out, got)
		}
	}
	if !found {
		return nil, command.Usagef("--node %q is not among this host's STORAGE_NODES", node)
	}
	return out, nil
}

func auditTable(w io.Writer, list []consume.Audited) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	count := map[string]int{}
	for _, a := range list {
		count[a.Result]++
		fmt.Fprintf(tw, "%s\t%s\t%s\t%d samples\t%s\n", a.Node, a.Sector, a.Result, a.Samples, a.Message)
	}
	for _, result := range sortedKeys(count) {
		fmt.Fprintf(tw, "%s:\t%d\n", result, count[result])
	}
	return tw.Flush()
}

func limitCommand() *cobra.Command {
	hostLimit := int64(-1)
	var nodes []string
	var reset bool
	output := outputTable
	cmd := &cobra.Command{
		Use:   "limit [--host MB] [--node NAME=MB]…",
		Short: "Show or change how fast p5 copies, also while it runs",
		Long: `limit sets how many MB (10^6 bytes) per second all copies of this host, or those to one storage node,
move together, reading back included; 0 stands for unlimited. The consumer of this STATE_DIR takes
it within a second, for copies under way too, and keeps it over a restart, in the place of
COPY_LIMIT_MB_PER_SEC and the nodes' own limits. Without flags it shows what is set.`,
		Example: `  consumer limit --host 300 --node node1=100
  consumer limit --reset`,
		Args: command.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := output.check(); err != nil {
				return err
			}
			cfg, err := settingsOf()
			if err != nil {
				return err
			}
			limits, err := consume.ReadCopyLimits(cfg.Bus.StateDir)
			if reset {
				limits, err = consume.CopyLimits{}, nil
			}
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("host") {
				limits.Host = &hostLimit
			}
			for _, entry := range nodes {
				name, value, _ := strings.Cut(entry, "=")
				n, err := strconv.ParseInt(value, 10, 64)
				if err != nil || !slices.ContainsFunc(cfg.Nodes, func(n consume.Node) bool { return n.Name == name }) {
					return command.Usagef("--node %q: write NAME=MB with a name of STORAGE_NODES", entry)
				}
				if limits.Nodes == nil {
					limits.Nodes = map[string]int64{}
				}
				limits.Nodes[name] = n
			}
			if reset || cmd.Flags().Changed("host") || len(nodes) > 0 {
				if err := limits.Write(cfg.Bus.StateDir); err != nil {
					return command.UsageError{Err: err}
				}
			}
			return output.print(cmd.OutOrStdout(), limits, func(w io.Writer) error { return limitTable(w, cfg, limits) })
		},
	}
	f := cmd.Flags()
	f.Int64Var(&hostLimit, "host", -1, "MB per second of all copies of this host; 0: unlimited")
	f.StringArrayVar(&nodes, "node", nil, "NAME=MB: of all copies of this host to one storage node; repeat for more")
	f.BoolVar(&reset, "reset", false, "go back to the settings")
	output.add(cmd)
	return cmd
}

func limitTable(w io.Writer, cfg *consume.Config, l consume.CopyLimits) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	row := func(what string, mb int64, from string) {
		rate := "unlimited"
		if mb > 0 {
			rate = fmt.Sprintf("%d MB/s", mb)
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\n", what, rate, from)
	}
	if l.Host != nil {
		row("host", *l.Host, "set")
	} else {
		row("host", cfg.CopyLimit, "COPY_LIMIT_MB_PER_SEC")
	}
	for _, n := range cfg.Nodes {
		if mb, ok := l.Nodes[n.Name]; ok {
			row(n.Name, mb, "set")
		} else {
			row(n.Name, n.Limit/1e6, "STORAGE_NODES")
		}
	}
	return tw.Flush()
}
