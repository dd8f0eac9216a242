package consume

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sealfleet/internal/host"
	"sealfleet/internal/phases"
	"sealfleet/internal/storage"
)

// Orphan is a name on this host's share that no live sector owns.
type Orphan struct {
	Path   string    `json:"path"`
	Sector string    `json:"sector"`
	Kind   string    `json:"kind"` // cache, sealed or unsealed
	Bytes  int64     `json:"bytes"`
	Why    string    `json:"why"`
	Since  time.Time `json:"since"` // last change
}

// SectorStates tells where a sector stands.
type SectorStates interface {
	// State returns the sector's status; known is false if no event names it.
	State(ctx context.Context, sector string) (status phases.Status, known bool, err error)
}

// BusStates answers from the sectors' own chains in some groups.
type BusStates struct {
	Bus    LastReader
	Groups []string

	known map[string]bool
}

// Known counts the sectors that were asked for and that the bus knows.
func (b *BusStates) Known() int { return len(b.known) }

// State returns sealing for whatever has not ended.
func (b *BusStates) State(ctx context.Context, sector string) (phases.Status, bool, error) {
	for _, group := range b.Groups {
		last, err := b.Bus.Last(ctx, group, sector, phases.SectorEnd)
		if err != nil {
			return "", false, err
		}
		if last == nil {
			continue
		}
		if b.known == nil {
			b.known = map[string]bool{}
		}
		b.known[sector] = true
		if last.Type != phases.Finished || last.Result == nil {
			return phases.StatusSealing, true, nil // p6 of a cancelled one may be still to come
		}
		return phases.Status(last.Result.Code), true, nil
	}
	return "", false, nil
}

// Remove removes an orphan by the rules of p6: known names only, no links.
func (o Orphan) Remove(ctx context.Context, cfg *Config, dryRun bool) (storage.Cleaned, error) {
	return storage.Clean{
		Of:    storage.Layout{LocalDir: cfg.LocalDir, IP: cfg.IP, Sector: o.Sector},
		Cache: o.Kind == "cache", Unsealed: o.Kind == "unsealed", Sealed: o.Kind == "sealed", DryRun: dryRun,
		CheckDevice: host.CheckOrigin,
	}.Run(ctx)
}

// orphanAge is how long nothing may have changed below a name that nobody knows.
const orphanAge = time.Hour

// FindOrphans lists what lies on this host's share and belongs to no live sector: of
// sectors that no event names and that did not change for an hour, everything; of those
// that ended, caches and unsealed files (and sealed ones, if the sector was given up).
func FindOrphans(ctx context.Context, cfg *Config, states SectorStates, now time.Time) ([]Orphan, error) {
	var list []Orphan
	share := filepath.Join(cfg.LocalDir, "nfs", cfg.IP)
	for _, kind := range []string{"cache", "sealed", "unsealed"} {
		entries, err := os.ReadDir(filepath.Join(share, kind))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			sector := strings.TrimSuffix(strings.TrimPrefix(e.Name(), "."), ".tmp")
			if _, _, err := phases.ParseSectorID(sector); err != nil {
				continue // not ours to judge
			}
			o, err := orphan(ctx, filepath.Join(share, kind, e.Name()), kind, sector, states, now)
			if err != nil {
				return nil, err
			}
			if o != nil {
				list = append(list, *o)
			}
		}
	}
	return list, nil
}

func orphan(ctx context.Context, path, kind, sector string, states SectorStates, now time.Time) (*Orphan, error) {
	status, known, err := states.State(ctx, sector)
	if err != nil {
		return nil, err
	}
	o := &Orphan{Path: path, Sector: sector, Kind: kind}
	if o.Bytes, o.Since, err = storage.Usage(ctx, path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil // p6 was here
		}
		return nil, err
	}
	switch {
	case !known && now.Sub(o.Since) < orphanAge:
		return nil, nil // p1 may have begun before its event is seen
	case !known:
		o.Why = "no event names this sector"
	case status == phases.StatusFinished && kind == "sealed":
		return nil, nil // kept unless CLEAN_SEALED
	case status == phases.StatusFinished, status == phases.StatusCancelled, status == phases.StatusFailed:
		o.Why = "the sector is " + string(status)
	default:
		return nil, nil
	}
	return o, nil
}
