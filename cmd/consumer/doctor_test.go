package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// doctorReport is the contract of doctor, written down a second time.
type doctorReport struct {
	Host     string          `json:"host"`
	At       string          `json:"at"`
	Seconds  float64         `json:"seconds"`
	Worst    string          `json:"worst"`
	Findings []doctorFinding `json:"findings"`
}

type doctorFinding struct {
	Code     string `json:"code"`
	Severity string `json:"severity"`
	Subject  string `json:"subject"`
	Evidence string `json:"evidence"`
	Mend     string `json:"mend"`
}

func TestDoctorContract(t *testing.T) {
	t.Parallel()
	dir, node := t.TempDir(), t.TempDir()
	env := []string{"LOCAL_DIR=" + dir, "STORAGE_NODES=n1=" + node, "IP=10.0.0.1", "HOST_NAME=h1"}
	r := consumer(t, env, "doctor", "--output", "json")
	var report doctorReport
	d := json.NewDecoder(strings.NewReader(r.stdout))
	d.DisallowUnknownFields()
	if err := d.Decode(&report); err != nil || r.code != 0 || r.stderr != "" {
		t.Fatalf("exit %d, %v, stderr %q", r.code, err, r.stderr)
	}
	seen := map[string]doctorFinding{}
	for _, f := range report.Findings {
		seen[f.Code+" "+f.Subject] = f
		if (f.Severity == "warn" || f.Severity == "refuse") != (f.Mend != "") {
			t.Errorf("mend of %+v", f)
		}
	}
	for _, want := range []string{"writable LOCAL_DIR", "writable STORAGE_NODES n1", "write_speed LOCAL_DIR", "processor processor", "files open files", "clock_unknown clock", "cores WORKERS"} {
		if _, there := seen[want]; !there {
			t.Errorf("no %s in %+v", want, report.Findings)
		}
	}
	if report.Host != "h1" || report.Seconds <= 0 || report.At == "" {
		t.Errorf("%+v", report)
	}
	for _, kind := range []string{"cache", "sealed", "unsealed"} { // made now, and not first by p1 or p2
		if _, err := os.Stat(filepath.Join(dir, "nfs", "10.0.0.1", kind)); err != nil {
			t.Error(err)
		}
	}

	lines := consumer(t, env, "doctor", "-o", "ndjson")
	for line := range strings.Lines(lines.stdout) {
		var f doctorFinding
		if err := json.Unmarshal([]byte(line), &f); err != nil || f.Code == "" {
			t.Errorf("%q: %v", line, err)
		}
	}
	if table := consumer(t, env, "doctor"); table.code != 0 || !strings.Contains(table.stdout, "SEVERITY") || !strings.Contains(table.stdout, "writable") {
		t.Errorf("%+v", table)
	}
}

func TestDoctorRefusesWithOneAndServeWithTwo(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "array")
	env := []string{"LOCAL_DIR=" + missing, "WORKERS=1:p1"}
	r := consumer(t, env, "doctor")
	if r.code != exitFailure || !strings.Contains(r.stdout, "path_missing") || !strings.Contains(r.stdout, "mkdir -p "+missing) || !strings.Contains(r.stderr, "doctor refused") {
		t.Errorf("%+v", r)
	}
	if r := consumer(t, env, "serve"); r.code != exitUsage || !strings.Contains(r.stderr, missing+" does not exist") || !strings.Contains(r.stderr, "[path_missing]") {
		t.Errorf("%+v", r)
	}
	// What somebody allowed is only a warning.
	if r := consumer(t, append(env, "DOCTOR_ALLOW=path_missing"), "doctor"); r.code != 0 || !strings.Contains(r.stdout, "allowed by DOCTOR_ALLOW") {
		t.Errorf("%+v", r)
	}
	for name, env := range map[string]string{"SECTOR_SIZE": "33GiB", "EXPECT_MOUNT": "sealer", "DOCTOR_LIMIT": "1ns", "RESERVED_CORES": "-1", "DOCTOR_INTERVAL": "0s"} {
		if r := consumer(t, []string{"LOCAL_DIR=" + missing, name + "=" + env}, "doctor"); r.code != exitUsage || !strings.Contains(r.stderr, name) {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if r := consumer(t, []string{"LOCAL_DIR=" + missing, "WORKERS=1:p1"}, "doctor", "-o", "xml"); r.code != exitUsage {
		t.Errorf("%+v", r)
	}
}
