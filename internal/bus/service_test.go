package bus

import (
	"encoding/json"
	"strings"
	"testing"
)

// The real nats CLI sees dispatchers and hosts, and asks them for their status; the host
// has a host's permissions.
func TestNatsMicroShowsTheFleet(t *testing.T) {
	f := newFleet(t, nil)
	host := f.host(t, "p1-host-3")
	for _, s := range []struct {
		b *Bus
		Service
	}{
		{f.Bus, Service{Kind: DispatcherService, Name: "d1", Description: "hands out phases", Status: func() any { return map[string]any{"sequence": 7} }}},
		{host, Service{Kind: ConsumerService, Name: "p1-host-3", Description: "does phases", Metadata: map[string]string{"groups": "group1", "workers": "10:p1", "empty": ""},
			Status: func() any { return HostStatus{Host: "p1-host-3", Version: "v9"} }}},
	} {
		stop, err := s.b.Serve(s.Service)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stop)
	}
	list := f.run(t, "micro", "list")
	for _, name := range []string{DispatcherService, ConsumerService} {
		if !strings.Contains(list, name) {
			t.Errorf("nats micro list lacks %s:\n%s", name, list)
		}
	}
	info := f.run(t, "micro", "info", ConsumerService)
	for _, word := range []string{"p1-host-3", "10:p1", "srv.sealfleet-consumer.p1-host-3"} {
		if !strings.Contains(info, word) {
			t.Errorf("nats micro info lacks %s:\n%s", word, info)
		}
	}
	if stats := f.run(t, "micro", "stats", ConsumerService); !strings.Contains(stats, ConsumerService) {
		t.Errorf("nats micro stats:\n%s", stats)
	}
	var status HostStatus
	if out := f.run(t, "req", "--raw", StatusSubject(ConsumerService, "p1-host-3"), ""); json.Unmarshal([]byte(out), &status) != nil || status.Version != "v9" {
		t.Errorf("nats req: %s", out)
	}
}

func TestVersionsOfServices(t *testing.T) {
	for v, want := range map[string]string{
		"v0.1.0": "0.1.0", "v0.1.0-3-gabc123": "0.1.0-3-gabc123", "0abc12345678": "0.0.0+0abc12345678", "dev": "0.0.0+dev", "abc-dirty": "0.0.0+abc-dirty",
	} {
		if got := semantic(v); got != want {
			t.Errorf("%s: %s, want %s", v, got, want)
		}
	}
}
