package logs

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
)

func TestJSONWhenNotATerminal(t *testing.T) {
	var out bytes.Buffer
	New(&out, Config{Format: Auto}).Info("claimed", Sector, "s-t01000-7", Phase, "p1", Attempt, 2)
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	if line["sector"] != "s-t01000-7" || line["phase"] != "p1" || line["attempt"] != 2.0 {
		t.Fatalf("got %v", line)
	}
}

func TestTextWithoutColourAndLevel(t *testing.T) {
	var out bytes.Buffer
	log := New(&out, Config{Format: Text, Level: slog.LevelWarn})
	log.Info("quiet")
	log.Warn("loud", Group, "group1")
	if got := out.String(); strings.Contains(got, "quiet") || !strings.Contains(got, "loud group=group1") || strings.Contains(got, "\x1b") {
		t.Fatalf("got %q", got)
	}
}

func TestFormatRefusesUnknown(t *testing.T) {
	var f Format
	if err := f.UnmarshalText([]byte("xml")); err == nil {
		t.Fatal("accepted")
	}
	if err := f.UnmarshalText([]byte("json")); err != nil || f != JSON {
		t.Fatal(f, err)
	}
}
