package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sealfleet/internal/bus"
	"sealfleet/internal/command"
	"sealfleet/internal/dispatch"
	"sealfleet/internal/phases"
)

// parseSector reads s-t01000-7, 1000/7, f01000-7 and the like.
func parseSector(text string) (string, error) {
	id, err := phases.ParseSector(strings.TrimSpace(text))
	switch {
	case errors.Is(err, phases.ErrNoSector):
		return "", command.Usagef("%q is no sector: write s-t01000-7, 1000/7 or f01000-7", text)
	case err != nil:
		return "", command.Usagef("%q is no sector: %w", text, err)
	}
	return id, nil
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
	ids := make([]string, len(rows))
	for i, r := range rows {
		ids[i] = r.Sector
	}
	names := dispatch.Near(id, slices.Values(ids))
	if len(names) == 0 {
		return fmt.Errorf("%w (see: dispatcher sectors)", err)
	}
	return fmt.Errorf("%w; did you mean %s?", err, strings.Join(names, ", "))
}
