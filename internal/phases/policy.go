package phases

import "time"

// Policy is what may differ between farms. The zero value is not useful: start from
// DefaultPolicy.
type Policy struct {
	MaxAttempts       int           // of a step, before the sector is parked
	CleanBeforeCommit bool          // p6 need not wait for the landed proof
	RetryDelay        time.Duration // after the first retryable failure; doubles each time
	TransientDelay    time.Duration // after the first transient failure; doubles each time
	MaxDelay          time.Duration // of either
}

// DefaultPolicy waits for the landed proof before p6, and gives each step three attempts.
func DefaultPolicy() Policy {
	return Policy{MaxAttempts: 3, RetryDelay: 15 * time.Second, TransientDelay: 30 * time.Second, MaxDelay: 15 * time.Minute}
}
