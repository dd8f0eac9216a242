package consume

import (
	"errors"
	"slices"
	"testing"
	"time"

	"sealfleet/internal/bus"
	"sealfleet/internal/engine"
	"sealfleet/internal/host"
	"sealfleet/internal/phases"
)

// statuses follows what hosts tell until one satisfies the test.
func (f *fleet) statuses() (until func(what string, is func(bus.HostStatus) bool) bus.HostStatus) {
	f.t.Helper()
	heard := make(chan bus.HostStatus, 1000)
	stop, err := f.bus.WatchHosts(func(_ string, s bus.HostStatus) { heard <- s })
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(stop)
	return func(what string, is func(bus.HostStatus) bool) bus.HostStatus {
		f.t.Helper()
		for {
			if s := receive(f.t, heard, "a status: "+what); is(s) {
				return s
			}
		}
	}
}

func TestHostTellsItsStatus(t *testing.T) {
	f := newFleet(t, time.Minute)
	until := f.statuses()
	g := newGate()
	work := &ledger{do: g.do}
	c := f.consumer("h1", "2:p1;1:p2,p3", work, nil)
	idle := until("idle", func(bus.HostStatus) bool { return true })
	if idle.Host != "h1" || idle.IP != "10.10.13.22" || !slices.Equal(idle.Groups, []string{group}) || idle.Version == "" ||
		idle.Since.IsZero() || idle.Model == "" || idle.MemoryTotal == 0 || idle.MemoryFree == 0 || idle.Draining {
		t.Errorf("idle: %+v", idle)
	}
	if len(idle.Slots) != 2 || idle.Slots[0].Entry != "2:p1" || idle.Slots[0].Slots != 2 || idle.Slots[0].Busy != 0 || len(idle.Jobs) != 0 {
		t.Errorf("idle: %+v", idle.Slots)
	}
	task := f.issue(group, phases.P1, 7, 1, nil)
	receive(t, g.entered, "p1")
	busy := until("a job runs", func(s bus.HostStatus) bool { return len(s.Jobs) == 1 })
	j := busy.Jobs[0]
	if busy.Slots[0].Busy != 1 || busy.Slots[1].Busy != 0 || j.Sector != task.Sector || j.Phase != phases.P1 || j.Group != group || j.Attempt != 1 || j.Since.IsZero() {
		t.Errorf("busy: %+v %+v", busy.Slots, j)
	}
	g.leave <- nil
	until("quiet again", func(s bus.HostStatus) bool { return len(s.Jobs) == 0 && s.Slots[0].Busy == 0 })
	c.stop()
	until("it drains", func(s bus.HostStatus) bool { return s.Draining })
}

func TestStatusTellsProgressOfACopyAndItsRate(t *testing.T) {
	c := &Consumer{board: newBoard(), shares: newShares(0)}
	s := &statusOf{c: c}
	j := &job{task: phases.Task{Group: group, Sector: "s-t01000-7", Step: phases.P5, Attempt: 2}}
	start := time.Now()
	over := c.board.begin(j, start)
	if rate := s.copyRate(start); rate != 0 {
		t.Errorf("a rate of %v before anything was seen", rate)
	}
	j.note.set(engine.Progress{Step: "copy", Done: 0, Total: 1000})
	j.note.set(engine.Progress{Step: "copy", Done: 500, Total: 1000})
	j.note.set(engine.Progress{Step: "verify", Done: 100, Total: 1000})
	if rate := s.copyRate(start.Add(2 * time.Second)); rate != 300 {
		t.Errorf("%v bytes per second, want 300: 600 in two seconds, both ways", rate)
	}
	list := c.board.list(start)
	if len(list) != 1 || list[0].Note != "verify 10 %" || list[0].Fraction != 0.1 || list[0].Reported {
		t.Errorf("%+v", list)
	}
	c.board.ended(j)
	if list = c.board.list(start); !list[0].Reported {
		t.Error("a job whose outcome is not on the chain yet is not marked")
	}
	over()
	if list = c.board.list(start); len(list) != 0 {
		t.Errorf("it is over: %+v", list)
	}
	if rate := s.copyRate(start.Add(4 * time.Second)); rate != 0 {
		t.Errorf("no copy runs: %v", rate)
	}
}

func TestStatusTellsWhatWaitsAndWhatTheDoctorFound(t *testing.T) {
	k := &Checkup{}
	k.last.Store(&host.Report{Findings: []host.Finding{
		{Code: "writable", Severity: host.OK, Subject: "LOCAL_DIR"},
		{Code: "system_disk", Severity: host.Warn, Subject: "LOCAL_DIR", Evidence: "on /", Mend: "mount the array"},
	}})
	a := &admission{checkup: k, rest: time.Hour, waits: map[queueName]waiting{
		{group, phases.P1}: {reason: "disk", err: errors.New("p1 of s-t01000-7 waits for disk"), seen: time.Now()},
	}}
	if got := a.texts(); !slices.Equal(got, []string{"disk: group1: p1 of s-t01000-7 waits for disk"}) {
		t.Errorf("waiting: %q", got)
	}
	got := a.findings()
	if len(got) != 1 || got[0].Code != "system_disk" || got[0].Severity != "warn" || got[0].Mend != "mount the array" {
		t.Errorf("findings: %+v", got)
	}
	var none *admission
	if none.texts() != nil || none.findings() != nil {
		t.Error("a consumer without admission")
	}
}
