package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// program writes a script that plays an engine and returns its path.
func program(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "engine")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// itself is this program as somebody else's engine.
func itself(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return program(t, "exec "+self+" phase")
}

type comparison struct {
	Engine, Compare struct {
		Name, Dir    string
		Report       benchReport
		CheckSeconds map[string]float64 `json:"check_seconds"`
	}
	Agree          bool
	Outputs, Files map[string]string
	Ratio          map[string]float64
}

func TestBenchCompare(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	args := []string{"bench", "--proof-type", "5", "--cc", "--dir", dir, "--engine", "exec:" + itself(t), "--compare", "builtin", "--phases"}
	r := consumer(t, nil, append(args, "p1,p2,p3")...)
	if r.code != 0 || r.stderr != "" {
		t.Fatalf("%+v", r)
	}
	var c comparison
	d := json.NewDecoder(strings.NewReader(r.stdout))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		t.Fatal(err)
	}
	if !c.Agree || !strings.HasPrefix(c.Engine.Name, "exec:/") || c.Compare.Name != "builtin" || c.Engine.Report.CommR == "" {
		t.Errorf("%+v", c)
	}
	for _, p := range []string{"p1", "p2", "p3"} {
		if want := c.Engine.Report.Seconds[p] / c.Compare.Report.Seconds[p]; c.Ratio[p] != want || want <= 0 || c.Engine.CheckSeconds[p] <= 0 || c.Compare.CheckSeconds[p] != 0 {
			t.Errorf("%s: ratio %v, want %v; checks %v", p, c.Ratio[p], want, c.Engine.CheckSeconds)
		}
	}
	for name, want := range map[string]string{
		"sealed": "same", "unsealed": "same", "t_aux": "same structure", "p1.json": "same structure", "p_aux": "same",
		"sc-02-data-layer-2.dat": "same", "sc-02-data-tree-c.dat": "same",
	} {
		if c.Files[name] != want {
			t.Errorf("%s is %q, want %q", name, c.Files[name], want)
		}
	}
	if c.Outputs["comm_r"] != "same" || c.Outputs["c1_json_sha256"] != "same" {
		t.Errorf("outputs %v", c.Outputs)
	}

	// It goes on from what a bench left, for both alike, and prints a table.
	if r := consumer(t, nil, "bench", "--proof-type", "5", "--cc", "--dir", dir, "--phases", "p1"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	r = consumer(t, nil, append(args, "p2,p3", "-o", "table")...)
	if r.code != 0 || !strings.Contains(r.stdout, "they agree") || !strings.Contains(r.stdout, "ratio") || !strings.Contains(r.stdout, "to verify it") {
		t.Errorf("%+v", r)
	}
}

// An engine that verifies and yet differs (it leaves a file that nobody asked for) is
// told by file, with exit code 1.
func TestBenchCompareDisagrees(t *testing.T) {
	t.Parallel()
	odd := program(t, `"`+itself(t)+`"; code=$?; touch "$ODD_FILE"; exit $code`)
	dir := t.TempDir()
	extra := filepath.Join(dir, "engine", "cache", "extra")
	r := consumer(t, []string{"ODD_FILE=" + extra}, "bench", "--proof-type", "5", "--cc", "--dir", dir, "--phases", "p1", "--engine", "exec:"+odd, "--compare", "builtin")
	if r.code != 1 || !strings.Contains(r.stdout, `"extra": "missing"`) || !strings.Contains(r.stdout, `"agree": false`) || !strings.Contains(r.stderr, "do not agree") {
		t.Errorf("%+v", r)
	}
}

func TestBenchWithPrograms(t *testing.T) {
	t.Parallel()
	self := itself(t)
	good := []string{"bench", "--proof-type", "5", "--cc", "--dir", t.TempDir(), "--engine", fmt.Sprintf("p2=exec:%s,p3=exec:%s", self, self)}
	if r := consumer(t, nil, good...); r.code != 0 || r.stderr != "" {
		t.Errorf("%+v", r)
	}
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"cuda": "exec:/path", "exec:": "absolute", "exec:engine": "absolute", "exec:/absent": "does not exist", "exec:" + plain: "chmod +x",
		"p9=exec:" + self: `phase "p9"`, "p5=exec:" + self: "p1 to p4", "p1=exec:" + self + ",p1=builtin": "twice", "p1=" + self: "unknown",
		"noop": "noop", "p1=exec:" + self + ",exec:" + self: "phase=engine", "exec:/": "no file",
	} {
		for _, flag := range []string{"--engine", "--compare"} {
			r := consumer(t, nil, "bench", "--proof-type", "5", "--cc", "--dir", t.TempDir(), flag, text)
			if r.code != exitUsage || !strings.Contains(r.stderr, want) || !strings.Contains(r.stderr, flag) {
				t.Errorf("%s %s: %+v", flag, text, r)
			}
		}
	}
	for value, want := range map[string]string{"ENGINE_TIME_LIMIT=soon": "90m", "ENGINE_MEMORY_LIMIT=much": "64GiB"} {
		if r := consumer(t, []string{value}, good...); r.code != exitUsage || !strings.Contains(r.stderr, want) {
			t.Errorf("%s: %+v", value, r)
		}
	}
	// Failures name the code.
	for script, code := range map[string]string{"echo hello; sleep 100": "engine_garbage", "exit 0": "engine_no_result", `echo '{"type":"result","outputs":{}}'`: "engine_wrong_output"} {
		r := consumer(t, nil, "bench", "--proof-type", "5", "--cc", "--dir", t.TempDir(), "--engine", "exec:"+program(t, script))
		if r.code != exitFailure || !strings.Contains(r.stderr, code) || r.stdout != "" {
			t.Errorf("%s: %+v", script, r)
		}
	}
	if r := consumer(t, []string{"ENGINE_TIME_LIMIT=300ms"}, "bench", "--proof-type", "5", "--cc", "--dir", t.TempDir(), "--engine", "exec:"+program(t, "sleep 100")); r.code != exitFailure || !strings.Contains(r.stderr, "engine_time") {
		t.Errorf("%+v", r)
	}
}
