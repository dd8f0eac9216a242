package bus

import (
	"errors"
	"testing"
	"time"

	"sealfleet/internal/phases"
)

// setServerAhead tells b a server's time that is off from its own by so much.
func setServerAhead(b *Bus, ahead time.Duration) {
	here := time.Now()
	b.clock.set(here.Add(ahead).Round(0), here, time.Millisecond)
}

func TestTheFleetsTimeIsTheServers(t *testing.T) {
	f := newFleet(t, nil)
	if got := f.Now(); time.Since(got).Abs() > clockSlack {
		t.Fatalf("%s before anybody asked", got)
	}
	if err := f.LearnClock(testContext(t), "group1", phases.P1); err != nil {
		t.Fatal(err)
	}
	if f.clock.server.IsZero() || f.clock.sure <= 0 {
		t.Fatal("the server was not asked")
	}
	// This test's clock is the server's: it is believed, with its monotonic reading.
	if got := f.Now(); got == got.Round(0) {
		t.Errorf("%s is reckoned, although the clock here is right", got)
	}
	for _, ahead := range []time.Duration{72 * time.Hour, -72 * time.Hour, 2 * time.Second} {
		setServerAhead(f.Bus, ahead)
		if off := f.Now().Sub(time.Now().Round(0)) - ahead; off.Abs() > 500*time.Millisecond {
			t.Errorf("the server is ahead by %s, the fleet's time is off from that by %s", ahead, off)
		}
	}
	setServerAhead(f.Bus, clockSlack/2)
	if got := f.Now(); got == got.Round(0) {
		t.Error("a clock that is right but for the slack is not believed")
	}
}

// A clock that is set while the program runs does no harm until the server is asked anew,
// which happens at once.
func TestAClockThatIsSetIsNotBelieved(t *testing.T) {
	c := &clock{poke: make(chan struct{}, 1)}
	here := time.Now()
	c.set(here.Round(0), here, time.Millisecond)
	// As after settimeofday: the wall clock jumps, the monotonic one does not.
	later := here.Add(time.Minute)
	if got := c.now(later); !got.Equal(later) {
		t.Errorf("got %s, want %s", got, later)
	}
	select {
	case <-c.poke:
		t.Error("the server would be asked for no reason")
	default:
	}
	c.set(here.Round(0).Add(-time.Hour), here, time.Millisecond)
	if got, want := c.now(later), later.Round(0).Add(-time.Hour); !got.Equal(want) {
		t.Errorf("got %s, want %s", got, want)
	}
	select {
	case <-c.poke:
	default:
		t.Error("nobody would ask the server again")
	}
}

// A host whose clock is days behind takes up a task that had to wait when its time has
// come, and one whose clock is days ahead does not take it before.
func TestAWrongClockNeitherHastensNorDelaysARetry(t *testing.T) {
	for name, off := range map[string]time.Duration{"ahead": 72 * time.Hour, "behind": -72 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, nil)
			ctx := testContext(t)
			host := f.host(t, "h1")
			// The host's clock is the test's; so it is the fleet's that is days away.
			setServerAhead(host, -off)
			later := task(1)
			due := time.Now().Add(time.Second)
			later.NotBefore = due.Add(-off)
			if err := f.PublishTask(ctx, later); err != nil {
				t.Fatal(err)
			}
			l, err := host.Fetch(ctx, "group1", phases.P1, patience)
			if err != nil || l == nil {
				t.Fatalf("got %+v, %v", l, err)
			}
			if early := time.Until(due) - 10*time.Millisecond; early > 0 { // the two clocks were read one after the other
				t.Errorf("it came %s early", early)
			}
		})
	}
}

// Whoever was never told the time has no task: it might judge its deadline by a wrong clock.
func TestNoTaskBeforeTheTimeIsKnown(t *testing.T) {
	f := newFleet(t, nil)
	ctx := testContext(t)
	host := f.host(t, "h1")
	if host.clock.known() {
		t.Fatal("who asked?")
	}
	if _, err := host.Fetch(ctx, "group1", phases.P1, 0); err != nil || !host.clock.known() {
		t.Errorf("%v, known: %v", err, host.clock.known())
	}
	other := f.host(t, "h2")
	if l, err := other.Fetch(ctx, "group9", phases.P1, 0); l != nil || !errors.Is(err, ErrNoConsumer) {
		t.Errorf("got %+v, %v", l, err)
	}
}
