package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"sealfleet/internal/bus"
)

// testAside needs a fleet that serves group1, with its state in dir.
func testAside(t *testing.T, dir string) {
	t.Helper()
	if out, errs, code := run("aside"); code != exitOK || !strings.Contains(out, "nothing is set aside") {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	b, err := bus.Connect(ctx, bus.Config{StateDir: dir}, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	publishRaw(t, dir, "ev.group1.s-t01000-90.p1.host1", "garbage")
	var list []bus.Aside
	for len(list) == 0 {
		if list, err = b.Asides(ctx, 0); err != nil { // until the dispatcher met it
			t.Fatal(err)
		}
	}
	out, errs, code := run("aside")
	if code != exitOK || !strings.Contains(out, "ev.group1.s-t01000-90.p1.host1") || !strings.Contains(out, "is no event") {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
	if out, errs, code = run("aside", "-o", "ndjson"); code != exitOK || strings.Count(out, "\n") != 1 {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
	var one bus.Aside
	if out, errs, code = run("aside", "show", "1", "-o", "json"); code != exitOK || json.Unmarshal([]byte(out), &one) != nil || string(one.Data) != "garbage" {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
	if out, errs, code = run("aside", "show", "1"); code != exitOK || !strings.Contains(out, `"garbage"`) {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"aside", "show", "77"}, exitNotFound, "77"},
		{[]string{"aside", "show", "x"}, exitUsage, "dispatcher aside"},
		{[]string{"aside", "drop", "1"}, exitUsage, "--reason"},
		{[]string{"aside", "retry", "1", "--reason", "x"}, exitConflict, "SEAL_EVENTS"},
		{[]string{"aside", "-o", "xml"}, exitUsage, "xml"},
		{[]string{"aside", "drop", "1", "--reason", "a test"}, exitOK, ""},
		{[]string{"aside", "drop", "1", "--reason", "a test"}, exitNotFound, "1"},
	} {
		if out, errs, code := run(c.args...); code != c.code || !strings.Contains(errs, c.want) {
			t.Errorf("%v: %d, want %d and a word about %q\n%s\n%s", c.args, code, c.code, c.want, out, errs)
		}
	}
}

func publishRaw(t *testing.T, dir, subject, data string) {
	t.Helper()
	seed, err := nats.NkeyOptionFromSeed(filepath.Join(dir, "nats", "dispatcher.nk"))
	if err != nil {
		t.Fatal(err)
	}
	var local struct {
		URL string `json:"url"`
	}
	text, err := os.ReadFile(filepath.Join(dir, "nats", "server.json"))
	if err == nil {
		err = json.Unmarshal(text, &local)
	}
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(local.URL, seed)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Request(subject, []byte(data), patience); err != nil {
		t.Fatal(err)
	}
}
