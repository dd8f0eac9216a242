// Package logs makes the program's logger: coloured text on a terminal, JSON lines
// elsewhere, with the same attribute names everywhere.
package logs

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/lmittmann/tint"
	"github.com/mattn/go-isatty"
)

// Names of the attributes that lines carry where they apply.
const (
	Group   = "group"
	Sector  = "sector"
	Phase   = "phase"
	Attempt = "attempt"
	Host    = "host"
)

// Config is how a program logs.
type Config struct {
	Level  slog.Level `env:"LOG_LEVEL" envDefault:"INFO" desc:"least severe line that is logged: DEBUG, INFO, WARN, ERROR" example:"DEBUG"`
	Format Format     `env:"LOG_FORMAT" envDefault:"auto" desc:"text, json, or auto: text on a terminal, JSON elsewhere" example:"json"`
}

// Format is how lines look.
type Format string

// The formats.
const (
	Auto Format = "auto"
	Text Format = "text"
	JSON Format = "json"
)

// UnmarshalText refuses what is not a format.
func (f *Format) UnmarshalText(text []byte) error {
	switch v := Format(text); v {
	case Auto, Text, JSON:
		*f = v
		return nil
	}
	return fmt.Errorf("unknown format: use auto, text or json")
}

// New returns a logger that writes to w.
func New(w io.Writer, c Config) *slog.Logger {
	terminal := isTerminal(w)
	if c.Format == Text || c.Format != JSON && terminal {
		return slog.New(tint.NewTextHandler(w, &tint.Options{Level: c.Level, TimeFormat: time.TimeOnly, NoColor: !terminal}))
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: c.Level}))
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}
