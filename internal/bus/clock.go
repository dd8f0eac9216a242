package bus

import (
	"context"
	"time"

	"sealfleet/internal/phases"
)

// Clock tells how far this host's clock is ahead of the server's (negative: behind), and
// how sure that is: half of the fastest of some round trips. The server tells its time
// in what it says of a phase's durable consumer, which hosts may ask for.
func (b *Bus) Clock(ctx context.Context, group string, step phases.Step) (ahead, sure time.Duration, err error) {
	const tries = 4
	if err := checkTokens(group, "-", step, "-"); err != nil {
		return 0, 0, err
	}
	for i := range tries {
		var info struct {
			At time.Time `json:"ts"`
		}
		sent := time.Now()
		if err := b.api(ctx, "$JS.API.CONSUMER.INFO."+TasksStream+"."+Durable(group, step), struct{}{}, &info); err != nil {
			return 0, 0, err
		}
		trip := time.Since(sent)
		if half := trip / 2; i == 0 || half < sure {
			// Wall clocks are compared, without the monotonic one.
			ahead, sure = sent.Add(half).Round(0).Sub(info.At), half
		}
	}
	return ahead, sure, nil
}
