package alerts

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"sealfleet/internal/settings"
)

// Config is where alarms go, and how often is looked.
type Config struct {
	Webhook   string        `env:"ALERT_WEBHOOK" secret:"true" desc:"URL that alarms are posted to as Alertmanager's webhook JSON (version 4); if it ends in /api/v2/alerts, as an Alertmanager takes them; empty: only the bus is told" example:"https://alerts.example/hook"`
	TokenFile string        `env:"ALERT_WEBHOOK_TOKEN_FILE" desc:"file with the bearer token for ALERT_WEBHOOK" example:"/etc/sealfleet/alerts.token"`
	Every     time.Duration `env:"ALERT_EVERY" envDefault:"15s" desc:"how often is looked for what is wrong" example:"15s"`
	Repeat    time.Duration `env:"ALERT_REPEAT" envDefault:"4h" desc:"how soon an alarm that still stands is told again; an Alertmanager is told every minute" example:"4h"`
	Runbooks  string        `env:"ALERT_RUNBOOKS" envDefault:"docs/runbooks/" desc:"what stands before a runbook's file name in an alarm's link" example:"https://wiki.example/sealfleet/runbooks/"`

	token string
}

// Validate refuses what cannot work, and reads the token.
func (c *Config) Validate() error {
	fault := func(name, value, example, format string, args ...any) error {
		return &settings.Fault{Name: name, Value: value, Example: example, Err: fmt.Errorf(format, args...)}
	}
	var faults []error
	if c.Every < time.Second || c.Every > time.Hour {
		faults = append(faults, fault("ALERT_EVERY", c.Every.String(), "15s", "use 1s to 1h"))
	}
	if c.Repeat < time.Minute {
		faults = append(faults, fault("ALERT_REPEAT", c.Repeat.String(), "4h", "use 1m or more"))
	}
	u, err := url.Parse(c.Webhook)
	if err != nil || c.Webhook != "" && (u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		// Its value may hold a secret, and is not shown.
		faults = append(faults, fault("ALERT_WEBHOOK", "", "https://alerts.example/hook", "not an http or https URL"))
		return errors.Join(faults...)
	}
	if c.TokenFile == "" {
		return errors.Join(faults...)
	}
	if c.Webhook == "" {
		faults = append(faults, fault("ALERT_WEBHOOK_TOKEN_FILE", c.TokenFile, "", "ALERT_WEBHOOK is empty: set both or none"))
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme == "http" && u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		faults = append(faults, fault("ALERT_WEBHOOK_TOKEN_FILE", c.TokenFile, "", "the token would go to ALERT_WEBHOOK in clear: use https"))
	}
	text, err := os.ReadFile(c.TokenFile)
	if c.token = strings.TrimSpace(string(text)); err == nil && c.token == "" {
		err = errors.New("the file is empty")
	}
	if err != nil {
		faults = append(faults, fault("ALERT_WEBHOOK_TOKEN_FILE", c.TokenFile, "/etc/sealfleet/alerts.token", "%w", err))
	}
	return errors.Join(faults...)
}

// Runbook is the link to an alarm's page.
func (c *Config) Runbook(name string) string { return c.Runbooks + Page(name) }
