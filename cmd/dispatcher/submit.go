package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"sealfleet/internal/command"
	"sealfleet/internal/dispatch"
	"sealfleet/internal/phases"
	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/pieces"
)

type submitFlags struct {
	miner, sector string
	size          string
	proofType     int
	group         string
	pieces        []string
	cc            bool
	node          string
	count         int
	wait          bool
}

func submitCommand() *cobra.Command {
	var f submitFlags
	cmd := &cobra.Command{
		Use:   "submit --miner 1000 --sector 7 --size 2KiB (--piece FILE… | --cc)",
		Short: "Submit sectors to be sealed",
		Long: `submit has the fleet seal one sector, or --count sectors with consecutive numbers.
Everything is checked before anything is submitted: the group, the proof type, the pieces
(each 127·2^k bytes, together no more than the sector), and that the sector number was
never used. A piece is named as the group's P1 host sees it, and must be there.`,
		Example: `  dispatcher submit --miner 1000 --sector 7 --size 2KiB --cc --wait
  dispatcher submit --miner f01000 --sector 100 --count 50 --proof-type 8 --group group2 --piece /data/a.car`,
		Args: command.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			specs, err := f.specs(cmd)
			if err != nil {
				return err
			}
			group, err := phases.ParseGroup(f.group)
			if err != nil {
				return command.UsageError{Err: err}
			}
			if _, err := outputOf(cmd); err != nil {
				return err
			}
			return runVerb(cmd, func(ctx context.Context, v *verb) error { return submit(ctx, cmd, v, group, specs, f.wait) })
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.miner, "miner", "", "miner: 1000 or f01000")
	fl.StringVar(&f.sector, "sector", "", "sector number: 7")
	fl.StringVar(&f.size, "size", "", "sector size: 2KiB, 8MiB, 512MiB, 32GiB or 64GiB (proof type V1_1)")
	fl.IntVar(&f.proofType, "proof-type", -1, "registered seal proof, 0 to 9, instead of --size")
	fl.StringVar(&f.group, "group", "group1", "group of hosts that seals it; a bare number N is groupN")
	fl.StringArrayVar(&f.pieces, "piece", nil, "file with a piece, 127·2^k bytes; repeat for more, in their order")
	fl.BoolVar(&f.cc, "cc", false, "committed capacity: a sector of zeros")
	fl.StringVar(&f.node, "storage-node", "", "storage node that p5 copies to; empty: the host's choice")
	fl.IntVar(&f.count, "count", 1, "number of sectors, with numbers from --sector on")
	fl.BoolVar(&f.wait, "wait", false, "wait until the sectors have ended; exit 1 if one did not finish")
	return withOutput(cmd)
}

// specs makes the submissions from the flags alone.
func (f *submitFlags) specs(cmd *cobra.Command) ([]phases.Spec, error) {
	if f.miner == "" || f.sector == "" {
		return nil, command.Usagef("--miner and --sector are needed (example: --miner 1000 --sector 7)")
	}
	id, err := parseSector(f.miner + "/" + f.sector)
	if err != nil {
		return nil, command.Usagef("--miner %q --sector %q: write a miner as 1000 or f01000, a sector as its number", f.miner, f.sector)
	}
	miner, number, err := phases.ParseSectorID(id)
	if err != nil {
		return nil, command.UsageError{Err: err}
	}
	proofType, err := f.proof(cmd)
	if err != nil {
		return nil, err
	}
	const most = 10_000
	switch {
	case f.count < 1 || f.count > most:
		return nil, command.Usagef("--count %d: use 1 to %d", f.count, most)
	case f.cc && len(f.pieces) > 0:
		return nil, command.Usagef("--cc and --piece exclude each other: a sector of committed capacity has no pieces")
	case !f.cc && len(f.pieces) == 0:
		return nil, command.Usagef("say what to seal: --piece FILE (repeatable), or --cc for a sector of zeros")
	}
	files := make([]phases.Piece, len(f.pieces))
	for i, path := range f.pieces {
		if files[i].Path, err = filepath.Abs(path); err != nil {
			return nil, command.Usagef("--piece %q: %w", path, err)
		}
	}
	specs := make([]phases.Spec, f.count)
	for i := range specs {
		specs[i] = phases.Spec{
			Miner: miner, Number: number + uint64(i), ProofType: proofType,
			Pieces: append([]phases.Piece(nil), files...), StorageNode: f.node, SubmittedBy: whoami(),
		}
	}
	return specs, nil
}

func (f *submitFlags) proof(cmd *cobra.Command) (int, error) {
	switch typed := cmd.Flags().Changed("proof-type"); {
	case typed && f.size != "":
		return 0, command.Usagef("--size and --proof-type say the same: use one of them")
	case typed:
		if _, err := sealcore.ForProofType(f.proofType); err != nil {
			return 0, command.Usagef("--proof-type: %w", err)
		}
		return f.proofType, nil
	case f.size == "":
		return 0, command.Usagef("--size or --proof-type is needed (example: --size 2KiB)")
	}
	p, err := sealcore.ForShape(f.size)
	if err != nil {
		return 0, command.Usagef("--size: %w", err)
	}
	if p.ProofType < 0 {
		return 0, command.Usagef("--size %s is a toy shape, which no chain takes: use consumer bench for it", f.size)
	}
	return p.ProofType, nil
}

// checkSpec looks at a submission's pieces, and fills in their sizes.
func checkSpec(_ context.Context, s *phases.Spec) error {
	p, err := sealcore.ForProofType(s.ProofType)
	if err != nil {
		return err
	}
	if len(s.Pieces) == 0 {
		return nil
	}
	sizes := make([]uint64, len(s.Pieces))
	for i := range s.Pieces {
		info, err := os.Stat(s.Pieces[i].Path)
		switch {
		case err != nil:
			return fmt.Errorf("piece: %w (mend: name it as this machine and the P1 host see it)", err)
		case !info.Mode().IsRegular():
			return fmt.Errorf("piece %s is not a regular file", s.Pieces[i].Path)
		}
		sizes[i] = uint64(info.Size())
		s.Pieces[i].UnpaddedSize = sizes[i]
	}
	return pieces.Validate(p, sizes)
}

func submit(ctx context.Context, cmd *cobra.Command, v *verb, group string, specs []phases.Spec, wait bool) error {
	done, err := submitAll(ctx, v, group, specs)
	if len(done) > 0 && !wait {
		if err := show(cmd, done, []string{"SECTOR", "GROUP", "SEQUENCE"}, func(s dispatch.Submission) []string {
			return []string{s.Sector, s.Group, fmt.Sprint(s.Seq)}
		}); err != nil {
			return err
		}
	}
	if err != nil || !wait {
		return err
	}
	return waitFor(ctx, cmd, v, done)
}

func submitAll(ctx context.Context, v *verb, group string, specs []phases.Spec) ([]dispatch.Submission, error) {
	ctx, cancel := soon(ctx)
	defer cancel()
	return dispatch.Submit(ctx, v.bus, group, v.who, specs, checkSpec)
}
