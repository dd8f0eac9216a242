package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"sealfleet/internal/bus"
	"sealfleet/internal/command"
)

func busCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bus",
		Short: "Show or make the streams and consumers, or reach them with the nats CLI",
		Args:  command.Args(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		planCommand("plan", "Show what apply would make or change", (*bus.Bus).Plan),
		planCommand("apply", "Make the streams and consumers that are missing, and change those that sealfleet made", (*bus.Bus).Apply),
		envCommand(),
	)
	return cmd
}

func planCommand(name, short string, do func(*bus.Bus, context.Context, []string) ([]bus.Change, error)) *cobra.Command {
	var groups []string
	cmd := &cobra.Command{
		Use:   name,
		Short: short,
		Args:  command.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := groupsOf(groups)
			if err != nil {
				return err
			}
			if _, err := outputOf(cmd); err != nil {
				return err
			}
			return runVerb(cmd, func(ctx context.Context, v *verb) error {
				ctx, cancel := soon(ctx)
				defer cancel()
				changes, err := do(v.bus, ctx, list)
				if serr := show(cmd, changes, []string{"KIND", "NAME", "ACTION", "DETAIL"}, func(c bus.Change) []string {
					return []string{c.Kind, c.Name, c.Action, dash(c.Detail)}
				}); err == nil {
					err = serr
				}
				return err
			})
		},
	}
	cmd.Flags().StringSliceVar(&groups, "group", nil, "groups; default: those of SEAL_GROUPS, or group1")
	return withOutput(cmd)
}

func groupsOf(flags []string) (groupList, error) {
	text := strings.Join(flags, ",")
	if text == "" {
		text = os.Getenv("SEAL_GROUPS")
	}
	if text == "" {
		text = "group1"
	}
	var list groupList
	if err := list.UnmarshalText([]byte(text)); err != nil {
		return nil, command.UsageError{Err: err}
	}
	return list, nil
}

func envCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "env",
		Short: "Print what to export so that the nats CLI reaches the bus",
		Example: `  eval "$(dispatcher bus env)"
  nats stream report`,
		Args: command.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var cfg verbConfig
			if err := load(&cfg, &cfg.Bus); err != nil {
				return err
			}
			vars, err := natsEnv(cfg.Bus)
			if err != nil {
				return err
			}
			for _, v := range vars {
				line(cmd.OutOrStdout(), "export %s=%s", v[0], quote(v[1]))
			}
			return nil
		},
	}
}

// natsEnv are the variables by which this program reaches the bus, as the nats CLI reads
// them; for the embedded server, what that left in its directory.
func natsEnv(c bus.Config) ([][2]string, error) {
	if c.URL == "" {
		dir := filepath.Join(c.StateDir, "nats")
		text, err := os.ReadFile(filepath.Join(dir, "server.json"))
		if err != nil {
			return nil, fmt.Errorf("%w: no dispatcher with an embedded server has run here: %w (mend: set STATE_DIR to that of the dispatcher, or NATS_URL)", bus.ErrUnreachable, err)
		}
		var local struct {
			URL  string `json:"url"`
			Seed string `json:"dispatcher_seed"`
		}
		if err := json.Unmarshal(text, &local); err != nil {
			return nil, fmt.Errorf("%s: %w", dir, err)
		}
		c.URL = local.URL
		if c.Nkey == "" && c.Creds == "" && c.User == "" && c.Token == "" {
			c.Nkey = filepath.Join(dir, local.Seed)
		}
	}
	var vars [][2]string
	for _, v := range [][2]string{
		{"NATS_URL", c.URL}, {"NATS_CREDS", c.Creds}, {"NATS_NKEY", c.Nkey}, {"NATS_CERT", c.Cert}, {"NATS_KEY", c.Key},
		{"NATS_CA", c.CA}, {"NATS_USER", c.User}, {"NATS_PASSWORD", c.Password}, {"NATS_TOKEN", c.Token},
	} {
		if v[1] != "" {
			vars = append(vars, v)
		}
	}
	return vars, nil
}

// quote makes a text one word of a shell.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
