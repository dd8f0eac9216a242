package main

import (
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"sealfleet/internal/command"
	"sealfleet/internal/consume"
	"sealfleet/internal/sealcore/circuit"
	"sealfleet/internal/sealcore/groth16"
	"sealfleet/internal/sealcore/porepsnark"
	"sealfleet/internal/settings"
)

// paramsReport is what `params` prints.
type paramsReport struct {
	Identifier string        `json:"parameter_identifier"`
	Params     string        `json:"params"`
	Key        string        `json:"vk"`
	Size       int64         `json:"params_bytes"`
	Made       bool          `json:"made"` // false: they were there
	Mark       *groth16.Mark `json:"development,omitempty"`
}

func paramsCommand() *cobra.Command {
	kind := kindFlags{proofType: -1}
	var dir string
	output := outputTable
	cmd := &cobra.Command{
		Use:   "params",
		Short: "Make parameters for p4, for development",
		Long: `params makes the Groth16 parameters and the verifying key of one kind of sector, unless they are
there already. They are for development: whoever made them can forge proofs, and a file beside them
says so. For sectors that are worth something use the files that Filecoin publishes under the same
names; they drop in unchanged. 2KiB takes a minute or two and 1.4 GB on two cores.

It is safe to start it several times: one makes them, the others wait.`,
		Example: `  consumer params --proof-type 5
  consumer params --shape 16KiB --dir /tmp/parameters`,
		Args: command.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if kind.proofType == -1 && kind.shape == "" {
				kind.proofType = 5
			}
			params, err := kind.params()
			if err != nil {
				return err
			}
			if err := output.check(); err != nil {
				return err
			}
			var proof consume.ProofConfig
			if err := settings.Load(&proof); err != nil {
				return command.UsageError{Err: err}
			}
			if dir == "" {
				dir = proof.Parameters
			}
			bars := newBars(cmd.ErrOrStderr())
			made, err := porepsnark.MakeParameters(cmd.Context(), params, dir, maker(), porepsnark.Options{
				Threads: proof.Threads, SelfMadeParametersForProduction: proof.SelfMade,
				Progress: func(step string, done, total uint64) { bars.show("params", step, done, total) },
			})
			bars.end()
			if err != nil {
				return err
			}
			id := circuit.Identifier(params)
			report := paramsReport{Identifier: id, Params: groth16.ParamsPath(dir, id), Key: groth16.KeyPath(dir, id), Made: made}
			if info, err := os.Stat(report.Params); err == nil {
				report.Size = info.Size()
			}
			if report.Mark, err = groth16.ReadMark(dir, id); err != nil {
				return err
			}
			return output.print(cmd.OutOrStdout(), report, func(w io.Writer) error { return paramsTable(w, report) })
		},
	}
	kind.add(cmd)
	cmd.Flags().StringVar(&dir, "dir", "", "where the files are, or go (default: FIL_PROOFS_PARAMETER_CACHE, or the reference's)")
	output.add(cmd)
	return cmd
}

// maker is who the mark of the parameters names.
func maker() string {
	name, host := "unknown", "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	return name + "@" + host
}

func paramsTable(w io.Writer, r paramsReport) error {
	what := "already there"
	if r.Made {
		what = "made"
	}
	origin := "not marked as made here"
	if r.Mark != nil {
		origin = fmt.Sprintf("%s (%s, %s)", r.Mark.Note, r.Mark.Maker, r.Mark.Made.Format("2006-01-02 15:04"))
	}
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintf(tw, "parameters\t%s, %s\n", what, humanize.Bytes(uint64(max(r.Size, 0))))
	fmt.Fprintf(tw, "directory\t%s\n", filepath.Dir(r.Params))
	fmt.Fprintf(tw, "file\t%s\n", filepath.Base(r.Params))
	fmt.Fprintf(tw, "key\t%s\n", filepath.Base(r.Key))
	fmt.Fprintf(tw, "origin\t%s\n", origin)
	return tw.Flush()
}
