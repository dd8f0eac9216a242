// Package settingstest keeps the README's tables of settings true.
package settingstest

import (
	"os"
	"strings"
	"testing"

	"sealfleet/internal/settings"
)

// CheckTable fails the test unless the file has the table of cfg's settings between the
// lines <!-- NAME --> and <!-- /NAME -->. With UPDATE_DOCS=1 it writes the table there.
func CheckTable(t *testing.T, path, name string, cfg any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- "+name+" -->\n", "<!-- /"+name+" -->"
	head, rest, found := strings.Cut(string(data), begin)
	old, tail, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no lines %q and %q", path, strings.TrimSpace(begin), end)
	}
	var table strings.Builder
	if err := settings.Markdown(&table, cfg); err != nil {
		t.Fatal(err)
	}
	if old == table.String() {
		return
	}
	if os.Getenv("UPDATE_DOCS") == "" {
		t.Fatalf("%s: the table of %s is not what the program has: run `make docs`", path, name)
	}
	if err := os.WriteFile(path, []byte(head+begin+table.String()+end+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}
