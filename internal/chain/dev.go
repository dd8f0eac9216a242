package chain

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"sealfleet/internal/phases"
)

// Codes of a development chain's refusals and notes.
const (
	CodeToldToFail = "told_to_fail"  // DEV_CHAIN_FAIL_PRECOMMIT or DEV_CHAIN_FAIL_COMMIT
	CodeBadProof   = "proof_refused" // the verifier says no
	CodeNoSnark    = "no_snark"      // DEV_CHAIN_REQUIRE_SNARK=true and p4 made none
	CodeNoVerifier = "no_verifier"   // a proof came, and nothing here can check it

	NoteWithoutSnark = "accepted_without_snark"
	NoteVerified     = "snark_verified"
)

// DevConfig is how the development chain behaves. Dispatchers that share a bus must have
// the same values.
type DevConfig struct {
	Epoch           time.Duration `env:"DEV_CHAIN_EPOCH" envDefault:"1s" desc:"development chain: length of an epoch (30s on the main network)" example:"100ms"`
	Genesis         time.Time     `env:"DEV_CHAIN_GENESIS" envDefault:"2026-01-01T00:00:00Z" desc:"development chain: time of epoch 0, RFC 3339" example:"2026-01-01T00:00:00Z"`
	Seed            string        `env:"DEV_CHAIN_SEED" envDefault:"sealfleet" desc:"development chain: text that all its randomness follows from" example:"demo-7"`
	TicketLookback  int64         `env:"DEV_CHAIN_TICKET_LOOKBACK" envDefault:"900" desc:"development chain: epochs between a ticket and the head" example:"900"`
	PrecommitEpochs int64         `env:"DEV_CHAIN_PRECOMMIT_EPOCHS" envDefault:"2" desc:"development chain: epochs until a precommit lands" example:"2"`
	SeedEpochs      int64         `env:"DEV_CHAIN_SEED_EPOCHS" envDefault:"5" desc:"development chain: epochs between a precommit and its seed (150 on the main network)" example:"150"`
	TicketEpochs    int64         `env:"DEV_CHAIN_TICKET_EPOCHS" envDefault:"87300" desc:"development chain: age in epochs up to which a ticket is good for a precommit (3780 on the main network); 0: for ever" example:"3780"`
	CommitWithin    int64         `env:"DEV_CHAIN_COMMIT_WITHIN" envDefault:"2592150" desc:"development chain: epochs after the precommit in which the proof must land (86550 on the main network); 0: any time" example:"86550"`
	CommitEpochs    int64         `env:"DEV_CHAIN_COMMIT_EPOCHS" envDefault:"2" desc:"development chain: epochs until a commit lands" example:"2"`
	FailPrecommit   SectorList    `env:"DEV_CHAIN_FAIL_PRECOMMIT" desc:"development chain: sectors whose precommit fails: numbers, ids, or all" example:"7,s-t01000-9"`
	FailCommit      SectorList    `env:"DEV_CHAIN_FAIL_COMMIT" desc:"development chain: sectors whose commit is refused: numbers, ids, or all" example:"all"`
	RequireSnark    bool          `env:"DEV_CHAIN_REQUIRE_SNARK" envDefault:"true" desc:"development chain: refuse a commit without a SNARK; false accepts it with a note" example:"false"`
}

// Validate refuses what no chain can have.
func (c *DevConfig) Validate() error {
	switch {
	case c.Epoch < 0:
		return fmt.Errorf("DEV_CHAIN_EPOCH=%q: an epoch cannot be negative (example: DEV_CHAIN_EPOCH=\"100ms\")", c.Epoch)
	case c.PrecommitEpochs < 0 || c.SeedEpochs < 0 || c.CommitEpochs < 0 || c.TicketLookback < 0 || c.TicketEpochs < 0 || c.CommitWithin < 0:
		return errors.New("DEV_CHAIN_PRECOMMIT_EPOCHS, DEV_CHAIN_SEED_EPOCHS, DEV_CHAIN_COMMIT_EPOCHS, DEV_CHAIN_TICKET_LOOKBACK, DEV_CHAIN_TICKET_EPOCHS and DEV_CHAIN_COMMIT_WITHIN: numbers of epochs cannot be negative (example: DEV_CHAIN_SEED_EPOCHS=5)")
	case c.TicketEpochs > 0 && c.TicketEpochs <= c.TicketLookback:
		return fmt.Errorf("DEV_CHAIN_TICKET_EPOCHS=%d: a ticket is DEV_CHAIN_TICKET_LOOKBACK=%d epochs old when it is drawn; it must be good for longer (example: DEV_CHAIN_TICKET_EPOCHS=3780), or 0: for ever", c.TicketEpochs, c.TicketLookback)
	}
	return nil
}

// Dev is a chain for demonstrations and tests that lives in the dispatcher. It has no
// state: epochs follow from the clock, randomness is a hash of the settings, the sector
// and the epoch, and a message that the gate opened at Since has landed when its epochs
// have passed since then. Because Since is written in the gate's issued event, every
// dispatcher, before and after any restart, gets the same answer.
type Dev struct {
	cfg    DevConfig
	verify Verifier
	now    func() time.Time
}

// NewDev makes a development chain. A nil verifier refuses every proof that is not
// empty; a nil now is the wall clock; a zero genesis is that of the settings' default.
func NewDev(cfg DevConfig, verify Verifier, now func() time.Time) *Dev {
	if now == nil {
		now = time.Now
	}
	if cfg.Genesis.IsZero() { // too long ago for a time.Duration
		cfg.Genesis = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	return &Dev{cfg: cfg, verify: verify, now: now}
}

// Head returns the epoch of the clock. With epochs of length zero it is always 1,000,000.
func (d *Dev) Head(context.Context) (Epoch, error) { return d.epochAt(d.now()), nil }

// Ticket returns the randomness of the epoch TicketLookback before the head.
func (d *Dev) Ticket(_ context.Context, miner, number uint64) (Ticket, error) {
	e := max(d.epochAt(d.now())-Epoch(d.cfg.TicketLookback), 0)
	return Ticket{Value: d.randomness("ticket", miner, number, e), Epoch: e}, nil
}

// TicketUsable tells whether a precommit that is sent now would land in time.
func (d *Dev) TicketUsable(_ context.Context, e Epoch) (bool, error) {
	return !d.tooOld(e, d.epochAt(d.now())+Epoch(d.cfg.PrecommitEpochs)), nil
}

// tooOld tells whether a ticket is, for a precommit that lands at an epoch.
func (d *Dev) tooOld(ticket, landed Epoch) bool {
	return d.ages(d.cfg.TicketEpochs) && landed > ticket+Epoch(d.cfg.TicketEpochs)
}

// ages tells whether a limit in epochs means anything: without a clock none does.
func (d *Dev) ages(limit int64) bool { return limit > 0 && d.cfg.Epoch > 0 }

// PrecommitBy is when the last epoch begins at which a ticket is still good.
func (d *Dev) PrecommitBy(_ context.Context, ticket Epoch) (time.Time, error) {
	return d.limit(ticket, d.cfg.TicketEpochs), nil
}

// CommitBy is when the last epoch begins at which a proof is still taken.
func (d *Dev) CommitBy(_ context.Context, precommit Epoch) (time.Time, error) {
	return d.limit(precommit, d.cfg.CommitWithin), nil
}

func (d *Dev) limit(from Epoch, epochs int64) time.Time {
	if !d.ages(epochs) {
		return time.Time{}
	}
	return d.cfg.Genesis.Add(time.Duration(int64(from)+epochs) * d.cfg.Epoch)
}

// Precommit tells how a sector's precommit stands.
func (d *Dev) Precommit(_ context.Context, r PrecommitRequest) (Outcome, error) {
	landed := d.epochAt(r.Since) + Epoch(d.cfg.PrecommitEpochs)
	out := Outcome{Message: d.message("precommit", &r, nil), Epoch: landed}
	if d.tooOld(r.Ticket.Epoch, landed) {
		out.State, out.Code, out.Class = Refused, phases.CodeTicketExpired, phases.Retryable
		out.Reason = fmt.Sprintf("the sector's ticket is of epoch %d, and a precommit would land at %d: more than %d epochs later", r.Ticket.Epoch, landed, d.cfg.TicketEpochs)
		return out, nil
	}
	if d.cfg.FailPrecommit.Has(r.Sector, r.Number) {
		if at := d.timeOf(r.Since, d.cfg.PrecommitEpochs); d.now().Before(at) {
			return Outcome{State: Pending, Message: out.Message, Ready: at}, nil
		}
		out.State, out.Code, out.Class = Refused, CodeToldToFail, phases.Permanent
		out.Reason = "the development chain was told to fail this precommit (DEV_CHAIN_FAIL_PRECOMMIT)"
		return out, nil
	}
	if at := d.timeOf(r.Since, d.cfg.PrecommitEpochs+d.cfg.SeedEpochs); d.now().Before(at) {
		return Outcome{State: Pending, Message: out.Message, Ready: at}, nil
	}
	out.State = Landed
	out.SeedEpoch = landed + Epoch(d.cfg.SeedEpochs)
	out.Seed = d.randomness("seed", r.Miner, r.Number, out.SeedEpoch)
	return out, nil
}

// Commit tells how a sector's commit stands; the proof is checked when it would land.
func (d *Dev) Commit(ctx context.Context, r CommitRequest) (Outcome, error) {
	out := Outcome{
		Message: d.message("commit", &r.PrecommitRequest, r.Proof),
		Epoch:   d.epochAt(r.Since) + Epoch(d.cfg.CommitEpochs),
	}
	if at := d.timeOf(r.Since, d.cfg.CommitEpochs); d.now().Before(at) {
		return Outcome{State: Pending, Message: out.Message, Ready: at}, nil
	}
	refuse := func(code, reason string) (Outcome, error) {
		out.State, out.Code, out.Reason, out.Class = Refused, code, reason, phases.Permanent
		return out, nil
	}
	switch {
	case r.Landed > 0 && d.ages(d.cfg.CommitWithin) && out.Epoch > r.Landed+Epoch(d.cfg.CommitWithin):
		return refuse(phases.CodeCommitExpired, fmt.Sprintf("the precommit landed at epoch %d, and the proof would at %d: more than %d epochs later (mend: cancel the sector; its number is spent)", r.Landed, out.Epoch, d.cfg.CommitWithin))
	case d.cfg.FailCommit.Has(r.Sector, r.Number):
		return refuse(CodeToldToFail, "the development chain was told to refuse this commit (DEV_CHAIN_FAIL_COMMIT)")
	case len(r.Proof) == 0 && d.cfg.RequireSnark:
		return refuse(CodeNoSnark, "no SNARK was made, and DEV_CHAIN_REQUIRE_SNARK=true: redo p4 on a host that makes one")
	case len(r.Proof) == 0:
		out.State, out.Note = Landed, NoteWithoutSnark
		return out, nil
	case d.verify == nil:
		return refuse(CodeNoVerifier, "this dispatcher has no verifier, so no proof can be accepted")
	}
	err := d.verify.Verify(ctx, Proof{
		Miner: r.Miner, Number: r.Number, ProofType: r.ProofType,
		CommR: r.CommR, CommD: r.CommD, Ticket: r.Ticket.Value, Seed: r.Seed, Proof: r.Proof,
	})
	if errors.Is(err, ErrInvalidProof) {
		return refuse(CodeBadProof, err.Error())
	}
	if err != nil {
		return Outcome{}, fmt.Errorf("check the proof of sector %s: %w", r.Sector, err)
	}
	out.State, out.Note = Landed, NoteVerified
	return out, nil
}

const stillEpoch = 1_000_000

func (d *Dev) epochAt(t time.Time) Epoch {
	if d.cfg.Epoch == 0 {
		return stillEpoch
	}
	return Epoch(max(t.Sub(d.cfg.Genesis), 0) / d.cfg.Epoch)
}

// timeOf is when the epoch that lies n after that of since begins; for n = 0 that is in
// the past, so that a chain without delays answers at once.
func (d *Dev) timeOf(since time.Time, n int64) time.Time {
	if d.cfg.Epoch == 0 || n == 0 {
		return time.Time{}
	}
	return d.cfg.Genesis.Add(time.Duration(int64(d.epochAt(since))+n) * d.cfg.Epoch)
}

func (d *Dev) randomness(kind string, miner, number uint64, e Epoch) [32]byte {
	h := sha256.New()
	var n [24]byte
	binary.BigEndian.PutUint64(n[0:], miner)
	binary.BigEndian.PutUint64(n[8:], number)
	binary.BigEndian.PutUint64(n[16:], uint64(e))
	fmt.Fprintf(h, "%s\x00%s\x00", d.cfg.Seed, kind)
	h.Write(n[:])
	return [32]byte(h.Sum(nil))
}

// message makes a name for a message; it looks like no CID, because nothing carries it.
func (d *Dev) message(kind string, r *PrecommitRequest, proof []byte) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%s\x00%s\x00%d\x00", d.cfg.Seed, kind, r.Sector, r.Issue)
	h.Write(r.CommR[:])
	h.Write(r.CommD[:])
	h.Write(proof)
	return "dev-" + kind + "-" + hex.EncodeToString(h.Sum(nil)[:12])
}
