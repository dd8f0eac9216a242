// Package engine does the work of a phase, behind one interface: in this process
// (Builtin, Noop) or in a child process (Command) that speaks the protocol below. The
// consumer runs every phase in a process of its own (package keep), so that a phase can be
// killed with everything that it started, and so that what it allocates is gone when it
// ends. There Builtin works itself, or Exec starts a program that speaks the protocol below.
// Serve is such a program's side of it, for those that are written in Go.
//
// # Protocol, version 1
//
// The engine reads lines of JSON from stdin and writes lines of JSON to stdout; stderr is
// for people and goes to the log.
//
//   - The first line on stdin is the Request.
//   - stdin then stays open for as long as the parent lives. Lines that may follow are
//     controls, {"type":"limit","copy_bytes_per_sec":N}; an engine may ignore them. End of
//     file means that the parent is dead: the engine must exit at once, because nobody
//     will take its result and another host may already do its work.
//   - {"type":"progress","step":"layer 1/2","done":1,"total":64}, any number of times.
//   - Exactly one last line: {"type":"result","outputs":{…},"bytes":N,"message":"…"} and
//     exit code 0, or {"type":"error","code":"no_space","class":"transient",
//     "message":"…"} and any exit code. Classes: transient (wait, spend no attempt),
//     retryable, permanent.
//   - SIGTERM asks it to stop soon; SIGKILL follows.
//
// An engine runs in a process group of its own, and whatever is left of the group when it
// ends is killed. It must leave the sector's files either as they were or complete: each
// file is written under a temporary name, synced and renamed, so two attempts that
// overlap for a moment (the loser of a claim is killed, but not in zero time) leave the
// same bytes as one, and no attempt needs a directory of its own.
//
// What the parent makes of anything else (codes; all retryable): engine_start (cannot be
// started), engine_garbage (a line that is not of the protocol, or is too long),
// engine_no_result (exit 0 without a result), engine_exit (exit other than 0 without an
// error, or after a result), engine_signal (killed by a signal that we did not send, such
// as the kernel's when memory is short), engine_hung (a result, and then no end).
package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"sealfleet/internal/phases"
	"sealfleet/internal/storage"
)

// Version of the protocol that this release speaks.
const Version = 1

// Engine does one phase of one sector.
type Engine interface {
	// Run does what the request says. progress may be nil, and may be called from any
	// goroutine. The error is an *Error, or wraps ctx's cause when ctx is done; Run
	// returns only when nothing of the work goes on any more.
	Run(ctx context.Context, r Request, progress func(Progress)) (Result, error)
}

// Request is a phase to do.
type Request struct {
	V       int         `json:"v"`
	Phase   phases.Step `json:"phase"`   // p1 to p6
	Sector  string      `json:"sector"`  // s-t01000-7
	Attempt int         `json:"attempt"` // for the log

	ProofType int    `json:"proof_type"`         // 0 to 9; -1: the toy shape named by Shape
	Shape     string `json:"shape,omitempty"`    // 16KiB, 32KiB
	PoRepID   string `json:"porep_id,omitempty"` // hex; empty: that of the proof type
	ProverID  string `json:"prover_id"`          // hex
	Number    uint64 `json:"number"`             // sector number

	Pieces []phases.Piece    `json:"pieces,omitempty"` // p1; none: committed capacity
	Inputs map[string]string `json:"inputs"`           // outputs of the phases before
	Paths  Paths             `json:"paths"`

	Threads int `json:"threads,omitempty"` // most cores to use, 0: all

	// SpotCheck is how many nodes p2 recomputes before it reports success; 0: none.
	SpotCheck int `json:"spot_check,omitempty"`

	Proof *Proof `json:"proof,omitempty"` // p4
	Copy  *Copy  `json:"copy,omitempty"`  // p5
	Clean *Clean `json:"clean,omitempty"` // p6

	// Limits, if set, brings new values of Copy.BytesPerSec while p5 runs.
	Limits <-chan int64 `json:"-"`
	// Cores are those that a child process runs on; none: any.
	Cores []int `json:"-"`
}

// Paths are a sector's places.
type Paths struct {
	Unsealed string `json:"unsealed"`
	Sealed   string `json:"sealed"`
	Cache    string `json:"cache"`
	P1JSON   string `json:"p1_json"` // p1 writes it, p2 reads it
	C1JSON   string `json:"c1_json"` // p3 writes it, p4 reads it

	// LocalDir and IP, with Sector, are what p5 and p6 know the places by.
	LocalDir string `json:"local_dir,omitempty"`
	IP       string `json:"ip,omitempty"`
}

// Proof is how p4 proves.
type Proof struct {
	// Parameters is the directory of the parameter files; empty: the reference's default.
	Parameters string `json:"parameters,omitempty"`
	// SelfMade lets sectors of production sizes use parameters that are not Filecoin's.
	SelfMade bool `json:"self_made,omitempty"`
	// None makes no SNARK: every vanilla proof is verified instead, and the result says so.
	None bool `json:"none,omitempty"`
}

// Copy is where p5 copies to.
type Copy struct {
	Node        string `json:"node"`
	Dir         string `json:"dir"`                     // or s3://bucket/prefix
	BytesPerSec int64  `json:"bytes_per_sec,omitempty"` // 0: unlimited
	// S3 is how an object store is reached.
	S3 storage.S3Options `json:"s3,omitzero"`
	// Samples is how many random challenges the copy must answer against CommR; 0: none.
	Samples int `json:"samples,omitempty"`
}

// Clean is what p6 removes.
type Clean struct {
	Unsealed bool `json:"unsealed,omitempty"`
	Sealed   bool `json:"sealed,omitempty"`
	// Receipt is set if nothing may be deleted without p5's receipt; NodeDir is the node's
	// directory on this host, empty if it isn't mounted here and the receipt must do.
	Receipt bool              `json:"receipt,omitempty"`
	NodeDir string            `json:"node_dir,omitempty"`
	S3      storage.S3Options `json:"s3,omitzero"`
	// Samples is how many random challenges the copy must answer first; 0: none.
	Samples int `json:"samples,omitempty"`
}

// Progress says how far a phase is, in the step's own units.
type Progress struct {
	Step  string `json:"step"`
	Done  uint64 `json:"done"`
	Total uint64 `json:"total"`
}

// Result is a phase well ended.
type Result struct {
	Outputs map[string]string `json:"outputs,omitempty"`
	Bytes   int64             `json:"bytes,omitempty"`   // copied (p5) or freed (p6)
	Message string            `json:"message,omitempty"` // for people
}

// Error is a phase that failed.
type Error struct {
	Code    string       `json:"code"`
	Class   phases.Class `json:"class"`
	Message string       `json:"message"`
}

func (e *Error) Error() string { return fmt.Sprintf("%s (%s)", e.Message, e.Code) }

func failf(code string, class phases.Class, format string, args ...any) *Error {
	return &Error{Code: code, Class: class, Message: fmt.Sprintf(format, args...)}
}

// check refuses a request that no engine could do.
func (r Request) check() error {
	if r.V != Version {
		return failf("bad_request", phases.Permanent, "request has protocol version %d, this engine speaks %d: use one release for both", r.V, Version)
	}
	if !r.Phase.IsPhase() {
		return failf("bad_request", phases.Permanent, "%q is no phase", r.Phase)
	}
	return nil
}

// asError makes sure that an engine's error has a code and a class.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		if e.Code == "" {
			e.Code = "phase_failed"
		}
		switch e.Class {
		case phases.Transient, phases.Retryable, phases.Permanent:
		default:
			e.Class = phases.Retryable
		}
		return e
	}
	return failf("phase_failed", phases.Retryable, "%v", err)
}

// Noop is an engine that does nothing, for measuring the bus. What it says is of the form
// that the gates of a development chain want, and means nothing.
type Noop struct{}

// Run returns at once.
func (Noop) Run(ctx context.Context, r Request, _ func(Progress)) (Result, error) {
	if err := r.check(); err != nil {
		return Result{}, err
	}
	return Result{Outputs: noopOutputs[r.Phase], Message: "nothing was done (engine noop)"}, ctx.Err()
}

var noopHash = strings.Repeat("00", 32)

var noopOutputs = map[phases.Step]map[string]string{
	phases.P1: {"comm_d": noopHash, "replica_id": noopHash, "pieces": "[]"},
	phases.P2: {"comm_r": noopHash, "comm_c": noopHash, "comm_r_last": noopHash},
	phases.P3: {"c1_sha256": noopHash, "c1_bytes": "0"},
	phases.P4: {"proof": "", "snark": "none: engine noop did nothing", "proof_bytes": "0"},
	phases.P5: {"storage_node": "none", "receipt": "{}"},
	phases.P6: {"bytes_freed": "0"},
}
