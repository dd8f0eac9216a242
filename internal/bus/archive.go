package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"sealfleet/internal/phases"

	"github.com/nats-io/nats.go"
)

// Tombstone is what is known of a sector that ended, for as long as there is a fleet.
type Tombstone struct {
	V        int               `json:"v"`
	Group    string            `json:"group"`
	Sector   string            `json:"sector"`
	Outcome  phases.Status     `json:"outcome"` // finished, failed or cancelled
	Reason   string            `json:"reason,omitempty"`
	At       time.Time         `json:"at"`
	Spec     phases.Spec       `json:"spec"`
	Outputs  map[string]string `json:"outputs,omitempty"` // comm_d, comm_r, messages, storage node
	LastSeq  uint64            `json:"last_seq"`          // of its events
	Attempts int               `json:"attempts"`          // issues of all steps
}

// Archive lays down a sector's tombstone. The first one stays: a second is success.
func (b *Bus) Archive(ctx context.Context, sector string, t Tombstone) error {
	if !isToken(sector) {
		return fmt.Errorf("%q is not a sector", sector)
	}
	if t.V == 0 {
		t.V = phases.Version
	}
	t.Sector = sector
	data, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return b.publishOnce(ctx, &nats.Msg{Subject: archiveSubject(sector), Data: data})
}

// Archived reads a sector's tombstone, nil if there is none.
func (b *Bus) Archived(ctx context.Context, sector string) (*Tombstone, error) {
	if !isToken(sector) {
		return nil, fmt.Errorf("%q is not a sector", sector)
	}
	m, err := b.get(ctx, ArchiveStream, getRequest{LastBySubj: archiveSubject(sector)})
	if m == nil || err != nil {
		return nil, err
	}
	var t Tombstone
	if err := json.Unmarshal(m.Data, &t); err != nil {
		return nil, fmt.Errorf("tombstone of %s: %w", sector, err)
	}
	return &t, nil
}
