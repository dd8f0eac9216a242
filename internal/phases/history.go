package phases

import "time"

// Attempt is one issue of one step, as a sector's history shows it.
type Attempt struct {
	Step      Step      `json:"phase"`
	Issue     int       `json:"issue"`
	Attempt   int       `json:"attempt"`
	Host      string    `json:"host,omitempty"`
	Claims    int       `json:"claims,omitempty"` // more than one: taken over
	Status    Status    `json:"status"`
	IssuedAt  time.Time `json:"issued_at,omitzero"`
	ClaimedAt time.Time `json:"claimed_at,omitzero"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
	Waited    float64   `json:"waited_seconds,omitempty"` // from issued (or not_before) to claimed
	Took      float64   `json:"took_seconds,omitempty"`   // from claimed to the end
	Note      string    `json:"note,omitempty"`
	Result    *Result   `json:"result,omitempty"`
}

// Attempts makes a sector's history from its events in stream order: one row for each
// issue of each step. Events that the fold rejects are returned beside it, not in it.
func Attempts(events []Event) (rows []Attempt, rejected []*Rejected) { return nil, nil }
