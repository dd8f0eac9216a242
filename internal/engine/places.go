package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"sealfleet/internal/host"
	"sealfleet/internal/phases"
	"sealfleet/internal/storage"
	"sealfleet/internal/throttle"
)

// LayoutPaths returns a sector's places on the share of its group.
func LayoutPaths(l storage.Layout) Paths {
	return Paths{
		Unsealed: l.Unsealed(), Sealed: l.Sealed(), Cache: l.Cache(), P1JSON: l.P1JSON(), C1JSON: l.C1JSON(),
		LocalDir: l.LocalDir, IP: l.IP,
	}
}

func (r Request) layout() storage.Layout {
	return storage.Layout{LocalDir: r.Paths.LocalDir, IP: r.Paths.IP, Sector: r.Sector}
}

// runCopy is p5.
func runCopy(ctx context.Context, r Request, progress func(Progress)) (Result, error) {
	if r.Copy == nil {
		return Result{}, failf("bad_request", phases.Permanent, "p5 has no storage node to copy to")
	}
	limit := throttle.New(r.Copy.BytesPerSec)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		for {
			select {
			case n := <-r.Limits:
				limit.SetRate(n)
			case <-ctx.Done():
				return
			}
		}
	}()
	start := time.Now()
	var resumed []string
	receipt, err := storage.Copy{
		S3: r.Copy.S3,
		OnResume: func(name string, chunks, redone int) {
			resumed = append(resumed, fmt.Sprintf("%s went on from %d chunks of an earlier attempt, %d of them copied again", name, chunks, redone))
		},
		From: r.layout(), Node: r.Copy.Node, Dir: r.Copy.Dir, Limit: limit, Replica: r.Inputs["comm_r"],
		OnBytes: func(step string, done, total int64) { progress(Progress{step, uint64(done), uint64(total)}) },
	}.Run(ctx)
	if err != nil {
		return Result{}, err
	}
	took := time.Since(start).Round(time.Millisecond)
	progress(Progress{"audit", 0, 1})
	note, err := r.auditCopy(ctx, r.Copy.Dir, r.Copy.S3, r.Copy.Samples, phases.Retryable)
	if err != nil {
		return Result{}, err
	}
	data, err := json.Marshal(receipt)
	if err != nil {
		return Result{}, err
	}
	notes := append([]string{fmt.Sprintf("%d files, %d bytes copied and read back in %v", len(receipt.Files), receipt.Bytes(), took)}, resumed...)
	if note != "" {
		notes = append(notes, note)
	}
	return Result{
		Outputs: map[string]string{"storage_node": receipt.Node, "receipt": string(data)},
		Bytes:   receipt.Bytes(),
		Message: strings.Join(notes, "; "),
	}, nil
}

// runClean is p6.
func runClean(ctx context.Context, r Request) (Result, error) {
	if r.Clean == nil {
		return Result{}, failf("bad_request", phases.Permanent, "p6 was not told what to remove")
	}
	var notes []string
	if r.Clean.Receipt {
		text := r.Inputs["receipt"]
		var receipt storage.Receipt
		if err := json.Unmarshal([]byte(text), &receipt); err != nil {
			return Result{}, failf("no_receipt", phases.Permanent, "p5 left no receipt (%q): nothing was deleted; mend: dispatcher redo %s --phase p5", text, r.Sector)
		}
		if r.Clean.NodeDir == "" {
			notes = append(notes, fmt.Sprintf("storage node %s is not mounted here: p5's receipt was believed without looking", receipt.Node))
		} else {
			// The local replica goes only if the stored one is the same to the last byte.
			if err := storage.VerifyReceipt(ctx, r.Clean.NodeDir, r.Clean.S3, receipt, r.Sector, r.Clean.Sealed, nil); err != nil {
				return Result{}, err
			}
			note, err := r.auditCopy(ctx, r.Clean.NodeDir, r.Clean.S3, r.Clean.Samples, phases.Permanent)
			if err != nil {
				return Result{}, err
			}
			if note != "" {
				notes = append(notes, note)
			}
		}
	}
	done, err := storage.Clean{Of: r.layout(), Cache: true, Unsealed: r.Clean.Unsealed, Sealed: r.Clean.Sealed, CheckDevice: host.CheckOrigin}.Run(ctx)
	if err != nil {
		return Result{}, err
	}
	if len(done.Kept) > 0 {
		notes = append(notes, fmt.Sprintf("left alone what no phase has written: %s", strings.Join(done.Kept, ", ")))
	}
	return Result{Outputs: map[string]string{"bytes_freed": strconv.FormatInt(done.Freed, 10)}, Bytes: done.Freed, Message: strings.Join(notes, "; ")}, nil
}
