package phases

import "time"

// Versions of events and tasks. What is written has the lowest version that says it, so
// that a release before this one understands as much as it can while a farm is upgraded
// host by host. A reader sets aside what is above Newest, and leaves its sector to those
// who can read it.
const (
	Version      = 1 // of everything that needs no other
	VersionStops = 2 // stopped, released, paused, resumed, and failures that fall back (FallsBack)
	Newest       = 2 // the highest that this release understands
)

// EventType says what an event tells.
type EventType string

// The types. A step's chain is issued → claimed → done or failed; a claim may be taken
// over by another claim, and a failed or done step may be issued again.
const (
	Submitted EventType = "submitted" // sector chain: the sector is known; carries Spec
	Issued    EventType = "issued"    // the step may be done now; carries Issue and Attempt
	Claimed   EventType = "claimed"   // a host does it; carries a new ClaimID
	Progress  EventType = "progress"  // the claim's holder tells how far it is
	Done      EventType = "done"      // carries Result with outputs
	Failed    EventType = "failed"    // carries Result with code, class and message
	Cancelled EventType = "cancelled" // sector chain: an operator gave the sector up
	Redo      EventType = "redo"      // sector chain: an operator has a step done again; carries Target
	Finished  EventType = "finished"  // sector chain: nothing is left to do
	Stopped   EventType = "stopped"   // after cancelled: the claim's holder says that nothing of it runs any more
	Released  EventType = "released"  // the claim's holder gives it back unfinished: whoever wants may claim
	Paused    EventType = "paused"    // sector chain: an operator has nothing new begun
	Resumed   EventType = "resumed"   // sector chain: after paused
)

// Codes of failures that mean something to the fold.
const (
	// CodeTicketExpired is a failure of p1, p2 or the precommit: the chain takes nothing
	// that was sealed from the sector's ticket any more.
	CodeTicketExpired = "ticket_expired"
	// CodeCommitExpired is a failure of p3, p4 or the commit: the chain takes no proof of
	// the sector any more, and its number is spent.
	CodeCommitExpired = "commit_expired"
)

// InputIP names the directory of the share in which p1 works: LOCAL_DIR/nfs/<ip>. It is in
// p1's claim, among its outputs, and from then on an input of all phases.
const InputIP = "ip"

// FallsBack tells whether a failure of a step sends the sector back to p1: what was made
// from an expired ticket is of no use to anybody. It never is if the precommit landed.
func FallsBack(step Step, r *Result) bool {
	return r != nil && r.Code == CodeTicketExpired && r.Class == Retryable && (step == P2 || step == Precommit)
}

// Class says what follows from a failure.
type Class string

// The classes of failures.
const (
	Transient Class = "transient" // the world's fault (network, space): delay, spend no attempt
	Retryable Class = "retryable" // spend an attempt, try again
	Permanent Class = "permanent" // trying again gives the same: park the sector
)

// Result is how a step ended.
type Result struct {
	Code    string            `json:"code,omitempty"`    // stable word: "ok", "no_space", "proof_refused", …
	Class   Class             `json:"class,omitempty"`   // of a failure
	Message string            `json:"message,omitempty"` // for people, with the mend
	Digest  string            `json:"digest,omitempty"`  // SHA-256 over the outputs
	Outputs map[string]string `json:"outputs,omitempty"` // what later steps need: comm_r, seed, paths, …
	Seconds float64           `json:"seconds,omitempty"` // the work itself, without waiting
	Bytes   int64             `json:"bytes,omitempty"`   // copied (p5) or freed (p6)
}

// Piece is one piece of a sector's data as submitted.
type Piece struct {
	Path         string `json:"path"`          // as the P1 host sees it
	UnpaddedSize uint64 `json:"unpadded_size"` // bytes, 127·2^k
}

// Spec is what an operator submits: one sector to seal.
type Spec struct {
	Miner       uint64  `json:"miner"`                  // actor id: 1000 is f01000
	Number      uint64  `json:"number"`                 // sector number
	ProofType   int     `json:"proof_type"`             // 0 to 9
	Pieces      []Piece `json:"pieces,omitempty"`       // empty: committed capacity
	StorageNode string  `json:"storage_node,omitempty"` // where p5 copies to; empty: the host's choice
	SubmittedBy string  `json:"submitted_by,omitempty"` // user@host, for the audit
}

// Event is one thing that happened to one sector. Events of one (sector, step) form a
// chain: PrevID is the ID of the event before it, and appending is compare-and-set.
type Event struct {
	V           int       `json:"v"`
	ID          string    `json:"id"` // ULID
	Type        EventType `json:"type"`
	Group       string    `json:"group"`
	Sector      string    `json:"sector"` // SectorID
	Step        Step      `json:"phase"`
	Issue       int       `json:"issue,omitempty"`    // of the step, from 1; a redo or retry has the next
	Attempt     int       `json:"attempt,omitempty"`  // spent so far in this issue's series, from 1
	ClaimID     string    `json:"claim_id,omitempty"` // random; the holder's authority
	PrevID      string    `json:"prev_id,omitempty"`
	Host        string    `json:"host,omitempty"` // the actor: a host, or a dispatcher
	At          time.Time `json:"at"`
	InputDigest string    `json:"input_digest,omitempty"`
	Spec        *Spec     `json:"spec,omitempty"` // Submitted only
	// Inputs of an Issued event are what the dispatcher adds to the outputs of the steps
	// before: p1's ticket is drawn once, and fixed by the event that won the chain. Those of
	// a Claimed event of p1 say where it works (InputIP), done or not: who cleans needs that.
	Inputs    map[string]string `json:"inputs,omitempty"`
	Target    Step              `json:"target,omitempty"` // Redo only
	Reason    string            `json:"reason,omitempty"` // Redo, Cancelled: why, for the audit
	NotBefore time.Time         `json:"not_before,omitzero"`
	Note      string            `json:"note,omitempty"` // Progress: "layer 3/11"
	Fraction  float64           `json:"fraction,omitempty"`
	Result    *Result           `json:"result,omitempty"`

	// Seq is the event's sequence in its stream, set by who read it there.
	Seq uint64 `json:"-"`
}

// Task is what a host gets to do: one phase of one sector, with all it needs to know.
type Task struct {
	V        int               `json:"v"`
	Group    string            `json:"group"`
	Sector   string            `json:"sector"`
	Step     Step              `json:"phase"`
	Issue    int               `json:"issue"`
	Attempt  int               `json:"attempt"`
	IssuedID string            `json:"issued_id"` // the event that issued it; a claim chains to the step's last event
	Spec     Spec              `json:"spec"`
	Inputs   map[string]string `json:"inputs,omitempty"` // outputs of the steps before it, merged

	// IssuedSeq is the sequence of the issued event. A first delivery may claim with it
	// as the expected sequence, without reading the chain.
	IssuedSeq uint64    `json:"issued_seq,omitempty"`
	NotBefore time.Time `json:"not_before,omitzero"` // the bus holds the task back until then
}
