package consume

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"sealfleet/internal/host"
	"sealfleet/internal/logs"
	"sealfleet/internal/phases"
	"sealfleet/internal/storage"
)

// foundP1 is what a p1 that did not end left on a share.
type foundP1 struct {
	ip     string
	layers int
}

// whereP1 chooses the share that a p1 works in, by its address: this host's own; or, if
// somebody tried before, the one where the most layers are finished, be it another host's
// export. Going on there is a matter of reading the layers once; beginning anew takes hours.
func (c *Consumer) whereP1(t phases.Task, deliveries int) string {
	own := c.cfg.IP
	if t.Step != phases.P1 || c.cfg.Engine == EngineNoop || deliveries <= 1 && t.Attempt <= 1 && t.Issue <= 1 {
		return own // nobody can have begun
	}
	best := foundP1{ip: own}
	for _, f := range c.seekP1(t) {
		if f.layers > best.layers || f.layers == best.layers && f.ip == own {
			best = f
		}
	}
	log := c.log.With(logs.Group, t.Group, logs.Sector, t.Sector, logs.Phase, t.Step)
	if best.ip == own {
		return own
	}
	at := storage.Layout{LocalDir: c.cfg.LocalDir, IP: best.ip, Sector: t.Sector}
	for _, dir := range []string{at.Cache(), filepath.Dir(at.Sealed()), filepath.Dir(at.Unsealed())} {
		if err := c.places.Do(c.cfg.share(best.ip), func() error { return host.CheckDir(dir) }); err != nil {
			log.Warn("another host's share has finished layers of p1, and cannot be worked in: p1 begins anew here", "ip", best.ip, "layers", best.layers, "error", err)
			return own
		}
	}
	log.Info("going on with p1 on the share of another host", "ip", best.ip, "layers", best.layers)
	return best.ip
}

// seekP1 looks on all shares that there are below LOCAL_DIR. One that does not answer, as
// the export of a host that has just died, costs DOCTOR_LIMIT.
func (c *Consumer) seekP1(t phases.Task) []foundP1 {
	shares := filepath.Join(c.cfg.LocalDir, "nfs")
	names := make(chan []string, 1)
	err := c.places.Do(shares, func() error {
		entries, err := os.ReadDir(shares) // touches no mount below it
		var list []string
		for _, e := range entries {
			list = append(list, e.Name())
		}
		names <- list
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nobody ever worked here
	}
	if err != nil {
		c.log.Warn("cannot look for what an earlier p1 left", logs.Sector, t.Sector, "error", err)
		return nil
	}
	var mu sync.Mutex
	var found []foundP1
	var looking sync.WaitGroup
	for _, ip := range <-names {
		looking.Go(func() {
			layers := make(chan int, 1)
			err := c.places.Do(c.cfg.share(ip), func() error {
				n, err := storage.Layout{LocalDir: c.cfg.LocalDir, IP: ip, Sector: t.Sector}.UnfinishedP1(t.Inputs["ticket"])
				layers <- n
				return err
			})
			if err != nil {
				c.log.Warn("cannot look for what an earlier p1 left", logs.Sector, t.Sector, "ip", ip, "error", err)
				return
			}
			if n := <-layers; n > 0 {
				mu.Lock()
				defer mu.Unlock()
				found = append(found, foundP1{ip, n})
			}
		})
	}
	looking.Wait()
	slices.SortFunc(found, func(a, b foundP1) int { return cmp.Compare(a.ip, b.ip) })
	return found
}
