package bus

import (
	"context"
	"testing"
	"time"
)

func TestControlsReachHosts(t *testing.T) {
	f := newFleet(t, nil)
	ctx := testContext(t)
	host := f.host(t, "host1")
	if list, err := host.Controls(ctx); err != nil || len(list) != 0 {
		t.Fatalf("before anything was set: %v, %v", list, err)
	}
	seen := make(chan []Control, 100)
	watch, stop := context.WithCancel(ctx)
	defer stop()
	go func() { _ = host.WatchControls(watch, func(l []Control) { seen <- l }, ControlDrain) }()
	<-seen
	set := func(c Control) {
		t.Helper()
		if _, err := f.SetControl(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	set(Control{Key: "drain.host1", On: true, By: "op@desk", Reason: "new disks"})
	set(Control{Key: "pause.group1.p1", On: true, By: "op@desk"})
	for l := range seen {
		if len(l) == 1 && l[0].Key == "drain.host1" && l[0].InForce(time.Now()) {
			if l[0].Reason != "new disks" || l[0].Kind() != ControlDrain || l[0].Name() != "host1" {
				t.Fatalf("%+v", l[0])
			}
			break
		}
	}
	set(Control{Key: "drain.host1", On: false, By: "op@desk"})
	for l := range seen {
		if len(l) == 1 && !l[0].InForce(time.Now()) {
			break
		}
	}
	all, err := host.Controls(ctx)
	if err != nil || len(all) != 2 {
		t.Fatalf("all: %+v, %v", all, err)
	}
	if _, err := f.SetControl(ctx, Control{Key: "drain.a.b c"}); err == nil {
		t.Fatal("a strange key was taken")
	}
	if _, err := host.nc.Request("ctl.drain.host1", []byte("{}"), 300*time.Millisecond); err == nil {
		t.Fatal("a host may set controls")
	}
}
