// Package settings reads a program's environment variables into a struct and tells
// people what they are.
//
// A setting is a field with the tags of caarlos0/env (env, envDefault) and two of ours:
// desc says what it is for, example shows a good value. A malformed value is refused
// with its name, its value and the example; so is a variable that is not a setting but
// looks like one misspelt, because a farm that ran for a day on a default that nobody
// meant has lost the day.
package settings

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"sort"
	"strings"
	"text/tabwriter"

	"github.com/agnivade/levenshtein"
	"github.com/caarlos0/env/v10"
)

// Variable is one setting as people see it.
type Variable struct {
	Name    string `json:"name"`
	Default string `json:"default"`
	Example string `json:"example"`
	Desc    string `json:"desc"`
	field   string
	secret  bool
}

// Load fills cfg, a pointer to a struct, from the environment.
func Load(cfg any) error { return LoadFrom(cfg, env.ToMap(os.Environ())) }

// LoadFrom fills cfg from the given variables. All faults are reported at once.
func LoadFrom(cfg any, environ map[string]string) error {
	vars := Variables(cfg)
	// An empty variable means "not set": systemd and compose files often have them.
	set := make(map[string]string, len(environ))
	for k, v := range environ {
		if v != "" {
			set[k] = v
		}
	}
	faults := misspelt(vars, set)
	if err := env.ParseWithOptions(cfg, env.Options{Environment: set}); err != nil {
		faults = append(faults, explain(err, vars, set)...)
	}
	if v, ok := cfg.(interface{ Validate() error }); ok && len(faults) == 0 {
		if err := v.Validate(); err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

// Fault is a value that a setting refuses. Validate methods return it, so that every
// refusal reads the same.
type Fault struct {
	Name, Value, Example string
	Err                  error
}

func (f *Fault) Error() string {
	text := f.Name
	if f.Value != "" {
		text += fmt.Sprintf("=%q", f.Value)
	}
	text += ": " + f.Err.Error()
	if f.Example != "" {
		text += fmt.Sprintf(" (example: %s=%q)", f.Name, f.Example)
	}
	return text
}

// Unwrap returns the reason.
func (f *Fault) Unwrap() error { return f.Err }

func explain(err error, vars []Variable, environ map[string]string) []error {
	agg := env.AggregateError{}
	if !errors.As(err, &agg) {
		return []error{err}
	}
	faults := make([]error, 0, len(agg.Errors))
	for _, e := range agg.Errors {
		var parse env.ParseError
		if !errors.As(e, &parse) {
			faults = append(faults, e)
			continue
		}
		faults = append(faults, faultOf(parse, vars, environ))
	}
	return faults
}

func faultOf(parse env.ParseError, vars []Variable, environ map[string]string) error {
	for _, v := range vars {
		value, isSet := environ[v.Name]
		if v.field != parse.Name || !isSet {
			continue
		}
		if v.secret { // the reason may quote the value
			return &Fault{Name: v.Name, Example: v.Example, Err: errors.New("malformed value (not shown: it is a secret)")}
		}
		return &Fault{Name: v.Name, Value: value, Example: v.Example, Err: parse.Err}
	}
	return parse
}

// misspelt finds variables that are no setting but nearly one.
func misspelt(vars []Variable, environ map[string]string) []error {
	known := make(map[string]bool, len(vars))
	for _, v := range vars {
		known[v.Name] = true
	}
	var faults []error
	for name := range environ {
		if known[name] {
			continue
		}
		for _, v := range vars {
			if looksLike(name, v.Name) {
				faults = append(faults, &Fault{
					Name: name, Value: "",
					Err: fmt.Errorf("unknown variable; did you mean %s? (example: %s=%q)", v.Name, v.Name, v.Example),
				})
				break
			}
		}
	}
	slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return faults
}

func looksLike(got, want string) bool {
	const shortest = 5 // below it, half of all names are alike
	if len(want) < shortest || len(got) < shortest {
		return false
	}
	allowed := 1
	if len(want) >= 10 {
		allowed = 2
	}
	if strings.EqualFold(got, want) {
		return true
	}
	d := levenshtein.ComputeDistance(got, want)
	return d <= allowed || d == 2 && sortedLetters(got) == sortedLetters(want)
}

func sortedLetters(s string) string {
	letters := strings.Split(s, "")
	sort.Strings(letters)
	return strings.Join(letters, "")
}

// Variables lists the settings of cfg, a struct or a pointer to one, in the order of its
// fields, nested structs included.
func Variables(cfg any) []Variable {
	t := reflect.TypeOf(cfg)
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	var vars []Variable
	for i := range t.NumField() {
		f := t.Field(i)
		tag, isVar := f.Tag.Lookup("env")
		if isVar {
			name, _, _ := strings.Cut(tag, ",")
			vars = append(vars, Variable{
				Name: name, Default: f.Tag.Get("envDefault"), Example: f.Tag.Get("example"),
				Desc: f.Tag.Get("desc"), field: f.Name, secret: f.Tag.Get("secret") == "true",
			})
			continue
		}
		if f.Type.Kind() == reflect.Struct && f.IsExported() {
			vars = append(vars, Variables(reflect.New(f.Type).Interface())...)
		}
	}
	return vars
}

// Table writes the settings of cfg as people read them in a terminal.
func Table(w io.Writer, cfg any) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "VARIABLE\tDEFAULT\tEXAMPLE\tWHAT")
	for _, v := range Variables(cfg) {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", v.Name, orDash(v.Default), orDash(v.Example), v.Desc)
	}
	return tw.Flush()
}

// Markdown writes the settings of cfg as the README has them.
func Markdown(w io.Writer, cfg any) error {
	var text strings.Builder
	text.WriteString("| variable | default | example | what |\n|---|---|---|---|\n")
	cell := func(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
	code := func(s string) string {
		if s == "" {
			return ""
		}
		return "`" + cell(s) + "`"
	}
	for _, v := range Variables(cfg) {
		fmt.Fprintf(&text, "| `%s` | %s | %s | %s |\n", v.Name, code(v.Default), code(v.Example), cell(v.Desc))
	}
	_, err := io.WriteString(w, text.String())
	return err
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
