// Package command is what the command lines of the programs have in common.
package command

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"sealfleet/internal/version"
)

// UsageError is an error of whoever typed the command or wrote the settings: exit code 2.
type UsageError struct{ Err error }

func (e UsageError) Error() string { return e.Err.Error() }
func (e UsageError) Unwrap() error { return e.Err }

// Usagef makes a UsageError.
func Usagef(format string, args ...any) error { return UsageError{Err: fmt.Errorf(format, args...)} }

// Args makes an argument check's error one of usage.
func Args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, a []string) error {
		if err := check(cmd, a); err != nil {
			return Usagef("%w (see: %s --help)", err, cmd.CommandPath())
		}
		return nil
	}
}

// Root makes a program's root command, which without a verb shows its help, with the verbs
// version and man.
func Root(name, short, long string) *cobra.Command {
	root := &cobra.Command{
		Use: name, Short: short, Long: long, SilenceUsage: true, SilenceErrors: true,
		Args: Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return UsageError{Err: err} })
	root.AddCommand(versionOf(name), manOf(name))
	return root
}

func versionOf(name string) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %s (%s, %s/%s)\n", name, version.String(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

func manOf(name string) *cobra.Command {
	return &cobra.Command{
		Use:    "man DIRECTORY",
		Short:  "Write the man pages to a directory",
		Hidden: true,
		Args:   Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			if err := os.MkdirAll(a[0], 0o755); err != nil {
				return err
			}
			cmd.Root().DisableAutoGenTag = true // a date would make each build another
			return doc.GenManTree(cmd.Root(), &doc.GenManHeader{Title: strings.ToUpper(name), Section: "1", Source: "sealfleet " + version.String()}, a[0])
		},
	}
}
