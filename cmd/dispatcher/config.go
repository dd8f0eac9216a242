package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sealfleet/internal/alerts"
	"sealfleet/internal/bus"
	"sealfleet/internal/chain"
	"sealfleet/internal/command"
	"sealfleet/internal/host"
	"sealfleet/internal/logs"
	"sealfleet/internal/phases"
	"sealfleet/internal/settings"
	"sealfleet/internal/web"
)

// groupList is a list of groups, separated by commas.
type groupList []string

// UnmarshalText reads "group1,group2"; a bare number N is groupN.
func (g *groupList) UnmarshalText(text []byte) error {
	var list groupList
	for word := range strings.SplitSeq(string(text), ",") {
		name, err := phases.ParseGroup(strings.TrimSpace(word))
		if err != nil {
			return err
		}
		if !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	*g = list
	return nil
}

// policyConfig is the part of the settings that decides where a sector stands.
type policyConfig struct {
	MaxAttempts       int           `env:"MAX_ATTEMPTS" envDefault:"3" desc:"attempts of a phase before its sector is parked for an operator" example:"3"`
	RetryDelay        time.Duration `env:"RETRY_DELAY" envDefault:"15s" desc:"wait after a phase's first failure; doubles with each" example:"1m"`
	TransientDelay    time.Duration `env:"TRANSIENT_DELAY" envDefault:"30s" desc:"wait after a failure of the world around (space, network), which spends no attempt; doubles with each" example:"1m"`
	MaxDelay          time.Duration `env:"MAX_DELAY" envDefault:"15m" desc:"longest of those waits" example:"15m"`
	CleanBeforeCommit bool          `env:"CLEAN_BEFORE_COMMIT" envDefault:"false" desc:"p6 need not wait until the proof is on chain" example:"true"`
	HoldP1            int           `env:"BACKLOG_P1_HOLD" envDefault:"200" desc:"sectors of a group that may be between p1 and p6 before no further one is started; 0: any number; the same for all dispatchers" example:"40"`
	Window            int           `env:"RELEASE_WINDOW" envDefault:"64" desc:"unclaimed tasks of a group's phase that are in the task stream at once, those with the earliest deadlines; the others follow as hosts claim; 0: all, in the order of their issue" example:"64"`
}

// window is the dispatcher's option.
func (c policyConfig) window() int {
	if c.Window == 0 {
		return -1
	}
	return c.Window
}

func (c policyConfig) policy() phases.Policy {
	return phases.Policy{
		MaxAttempts: c.MaxAttempts, CleanBeforeCommit: c.CleanBeforeCommit,
		RetryDelay: c.RetryDelay, TransientDelay: c.TransientDelay, MaxDelay: c.MaxDelay,
	}
}

func (c policyConfig) validate() error {
	if c.MaxAttempts < 1 {
		return &settings.Fault{Name: "MAX_ATTEMPTS", Value: fmt.Sprint(c.MaxAttempts), Example: "3", Err: errors.New("must be 1 or more")}
	}
	if c.HoldP1 < 0 {
		return &settings.Fault{Name: "BACKLOG_P1_HOLD", Value: fmt.Sprint(c.HoldP1), Example: "40", Err: errors.New("cannot be negative (0: no limit)")}
	}
	if c.Window < 0 {
		return &settings.Fault{Name: "RELEASE_WINDOW", Value: fmt.Sprint(c.Window), Example: "64", Err: errors.New("cannot be negative (0: all)")}
	}
	for name, d := range map[string]time.Duration{"RETRY_DELAY": c.RetryDelay, "TRANSIENT_DELAY": c.TransientDelay, "MAX_DELAY": c.MaxDelay} {
		if d < 0 {
			return &settings.Fault{Name: name, Value: d.String(), Example: "1m", Err: errors.New("cannot be negative")}
		}
	}
	return nil
}

// serveConfig are the settings of serve.
type serveConfig struct {
	Groups     groupList `env:"SEAL_GROUPS" envDefault:"group1" desc:"groups of hosts that there are; a bare number N is groupN" example:"group1,group2"`
	Name       string    `env:"DISPATCHER_NAME" desc:"this dispatcher's name in the events; empty: the system's host name" example:"d1"`
	HTTPListen string    `env:"HTTP_LISTEN" envDefault:"127.0.0.1:9470" desc:"address of the web page, the API under /v1, /metrics, /livez and /readyz; off: none" example:"127.0.0.1:9470"`
	HTTP       web.Access
	Policy     policyConfig
	Sweep      time.Duration `env:"SWEEP_EVERY" envDefault:"15s" desc:"how often to look for tasks that are missing in the task stream" example:"1m"`
	Silence    time.Duration `env:"TASK_SILENCE" envDefault:"10m" desc:"how long a task's chain may be silent before the task is published again, if it is gone from the stream or its holder does not live" example:"10m"`
	Bus        bus.Config
	Server     bus.ServerConfig
	Chain      chain.DevConfig
	Parameters string `env:"FIL_PROOFS_PARAMETER_CACHE" envDefault:"/var/tmp/filecoin-proof-parameters" desc:"directory with the verifying keys (.vk) under which the development chain checks proofs" example:"/var/tmp/filecoin-proof-parameters"`
	SelfMade   bool   `env:"ALLOW_SELF_MADE_PARAMETERS" envDefault:"false" desc:"let the development chain check 32 and 64 GiB sectors under keys that Filecoin has not published" example:"true"`
	Alerts     alerts.Config
	Log        logs.Config
}

// Validate refuses what cannot work, and fills in what the machine knows.
func (c *serveConfig) Validate() error {
	if c.Name == "" {
		name, err := host.Name()
		if err != nil {
			return fmt.Errorf("DISPATCHER_NAME: %w", err)
		}
		c.Name = name
	}
	if err := host.CheckName(c.Name); err != nil {
		return &settings.Fault{Name: "DISPATCHER_NAME", Value: c.Name, Example: "d1", Err: err}
	}
	if c.Sweep <= 0 {
		return &settings.Fault{Name: "SWEEP_EVERY", Value: c.Sweep.String(), Example: "15s", Err: errors.New("must be positive")}
	}
	if c.Silence <= 0 {
		return &settings.Fault{Name: "TASK_SILENCE", Value: c.Silence.String(), Example: "10m", Err: errors.New("must be positive")}
	}
	return errors.Join(c.Policy.validate(), c.Chain.Validate(), c.Alerts.Validate())
}

// verbConfig are the settings of the operator's verbs.
type verbConfig struct {
	Policy policyConfig
	Farm   farmConfig
	Bus    bus.Config
	Log    logs.Config
}

// Validate refuses what cannot work.
func (c *verbConfig) Validate() error { return errors.Join(c.Policy.validate(), c.Farm.validate()) }

func load(cfg any, b *bus.Config) error {
	if err := settings.Load(cfg); err != nil {
		return command.UsageError{Err: err}
	}
	if os.Getenv("STATE_DIR") == "" {
		b.StateDir = host.StateDir(b.StateDir)
	}
	return nil
}

// withTable adds the environment variables to a command's help.
func withTable(root *cobra.Command) {
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, a []string) {
		help(cmd, a)
		var cfg any = &verbConfig{}
		switch cmd.Name() {
		case "serve", "dispatcher":
			cfg = &serveConfig{}
		case "version", "man", "completion", "help", "bash", "zsh", "fish", "powershell":
			return
		}
		out := cmd.OutOrStdout()
		fmt.Fprintln(out, "\nEnvironment (STATE_DIR's default is ~/.local/state/sealfleet for other users than root):")
		_ = settings.Table(out, cfg) // the terminal has gone: nobody is left to tell
	})
}

// verb is what an operator's verb works with.
type verb struct {
	cfg    verbConfig
	policy phases.Policy
	bus    *bus.Bus
	who    string // for the audit: user-host, as in the name of the actor
}

// runVerb connects within a short time, runs f, and closes the connection.
func runVerb(cmd *cobra.Command, f func(ctx context.Context, v *verb) error) error {
	var v verb
	if err := load(&v.cfg, &v.cfg.Bus); err != nil {
		return err
	}
	v.policy = v.cfg.Policy.policy()
	v.who = whoami()
	log := slog.New(slog.DiscardHandler)
	if v.cfg.Log.Level < slog.LevelInfo {
		log = logs.New(cmd.ErrOrStderr(), v.cfg.Log)
	}
	patience, err := cmd.Flags().GetDuration("timeout")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), patience)
	defer cancel()
	b, err := bus.Connect(ctx, v.cfg.Bus, "dispatcher-"+cmd.Name(), log)
	if err != nil {
		return err
	}
	defer b.Close()
	v.bus = b
	return f(cmd.Context(), &v)
}

// soon limits what should be quick, so that a lost connection ends the verb.
func soon(ctx context.Context) (context.Context, context.CancelFunc) {
	const patience = time.Minute
	return context.WithTimeout(ctx, patience)
}

func whoami() string {
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if h, err := host.Name(); err == nil {
		name += "@" + h
	}
	return name
}

// line writes one line of text.
func line(w io.Writer, format string, a ...any) { fmt.Fprintf(w, format+"\n", a...) }
