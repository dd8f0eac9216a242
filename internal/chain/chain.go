// Package chain is what a dispatcher needs of a Filecoin chain: the head, a ticket to
// start a sector with, and the two messages whose landing the gates wait for.
//
// The calls for messages are questions that may be asked at any time by any number of
// dispatchers: Precommit and Commit send the message of a (sector, issue) if it was never
// sent, and tell how it stands. Asking again sends nothing twice. So a dispatcher needs
// no memory of what it asked: the gate's issued event names the issue and the time from
// which the chain may be asked, the gate's done or failed event has the answer, and
// whatever happens between the two may happen again in another process.
//
// An adapter for a real node keeps that promise by looking for the sector's message on
// the chain and in the node's pool before it sends one. The development chain (Dev) keeps
// it by having no state at all: whether a message has landed is a pure function of the
// request, the settings and the clock.
package chain

import (
	"context"
	"errors"
	"time"

	"sealfleet/internal/phases"
)

// Epoch is the chain's count of time: 30 s on the main network.
type Epoch int64

// Ticket is the randomness that a sector's labels start from.
type Ticket struct {
	Value [32]byte
	Epoch Epoch // at which the chain drew it
}

// PrecommitRequest asks the chain to take a sector's commitments.
type PrecommitRequest struct {
	Sector string // id, s-t01000-7
	Issue  int    // of the gate; a redo has the next
	// Since is when the gate opened: the time of its issued event.
	Since time.Time

	Miner     uint64
	Number    uint64
	ProofType int
	CommR     [32]byte
	CommD     [32]byte
	Ticket    Ticket
}

// CommitRequest asks the chain to take a sector's proof.
type CommitRequest struct {
	PrecommitRequest
	Seed      [32]byte
	SeedEpoch Epoch
	Landed    Epoch  // of the precommit; 0: not known
	Proof     []byte // groth16 proofs of all partitions; empty when p4 made none
}

// State is how a message stands.
type State int

// The states.
const (
	Pending State = iota // sent, or waiting for its epoch
	Landed               // on chain
	Refused              // on chain and failed, or refused by the node
)

// Outcome is how a message stands now.
type Outcome struct {
	State   State
	Message string // the message's CID
	Epoch   Epoch  // at which it landed

	// Seed is the interactive randomness of a landed precommit; a precommit without it
	// is still Pending, because p3 can do nothing without it.
	Seed      [32]byte
	SeedEpoch Epoch

	// Ready is when a Pending message should be asked about again.
	Ready time.Time

	// Note says what people should know of a landed message ("accepted_without_snark").
	Note string

	// Code, Reason and Class tell why a Refused message was: a stable word, a sentence
	// with the mend, and whether trying again can help.
	Code   string
	Reason string
	Class  phases.Class
}

// Chain is a Filecoin chain as the gates see it. Errors are the adapter's own troubles
// (the node is away): ask again later. What the chain says is in the Outcome.
type Chain interface {
	// Head returns the latest epoch.
	Head(ctx context.Context) (Epoch, error)
	// Ticket draws the randomness that a new sector's p1 starts from.
	Ticket(ctx context.Context, miner, number uint64) (Ticket, error)
	// TicketUsable tells whether a precommit with a ticket of this epoch can still land.
	// A retried p1 keeps its ticket as long as it can, because its finished layers hang
	// on it.
	TicketUsable(ctx context.Context, e Epoch) (bool, error)
	// PrecommitBy is when a precommit with a ticket of this epoch must be on chain (on the
	// main network 3,780 epochs after it); zero: this chain's tickets do not age.
	PrecommitBy(ctx context.Context, ticket Epoch) (time.Time, error)
	// CommitBy is when the proof of a sector must be on chain whose precommit landed at an
	// epoch (on the main network 30 days and 150 epochs after it); zero: any time will do.
	CommitBy(ctx context.Context, precommit Epoch) (time.Time, error)
	// Precommit sends a sector's precommit if it was never sent, and tells how it stands.
	Precommit(ctx context.Context, r PrecommitRequest) (Outcome, error)
	// Commit sends a sector's proof if it was never sent, and tells how it stands.
	Commit(ctx context.Context, r CommitRequest) (Outcome, error)
}

// Proof is what a verifier checks.
type Proof struct {
	Miner     uint64
	Number    uint64
	ProofType int
	CommR     [32]byte
	CommD     [32]byte
	Ticket    [32]byte
	Seed      [32]byte
	Proof     []byte // groth16 proofs of all partitions, 192 bytes each
}

// ErrInvalidProof says that a proof is wrong, as opposed to not having been checked.
var ErrInvalidProof = errors.New("the proof does not verify")

// Verifier checks proofs of replication. Verify returns nil for a right proof, an error
// that wraps ErrInvalidProof for a wrong one, and any other error when it could not tell
// (no verifying key at hand): then the message stays pending.
type Verifier interface {
	Verify(ctx context.Context, p Proof) error
}

// VerifierFunc is a function that is a Verifier.
type VerifierFunc func(ctx context.Context, p Proof) error

// Verify calls f.
func (f VerifierFunc) Verify(ctx context.Context, p Proof) error { return f(ctx, p) }
