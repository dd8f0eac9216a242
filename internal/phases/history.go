package phases

import (
	"errors"
	"time"
)

// Attempt is one issue of one step, as a sector's history shows it.
type Attempt struct {
	Step      Step      `json:"phase"`
	Issue     int       `json:"issue"`
	Attempt   int       `json:"attempt"`
	Host      string    `json:"host,omitempty"`
	Claims    int       `json:"claims,omitempty"` // more than one: taken over
	Status    Status    `json:"status"`           // issued, running, done, failed or cancelled
	IssuedAt  time.Time `json:"issued_at,omitzero"`
	NotBefore time.Time `json:"not_before,omitzero"`
	ClaimedAt time.Time `json:"claimed_at,omitzero"` // by the last host
	EndedAt   time.Time `json:"ended_at,omitzero"`
	Waited    float64   `json:"waited_seconds,omitempty"` // until the last claim
	Took      float64   `json:"took_seconds,omitempty"`   // from the last claim to the end
	Note      string    `json:"note,omitempty"`
	Fraction  float64   `json:"fraction,omitempty"`
	Result    *Result   `json:"result,omitempty"`
}

// Attempts makes a sector's history from its events in stream order: one row for each
// issue of each step, in the order of their issue. Events that the fold rejects are
// returned beside it, not in it; duplicates are not mentioned.
func Attempts(events []Event) (rows []Attempt, rejected []*Rejected) {
	s := NewSector()
	at := map[Step]int{} // the row of a step's last issue
	for _, e := range events {
		if err := s.Apply(e); err != nil {
			var r *Rejected
			if errors.As(err, &r) && r.Reason != Duplicate {
				rejected = append(rejected, r)
			}
			continue
		}
		if e.Step == SectorEnd {
			continue
		}
		if e.Type == Issued {
			if i, open := at[e.Step]; open && rows[i].EndedAt.IsZero() {
				rows[i].Status, rows[i].EndedAt = StatusCancelled, e.At // issued anew over what was not believed
			}
			at[e.Step] = len(rows)
			rows = append(rows, Attempt{
				Step: e.Step, Issue: e.Issue, Attempt: e.Attempt, Status: StatusIssued,
				IssuedAt: e.At, NotBefore: e.NotBefore,
			})
			continue
		}
		if e.Type != Stopped { // the row has ended with the cancellation
			rows[at[e.Step]].take(&e)
		}
	}
	return rows, rejected
}

func (a *Attempt) take(e *Event) {
	switch e.Type {
	case Claimed:
		a.Status, a.Host, a.ClaimedAt = StatusRunning, e.Host, e.At
		a.Claims++
		from := a.IssuedAt
		if a.NotBefore.After(from) {
			from = a.NotBefore
		}
		a.Waited = seconds(from, e.At)
	case Progress:
		a.Note, a.Fraction = e.Note, e.Fraction
	case Released:
		a.Status, a.Host, a.Note, a.Fraction, a.ClaimedAt = StatusIssued, "", "given back by "+e.Host, 0, time.Time{}
	case Done, Failed, Cancelled:
		a.EndedAt, a.Result = e.At, e.Result
		a.Status = map[EventType]Status{Done: StatusDone, Failed: StatusFailed, Cancelled: StatusCancelled}[e.Type]
		if a.Host == "" {
			a.Host = e.Host
		}
		if !a.ClaimedAt.IsZero() {
			a.Took = seconds(a.ClaimedAt, e.At)
		}
	}
}

// seconds is never negative, although the hosts' clocks differ.
func seconds(from, to time.Time) float64 { return max(to.Sub(from).Seconds(), 0) }
