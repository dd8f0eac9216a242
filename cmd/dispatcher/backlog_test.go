package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func testWhy(t *testing.T) {
	t.Helper()
	out, errs, code := run("why", "1000/9")
	for _, want := range []string{"p2 is parked", "a label does not verify", "dispatcher redo s-t01000-9 --phase p2"} {
		if code != exitOK || !strings.Contains(out, want) {
			t.Errorf("why has no %q: %d\n%s\n%s", want, code, out, errs)
		}
	}
	if out, errs, code = run("why", "1000/7"); code != exitOK || !strings.Contains(out, "waits for nothing") {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
	if out, errs, code = run("why", "f01000-77"); code != exitNotFound || !strings.Contains(errs, "did you mean s-t01000-7") {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
	var advice []struct {
		Group, Phase string
		Slots        int
		Measured     int
		Need         *int `json:"need_more_slots"`
	}
	out, errs, code = run("backlog", "-o", "json", "--group", "1")
	if err := json.Unmarshal([]byte(out), &advice); code != exitOK || err != nil || len(advice) != 6 {
		t.Fatalf("%d %v\n%s\n%s", code, err, out, errs)
	}
	if p6 := advice[5]; p6.Phase != "p6" || p6.Slots == 0 || p6.Measured != 2 || p6.Need == nil {
		t.Errorf("%+v", p6)
	}
	if out, errs, code = run("backlog"); code != exitOK || strings.Count(out, "\n") != 7 || !strings.Contains(out, "keeps up") {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
	if out, errs, code = run("backlog", "-o", "ndjson", "--group", "group9"); code != exitOK || out != "" {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
}

// A sector that is held back shows, and names what it waits for.
func TestHeldShows(t *testing.T) {
	setup(t)
	t.Setenv("BACKLOG_P1_HOLD", "1")
	serving(t)
	if out, errs, code := run("submit", "--miner", "1000", "--sector", "1", "--count", "1", "--size", "2KiB", "--cc"); code != exitOK {
		t.Fatalf("%d\n%s\n%s", code, out, errs)
	}
	if out, errs, code := run("submit", "--miner", "1000", "--sector", "2", "--count", "1", "--size", "2KiB", "--cc"); code != exitOK {
		t.Fatalf("%d\n%s\n%s", code, out, errs)
	}
	const held = "held: 1 sector of group1 waits for p1 (1 of at most 1 are between p1 and p6)"
	// Until p1 of the first one is issued, the second one is not held either.
	for deadline := time.Now().Add(patience); ; {
		out, errs, code := run("sector", "1000/2")
		if code == exitOK && strings.Contains(out, held) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d\n%s\n%s", code, out, errs)
		}
	}
	for _, test := range []struct {
		args []string
		says string
	}{
		{[]string{"why", "1000/2"}, "p1 is held for"},
		{[]string{"why", "1000/1"}, "no consumer of group1 was seen to do p1"},
		{[]string{"backlog"}, "1 +1 held"},
	} {
		until(t, says(test.says), test.args...) // the dispatcher takes the log's last events up a moment later
	}
	until(t, says("held: 1 sector"), "sectors", "--state", "held") // a dispatcher works that out once a second
	t.Setenv("BACKLOG_P1_HOLD", "-1")
	if _, errs, code := run("backlog"); code != exitUsage || !strings.Contains(errs, "BACKLOG_P1_HOLD") {
		t.Errorf("%d\n%s", code, errs)
	}
}
