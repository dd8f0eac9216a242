package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"sealfleet/internal/command"
	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/circuit"
)

// kindFlags choose a kind of sector.
type kindFlags struct {
	proofType int
	shape     string
}

func (k *kindFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.IntVar(&k.proofType, "proof-type", -1, "registered seal proof: 0 to 4 (V1), 5 to 9 (V1_1), each of 2KiB, 8MiB, 512MiB, 32GiB, 64GiB")
	f.StringVar(&k.shape, "shape", "", "size of the sector under API version 1.1 (2KiB … 64GiB; 16KiB and 32KiB are toy shapes)")
}

// params returns the kind of sector, and its proof type (-1: by its shape).
func (k *kindFlags) params() (sealcore.Params, error) {
	switch {
	case k.shape != "" && k.proofType != -1:
		return sealcore.Params{}, command.Usagef("--proof-type and --shape exclude each other")
	case k.shape != "":
		p, err := sealcore.ForShape(k.shape)
		if err != nil {
			return p, command.Usagef("--shape: %w", err)
		}
		return p, nil
	case k.proofType == -1:
		return sealcore.Params{}, command.Usagef("say which kind of sector: --proof-type N (5 is 2KiB), or --shape 32KiB")
	}
	p, err := sealcore.ForProofType(k.proofType)
	if err != nil {
		return p, command.Usagef("--proof-type: %w", err)
	}
	return p, nil
}

func circuitCommand() *cobra.Command {
	var kind kindFlags
	output := outputJSON
	cmd := &cobra.Command{
		Use:   "circuit",
		Short: "Describe the circuit that p4 proves: counts, digest, and the parameters' name",
		Long: `circuit synthesizes one partition's constraints and prints how many there are, a digest of all of
them in order, digests of prefixes, and the name under which Filecoin publishes the parameters. It
holds nothing of them in memory. 2KiB takes seconds, 32GiB (130 million constraints) minutes.`,
		Args: command.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			params, err := kind.params()
			if err != nil {
				return err
			}
			if err := output.check(); err != nil {
				return err
			}
			bars := newBars(cmd.ErrOrStderr())
			facts, err := circuit.Facts(cmd.Context(), params, func(done, total uint64) { bars.show("circuit", "constraints", done, total) })
			bars.end()
			if err != nil {
				return err
			}
			return output.print(cmd.OutOrStdout(), facts, func(w io.Writer) error { return circuitTable(w, facts) })
		},
	}
	kind.add(cmd)
	output.add(cmd)
	return cmd
}

// circuitTable shows what is short enough to be read.
func circuitTable(w io.Writer, facts any) error {
	data, err := json.Marshal(facts)
	if err != nil {
		return err
	}
	var rows map[string]json.RawMessage
	if err := json.Unmarshal(data, &rows); err != nil {
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, name := range sortedKeys(rows) {
		if text := string(rows[name]); text != "" && text[0] != '{' && text[0] != '[' {
			fmt.Fprintf(tw, "%s\t%s\n", name, text)
		}
	}
	return tw.Flush()
}
