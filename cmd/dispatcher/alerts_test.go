package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sealfleet/internal/alerts"
	"sealfleet/internal/phases"
)

// A sector that is parked is told to a webhook by a dispatcher that serves, shows in
// alerts, and can be muted.
func TestAlerts(t *testing.T) {
	stateDir := setup(t)
	posted := make(chan alerts.Payload, 16)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var p alerts.Payload
		if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
			t.Error(err)
		}
		posted <- p
	}))
	defer hook.Close()
	t.Setenv("ALERT_WEBHOOK", hook.URL)
	t.Setenv("ALERT_EVERY", "1s")
	serving(t)
	if out, errs, code := run("alerts"); code != exitOK || !strings.Contains(out, "nothing is wrong") {
		t.Fatalf("%d\n%s\n%s", code, out, errs)
	}
	hosting(t, stateDir, func(task phases.Task) *phases.Result {
		if task.Step == phases.P2 {
			return &phases.Result{Code: "bad_label", Class: phases.Permanent, Message: "a label does not verify; mend: redo p1"}
		}
		return nil
	})
	if out, errs, code := run("submit", "--miner", "1000", "--sector", "4", "--count", "1", "--size", "2KiB", "--cc"); code != exitOK {
		t.Fatalf("%d\n%s\n%s", code, out, errs)
	}
	select {
	case p := <-posted:
		a := p.Alerts[0]
		if a.Labels["alertname"] != "SectorParked" || a.Labels["phase"] != "p2" || !strings.Contains(a.Annotations["examples"], "s-t01000-4") {
			t.Errorf("%+v", p)
		}
	case <-time.After(patience):
		t.Fatal("no alarm was posted")
	}
	out, errs, code := run("alerts")
	for _, want := range []string{"warning", "SectorParked", "group1", "1 sectors of group1 are parked at p2", "a label does not verify", "mend: dispatcher sectors"} {
		if code != exitOK || !strings.Contains(out, want) {
			t.Errorf("no %q: %d\n%s\n%s", want, code, out, errs)
		}
	}

	if out, errs, code = run("mute", "sectorparked", "--group", "1", "--for", "2h", "--reason", "being looked at"); code != exitOK || !strings.Contains(out, "SectorParked of group group1 is muted until") {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
	var list []alerts.Alert
	out, errs, code = run("alerts", "-o", "json")
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != exitOK || len(list) != 1 || list[0].MutedFor != "being looked at" || list[0].MutedBy == "" {
		t.Errorf("%d %v\n%s\n%s", code, err, out, errs)
	}
	if out, errs, code = run("unmute", "SectorParked", "--group", "group1"); code != exitOK || !strings.Contains(out, "told again") {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
	if out, errs, code = run("unmute", "SectorParked", "--group", "group1"); code != exitUsage || !strings.Contains(errs, "is not muted") {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
}

func TestAlertVerbsRefuseWhatMakesNoSense(t *testing.T) {
	setup(t)
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"mute", "SectorPaked", "--reason", "x"}, "did you mean SectorParked?"},
		{[]string{"mute", "nonsense", "--reason", "x"}, "they are SectorParked"},
		{[]string{"mute", "SectorParked"}, "--reason is needed"},
		{[]string{"mute", "SectorParked", "--reason", "x", "--for", "-1h"}, "--for"},
		{[]string{"mute", "SectorParked", "--reason", "x", "--group", "a.b"}, "group"},
		{[]string{"alerts", "explain", "DiskFulSoon"}, "did you mean DiskFullSoon?"},
	} {
		if out, errs, code := run(test.args...); code != exitUsage || !strings.Contains(errs, test.want) {
			t.Errorf("%v: %d\n%s\n%s", test.args, code, out, errs)
		}
	}
	if out, errs, code := run("alerts", "explain", "LogWentBack"); code != exitOK || !strings.Contains(out, "## The mend") {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
	if out, errs, code := run("alerts", "rules", "--runbooks", "https://wiki.example/r/"); code != exitOK || !strings.Contains(out, "https://wiki.example/r/disk-full-soon.md") {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
}
