package engine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"sealfleet/internal/phases"
)

// line is a line of stdout.
type line struct {
	Type string `json:"type"` // progress, result, error
	*Progress
	*Result
	*Error
}

// MarshalJSON flattens what is set: Result and Error both have a message.
func (l line) MarshalJSON() ([]byte, error) {
	type kind struct {
		Type string `json:"type"`
	}
	switch {
	case l.Progress != nil:
		return json.Marshal(struct {
			kind
			*Progress
		}{kind{l.Type}, l.Progress})
	case l.Result != nil:
		return json.Marshal(struct {
			kind
			*Result
		}{kind{l.Type}, l.Result})
	default:
		return json.Marshal(struct {
			kind
			*Error
		}{kind{l.Type}, l.Error})
	}
}

// control is a line of stdin after the request.
type control struct {
	Type            string `json:"type"`
	CopyBytesPerSec int64  `json:"copy_bytes_per_sec"`
}

const (
	maxLine       = 8 << 20 // of either direction: a sector has some thousand pieces at most
	progressEvery = 200 * time.Millisecond
)

// Serve is the engine's side of the protocol: it reads a request from in, has e do it,
// writes to out, and returns the exit code. When in ends before the work does, the parent
// is dead: then Serve kills this process with its group at once.
func Serve(in io.Reader, out io.Writer, e Engine) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return serve(ctx, in, out, e, die)
}

// die ends this process and, where it leads its process group, all of the group.
func die() {
	if syscall.Getpgrp() == os.Getpid() {
		_ = syscall.Kill(0, syscall.SIGKILL)
	}
	os.Exit(1)
}

func serve(ctx context.Context, in io.Reader, out io.Writer, e Engine, orphaned func()) int {
	w := &lineWriter{enc: json.NewEncoder(out)}
	r := bufio.NewReaderSize(in, 64<<10)
	var req Request
	if err := readLine(r, &req); err != nil {
		w.last(line{Type: "error", Error: failf("bad_request", phases.Permanent, "no request on stdin: %v", err)})
		return 2
	}
	if err := req.check(); err != nil {
		w.last(line{Type: "error", Error: asError(err)})
		return 2
	}
	limits := make(chan int64, 1)
	req.Limits = limits
	go func() {
		for {
			var c control
			if err := readLine(r, &c); err != nil {
				var syntax *json.SyntaxError
				if errors.As(err, &syntax) {
					continue // a control of a later release, perhaps
				}
				orphaned()
				return
			}
			if c.Type == "limit" {
				Offer(limits, c.CopyBytesPerSec)
			}
		}
	}()
	result, err := e.Run(ctx, req, func(p Progress) {
		_ = w.progress(p) // a parent that is gone is noticed on stdin
	})
	if err != nil {
		if ctx.Err() != nil {
			err = failf("killed", phases.Transient, "stopped by a signal")
		}
		w.last(line{Type: "error", Error: asError(err)})
		return 1
	}
	if err := w.last(line{Type: "result", Result: &result}); err != nil {
		fmt.Fprintln(os.Stderr, "result lost:", err)
		return 1
	}
	return 0
}

// Offer puts a value in a channel of one place, in the place of an older one that nobody
// took. It never blocks.
func Offer[T any](c chan T, v T) {
	for {
		select {
		case c <- v:
			return
		default:
		}
		select {
		case <-c:
		default:
		}
	}
}

// readLine reads a line of JSON.
func readLine(r *bufio.Reader, v any) error {
	data, err := boundedLine(r)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

var errLongLine = fmt.Errorf("a line of more than %d bytes", maxLine)

// boundedLine reads up to the end of a line, or of the input if something is left there.
func boundedLine(r *bufio.Reader) ([]byte, error) {
	var data []byte
	for {
		part, err := r.ReadSlice('\n')
		data = append(data, part...)
		switch {
		case len(data) > maxLine:
			return data, errLongLine
		case err == nil, errors.Is(err, io.EOF) && len(data) > 0:
			return data, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

// Pace thins progress out: the beginning and the end of each step, and between them what
// comes a while after the last that was told. It is not safe for concurrent use.
type Pace struct {
	step string
	at   time.Time
}

// Due tells whether progress is to be told now, and takes it for told.
func (c *Pace) Due(p Progress) bool {
	now := time.Now()
	if c.step == p.Step && p.Done < p.Total && now.Sub(c.at) < progressEvery {
		return false
	}
	c.step, c.at = p.Step, now
	return true
}

// lineWriter writes lines, progress only now and then.
type lineWriter struct {
	mu   sync.Mutex
	enc  *json.Encoder
	pace Pace
	end  bool
}

func (w *lineWriter) progress(p Progress) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.end || !w.pace.Due(p) {
		return nil
	}
	return w.enc.Encode(line{Type: "progress", Progress: &p})
}

func (w *lineWriter) last(l line) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.end = true
	return w.enc.Encode(l)
}
