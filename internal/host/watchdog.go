package host

import (
	"context"
	"os"
	"strconv"
	"time"
)

// Watchdog tells systemd at half of WatchdogSec that the service is alive, until ctx ends,
// if the unit asks for it. alive is called each time and must return: if it hangs, systemd
// hears nothing and starts the service anew.
func Watchdog(ctx context.Context, alive func()) {
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 {
		return
	}
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return // meant for another process of the unit
	}
	tick := time.NewTicker(time.Duration(usec) * time.Microsecond / 2)
	defer tick.Stop()
	for {
		alive()
		Notify("WATCHDOG=1")
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
