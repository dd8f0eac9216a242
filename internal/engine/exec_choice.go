package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"sealfleet/internal/phases"
)

// Choice says which engine does which phase, as the setting ENGINE does:
//
//	builtin                        every phase by sealcore
//	noop                           nothing at all, to measure the bus
//	exec:/path                     p1 to p4 by that program
//	p2=exec:/path,p4=exec:/path    these by programs, all others by sealcore
//
// p5 and p6 are never a program's: they copy and delete by receipt.
type Choice struct {
	text string
	noop bool
	exec map[phases.Step]string
}

// execPhases are those that another program may do.
var execPhases = []phases.Step{phases.P1, phases.P2, phases.P3, phases.P4}

const (
	builtinName = "builtin"
	noopName    = "noop"
	execPrefix  = "exec:"
)

// ParseChoice reads a choice and looks whether its programs can be run. All faults are
// reported at once.
func ParseChoice(text string) (Choice, error) {
	c := Choice{text: text, exec: map[phases.Step]string{}}
	switch text {
	case noopName:
		c.noop = true
		return c, nil
	case "":
		c.text = builtinName
		return c, nil
	}
	if !strings.Contains(text, "=") {
		path, err := parseProgram(text)
		for _, p := range execPhases {
			c.put(p, path)
		}
		return c, err
	}
	var faults []error
	seen := map[phases.Step]bool{}
	for entry := range strings.SplitSeq(text, ",") {
		name, value, found := strings.Cut(strings.TrimSpace(entry), "=")
		if !found {
			faults = append(faults, fmt.Errorf("entry %q: write phase=engine, as in p2=exec:/path", entry))
			continue
		}
		p, err := phases.ParsePhase(strings.TrimSpace(name))
		switch {
		case err != nil:
			faults = append(faults, err)
			continue
		case !slices.Contains(execPhases, p):
			faults = append(faults, fmt.Errorf("%s is done by this program alone: choose engines for p1 to p4", p))
			continue
		case seen[p]:
			faults = append(faults, fmt.Errorf("%s is given twice", p))
			continue
		}
		seen[p] = true
		path, err := parseProgram(strings.TrimSpace(value))
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", p, err))
		}
		c.put(p, path)
	}
	return c, errors.Join(faults...)
}

func (c *Choice) put(p phases.Step, path string) {
	if path != "" {
		c.exec[p] = path
	}
}

// parseProgram reads builtin (an empty path) or exec:/path.
func parseProgram(text string) (path string, err error) {
	if text == builtinName {
		return "", nil
	}
	path, found := strings.CutPrefix(text, execPrefix)
	if !found {
		return "", fmt.Errorf("engine %q is unknown: use builtin, exec:/path for a program, or noop for all phases to measure the bus", text)
	}
	return path, checkProgram(path)
}

// checkProgram tells why a program can't be an engine. Whoever may replace it could put
// anything in its place, so that others must not be allowed to write it.
func checkProgram(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("engine %q: give its absolute path", path)
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("engine %s does not exist: build it, or correct the path", path)
	case err != nil:
		return fmt.Errorf("engine %s: %w", path, err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("engine %s is no file", path)
	case unix.Access(path, unix.X_OK) != nil:
		return fmt.Errorf("engine %s is not executable for this user: chmod +x %s", path, path)
	case info.Mode().Perm()&0o002 != 0:
		return fmt.Errorf("engine %s may be changed by everybody (mode %o): chmod o-w %s", path, info.Mode().Perm(), path)
	}
	return nil
}

// String returns the choice as it was written.
func (c Choice) String() string { return c.text }

// Noop tells whether nothing is to be done at all.
func (c Choice) Noop() bool { return c.noop }

// Program returns the path of the program that does a phase, empty if sealcore does.
func (c Choice) Program(p phases.Step) string { return c.exec[p] }

// Engine returns the engine of the choice. builtin does what no program does; each
// program's Exec is settings with its path.
func (c Choice) Engine(builtin Engine, settings Exec) Engine {
	if c.noop {
		return Noop{}
	}
	if len(c.exec) == 0 {
		return builtin
	}
	m := mix{builtin: builtin, programs: map[phases.Step]Engine{}}
	for p, path := range c.exec {
		e := settings
		e.Path = path
		m.programs[p] = &e
	}
	return m
}
