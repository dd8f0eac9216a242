package storage

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"sync"
	"sync/atomic"
)

// bufferSize: small enough that what was read is still in the cache of the core that hashes
// and writes it.
const bufferSize = 256 << 10

// buffers are used again: of fresh ones the system would clear every page, for each chunk.
var buffers = sync.Pool{New: func() any { return &buffer{data: make([]byte, bufferSize)} }}

type buffer struct {
	data []byte
	n    int
	in   atomic.Int32 // stages that still use it
}

// mover takes all of r to sink, and returns its hash and size.
type mover func(ctx context.Context, r io.Reader, sink func(b []byte) error) (sum [sha256.Size]byte, size int64, err error)

// carry reads all of r, hashes it, and has sink deal with it, one after the other.
func carry(ctx context.Context, r io.Reader, sink func(b []byte) error) (sum [sha256.Size]byte, size int64, err error) {
	b := buffers.Get().(*buffer)
	defer buffers.Put(b)
	h := sha256.New()
	for {
		if err := ctx.Err(); err != nil {
			return sum, size, err
		}
		n, err := io.ReadFull(r, b.data)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return sum, size, err
		}
		h.Write(b.data[:n])
		if sinkErr := sink(b.data[:n]); sinkErr != nil {
			return sum, size, sinkErr
		}
		if size += int64(n); err != nil { // the end
			return [sha256.Size]byte(h.Sum(nil)), size, nil
		}
	}
}

// pump reads all of r, hashes it, and has sink, in this goroutine, deal with it, all three
// beside each other: a copy takes the time of the slowest and not of their sum. sink must
// not keep b.
func pump(ctx context.Context, r io.Reader, sink func(b []byte) error) (sum [sha256.Size]byte, size int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	const depth = 12
	free := make(chan *buffer, depth)
	toHash, toSink := make(chan *buffer, depth), make(chan *buffer, depth) // never block: there are as many places as buffers
	for range depth {
		free <- buffers.Get().(*buffer)
	}
	used := func(b *buffer) {
		if b.in.Add(-1) == 0 {
			free <- b
		}
	}
	h := sha256.New()
	var stages sync.WaitGroup
	stages.Go(func() {
		for b := range toHash {
			h.Write(b.data[:b.n])
			used(b)
		}
	})
	readErr := make(chan error, 1)
	go func() {
		defer func() { close(toHash); close(toSink) }()
		readErr <- func() error {
			for {
				var b *buffer
				select {
				case b = <-free:
				case <-ctx.Done():
					return ctx.Err()
				}
				n, err := io.ReadFull(r, b.data)
				b.n = n
				b.in.Store(2)
				toHash <- b
				toSink <- b
				switch {
				case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
					return nil
				case err != nil:
					return err
				}
			}
		}()
	}()
	for b := range toSink {
		if err == nil { // else only drain
			if err = sink(b.data[:b.n]); err != nil {
				cancel()
			} else {
				size += int64(b.n)
			}
		}
		used(b)
	}
	stages.Wait()
	if rErr := <-readErr; err == nil {
		err = rErr
	}
	close(free)
	for b := range free {
		buffers.Put(b)
	}
	return [sha256.Size]byte(h.Sum(nil)), size, err
}
