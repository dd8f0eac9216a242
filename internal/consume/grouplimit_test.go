package consume

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"sealfleet/internal/bus"
	"sealfleet/internal/engine"
	"sealfleet/internal/phases"
)

// copiers are hosts whose p5 does nothing but note at which rate it may copy.
type copiers struct {
	f     *fleet
	mu    sync.Mutex
	rates map[string]int64 // by host, of its one copy; absent: none runs
	leave map[string]chan struct{}
	said  chan struct{} // some rate is another one
}

func newCopiers(f *fleet) *copiers {
	return &copiers{f: f, rates: map[string]int64{}, leave: map[string]chan struct{}{}, said: make(chan struct{}, 1)}
}

func (c *copiers) set(host string, rate int64, runs bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rates[host] = rate; !runs {
		delete(c.rates, host)
	}
	select {
	case c.said <- struct{}{}:
	default:
	}
}

// add starts a consumer with one slot for p5 and its own limit in MB/s (0: none).
func (c *copiers) add(host string, own int64) *consumer {
	c.f.t.Helper()
	end := make(chan struct{})
	c.leave[host] = end
	work := &ledger{do: func(ctx context.Context, r engine.Request) (engine.Result, error) {
		c.set(host, r.Copy.BytesPerSec, true)
		defer c.set(host, 0, false)
		for {
			select {
			case n := <-r.Limits:
				c.set(host, n, true)
			case <-end:
				return engine.Result{}, nil
			case <-ctx.Done():
				return engine.Result{}, context.Cause(ctx)
			}
		}
	}}
	node := c.f.t.TempDir()
	return c.f.consumer(host, "1:p5", work, func(k *Consumer) {
		k.cfg.Engine, k.cfg.LocalDir, k.cfg.CopyLimit = EngineBuiltin, c.f.t.TempDir(), own
		k.cfg.Nodes = nodesOf(c.f.t, "node1="+node)
		k.shares.set(own*1e6, nil)
	})
}

// until waits for the rates, in MB/s, that the hosts h1, h2, … copy at; "-" is no copy.
func (c *copiers) until(what string, want ...string) {
	c.f.t.Helper()
	deadline := time.After(patience)
	for {
		c.mu.Lock()
		got := make([]string, len(want))
		for i := range want {
			got[i] = "-"
			if rate, runs := c.rates[fmt.Sprintf("h%d", i+1)]; runs {
				got[i] = strconv.FormatInt(rate/1e6, 10)
			}
		}
		c.mu.Unlock()
		if slices.Equal(got, want) {
			return
		}
		select {
		case <-c.said:
		case <-deadline:
			c.f.t.Fatalf("%s: the hosts copy at %v MB/s, want %v", what, got, want)
		}
	}
}

func (f *fleet) limitGroup(mb int64) {
	f.t.Helper()
	control := bus.Control{Key: bus.ControlLimit + "." + group, By: "op@desk", Reason: "a test", On: mb > 0}
	if mb > 0 {
		control.Value = json.RawMessage(strconv.FormatInt(mb*1e6, 10))
	}
	if _, err := f.bus.SetControl(f.ctx, control); err != nil {
		f.t.Fatal(err)
	}
}

func TestGroupLimitIsSharedByItsHosts(t *testing.T) {
	f := newFleet(t, 3*time.Second)
	f.limitGroup(500)
	c := newCopiers(f)
	issue := func(n uint64) { f.issue(group, phases.P5, n, 1, map[string]string{"ip": "10.10.13.22"}) }
	c.add("h1", 0)
	issue(1)
	c.until("one copies alone", "500")
	c.add("h2", 0)
	issue(2)
	c.until("two", "250", "250")
	h3 := c.add("h3", 0)
	issue(3)
	c.until("three", "166", "166", "166")
	c.add("h4", 20) // more than its own limit it takes from nobody
	issue(4)
	c.until("four, one of them slow by its own limit", "160", "160", "160", "20")
	f.limitGroup(60)
	c.until("changed while they run", "15", "15", "15", "15")
	f.limitGroup(0)
	c.until("none", "0", "0", "0", "20")
	f.limitGroup(500)
	c.until("again", "160", "160", "160", "20")
	close(c.leave["h3"])
	c.until("one has ended", "240", "240", "-", "20")
	h3.stop()

	// A host that dies says nothing; its part is free when its lease is over.
	if err := f.bus.TellCopying(group, bus.Copying{Host: "h5", Copies: 3}); err != nil {
		t.Fatal(err)
	}
	c.until("a fifth copies", "160", "160", "-", "20")
	c.until("it has died", "240", "240", "-", "20")
	defer func() {
		for _, host := range []string{"h1", "h2", "h4"} {
			close(c.leave[host])
		}
	}()
	list, err := f.bus.AskCopying(f.ctx, group, "op", time.Second)
	if err != nil || len(list) != 3 {
		t.Fatalf("who copies: %+v, %v", list, err)
	}
	slices.SortFunc(list, func(a, b bus.Copying) int { return int(a.Host[1]) - int(b.Host[1]) })
	for i, want := range []bus.Copying{{Host: "h1", Copies: 1, Share: 240e6}, {Host: "h2", Copies: 1, Share: 240e6}, {Host: "h4", Copies: 1, Most: 20e6, Share: 20e6}} {
		got := list[i]
		if got.Host != want.Host || got.Copies != want.Copies || got.Most != want.Most || got.Share != want.Share {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}

func TestPartsOfAGroupNeverExceedItsLimit(t *testing.T) {
	// Three hosts that know of each other, with several copies, nodes and groups.
	hosts := map[string]*shares{}
	for i, own := range []int64{0, 300, 1000} {
		s := newShares(own)
		s.set(own, map[string]int64{"slow": 70})
		s.join("slow", "group1")
		s.join("fast", "group1")
		for range i {
			s.join("fast", "group2")
		}
		hosts[fmt.Sprintf("h%d", i)] = s
	}
	for _, s := range hosts {
		s.setGroupLimit("group1", 500)
		s.setGroupLimit("group2", 100)
	}
	for from, s := range hosts {
		for to, other := range hosts {
			for _, g := range []string{"group1", "group2"} {
				if from != to {
					other.hear(g, s.saying(g, from), time.Now())
				}
			}
		}
	}
	sums := map[string]int64{}
	for name, s := range hosts {
		var all, slow int64
		for ch, share := range s.divide() {
			sums[s.copies[ch].group] += share
			all += share
			if s.copies[ch].node == "slow" {
				slow += share
			}
		}
		if s.total > 0 && all > s.total || slow > 70 {
			t.Errorf("%s copies %d in all, %d to the slow node", name, all, slow)
		}
	}
	if sums["group1"] > 500 || sums["group1"] < 490 || sums["group2"] > 100 || sums["group2"] < 98 {
		t.Errorf("the groups copy %v, want about 500 and 100", sums)
	}
}
