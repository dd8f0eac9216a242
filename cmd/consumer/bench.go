package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"sealfleet/internal/command"
	"sealfleet/internal/consume"
	"sealfleet/internal/engine"
	"sealfleet/internal/phases"
	"sealfleet/internal/sealcore"
	"sealfleet/internal/settings"
)

// benchRandomness stands for the chain's ticket and seed where none is given: 32 times 1.
var benchRandomness = strings.Repeat("01", 32)

func benchCommand() *cobra.Command {
	var (
		b        engine.Bench
		kind     kindFlags
		miner    uint64
		list     string
		engines  engineFlags
		output   = outputJSON
		proverID string
		// paramsDir goes before FIL_PROOFS_PARAMETER_CACHE.
		paramsDir string
		copies    int
	)
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Run phases of one sector on this machine, without a bus",
		Long: `bench runs p1, p2, p3 and p4 of one sector in a directory, to size a host or to check answers. It
writes DIR/unsealed, DIR/sealed, DIR/cache/*, DIR/p1.json and DIR/c1.json, and prints one JSON object
on stdout and nothing else there. Phases that are not asked for are taken from what DIR holds,
whichever engine made it: --phases p2 goes on after an earlier --phases p1.`,
		Example: `  consumer bench --proof-type 5 --cc --dir /tmp/bench
  consumer bench --shape 16KiB --miner 1000 --sector 7 --piece data.bin --dir /tmp/bench --phases p1,p2
  consumer bench --proof-type 5 --cc --dir /tmp/bench --engine exec:$PWD/bin/engine-filecoin --compare builtin -o table`,
		Args: command.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var faults []error
			if err := kindInto(&b, &kind); err != nil {
				faults = append(faults, err)
			}
			var err error
			if b.Phases, err = parsePhases(list); err != nil {
				faults = append(faults, err)
			}
			if cmd.Flags().Changed("miner") && proverID != "" {
				faults = append(faults, errors.New("--miner and --prover-id exclude each other"))
			}
			if b.ProverID = proverID; proverID == "" {
				id := sealcore.ProverID(miner)
				b.ProverID = hex.EncodeToString(id[:])
			}
			if err := engines.parse(); err != nil {
				faults = append(faults, err)
			}
			if err := output.check(); err != nil {
				faults = append(faults, err)
			}
			var proof consume.ProofConfig
			if err := settings.Load(&proof); err != nil {
				faults = append(faults, err)
			}
			if paramsDir != "" {
				proof.Parameters = paramsDir
			}
			if copies < 1 {
				faults = append(faults, fmt.Errorf("--copies %d: must be 1 or more", copies))
			}
			if copies > 1 && (cmd.Flags().Changed("engine") || engines.compare != "") {
				faults = append(faults, errors.New("--copies measures builtin alone: leave out --engine and --compare"))
			}
			if len(faults) > 0 {
				return command.UsageError{Err: errors.Join(faults...)}
			}
			b.Proof = proof.Request()
			if copies > 1 {
				return runCopies(cmd, b, copies, output)
			}
			if engines.compare != "" {
				return runCompare(cmd, b, &engines, output)
			}
			if err := b.Check(); err != nil {
				return command.UsageError{Err: err}
			}
			b.Engine = engines.choice.Engine(engine.Builtin{}, engines.exec)
			bars := newBars(cmd.ErrOrStderr())
			report, err := b.Run(cmd.Context(), func(p phases.Step, g engine.Progress) { bars.show(string(p), g.Step, g.Done, g.Total) })
			bars.end()
			if err != nil {
				if cmd.Context().Err() != nil {
					return errors.New("interrupted; what was complete stays in the directory")
				}
				return err
			}
			return output.print(cmd.OutOrStdout(), report, func(w io.Writer) error { return benchTable(w, report) })
		},
	}
	kind.add(cmd)
	f := cmd.Flags()
	f.StringVar(&b.PoRepID, "porep-id", "", "32 bytes in hex that seed the graph (default: the proof type's)")
	f.Uint64Var(&miner, "miner", 1000, "miner's actor id: 1000 is f01000")
	f.StringVar(&proverID, "prover-id", "", "32 bytes in hex, in the place of --miner")
	f.Uint64Var(&b.Number, "sector", 1, "sector number")
	f.StringVar(&b.Ticket, "ticket", benchRandomness, "the chain's randomness at the ticket's epoch, 32 bytes in hex")
	f.StringVar(&b.Seed, "seed", benchRandomness, "the chain's interactive randomness, 32 bytes in hex")
	f.StringArrayVar(&b.Pieces, "piece", nil, "file with a piece's unpadded bytes, 127·2^k of them; repeat for more, in order")
	f.BoolVar(&b.CC, "cc", false, "committed capacity: a sector of zeros")
	f.StringVar(&b.Dir, "dir", "", "directory to work in; it is made if it is not there")
	f.StringVar(&list, "phases", "p1,p2,p3", "phases to run: some of p1,p2,p3,p4 without a gap")
	f.IntVar(&copies, "copies", 1, "so many sectors, numbered from --sector on, in DIR/copy-1 and so on; their p1 is one batch")
	f.IntVar(&b.Threads, "threads", 0, "most cores to use (default: all)")
	f.StringVar(&paramsDir, "params-dir", "", "directory of p4's parameters (default: FIL_PROOFS_PARAMETER_CACHE, or the reference's)")
	engines.add(cmd)
	output.add(cmd)
	return cmd
}

// kindInto puts the flags' kind of sector into the bench.
func kindInto(b *engine.Bench, k *kindFlags) error {
	if _, err := k.params(); err != nil {
		return err
	}
	b.ProofType, b.Shape = k.proofType, k.shape
	return nil
}

func parsePhases(list string) ([]phases.Step, error) {
	var steps []phases.Step
	for name := range strings.SplitSeq(list, ",") {
		p, err := phases.ParsePhase(strings.TrimSpace(name))
		if err != nil {
			return nil, fmt.Errorf("--phases: %w", err)
		}
		steps = append(steps, p)
	}
	return steps, nil
}

func benchTable(w io.Writer, r *engine.Report) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, row := range [][2]string{
		{"comm_d", r.CommD}, {"comm_r", r.CommR}, {"comm_c", r.CommC}, {"comm_r_last", r.CommRLast}, {"replica_id", r.ReplicaID},
		{"c1_json_sha256", r.C1JSONSHA256}, {"proof", r.Proof}, {"snark", r.SNARK},
	} {
		if row[1] != "" {
			fmt.Fprintf(tw, "%s\t%s\n", row[0], row[1])
		}
	}
	for _, p := range phases.Phases() {
		if s, done := r.Seconds[p]; done {
			fmt.Fprintf(tw, "%s\t%.3f s\n", p, s)
		}
	}
	for _, name := range sortedKeys(r.Files) {
		f := r.Files[name]
		fmt.Fprintf(tw, "%s\t%s  %s\n", name, humanize.IBytes(uint64(f.Size)), f.SHA256)
	}
	return tw.Flush()
}
