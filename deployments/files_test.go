package deployments_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// settingsOf are the settings of a program, as the README's table has them (which a test
// compares with the programs).
func settingsOf(t *testing.T, program string) map[string]bool {
	t.Helper()
	page, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(page), "<!-- "+program+" settings -->")
	if !found {
		t.Fatalf("the README has no table of %s", program)
	}
	table, _, _ = strings.Cut(table, "\n#")
	names := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z0-9_]+)` \\|").FindAllStringSubmatch(table, -1) {
		names[m[1]] = true
	}
	if len(names) < 20 {
		t.Fatalf("%s has only %d settings", program, len(names))
	}
	return names
}

var assignment = regexp.MustCompile(`(?m)^#?([A-Z][A-Z0-9_]+)=`)

func TestEnvironmentFilesHaveRealSettings(t *testing.T) {
	for _, program := range []string{"dispatcher", "consumer"} {
		known := settingsOf(t, program)
		text, err := os.ReadFile(filepath.Join("systemd", program+".env"))
		if err != nil {
			t.Fatal(err)
		}
		all := assignment.FindAllStringSubmatch(string(text), -1)
		if len(all) < 5 {
			t.Errorf("%s.env sets only %d variables", program, len(all))
		}
		for _, m := range all {
			if !known[m[1]] {
				t.Errorf("%s.env: %s is no setting", program, m[1])
			}
		}
	}
}

func TestComposeHasRealSettings(t *testing.T) {
	text, err := os.ReadFile("compose/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Services map[string]struct {
			Environment map[string]string
			Volumes     []string
			Network     string `yaml:"network_mode"`
			Ports       []string
		}
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"dispatcher", "consumer"} {
		known := settingsOf(t, program)
		for name := range file.Services[program].Environment {
			if !known[name] {
				t.Errorf("%s: %s is no setting", program, name)
			}
		}
	}
	for name, s := range file.Services {
		for _, p := range s.Ports {
			if !strings.HasPrefix(p, "127.0.0.1:") {
				t.Errorf("%s publishes %s beyond this machine", name, p)
			}
		}
		for _, v := range s.Volumes {
			host, _, _ := strings.Cut(v, ":")
			if !strings.HasPrefix(host, ".") {
				continue
			}
			if _, err := os.Stat(filepath.Join("compose", host)); err != nil {
				t.Errorf("%s mounts what is not there: %v", name, err)
			}
		}
	}
}

// systemd itself reads the units.
func TestUnits(t *testing.T) {
	verifier, err := exec.LookPath("systemd-analyze") //nolint:misspell // its name
	if err != nil {
		t.Skip("systemd is not here: the units were not verified")
	}
	dir := t.TempDir()
	for _, program := range []string{"dispatcher", "consumer"} {
		name := "sealfleet-" + program + ".service"
		text, err := os.ReadFile(filepath.Join("systemd", name))
		if err != nil {
			t.Fatal(err)
		}
		unit := string(text)
		if !strings.Contains(unit, "ExecStart=/usr/local/bin/"+program+" serve\n") || !strings.Contains(unit, "Restart=always\n") {
			t.Errorf("%s does not start %s, or not again", name, program)
		}
		// The programs are not installed where the tests run.
		unit = strings.ReplaceAll(unit, "/usr/local/bin/"+program+" serve", "/bin/true")
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(unit), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), verifier, "verify", "--man=no", path).CombinedOutput()
		if err != nil || strings.Contains(string(out), path) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// The consumer's phases outlive it: a unit that killed the whole group would lose them,
// and one that gave a stop less time than a drain takes would, too.
func TestConsumerUnitLetsPhasesLive(t *testing.T) {
	unit, err := os.ReadFile("systemd/sealfleet-consumer.service")
	if err != nil {
		t.Fatal(err)
	}
	env, err := os.ReadFile("systemd/consumer.env")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(unit), "\nKillMode=process\n") || strings.Contains(string(unit), "\nPrivateTmp=yes") {
		t.Error("phases would not outlive the consumer")
	}
	drain := duration(t, string(env), "DRAIN_TIMEOUT")
	if stop := duration(t, string(unit), "TimeoutStopSec"); stop < drain+30*time.Second {
		t.Errorf("a stop has %s, a drain takes %s", stop, drain)
	}
}

func duration(t *testing.T, text, name string) time.Duration {
	t.Helper()
	m := regexp.MustCompile(`(?m)^` + name + `=(\S+)$`).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("no %s", name)
	}
	d, err := time.ParseDuration(strings.Replace(m[1], "min", "m", 1))
	if err != nil {
		t.Fatal(err)
	}
	return d
}
