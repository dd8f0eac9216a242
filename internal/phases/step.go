// Package phases is the life of a sector: its six phases, the two gates between them,
// the events that tell what happened, and the state that follows from the events.
//
// Everything here is pure: no I/O, no clock, no randomness of its own. The state is a
// validated fold: an event that doesn't chain to what came before is not believed,
// whoever sent it and in whatever order it arrives.
package phases

import (
	"fmt"
	"slices"
	"strings"
)

// Step is one station in a sector's life: a phase, a gate, or the sector itself (its
// submission, cancellation and end). Its text is the token used in subjects.
type Step string

// The stations. The chain of events of a sector has one part per station.
const (
	P1        Step = "p1"        // PreCommitPhase1: labels
	P2        Step = "p2"        // PreCommitPhase2: columns, trees, encoding
	Precommit Step = "precommit" // gate: the chain takes CommR and gives a seed
	P3        Step = "p3"        // CommitPhase1: vanilla proofs
	P4        Step = "p4"        // CommitPhase2: the SNARK
	P5        Step = "p5"        // CopyTask: to the storage node
	Commit    Step = "commit"    // gate: the chain takes the proof
	P6        Step = "p6"        // CleanTask: frees the cache
	SectorEnd Step = "sector"    // the sector's own chain: submitted, cancelled, finished
)

// Phases lists the six phases in the order of their bits.
func Phases() []Step { return []Step{P1, P2, P3, P4, P5, P6} }

// Steps lists phases and gates in the order in which a sector passes them.
func Steps() []Step { return []Step{P1, P2, Precommit, P3, P4, P5, Commit, P6} }

// The names that the old system gave the phases.
var oldNames = map[Step]string{
	P1: "PreCommitPhase1", P2: "PreCommitPhase2", P3: "CommitPhase1",
	P4: "CommitPhase2", P5: "CopyTask", P6: "CleanTask",
}

// IsPhase tells whether a host does the step; the others are done by dispatchers.
func (s Step) IsPhase() bool { _, ok := oldNames[s]; return ok }

// IsGate tells whether the step is a wait for the chain.
func (s Step) IsGate() bool { return s == Precommit || s == Commit }

// Bit returns the old system's bit of a phase (1, 2, 4, 8, 16, 32), 0 for other steps.
func (s Step) Bit() int {
	i := slices.Index(Phases(), s)
	if i < 0 {
		return 0
	}
	return 1 << i
}

// OldName returns the old system's name of a phase, such as PreCommitPhase1; for other
// steps their own.
func (s Step) OldName() string {
	if n, ok := oldNames[s]; ok {
		return n
	}
	return string(s)
}

// ParsePhase reads a phase by its short name, old name or old bit: p1, PreCommitPhase1, 1.
// "pc", the old note's word for CopyTask, is p5.
func ParsePhase(text string) (Step, error) {
	for _, p := range Phases() {
		if strings.EqualFold(text, string(p)) || strings.EqualFold(text, p.OldName()) || text == fmt.Sprint(p.Bit()) {
			return p, nil
		}
	}
	if strings.EqualFold(text, "pc") {
		return P5, nil
	}
	return "", fmt.Errorf("phase %q is unknown: use p1 to p6 (or the old names PreCommitPhase1, PreCommitPhase2, CommitPhase1, CommitPhase2, CopyTask, CleanTask)", text)
}
