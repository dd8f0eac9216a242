package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sealfleet/internal/alerts"
)

var (
	aCommand = regexp.MustCompile("(?m)(?:^|`|; |&& |then )(dispatcher [a-z][^`#;|&>()\n]*)")
	aFlag    = regexp.MustCompile(`(--?[a-z][a-z-]*)`)
)

// What a runbook, the operations' page or an alarm tells people to type must be there.
func TestDocumentedCommandsExist(t *testing.T) {
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
			cmd, _, err := newRoot().Find(words)
			if err != nil || cmd.Name() == "dispatcher" {
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
	if found < 30 {
		t.Errorf("only %d commands were found: the search is broken", found)
	}
}
