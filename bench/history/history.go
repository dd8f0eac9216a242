// Package history writes logs of many sectors for measurements.
package history

import (
	"context"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"sealfleet/internal/bus"
	"sealfleet/internal/phases"
)

// Write makes the log of many sectors of group1, group2, …: six tenths wait for p1, three tenths run it, a tenth was cancelled
// while it did.
func Write(ctx context.Context, b *bus.Bus, sectors, groups int) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(64)
	began := time.Now().Add(-24 * time.Hour)
	for i := range sectors {
		g.Go(func() error {
			id, group := phases.SectorID(1000, uint64(i)), fmt.Sprint("group", i%groups+1)
			at := began.Add(time.Duration(i) * time.Second / 2)
			event := func(kind phases.EventType, step phases.Step, host, prev string) phases.Event {
				return phases.Event{V: phases.Version, ID: ulid.Make().String(), Type: kind, Group: group, Sector: id, Step: step, Host: host, PrevID: prev, At: at}
			}
			dispatcher := phases.DispatcherName("bench")
			submitted := event(phases.Submitted, phases.SectorEnd, dispatcher, "")
			submitted.Spec = &phases.Spec{Miner: 1000, Number: uint64(i), ProofType: 8}
			sectorSeq, err := b.Append(ctx, submitted, 0)
			if err != nil {
				return err
			}
			issued := event(phases.Issued, phases.P1, dispatcher, "")
			issued.Issue, issued.Attempt = 1, 1
			issued.Inputs = map[string]string{phases.InputPrecommitBy: at.Add(30 * time.Hour).UTC().Format(time.RFC3339)}
			seq, err := b.Append(ctx, issued, 0)
			if err != nil || i%10 < 6 {
				return err
			}
			claimed := event(phases.Claimed, phases.P1, fmt.Sprint("host", i%500), issued.ID)
			claimed.Issue, claimed.Attempt, claimed.ClaimID = 1, 1, ulid.Make().String()
			seq, err = b.Append(ctx, claimed, seq)
			if err != nil || i%10 < 9 {
				return err
			}
			failed := event(phases.Failed, phases.P1, claimed.Host, claimed.ID)
			failed.Issue, failed.Attempt, failed.ClaimID = 1, 1, claimed.ClaimID
			failed.Result = &phases.Result{Code: "bad_piece", Class: phases.Permanent, Message: "the piece is not what was submitted"}
			if _, err = b.Append(ctx, failed, seq); err != nil || i%20 < 10 {
				return err
			}
			cancelled := event(phases.Cancelled, phases.SectorEnd, dispatcher, submitted.ID)
			_, err = b.Append(ctx, cancelled, sectorSeq)
			return err
		})
	}
	return g.Wait()
}
