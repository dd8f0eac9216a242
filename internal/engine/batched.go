package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"sealfleet/internal/phases"
)

// Batched does p1 together with others of this host, in the process that serves a Batch at Socket,
// and everything else by itself.
type Batched struct {
	Engine        // does the other phases, and p1 where a batch can't
	Socket string // where the batch listens; there may be none yet
	// Start begins a batch that listens at Socket: another process, which goes on without us. It
	// fails, or does nothing, if somebody else's is there.
	Start func() error
	// Alone, if set, is told why p1 goes on without a batch.
	Alone func(error)
}

// A batch that gathers its last member closes its door, and between that and the next one's first
// look at it there may be nobody.
const (
	joinTries = 40
	joinPause = 250 * time.Millisecond
)

// Run does the phase. When ctx is done it waits until the batch tells that nothing of this sector
// goes on any more.
func (b Batched) Run(ctx context.Context, r Request, progress func(Progress)) (Result, error) {
	if r.Phase != phases.P1 {
		return b.Engine.Run(ctx, r, progress)
	}
	if err := r.check(); err != nil {
		return Result{}, err
	}
	if progress == nil {
		progress = func(Progress) {}
	}
	v, err := b.inBatch(ctx, r, progress)
	switch {
	case err == nil && v.result != nil:
		return *v.result, nil
	case ctx.Err() != nil:
		return Result{}, context.Cause(ctx)
	case err == nil && v.err != nil:
		return Result{}, v.err
	case err == nil:
		err = errors.New("the batch ended before this sector's p1")
	}
	if b.Alone != nil {
		b.Alone(err)
	}
	// What the batch had done is recorded: this resumes.
	return b.Engine.Run(ctx, r, progress)
}

// inBatch joins a batch, and starts one where there is none.
func (b Batched) inBatch(ctx context.Context, r Request, progress func(Progress)) (v verdict, err error) {
	for range joinTries {
		var joined bool
		if joined, v, err = b.join(ctx, r, progress); joined || ctx.Err() != nil {
			return v, err
		}
		if err = b.Start(); err != nil {
			return v, fmt.Errorf("start a batch: %w", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(joinPause):
		}
	}
	return v, fmt.Errorf("no batch took this sector: %w", err)
}

// join tells whether a batch took the sector, and if so how its p1 ended.
func (b Batched) join(ctx context.Context, r Request, progress func(Progress)) (joined bool, v verdict, err error) {
	name, done, err := socketName(b.Socket)
	if err != nil {
		return false, v, err
	}
	defer done() //nolint:errcheck // only looked into
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", name)
	if err != nil {
		return false, v, err
	}
	conn := c.(*net.UnixConn)
	defer conn.Close() //nolint:errcheck // nothing follows
	request, err := json.Marshal(r)
	if err != nil {
		return true, v, failf("bad_request", phases.Permanent, "%v", err)
	}
	if _, err := conn.Write(append(request, '\n')); err != nil {
		return false, v, err // it closed its door
	}
	defer context.AfterFunc(ctx, func() { _ = conn.CloseWrite() })()
	v = listen(conn, func(p Progress) {
		joined = true
		progress(p)
	})
	switch {
	case v.bad != nil:
		return true, v, fmt.Errorf("the batch does not keep to the protocol: %w", v.bad)
	case v.result != nil || v.err != nil:
		return true, v, nil
	case joined:
		return true, v, nil // it died: no verdict
	}
	return false, v, io.ErrUnexpectedEOF
}
