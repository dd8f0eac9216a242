package consume

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"sealfleet/internal/engine"
	"sealfleet/internal/host"
	"sealfleet/internal/phases"
	"sealfleet/internal/sealcore"
	"sealfleet/internal/storage"
)

func fail(code string, class phases.Class, format string, args ...any) error {
	return &engine.Error{Code: code, Class: class, Message: fmt.Sprintf(format, args...)}
}

// request makes the engine's request of a task. leave must be called when the engine has
// ended. ip is the directory of the share that p1 works in.
func (c *Consumer) request(ctx context.Context, t phases.Task, ip string) (r engine.Request, leave func(), err error) {
	leave = func() {}
	prover := sealcore.ProverID(t.Spec.Miner)
	r = engine.Request{
		V: engine.Version, Phase: t.Step, Sector: t.Sector, Attempt: t.Attempt,
		ProofType: t.Spec.ProofType, ProverID: hex.EncodeToString(prover[:]), Number: t.Spec.Number,
		Pieces: t.Spec.Pieces, Inputs: t.Inputs, Threads: c.cfg.Threads,
	}
	if c.cfg.Engine == EngineNoop {
		return r, leave, nil
	}
	layout := storage.Layout{LocalDir: c.cfg.LocalDir, IP: t.Inputs["ip"], Sector: t.Sector}
	switch t.Step {
	case phases.P1:
		layout.IP = ip
		err = c.onShare(layout.IP, func() error { return c.prepareP1(layout, t.Inputs["ticket"]) })
	case phases.P2:
		// The share exists, or p1 did not run there; but a P2 host may have another user.
		if layout.IP != "" {
			err = c.onShare(layout.IP, layout.Make)
		}
		r.SpotCheck = c.cfg.SpotCheck
	case phases.P4:
		how := c.cfg.Proof.Request()
		r.Proof = &how
		if c.cfg.Proof.Threads > 0 {
			r.Threads = c.cfg.Proof.Threads
		}
	case phases.P5:
		r.Copy, leave, err = c.copyTo(t, &r)
	case phases.P6:
		r.Clean, err = c.cleanOf(ctx, t)
	}
	if err == nil && layout.IP == "" && t.Step != phases.P6 {
		err = fail("bad_request", phases.Permanent, "p1 left no address of its host: redo p1")
	}
	var fault *storage.Fault
	if errors.As(err, &fault) {
		err = fail(fault.Code, fault.Class, "%v", err)
	}
	r.Paths = engine.LayoutPaths(layout)
	return r, leave, err
}

// onShare does something small on a share from this process. What hangs with its file
// system is an error after DOCTOR_LIMIT, and the task waits for it to come back.
func (c *Consumer) onShare(ip string, f func() error) error {
	err := c.places.Do(c.cfg.share(ip), f)
	if errors.Is(err, host.ErrHung) {
		return fail("storage_away", phases.Transient, "%s: %v", c.cfg.share(ip), err)
	}
	return err
}

// prepareP1 makes the directories of a sector, and notes what p6 and another p1 must know.
func (c *Consumer) prepareP1(layout storage.Layout, ticket string) error {
	if err := layout.Make(); err != nil {
		return err
	}
	// p6 deletes only on the file system that p1 wrote to.
	if err := recordOrigin(c.cfg.share(layout.IP), layout.Cache(), c.cfg.HostName); err != nil {
		return err
	}
	return layout.NoteTicket(ticket)
}

// roomOf tells how much room a node has, without hanging with it.
func (c *Consumer) roomOf(n Node, sector string) (free, begun int64, err error) {
	type room struct{ free, begun int64 }
	got := make(chan room, 1)
	err = c.places.Do(n.Dir, func() error {
		free, begun, err := c.quotas.roomOf(n, sector)
		got <- room{free, begun}
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	r := <-got
	return r.free, r.begun, nil
}

// copyTo chooses p5's storage node: the one that was submitted, if the group may use it,
// else by Nodes.choose.
func (c *Consumer) copyTo(t phases.Task, r *engine.Request) (*engine.Copy, func(), error) {
	nothing := func() {}
	params, err := sealcore.ForProofType(t.Spec.ProofType)
	if err != nil {
		return nil, nothing, fail("bad_request", phases.Permanent, "%v", err)
	}
	nodes := c.cfg.Nodes
	if name := t.Spec.StorageNode; name != "" {
		node, err := nodes.find(name)
		if err != nil {
			return nil, nothing, fail("node_unknown", phases.Retryable, "%v", err)
		}
		nodes = Nodes{node}
	}
	node, err := nodes.choose(t.Group, t.Sector, int64(params.SectorSize), c.roomOf)
	if err != nil {
		return nil, nothing, err
	}
	first, changes, leave := c.shares.join(node.Name, t.Group)
	r.Limits = changes
	if node.Quota > 0 {
		unshare, ended := leave, c.quotas.take(node, t.Sector, int64(params.SectorSize))
		leave = func() { unshare(); ended() }
	}
	return &engine.Copy{Node: node.Name, Dir: node.Dir, S3: node.S3, BytesPerSec: first, Samples: c.cfg.Audit.Samples}, leave, nil
}

// cleanOf tells what p6 may remove. Of a sector that was sealed: the cache and the
// unsealed copy, on p5's receipt. Of one that was given up (precommit refused for good,
// or cancelled): everything. Without a receipt the chain itself must say that the sector
// was given up; a message alone deletes nothing, and a receipt that is not the chain's
// neither.
func (c *Consumer) cleanOf(ctx context.Context, t phases.Task) (*engine.Clean, error) {
	givenUp, err := c.givenUp(ctx, t)
	if err != nil {
		return nil, err
	}
	if givenUp {
		return &engine.Clean{Unsealed: true, Sealed: true}, nil
	}
	if err := c.mayClean(ctx, t); err != nil {
		return nil, err
	}
	clean := &engine.Clean{Unsealed: true, Sealed: c.cfg.CleanSealed, Receipt: true, Samples: c.cfg.Audit.Samples}
	var receipt storage.Receipt
	if json.Unmarshal([]byte(t.Inputs["receipt"]), &receipt) == nil {
		if node, err := c.cfg.Nodes.find(receipt.Node); err == nil {
			clean.NodeDir, clean.S3 = node.Dir, node.S3
		}
	}
	if clean.Sealed && clean.NodeDir == "" {
		clean.Sealed = false // its only other copy can't be looked at from here
	}
	return clean, nil
}

// givenUp asks the chain whether a sector's precommit was refused for good or the sector
// was cancelled.
func (c *Consumer) givenUp(ctx context.Context, t phases.Task) (bool, error) {
	if t.Inputs["receipt"] != "" && t.Inputs["commit_message"] != "" {
		return false, nil // its proof has landed: nothing was given up
	}
	for _, step := range []phases.Step{phases.SectorEnd, phases.Precommit} {
		last, err := c.bus.LastBy(ctx, t.Group, t.Sector, step, phases.DispatcherName(""))
		if err != nil {
			return false, fail("chain_unreadable", phases.Transient, "cannot read whether the sector was given up: %v", err)
		}
		if last == nil {
			continue
		}
		givenUp := last.Result != nil && (last.Result.Code == string(phases.StatusCancelled) || last.Result.Code == string(phases.StatusFailed))
		if last.Type == phases.Cancelled || last.Type == phases.Redo && givenUp ||
			step == phases.Precommit && last.Type == phases.Failed && last.Result != nil && last.Result.Class == phases.Permanent {
			return true, nil
		}
	}
	return false, nil
}
