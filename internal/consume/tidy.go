package consume

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"sealfleet/internal/host"
	"sealfleet/internal/logs"
	"sealfleet/internal/phases"
	"sealfleet/internal/storage"
)

// tidyLoop removes, now and then, what attempts left on this host's share that count no
// more. p6 cleans where the chain says that p1 was done; a host that began p1 and lost it
// to another (it crashed, hung, or was cut off) keeps half a sector that nobody asks for,
// and with 32 GiB sectors a few of them fill a disk.
func (c *Consumer) tidyLoop(ctx context.Context) {
	for wait := rand.N(c.cfg.TidyEvery + 1); ; wait = c.cfg.TidyEvery*4/5 + rand.N(c.cfg.TidyEvery*2/5+1) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if err := c.tidy(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("could not look for what earlier attempts left", "error", err)
		}
	}
}

// tidy looks at every sector on this host's share once.
func (c *Consumer) tidy(ctx context.Context) error {
	share := filepath.Join(c.cfg.LocalDir, "nfs", c.cfg.IP)
	seen := map[string]bool{}
	for _, kind := range []string{"cache", "sealed", "unsealed"} {
		entries, err := os.ReadDir(filepath.Join(share, kind))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			if _, _, err := phases.ParseSectorID(e.Name()); err == nil {
				seen[e.Name()] = true
			}
		}
	}
	for sector := range seen {
		if err := c.tidySector(ctx, sector); err != nil {
			return err
		}
	}
	return nil
}

// tidySector removes a sector's files if the chain says that they count no more, and this
// host does not work on them. While it removes them it begins no p1 of the sector.
func (c *Consumer) tidySector(ctx context.Context, sector string) error {
	guard := &job{c: c, key: chain{sector, phases.P1}} // issue 0: whatever comes is handed back for a moment
	if _, busy := c.running.LoadOrStore(guard.key, guard); busy {
		return nil
	}
	defer guard.release()
	why, sealed, err := c.counts(ctx, sector)
	if err != nil || why == "" {
		return err
	}
	done, err := storage.Clean{
		Of:    storage.Layout{LocalDir: c.cfg.LocalDir, IP: c.cfg.IP, Sector: sector},
		Cache: true, Unsealed: true, Sealed: sealed, CheckDevice: host.CheckOrigin,
	}.Run(ctx)
	if len(done.Removed) > 0 {
		c.log.Info("removed what an earlier attempt left", logs.Sector, sector, "bytes", done.Freed, "why", why)
	}
	return err
}

// counts tells why what lies of a sector on this host's share counts no more, "" if it
// does or if that is not known; and whether that holds for the sealed file too.
//
// A host reads single events and cannot fold a chain, so it must not delete what is worth
// something on the word of somebody who had no right to write. That a sector has ended
// only dispatchers may write. That p1 was done elsewhere anybody may write: it is enough
// for what this host itself has begun and never finished, which costs time if it was a lie.
func (c *Consumer) counts(ctx context.Context, sector string) (why string, sealed bool, err error) {
	for _, group := range c.cfg.Groups {
		end, err := c.bus.Last(ctx, group, sector, phases.SectorEnd)
		if err != nil {
			return "", false, err
		}
		if end == nil {
			continue // another group's, or nobody's
		}
		own, err := c.bus.LastBy(ctx, group, sector, phases.P1, c.cfg.HostName)
		if err != nil {
			return "", false, err
		}
		began := own != nil && own.Type != phases.Done // and lost it
		if end.Type == phases.Finished && end.Result != nil {
			// The replica of a finished sector may be wanted: that is CLEAN_SEALED's.
			kept := phases.Status(end.Result.Code) == phases.StatusFinished && !began && !c.cfg.CleanSealed
			return "the sector is " + end.Result.Code, !kept, nil
		}
		p1, err := c.bus.Last(ctx, group, sector, phases.P1)
		if err != nil {
			return "", false, err
		}
		if began && p1 != nil && p1.Type == phases.Done && p1.Result != nil {
			if ip := p1.Result.Outputs["ip"]; ip != "" && ip != c.cfg.IP {
				return "p1 was done at " + ip, true, nil
			}
		}
	}
	return "", false, nil
}
