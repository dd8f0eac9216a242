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

	"sealfleet/internal/command"
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
		return command.Usagef("--output %q: use json or table", string(o))
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

// bars show progress: bars on a terminal, elsewhere a line now and then.
type bars struct {
	w        io.Writer
	terminal bool
	mu       sync.Mutex
	name     string
	bar      *progressbar.ProgressBar
	start    time.Time
	told     time.Time // when the last line was written
}

// linesEvery is how often a step that goes on gets a line where there is no terminal.
const linesEvery = 10 * time.Second

func newBars(w io.Writer) *bars {
	f, ok := w.(*os.File)
	return &bars{w: w, terminal: ok && isatty.IsTerminal(f.Fd())}
}

// show tells how far a step of a phase is.
func (b *bars) show(phase, step string, done, total uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if name := phase + " " + step; name != b.name {
		b.finish()
		b.name, b.start, b.told = name, time.Now(), time.Now()
		if b.terminal {
			b.bar = progressbar.NewOptions64(int64(max(total, 1)), progressbar.OptionSetWriter(b.w), progressbar.OptionSetDescription(fmt.Sprintf("%-24s", name)),
				progressbar.OptionSetWidth(30), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionFullWidth())
		}
	}
	switch {
	case b.terminal:
		_ = b.bar.Set64(int64(min(done, max(total, 1)))) // a terminal that can't be written is no reason to stop
	case time.Since(b.told) >= linesEvery:
		b.told = time.Now()
		fmt.Fprintf(b.w, "%-24s %3d%%\n", b.name, 100*min(done, total)/max(total, 1))
	}
}

// finish ends the current step. Steps that were over in a moment leave no line where
// there is no terminal.
func (b *bars) finish() {
	took := time.Since(b.start).Round(time.Millisecond)
	switch {
	case b.name == "":
	case b.terminal:
		_ = b.bar.Finish()
		fmt.Fprintf(b.w, "  %s\n", took)
	case took >= 3*time.Second:
		fmt.Fprintf(b.w, "%-24s done in %s\n", b.name, took)
	}
	b.bar, b.name = nil, ""
}

func (b *bars) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.finish()
}
