package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	units "github.com/dustin/go-humanize" //nolint:misspell // its name
	"github.com/spf13/cobra"

	"sealfleet/internal/command"
)

// The forms of output. JSON is one value, NDJSON one object a line, for pipes.
const (
	asTable  = "table"
	asJSON   = "json"
	asNDJSON = "ndjson"
)

// withOutput adds --output to a command.
func withOutput(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringP("output", "o", asTable, "table, json or ndjson")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{asTable, asJSON, asNDJSON}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func outputOf(cmd *cobra.Command) (string, error) {
	form, _ := cmd.Flags().GetString("output")
	switch form {
	case asTable, asJSON, asNDJSON:
		return form, nil
	}
	return "", command.Usagef("--output %q is unknown: use table, json or ndjson", form)
}

// show writes a list in the form asked for. The rows of a table are made by cells.
func show[T any](cmd *cobra.Command, items []T, header []string, cells func(T) []string) error {
	form, err := outputOf(cmd)
	if err != nil {
		return err
	}
	w := cmd.OutOrStdout()
	switch form {
	case asJSON:
		return writeJSON(w, items, true)
	case asNDJSON:
		for _, item := range items {
			if err := writeJSON(w, item, false); err != nil {
				return err
			}
		}
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(header, "\t"))
	for _, item := range items {
		fmt.Fprintln(t, strings.Join(cells(item), "\t"))
	}
	return t.Flush()
}

func writeJSON(w io.Writer, v any, indent bool) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	if indent {
		enc.SetIndent("", "  ")
	}
	return enc.Encode(v)
}

// dash stands for nothing in a table.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// span writes a duration as people say it: 340ms, 12.4s, 3m5s, 2h10m, 3d4h.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 0:
		return "0s"
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	case d < day:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
}

func seconds(s float64) string {
	if s == 0 {
		return "-"
	}
	return span(time.Duration(s * float64(time.Second)))
}

func bytesOf(n int64) string {
	if n == 0 {
		return "-"
	}
	return units.IBytes(uint64(max(n, 0)))
}
