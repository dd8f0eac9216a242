package alerts

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
)

// TellWentBack tells the webhook that the event log went backwards. The dispatcher that
// found it stops, and whoever starts it again would find it again: it is told once within
// ALERT_REPEAT, which a file in the state directory remembers.
func TellWentBack(ctx context.Context, c Config, name, stateDir string, found error, log *slog.Logger) {
	path := filepath.Join(stateDir, "alarm-log-went-back")
	if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) < c.Repeat {
		return
	}
	for _, r := range Rules() {
		if r.Name != "LogWentBack" {
			continue
		}
		labels := r.labels(nil)
		labels["dispatcher"] = name
		a := &Alert{Name: r.Name, Severity: r.Severity, State: Firing, Labels: labels, Value: 1, StartsAt: time.Now().UTC(), Annotations: map[string]string{
			"summary": r.Summary, "mend": r.Mend, "runbook_url": c.Runbook(r.Name), "error": found.Error(),
		}}
		if err := newPoster(&c).post(ctx, []*Alert{a}, time.Now()); err != nil {
			log.Error("the alarm could not be posted", "error", err)
			return
		}
	}
	if err := renameio.WriteFile(path, []byte(fmt.Sprintln(time.Now().Format(time.RFC3339))), 0o600); err != nil {
		log.Warn("the alarm may be told again", "error", err)
	}
}
