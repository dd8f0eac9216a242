package host

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"
)

func TestWatchdogSpeaksUntilTheServiceHangs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_PID", "")
	t.Setenv("WATCHDOG_USEC", "20000")
	ctx, cancel := context.WithCancel(context.Background())
	ended, hang, asked := make(chan struct{}), make(chan struct{}), make(chan struct{})
	calls := 0
	go func() {
		defer close(ended)
		Watchdog(ctx, func() {
			if calls++; calls == 4 {
				close(asked)
				<-hang
			}
		})
	}()
	hear := func(within time.Duration) string {
		buf := make([]byte, 64)
		if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(buf)
		if err != nil {
			return ""
		}
		return string(buf[:n])
	}
	for range 3 {
		if got := hear(time.Minute); got != "WATCHDOG=1" {
			t.Fatalf("heard %q", got)
		}
	}
	<-asked
	if got := hear(100 * time.Millisecond); got != "" {
		t.Errorf("a service that hangs says %q", got)
	}
	cancel()
	close(hang)
	<-ended
	for _, usec := range []string{"", "0", "x"} {
		t.Setenv("WATCHDOG_USEC", usec)
		Watchdog(context.Background(), func() { t.Error("asked though nobody wants to know") })
	}
}
