package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/agnivade/levenshtein"

	"sealfleet/internal/bus"
	"sealfleet/internal/dispatch"
	"sealfleet/internal/phases"
)

var sectorForms = regexp.MustCompile(`^(?:s-)?[ft]?0?([0-9]+)[-/]([0-9]+)$`)

// parseSector reads s-t01000-7, 1000/7, f01000-7 and the like.
func parseSector(text string) (string, error) {
	if _, _, err := phases.ParseSectorID(text); err == nil {
		return text, nil
	}
	m := sectorForms.FindStringSubmatch(strings.TrimSpace(text))
	if m == nil {
		return "", usagef("%q is no sector: write s-t01000-7, 1000/7 or f01000-7", text)
	}
	miner, err1 := strconv.ParseUint(m[1], 10, 64)
	number, err2 := strconv.ParseUint(m[2], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return "", usagef("%q is no sector: %w", text, err)
	}
	return phases.SectorID(miner, number), nil
}

// suggest adds the nearest sectors that exist to the error of one that does not.
func suggest(ctx context.Context, b *bus.Bus, err error, id string) error {
	if !errors.Is(err, dispatch.ErrUnknown) {
		return err
	}
	rows, lerr := dispatch.List(ctx, b, phases.DefaultPolicy(), 0, dispatch.Filter{})
	if lerr != nil || len(rows) == 0 {
		return fmt.Errorf("%w (no sector was ever submitted)", err)
	}
	type near struct {
		id       string
		distance int
	}
	var all []near
	const farthest = 3
	for _, r := range rows {
		if d := levenshtein.ComputeDistance(r.Sector, id); d <= farthest {
			all = append(all, near{r.Sector, d})
		}
	}
	if len(all) == 0 {
		return fmt.Errorf("%w (see: dispatcher sectors)", err)
	}
	slices.SortStableFunc(all, func(a, b near) int { return a.distance - b.distance })
	names := []string{}
	for _, n := range all[:min(3, len(all))] {
		names = append(names, n.id)
	}
	return fmt.Errorf("%w; did you mean %s?", err, strings.Join(names, ", "))
}
