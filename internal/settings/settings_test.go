package settings

import (
	"errors"
	"strings"
	"testing"
	"time"
)

type bus struct {
	URL string `env:"NATS_URL" desc:"server" example:"nats://127.0.0.1:4222"`
}

type config struct {
	Bus     bus
	Workers string        `env:"WORKERS" envDefault:"1:p1" desc:"slots" example:"10:p1;1:p2,p3"`
	Wait    time.Duration `env:"FETCH_WAIT" envDefault:"60s" desc:"longest wait" example:"30s"`
	Listen  string        `env:"HTTP_LISTEN" desc:"address" example:"127.0.0.1:9470"`
	Token   int           `env:"NATS_TOKEN" desc:"a secret" secret:"true"`
	refuse  error
}

func (c *config) Validate() error { return c.refuse }

func load(t *testing.T, environ map[string]string) (config, error) {
	t.Helper()
	var c config
	err := LoadFrom(&c, environ)
	return c, err
}

func TestDefaultsAndValues(t *testing.T) {
	c, err := load(t, map[string]string{"NATS_URL": "nats://x", "WORKERS": ""})
	if err != nil {
		t.Fatal(err)
	}
	if c.Workers != "1:p1" || c.Wait != time.Minute || c.Bus.URL != "nats://x" {
		t.Fatalf("got %+v", c)
	}
}

func TestMalformedValueNamesVariableValueAndExample(t *testing.T) {
	_, err := load(t, map[string]string{"FETCH_WAIT": "soon"})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"FETCH_WAIT", `"soon"`, `example: FETCH_WAIT="30s"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
}

func TestMisspeltVariableIsRefused(t *testing.T) {
	for name, want := range map[string]string{
		"WORKER": "WORKERS", "WOKRERS": "WORKERS", "workers": "WORKERS", "FETCHWAIT": "FETCH_WAIT",
		"HTTP_LISTENS": "HTTP_LISTEN", "NATS_URLS": "NATS_URL",
	} {
		_, err := load(t, map[string]string{name: "1"})
		if err == nil || !strings.Contains(err.Error(), "did you mean "+want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"NATS_PORT", "HOME", "PATH", "NATS_SERVICE_HOST", "STATE_DIRECTORY"} {
		if _, err := load(t, map[string]string{name: "1"}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSecretIsNotShown(t *testing.T) {
	_, err := load(t, map[string]string{"NATS_TOKEN": "hunter2"})
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Fatalf("got %v", err)
	}
}

func TestValidateIsCalledAndAllFaultsAreTold(t *testing.T) {
	c := config{refuse: errors.New("no")}
	if err := LoadFrom(&c, nil); err == nil || err.Error() != "no" {
		t.Fatalf("got %v", err)
	}
	_, err := load(t, map[string]string{"FETCH_WAIT": "soon", "WORKER": "1"})
	if err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Fatalf("want two faults, got %v", err)
	}
}

func TestTables(t *testing.T) {
	var text, md strings.Builder
	if err := errors.Join(Table(&text, &config{}), Markdown(&md, &config{})); err != nil {
		t.Fatal(err)
	}
	for _, v := range Variables(&config{}) {
		if !strings.Contains(text.String(), v.Name) || !strings.Contains(md.String(), "`"+v.Name+"`") {
			t.Errorf("%s is missing", v.Name)
		}
	}
	if Variables(&config{})[0].Name != "NATS_URL" {
		t.Error("nested settings must keep their place")
	}
}
