package consume

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sealfleet/internal/engine"
	"sealfleet/internal/phases"
	"sealfleet/internal/settings"
)

// script writes a program that plays an engine.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "engine")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestEngineSettings(t *testing.T) {
	path := script(t, "exit 0")
	var c Config
	err := settings.LoadFrom(&c, map[string]string{
		"ENGINE": "p2=exec:" + path + ", p4=exec:" + path + ",p1=builtin", "ENGINE_TIME_LIMIT": "p1=3h,p4=30m", "ENGINE_MEMORY_LIMIT": "96GiB",
	})
	if err != nil {
		t.Fatal(err)
	}
	choice := c.Engine.Choice()
	for p, want := range map[phases.Step]string{phases.P1: "", phases.P2: path, phases.P3: "", phases.P4: path, phases.P5: "", phases.P6: ""} {
		if got := choice.Program(p); got != want {
			t.Errorf("%s is done by %q, want %q", p, got, want)
		}
	}
	l := c.Exec.Settings(nil).Limits
	if l.Time.Of(phases.P1) != 3*time.Hour || l.Time.Of(phases.P4) != 30*time.Minute || l.Time.Of(phases.P2) != 0 || l.Memory.Bytes() != 96<<30 {
		t.Errorf("limits %+v", l)
	}
	var all Config
	if err := settings.LoadFrom(&all, map[string]string{"ENGINE": "exec:" + path, "ENGINE_TIME_LIMIT": "24h", "ENGINE_MEMORY_LIMIT": "0"}); err != nil {
		t.Fatal(err)
	}
	l = all.Exec.Settings(nil).Limits
	if all.Engine.Choice().Program(phases.P3) != path || all.Engine.Choice().Program(phases.P5) != "" || l.Time.Of(phases.P3) != 24*time.Hour || l.Memory.Bytes() != 0 {
		t.Errorf("%+v", all.Engine)
	}
	var standard Config
	if err := settings.LoadFrom(&standard, nil); err != nil {
		t.Fatal(err)
	}
	l = standard.Exec.Settings(nil).Limits
	if l.Time.Of(phases.P1) < 100*time.Hour || l.Memory.Bytes() < 1<<20 || standard.Engine.Choice().String() != "builtin" {
		t.Errorf("defaults %+v", l)
	}
	for name, test := range map[string]struct{ name, value, want string }{
		"absent":         {"ENGINE", "exec:/absent/engine", "/absent/engine does not exist"},
		"phase":          {"ENGINE", "p7=exec:" + path, `phase "p7" is unknown`},
		"copy":           {"ENGINE", "p5=exec:" + path, "p1 to p4"},
		"relative":       {"ENGINE", "exec:bin/engine", "absolute path"},
		"directory":      {"ENGINE", "exec:" + filepath.Dir(path), "no file"},
		"two faults":     {"ENGINE", "p7=builtin,p2=exec:/absent/engine", "/absent/engine does not exist"},
		"time":           {"ENGINE_TIME_LIMIT", "p1=1h,2h", "one duration for all phases"},
		"time's phase":   {"ENGINE_TIME_LIMIT", "p6=1h", "never done by another program"},
		"negative time":  {"ENGINE_TIME_LIMIT", "-1h", "0 or more"},
		"memory":         {"ENGINE_MEMORY_LIMIT", "101%", "1% to 100%"},
		"memory in nuts": {"ENGINE_MEMORY_LIMIT", "64nuts", "64GiB"},
	} {
		var bad Config
		err := settings.LoadFrom(&bad, map[string]string{test.name: test.value})
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), test.name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What a program does wrong fails its attempt with a code, and nothing that it claims
// reaches the chain.
func TestProgramsFailuresReachTheChain(t *testing.T) {
	f := newFleet(t, time.Minute)
	lie := `read request; echo '{"type":"result","outputs":{"comm_d":"ab","replica_id":"cd","pieces":"[]"},"message":"fine"}'`
	scripts := []struct{ text, code string }{
		{"echo hello; sleep 100", "engine_garbage"}, {"exit 0", "engine_no_result"}, {"exit 3", "engine_exit"}, {lie, "engine_wrong_output"},
		{"sleep 100", "engine_time"},
	}
	for i, s := range scripts {
		choice, err := engine.ParseChoice("p1=exec:" + script(t, s.text))
		if err != nil {
			t.Fatal(err)
		}
		var cfg ExecConfig
		if s.code == "engine_time" {
			cfg.Time = engine.TimeLimit{phases.P1: 300 * time.Millisecond}
		}
		c := f.consumer("h1", "1:p1", choice.Engine(engine.Noop{}, cfg.Settings(f.log())), func(c *Consumer) { c.cfg.Engine = EngineBuiltin })
		f.issue(group, phases.P1, uint64(i), 1, map[string]string{"ticket": strings.Repeat("01", 32)})
		failed := f.events(i+1, ofType(phases.Failed))[i]
		if r := failed.Result; r.Code != s.code || r.Class != phases.Retryable || len(r.Outputs) != 0 || r.Message == "" {
			t.Errorf("%s: %+v", s.text, r)
		}
		c.stop()
	}
}
