package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"sealfleet/internal/phases"
	"sealfleet/internal/sealcore/durable"
	"sealfleet/internal/sealcore/seal"
)

// Compare runs one bench with two engines over the same inputs, one after the other, in
// Dir/engine and Dir/compare. If its phases do not begin with p1, what Dir holds of the
// phases before is copied to both first.
type Compare struct {
	Bench
	Engines  [2]Choice // the one that is judged, and the one that it is compared with
	Builtin  Engine
	Settings Exec // of programs

	benches [2]Bench
}

// Comparison is what a comparison found; its JSON is a contract.
type Comparison struct {
	Engine  Contender `json:"engine"`
	Compare Contender `json:"compare"`
	// Agree: every output and file is the same. Proofs of p4 are random: each is verified,
	// and they are not compared.
	Agree   bool               `json:"agree"`
	Outputs map[string]Verdict `json:"outputs"`
	Files   map[string]Verdict `json:"files"`
	// Ratio is Engine's seconds over Compare's: 0.5 means that it took half the time.
	Ratio map[phases.Step]float64 `json:"ratio"`
}

// Contender is one engine's part.
type Contender struct {
	Name   string  `json:"name"`
	Dir    string  `json:"dir"`
	Report *Report `json:"report"` // its seconds are the engine's own
	// CheckSeconds is what the verification of a program's claims took besides.
	CheckSeconds map[phases.Step]float64 `json:"check_seconds,omitempty"`
}

// Verdict says whether the two have the same.
type Verdict string

// The verdicts.
const (
	Same      Verdict = "same"
	SameForm  Verdict = "same structure" // it names the directory that it lies in
	Different Verdict = "different"
	Missing   Verdict = "missing" // from one of them
)

var compareDirs = [2]string{"engine", "compare"}

// Check refuses before any work what can't be done, and lays out the two directories.
func (c *Compare) Check() error {
	if c.Dir == "" {
		return c.Bench.Check() // which says so among the other faults
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return err
	}
	c.Dir = dir
	for i, name := range compareDirs {
		b := c.Bench
		b.Dir = filepath.Join(c.Dir, name)
		if len(b.Phases) > 0 && b.Phases[0] != phases.P1 {
			if err := copyBench(c.Dir, b.Dir); err != nil {
				return fmt.Errorf("--dir: %w", err)
			}
		}
		if err := b.Check(); err != nil {
			return err
		}
		c.benches[i] = b
	}
	return nil
}

// Run runs both. Check must have passed. progress may be nil; its first argument is the
// engine's name.
func (c *Compare) Run(ctx context.Context, progress func(string, phases.Step, Progress)) (*Comparison, error) {
	out := &Comparison{}
	for i, contender := range []*Contender{&out.Engine, &out.Compare} {
		b := &c.benches[i]
		*contender = Contender{Name: c.Engines[i].String(), Dir: b.Dir, CheckSeconds: map[phases.Step]float64{}}
		settings, ran := c.Settings, map[phases.Step]float64{}
		settings.Timed = func(p phases.Step, run, checked time.Duration) {
			ran[p], contender.CheckSeconds[p] = run.Seconds(), checked.Seconds()
		}
		b.Engine = c.Engines[i].Engine(c.Builtin, settings)
		report, err := b.Run(ctx, func(p phases.Step, g Progress) {
			if progress != nil {
				progress(contender.Name, p, g)
			}
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", contender.Name, err)
		}
		for p, s := range ran {
			report.Seconds[p] = s
		}
		contender.Report = report
	}
	return out, out.judge(c.benches)
}

// judge compares the two reports.
func (c *Comparison) judge(benches [2]Bench) error {
	a, b := c.Engine.Report, c.Compare.Report
	c.Outputs, c.Files, c.Ratio = map[string]Verdict{}, map[string]Verdict{}, map[phases.Step]float64{}
	for _, o := range []struct{ name, a, b string }{
		{"comm_d", a.CommD, b.CommD}, {"comm_r", a.CommR, b.CommR}, {"comm_c", a.CommC, b.CommC}, {"comm_r_last", a.CommRLast, b.CommRLast},
		{"replica_id", a.ReplicaID, b.ReplicaID}, {"c1_json_sha256", a.C1JSONSHA256, b.C1JSONSHA256}, {"snark", a.SNARK, b.SNARK},
		{"pieces", fmt.Sprint(a.Pieces), fmt.Sprint(b.Pieces)},
	} {
		switch {
		case o.a == "" && o.b == "": // of a phase that was not run
		case o.a == o.b:
			c.Outputs[o.name] = Same
		default:
			c.Outputs[o.name] = Different
		}
	}
	for name, fact := range a.Files {
		other, there := b.Files[name]
		switch {
		case !there:
			c.Files[name] = Missing
		case fact == other:
			c.Files[name] = Same
		default:
			c.Files[name] = Different
		}
	}
	for name := range b.Files {
		if _, there := a.Files[name]; !there {
			c.Files[name] = Missing
		}
	}
	for name, read := range map[string]func(Bench) (any, error){seal.TAuxName: readTAux, "p1.json": readP1JSON} {
		v, err := sameForm(benches, read)
		if err != nil {
			return err
		}
		if v != "" && c.Files[name] != Same {
			c.Files[name] = v
		}
	}
	for p, s := range a.Seconds {
		if b.Seconds[p] > 0 {
			c.Ratio[p] = s / b.Seconds[p]
		}
	}
	c.Agree = true
	for _, verdicts := range []map[string]Verdict{c.Outputs, c.Files} {
		for _, v := range verdicts {
			c.Agree = c.Agree && (v == Same || v == SameForm)
		}
	}
	return nil
}

// sameForm compares files that name their own directory; nothing if neither has them.
func sameForm(benches [2]Bench, read func(Bench) (any, error)) (Verdict, error) {
	var found [2]any
	absent := 0
	for i, b := range benches {
		var err error
		if found[i], err = read(b); errors.Is(err, fs.ErrNotExist) {
			absent++
		} else if err != nil {
			return "", err
		}
	}
	switch {
	case absent == 2:
		return "", nil
	case absent == 1:
		return Missing, nil
	case reflect.DeepEqual(found[0], found[1]):
		return SameForm, nil
	}
	return Different, nil
}

func readTAux(b Bench) (any, error) {
	data, err := os.ReadFile(filepath.Join(b.paths().Cache, seal.TAuxName))
	if err != nil {
		return nil, err
	}
	t, err := seal.ParseTAux(data)
	return t.In(""), err
}

func readP1JSON(b Bench) (any, error) {
	data, err := os.ReadFile(b.paths().P1JSON)
	if err != nil {
		return nil, err
	}
	p1, err := seal.ParsePreCommit1(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.paths().P1JSON, err)
	}
	p1.Cache = ""
	return *p1, nil
}

// copyBench copies what a bench's directory holds. The copies are whole files of their
// own: an engine that changes its inputs must not change the other's.
func copyBench(from, to string) error {
	if err := os.MkdirAll(filepath.Join(to, "cache"), 0o755); err != nil {
		return err
	}
	names := []string{"unsealed", "sealed", "p1.json", "c1.json"}
	entries, err := os.ReadDir(filepath.Join(from, "cache"))
	if err != nil {
		return fmt.Errorf("%w: run the phases before there first", err)
	}
	for _, e := range entries {
		if e.Type().IsRegular() && e.Name()[0] != '.' {
			names = append(names, filepath.Join("cache", e.Name()))
		}
	}
	for _, name := range names {
		if err := copyWhole(filepath.Join(from, name), filepath.Join(to, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func copyWhole(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := durable.Create(to)
	if err != nil {
		return err
	}
	defer func() { _ = dst.Abort() }() // nothing once it is committed
	if _, err := io.Copy(dst.File, src); err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	return dst.Commit()
}
