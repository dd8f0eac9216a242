package main

import (
	"encoding/json"
	"strings"
	"testing"

	"sealfleet/internal/dispatch"
)

// testLimit needs a fleet that serves group1.
func testLimit(t *testing.T) {
	t.Helper()
	read := func(args ...string) []dispatch.GroupLimit {
		t.Helper()
		var list []dispatch.GroupLimit
		out, errs, code := run(append(args, "-o", "json")...)
		if err := json.Unmarshal([]byte(out), &list); code != exitOK || err != nil {
			t.Fatalf("%v: %d %v\n%s\n%s", args, code, err, out, errs)
		}
		return list
	}
	if list := read("limit"); len(list) != 0 {
		t.Errorf("before any was set: %+v", list)
	}
	if list := read("limit", "1"); len(list) != 1 || list[0].Group != "group1" || list[0].BytesPerSec != 0 {
		t.Errorf("a group without a limit: %+v", list)
	}
	list := read("limit", "group1", "500", "--reason", "a backup", "--for", "8h")
	if len(list) != 1 || list[0].BytesPerSec != 500e6 || list[0].Reason != "a backup" || list[0].By == "" || list[0].Until.Sub(list[0].At).Hours() < 7 {
		t.Errorf("set: %+v", list)
	}
	out, errs, code := run("limit")
	if code != exitOK || !strings.Contains(out, "500 MB/s") || !strings.Contains(out, "a backup") {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
	if list = read("limit", "group1", "none", "--reason", "done"); list[0].BytesPerSec != 0 || list[0].Reason != "done" {
		t.Errorf("taken back: %+v", list)
	}
	if out, errs, code = run("limit", "group77", "5", "--reason", "x"); code != exitUsage || !strings.Contains(errs, "group77") {
		t.Errorf("a group that is not there: %d\n%s\n%s", code, out, errs)
	}
}

func TestLimitRefuses(t *testing.T) {
	setup(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"limit", "group1", "500"}, "--reason"},
		{[]string{"limit", "group1", "0", "--reason", "x"}, "none"},
		{[]string{"limit", "group1", "-5", "--reason", "x"}, ""},
		{[]string{"limit", "group1", "fast", "--reason", "x"}, "MB per second"},
		{[]string{"limit", "group1", "none", "--for", "1h", "--reason", "x"}, "--for"},
		{[]string{"limit", "Group 1", "5", "--reason", "x"}, "Group 1"},
		{[]string{"limit", "group1", "--reason", "x"}, "what to set"},
		{[]string{"limit", "-o", "xml"}, "xml"},
	} {
		if out, errs, code := run(c.args...); code != exitUsage || !strings.Contains(errs, c.want) {
			t.Errorf("%v: %d\n%s\n%s", c.args, code, out, errs)
		}
	}
}
