// Package runbookstest holds what people are told to type against the programs.
package runbookstest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"sealfleet/internal/alerts"
)

var aFlag = regexp.MustCompile(`(--?[a-z][a-z-]*)`)

// CommandsExist fails the test for each command of a program in a runbook, the operations'
// page or an alarm that the program does not have, and if fewer than atLeast were found. It is
// for tests of a package two directories below the root.
func CommandsExist(t *testing.T, root func() *cobra.Command, atLeast int) {
	t.Helper()
	program := root().Name()
	aCommand := regexp.MustCompile("(?m)(?:^|`|; |&& |then )(" + program + " [a-z][^`#;|&>()\n]*)")
	texts := map[string]string{}
	pages, err := filepath.Glob("../../docs/runbooks/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatal(pages, err)
	}
	for _, path := range append(pages, "../../docs/operations.md") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[path] = string(text)
	}
	for _, r := range alerts.Rules() {
		texts[r.Name] = r.Mend
	}
	found := 0
	for where, text := range texts {
		for _, m := range aCommand.FindAllStringSubmatch(text, -1) {
			words := strings.Fields(m[1])[1:]
			cmd, _, err := root().Find(words)
			if err != nil || cmd.Name() == program {
				t.Errorf("%s: no such command: %s (%v)", where, m[1], err)
				continue
			}
			found++
			for _, w := range words {
				name := strings.TrimLeft(aFlag.FindString(w), "-")
				if !strings.HasPrefix(w, "-") || name == "" {
					continue
				}
				if cmd.Flags().Lookup(name) == nil && cmd.InheritedFlags().Lookup(name) == nil && len(name) > 1 {
					t.Errorf("%s: %s has no flag --%s", where, cmd.CommandPath(), name)
				}
			}
		}
	}
	if found < atLeast {
		t.Errorf("only %d commands were found: the search is broken", found)
	}
}
