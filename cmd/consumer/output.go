package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
)

// outputFormat is --output.
type outputFormat string

const (
	outputJSON  outputFormat = "json"
	outputTable outputFormat = "table"
)

func (o *outputFormat) add(cmd *cobra.Command) {
	cmd.Flags().StringVarP((*string)(o), "output", "o", string(*o), "json or table")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"json", "table"}, cobra.ShellCompDirectiveNoFileComp))
}

func (o outputFormat) check() error {
	if o != outputJSON && o != outputTable {
		return usagef("--output %q: use json or table", string(o))
	}
	return nil
}

// print writes v to stdout, and nothing else goes there.
func (o outputFormat) print(w io.Writer, v any, table func(io.Writer) error) error {
	if o == outputTable {
		return table(w)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// bars show progress on a terminal, and nothing elsewhere.
type bars struct {
	w    io.Writer
	on   bool
	mu   sync.Mutex
	name string
	bar  *progressbar.ProgressBar
	at   time.Time
}

func newBars(w io.Writer) *bars {
	f, ok := w.(*os.File)
	return &bars{w: w, on: ok && isatty.IsTerminal(f.Fd())}
}

// show tells how far a step of a phase is.
func (b *bars) show(phase, step string, done, total uint64) {
	if !b.on {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if name := phase + " " + step; name != b.name {
		b.finish()
		b.name, b.at = name, time.Now()
		b.bar = progressbar.NewOptions64(int64(max(total, 1)), progressbar.OptionSetWriter(b.w), progressbar.OptionSetDescription(fmt.Sprintf("%-24s", name)),
			progressbar.OptionSetWidth(30), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionFullWidth())
	}
	_ = b.bar.Set64(int64(min(done, max(total, 1)))) // a terminal that can't be written is no reason to stop
}

func (b *bars) finish() {
	if b.bar != nil {
		_ = b.bar.Finish()
		fmt.Fprintf(b.w, "  %s\n", time.Since(b.at).Round(time.Millisecond))
		b.bar, b.name = nil, ""
	}
}

func (b *bars) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.finish()
}
