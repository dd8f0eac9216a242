package dispatch

import (
	"sealfleet/internal/bus"
	"sealfleet/internal/phases"
)

// keptOutputs are what a tombstone remembers of the outputs: names and commitments, no
// proofs and lists.
var keptOutputs = []string{
	keyCommD, keyCommR, keySeed, keyPrecommitMessage, keyPrecommitEpoch, "proof_sha256", "snark",
	keyCommitMessage, keyCommitEpoch, keyCommitNote, "storage_node", "bytes_freed",
}

// tombstone is what remains of a sector: its end, and the outputs that it had before it
// (the fold drops them at the end).
func tombstone(before, end *phases.Sector, p phases.Policy) *bus.Tombstone {
	t := &bus.Tombstone{
		V: phases.Version, Group: end.Group, Sector: end.ID, Outcome: end.Status(p), Reason: end.Reason,
		At: end.Ended(), Spec: end.Spec, Outputs: map[string]string{}, LastSeq: end.Step(phases.SectorEnd).LastSeq,
	}
	for _, step := range phases.Steps() {
		st := before.Step(step)
		t.Attempts += st.Issue
		if st.Status != phases.StatusDone || st.Result == nil {
			continue
		}
		for _, key := range keptOutputs {
			if v, ok := st.Result.Outputs[key]; ok {
				t.Outputs[key] = v
			}
		}
	}
	return t
}

// tombstoneFrom makes a tombstone from a sector's events, nil if it has not ended.
func tombstoneFrom(events []phases.Event, p phases.Policy) *bus.Tombstone {
	s := phases.NewSector()
	for _, e := range events {
		before := *s
		_ = s.Apply(e) // what is not believed changes nothing
		if !s.Ended().IsZero() {
			return tombstone(&before, s, p)
		}
	}
	return nil
}
