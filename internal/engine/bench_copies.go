package engine

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"sealfleet/internal/phases"
	"sealfleet/internal/sealcore/seal"
)

// CopiesReport is what a bench of several sectors found; its JSON is a contract.
type CopiesReport struct {
	Copies  int                     `json:"copies"`
	Seconds map[phases.Step]float64 `json:"seconds"` // of all sectors together
	Sectors []*Report               `json:"sectors"`
}

// Copies returns n benches like b, which must be of Builtin: of the sectors from b.Number on, in
// the directories copy-1, copy-2 and so on of b.Dir. It checks each as Check does.
func (b *Bench) Copies(n int) ([]*Bench, error) {
	if b.Dir == "" {
		return nil, b.Check()
	}
	copies := make([]*Bench, n)
	for i := range copies {
		c := *b
		c.Number = b.Number + uint64(i)
		c.Dir = filepath.Join(b.Dir, fmt.Sprintf("copy-%d", i+1))
		if err := c.Check(); err != nil {
			return nil, err
		}
		copies[i] = &c
	}
	return copies, nil
}

// RunCopies runs the phases of all sectors: p1 as one batch, every other phase of one sector after
// the other. progress may be nil.
func RunCopies(ctx context.Context, copies []*Bench, progress func(sector uint64, p phases.Step, g Progress)) (*CopiesReport, error) {
	report := &CopiesReport{Copies: len(copies), Seconds: map[phases.Step]float64{}}
	if progress == nil {
		progress = func(uint64, phases.Step, Progress) {}
	}
	var p1 []Result
	if copies[0].does(phases.P1) {
		start := time.Now()
		var err error
		if p1, err = p1Copies(ctx, copies, progress); err != nil {
			return nil, err
		}
		report.Seconds[phases.P1] = time.Since(start).Seconds()
	}
	for i, b := range copies {
		if p1 != nil && len(b.Phases) == 1 {
			r, err := b.report(ctx, p1[i].Outputs, map[phases.Step]float64{})
			if err != nil {
				return nil, err
			}
			report.Sectors = append(report.Sectors, r)
			continue
		}
		rest := *b
		if p1 != nil {
			rest.Phases = rest.Phases[1:]
		}
		r, err := rest.Run(ctx, func(p phases.Step, g Progress) { progress(b.Number, p, g) })
		if err != nil {
			return nil, err
		}
		for p, s := range r.Seconds {
			report.Seconds[p] += s
		}
		report.Sectors = append(report.Sectors, r)
	}
	return report, nil
}

// p1Copies does p1 of all sectors.
func p1Copies(ctx context.Context, copies []*Bench, progress func(uint64, phases.Step, Progress)) ([]Result, error) {
	jobs := make([]*job, len(copies))
	items := make([]seal.BatchItem, len(copies))
	for i, b := range copies {
		j, err := newJob(b.request(phases.P1, map[string]string{"ticket": b.Ticket}), func(g Progress) { progress(b.Number, phases.P1, g) })
		if err != nil {
			return nil, err
		}
		jobs[i] = j
		items[i] = seal.BatchItem{Sector: j.sector, Pieces: SealPieces(j.sector.Params, j.Pieces), Paths: j.paths, Options: j.opts}
	}
	results := make([]Result, len(copies))
	var errs []error
	for i, r := range seal.P1Batch(ctx, items, copies[0].Threads) {
		err := r.Err
		if err == nil {
			results[i], err = jobs[i].p1Result(r.Output)
		}
		errs = append(errs, err)
	}
	return results, errors.Join(errs...)
}
