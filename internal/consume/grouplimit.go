package consume

import (
	"context"
	"errors"
	"sync"
	"time"

	"sealfleet/internal/bus"
	"sealfleet/internal/logs"
	"sealfleet/internal/throttle"
)

// # A group's copy limit
//
// An operator sets how much all copies of a group may move together, whichever hosts they
// run on. There is nobody who hands out parts of it: each host tells the others how many
// copies it runs for the group and what its own limits let them move, and each divides the
// limit by the same rule (throttle.Fair) and takes its own part. A host that has just
// begun to copy counts itself at once, so for the moment that its word takes to the others
// the parts may add up to more than the limit; that is milliseconds, and copies take minutes.
//
// What a host said holds as long as a lease of its tasks would: until then its copies may
// still run. It is over at once when the host says so, or comes back under its name.
//
// If the bus is away, what was last known stays in force: no copy can begin without a
// claim, so nobody joins meanwhile.
//
// FAIL: a host that is cut off from the bus for longer than AckWait, but not from its
// storage, goes on with its part, and the others take it too. The limit is then exceeded by
// that part until the host finds at its first heartbeat that it has lost its claim.

// groupShare is what a host knows of one group's limit.
type groupShare struct {
	limit int64 // bytes per second, 0: none
	peers map[string]peer
}

// peer is another host that copies for the group.
type peer struct {
	most  int64
	heard time.Time
}

func (s *shares) group(name string) *groupShare {
	g := s.groups[name]
	if g == nil {
		g = &groupShare{peers: map[string]peer{}}
		s.groups[name] = g
	}
	return g
}

// part returns what this host may take of a group's limit; 0: there is no limit, or no
// copy here.
func (s *shares) part(name string, g *groupShare) int64 {
	copies, most := s.asks(name)
	if g.limit <= 0 || copies == 0 {
		return 0
	}
	wants := []int64{most} // first, so that of equals it is never the one that gets a rest
	for _, p := range g.peers {
		wants = append(wants, p.most)
	}
	return throttle.Fair(g.limit, wants)[0]
}

// asks returns how many copies run here for a group, and what this host's own limits would
// let them move together; 0: anything.
func (s *shares) asks(name string) (copies int, most int64) {
	unlimited := false
	for ch, share := range s.under(s.own()) {
		if s.copies[ch].group == name {
			copies++
			most += share
			unlimited = unlimited || share == 0
		}
	}
	if unlimited {
		most = 0
	}
	return copies, most
}

// setGroupLimit changes a group's limit, 0: none. It tells whether it was another one.
func (s *shares) setGroupLimit(name string, bytesPerSec int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.group(name)
	if g.limit == bytesPerSec {
		return false
	}
	g.limit = bytesPerSec
	s.tell()
	return true
}

// hear takes what another host said of its copies.
func (s *shares) hear(name string, c bus.Copying, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.group(name)
	before, was := g.peers[c.Host]
	if c.Copies > 0 {
		g.peers[c.Host] = peer{max(c.Most, 0), now}
	} else {
		delete(g.peers, c.Host)
	}
	if was != (c.Copies > 0) || was && before.most != c.Most {
		s.tell()
	}
}

// forget drops hosts that were not heard since a time: their leases are over.
func (s *shares) forget(since time.Time) (gone []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.groups {
		for name, p := range g.peers {
			if p.heard.Before(since) {
				delete(g.peers, name)
				gone = append(gone, name)
			}
		}
	}
	if gone != nil {
		s.tell()
	}
	return gone
}

// hold keeps all hosts from being forgotten: nobody could be heard.
func (s *shares) hold(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.groups {
		for name, p := range g.peers {
			g.peers[name] = peer{p.most, now}
		}
	}
}

// saying is what this host has to tell of a group now.
func (s *shares) saying(name, host string) bus.Copying {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := bus.Copying{Host: host, At: time.Now().UTC()}
	c.Copies, c.Most = s.asks(name)
	if c.Copies > 0 {
		c.Share = s.part(name, s.group(name))
	}
	return c
}

// shareGroupLimits keeps the parts that this host takes of its groups' limits, until ctx
// ends.
func (c *Consumer) shareGroupLimits(ctx context.Context) {
	g := &groupTeller{c: c, told: map[string]bus.Copying{}}
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() {
		err := c.bus.WatchControls(ctx, func(list []bus.Control) { c.applyGroupLimits(list, c.bus.Now()) }, bus.ControlLimit)
		if err != nil && ctx.Err() == nil {
			c.log.Error("limits of groups cannot be followed", "error", err)
		}
	})
	for _, name := range c.cfg.Groups {
		stop, err := c.bus.WatchCopying(name, func(said bus.Copying) { g.heard(name, said) })
		if err != nil {
			c.log.Error("cannot hear which hosts copy: limits of the group are shared with nobody", logs.Group, name, "error", err)
			continue
		}
		defer stop()
	}
	beat := time.NewTicker(c.bus.Heartbeat())
	defer beat.Stop()
	g.all(true)
	connected := true
	for {
		select {
		case <-c.shares.moved:
			g.changes()
		case now := <-beat.C:
			switch was := connected; {
			case c.bus.Connected() != nil:
				connected = false
				c.shares.hold(now)
			default:
				connected = true
				g.all(!was) // who came or went while nobody could be heard?
				if gone := c.shares.forget(now.Add(-c.bus.AckWait())); gone != nil {
					c.log.Warn("hosts that copied were not heard for longer than a lease: their parts of the group's limit are free", "hosts", gone)
				}
			}
		case <-ctx.Done():
			g.changes() // no copy runs any more
			return
		}
	}
}

// applyGroupLimits takes the limits of this host's groups from the controls as they stand.
func (c *Consumer) applyGroupLimits(list []bus.Control, now time.Time) {
	limits := map[string]int64{}
	for _, control := range list {
		n, err := control.CopyLimit(now)
		if err != nil {
			c.log.Error("the group's copy limit stays as it is", "error", err)
			n = -1
		}
		limits[control.Name()] = n
	}
	for _, name := range c.cfg.Groups {
		if n := limits[name]; n >= 0 && c.shares.setGroupLimit(name, n) {
			c.log.Info("the group's copy limit changed", logs.Group, name, "bytes_per_sec", n)
		}
	}
}

// groupTeller tells the other hosts of this one's copies.
type groupTeller struct {
	c    *Consumer
	mu   sync.Mutex
	told map[string]bus.Copying // by group, what was said last
}

// heard takes what a host said, and answers its question.
func (g *groupTeller) heard(name string, said bus.Copying) {
	if said.Host == g.c.cfg.HostName {
		return
	}
	if said.Question {
		g.say(name, false)
		return
	}
	g.c.shares.hear(name, said, time.Now())
}

// all tells of every group for which copies run; with ask of every group, and asks.
func (g *groupTeller) all(ask bool) {
	for _, name := range g.c.cfg.Groups {
		if ask || g.c.shares.saying(name, "").Copies > 0 {
			g.say(name, ask)
		}
	}
}

// changes tells of the groups of which something else is to be said than before.
func (g *groupTeller) changes() {
	for _, name := range g.c.cfg.Groups {
		now := g.c.shares.saying(name, g.c.cfg.HostName)
		g.mu.Lock()
		before := g.told[name]
		g.mu.Unlock()
		if now.Copies != before.Copies || now.Most != before.Most {
			g.say(name, false)
		}
	}
}

// say tells of one group. What does not get through is said again at the next heartbeat.
func (g *groupTeller) say(name string, ask bool) {
	g.mu.Lock() // what is said last must be what was true last
	defer g.mu.Unlock()
	now := g.c.shares.saying(name, g.c.cfg.HostName)
	err := g.c.bus.TellCopying(name, now)
	if err == nil && ask {
		err = g.c.bus.TellCopying(name, bus.Copying{Host: now.Host, At: now.At, Question: true})
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		g.c.log.Debug("could not tell the group of this host's copies", logs.Group, name, "error", err)
		return
	}
	g.told[name] = now
}
