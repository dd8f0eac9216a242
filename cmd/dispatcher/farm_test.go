package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

const patience = 2 * time.Minute // for what must come; no test asserts time

// until runs a verb until its output is as it should be: what an order changes reaches the
// dispatcher's fold a moment after the order was given.
func until(t *testing.T, ok func(out, errs string, code int) bool, args ...string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		out, errs, code := run(args...)
		if ok(out, errs, code) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("dispatcher %s: %d\n%s\n%s", strings.Join(args, " "), code, out, errs)
		}
	}
}

// says is an output that succeeds and has all of these texts.
func says(want ...string) func(out, errs string, code int) bool {
	return func(out, _ string, code int) bool {
		for _, w := range want {
			if !strings.Contains(out, w) {
				return false
			}
		}
		return code == exitOK
	}
}

// testFarm looks at a farm in which sectors 7 and 8 are finished and 9 is parked at p2.
func testFarm(t *testing.T) {
	t.Helper()
	until(t, says("host1", "silent", "group1"), "hosts")
	until(t, says("host1", "tells nothing of itself"), "hosts", "host1")
	until(t, says("group1", "0+0 !1"), "groups")
	until(t, says("PHASE", "p1", "2KiB", "FINISHED", time.Now().UTC().Format(time.DateOnly)), "stats")
	until(t, func(out, _ string, code int) bool {
		lines := strings.Split(strings.TrimSpace(out), "\n")
		return code == exitOK && len(lines) == 4 && strings.HasPrefix(lines[1], "s-t01000-9")
	}, "sectors", "--sort", "-number")
	until(t, func(out, _ string, code int) bool {
		return code == exitOK && strings.Contains(out, "s-t01000-9") && !strings.Contains(out, "s-t01000-7")
	}, "sectors", "--find", "1000-9", "--state", "parked", "-o", "ndjson")
	until(t, says("SECTOR"), "jobs", "--phase", "p1", "--state", "running")

	until(t, says("s-t01000-9", "PreCommitPhase2"), "legacy", "--result-status", "2")
	var rows []struct {
		Sector, Phase string
		Bit           int `json:"task_type"`
		Finished      int `json:"is_finished"`
		Status        int `json:"result_status"`
	}
	out, errs, code := run("legacy", "1000/9", "-o", "json")
	if err := json.Unmarshal([]byte(out), &rows); err != nil || len(rows) != 6 || rows[0].Bit != 1 || rows[0].Finished != 1 || rows[0].Status != 0 ||
		rows[1].Phase != "p2" || rows[1].Status != 2 || rows[5].Bit != 32 || rows[5].Finished != 0 || rows[5].Status != 1 {
		t.Errorf("legacy: %v %d\n%s\n%s", err, code, out, errs)
	}

	var stats struct {
		Schema string
		Phases []struct {
			Phase string
			Count int
		}
		Days []struct{ Finished int }
	}
	out, errs, code = run("stats", "--phase", "p1", "-o", "json")
	if err := json.Unmarshal([]byte(out), &stats); err != nil || code != exitOK || stats.Schema != "sealfleet.v1" || len(stats.Phases) != 1 ||
		stats.Phases[0].Phase != "p1" || stats.Phases[0].Count != 3 || len(stats.Days) != 1 || stats.Days[0].Finished != 2 {
		t.Errorf("stats: %v %d\n%s\n%s", err, code, out, errs)
	}
	var groups []struct {
		Group   string
		Sectors struct{ Finished, Parked int }
	}
	out, _, _ = run("groups", "-o", "json")
	if err := json.Unmarshal([]byte(out), &groups); err != nil || len(groups) != 1 || groups[0].Sectors.Finished != 2 || groups[0].Sectors.Parked != 1 {
		t.Errorf("groups: %v\n%s", err, out)
	}
}

func testStops(t *testing.T) {
	t.Helper()
	for _, test := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"hosts", "host7"}, exitNotFound, "did you mean host1"},
		{[]string{"drain", "host7", "--reason", "x"}, exitNotFound, "did you mean host1"},
		{[]string{"drain", "host1"}, exitUsage, "--reason"},
		{[]string{"drain", "host1", "--reason", "x", "--for", "-1h"}, exitUsage, "--for"},
		{[]string{"undrain", "host1", "--reason", "x"}, exitConflict, "not set"},
		{[]string{"pause", "group9", "--reason", "x"}, exitNotFound, "group9"},
		{[]string{"pause", "group1", "precommit", "--reason", "x"}, exitUsage, "p1 to p6"},
		{[]string{"pause", "1000/9", "p1", "--reason", "x"}, exitUsage, "as a whole"},
		{[]string{"pause", "1000/9", "--reason", "x", "--for", "1h"}, exitUsage, "--for"},
		{[]string{"pause", "1000/77", "--reason", "x"}, exitNotFound, "did you mean s-t01000-7"},
		{[]string{"pause", "1000/7", "--reason", "x"}, exitConflict, "finished"},
		{[]string{"resume", "1000/9", "--reason", "x"}, exitConflict, "not paused"},
		{[]string{"legacy", "--result-status", "3"}, exitUsage, "result_status"},
		{[]string{"legacy", "set", "1000/9", "2", "--reason", "x"}, exitUsage, "--result-status 1"},
		{[]string{"legacy", "set", "1000/9", "3", "--result-status", "1", "--reason", "x"}, exitUsage, "32"},
		{[]string{"legacy", "set", "1000/7", "2", "--result-status", "1", "--reason", "x"}, exitConflict, "ended"},
		{[]string{"undrain", "host7", "--reason", "x"}, exitNotFound, "did you mean host1"},
		{[]string{"sectors", "--sort", "colour"}, exitUsage, "use number"},
		{[]string{"jobs", "--state", "sleeping"}, exitUsage, "sleeping"},
		{[]string{"jobs", "--output", "yaml"}, exitUsage, "yaml"},
	} {
		out, errs, code := run(test.args...)
		if code != test.code || !strings.Contains(errs, test.says) {
			t.Errorf("%v: %d, want %d and %q\n%s\n%s", test.args, code, test.code, test.says, out, errs)
		}
	}
	// --wait ends, because nothing runs on host1.
	out, errs, code := run("drain", "host1", "--reason", "new memory", "--wait")
	if code != exitOK || !strings.Contains(out, "takes nothing new") || !strings.Contains(errs, "host1 is quiet") {
		t.Errorf("drain: %d\n%s\n%s", code, out, errs)
	}
	until(t, says("drained by", "new memory"), "hosts", "host1")
	until(t, says("host1 takes work again"), "undrain", "host1", "--reason", "the memory is in")

	until(t, says("nobody takes tasks of p6 group1"), "pause", "1", "CleanTask", "--reason", "the node is full", "--for", "1h")
	until(t, says("p6 by", "the node is full"), "groups")
	until(t, says("taken again"), "resume", "group1", "p6", "--reason", "a disk was added")
	until(t, says("nothing new begins for s-t01000-9"), "pause", "1000/9", "--reason", "its piece is looked at")
	until(t, says("paused: its piece is looked at"), "sectors", "--state", "paused")
	until(t, says("p2 of s-t01000-9 is done again"), "legacy", "set", "1000/9", "2", "--result-status", "1", "--reason", "as in the old days")
	until(t, says("as in the old days"), "events", "--sector", "1000/9")
	until(t, says("s-t01000-9 goes on"), "resume", "1000/9", "--reason", "the piece is fine")
	until(t, says("s-t01000-9", "parked"), "sectors", "--state", "parked") // p2 has failed once more
}

func TestNoDispatcher(t *testing.T) {
	setup(t)
	t.Setenv("DISPATCHER_URL", "http://127.0.0.1:1")
	_, errs, code := run("hosts", "--timeout", "10ms")
	if code != exitUnreachable || !strings.Contains(errs, "DISPATCHER_URL") {
		t.Errorf("%d: %s", code, errs)
	}
	t.Setenv("DISPATCHER_URL", "127.0.0.1:9470")
	if _, errs, code = run("hosts"); code != exitUsage || !strings.Contains(errs, "DISPATCHER_URL") || !strings.Contains(errs, "https://d1.example:9470") {
		t.Errorf("%d: %s", code, errs)
	}
}
