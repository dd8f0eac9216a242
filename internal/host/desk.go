package host

import (
	"fmt"
	"sync"
	"time"

	"sealfleet/internal/memory"
)

// Desk makes and keeps reservations on any number of shares for one process. What it does
// on a share may hang with it: it waits only so long, and keeps the shares apart.
type Desk struct {
	host   string
	within time.Duration

	mu     sync.Mutex
	shares map[string]*shareDesk
}

type shareDesk struct {
	ledger *Ledger
	turn   bounded
}

// NewDesk returns a desk that waits for a share's file system as long as within.
func NewDesk(hostName string, within time.Duration) *Desk {
	return &Desk{host: hostName, within: within, shares: map[string]*shareDesk{}}
}

func (d *Desk) at(share string) *shareDesk {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.shares[share]
	if s == nil {
		s = &shareDesk{ledger: NewLedger(share, d.host)}
		d.shares[share] = s
	}
	return s
}

// Reserve promises room as Ledger.Reserve does, touches the reservation at each interval,
// and gives the room back when leave is called. Errors are *NoRoomError, wrap ErrHung, or
// say what is wrong with the share.
func (d *Desk) Reserve(share, what string, bytes uint64, paths []string, goesOn bool, every time.Duration) (leave func(), err error) {
	s := d.at(share)
	got := make(chan *Reservation, 1)
	err = s.turn.do(d.within, func() error {
		r, err := s.ledger.Reserve(what, bytes, paths, goesOn)
		if err == nil {
			got <- r
		}
		return err
	})
	if err != nil {
		// If it hung and succeeds after all, nobody touches it, and it expires.
		return nil, fmt.Errorf("%s: %w", share, err)
	}
	r := <-got
	stop := make(chan struct{})
	var keeper sync.WaitGroup
	keeper.Go(func() {
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				_ = r.Touch() // the next may get through; if none does it expires
			case <-stop:
				return
			}
		}
	})
	return sync.OnceFunc(func() {
		close(stop)
		_ = s.turn.do(d.within, func() error { r.Release(); return nil }) // if it hangs it goes on, and ends with the mount
	}), nil
}

// MemoryFor tells whether a phase that needs so much memory may begin beside others that
// may take running in all; nil, or what there is.
func MemoryFor(need, running uint64) error { return memoryFor("/", need, running) }

// systemMemory stays free for the system and this program.
const systemMemory = 512 * mib

func memoryFor(root string, need, running uint64) error {
	total, free := memory.Total(root), memory.Available(root)
	switch {
	case running > 0 && need+running+systemMemory > total:
		return fmt.Errorf("it needs %s beside %s of running phases, of %s in all", Bytes(need), Bytes(running), Bytes(total))
	case need > free:
		return fmt.Errorf("it needs %s, and %s are available", Bytes(need), Bytes(free))
	}
	return nil
}
