package dispatch

import (
	"sync"

	"sealfleet/internal/phases"
)

// feed hands on what happens to whoever watches. It keeps the last events, so that one who
// was away for a moment misses nothing, and drops who cannot keep up: nobody who watches
// slows down who works, or makes memory grow.
type feed struct {
	mu       sync.Mutex
	last     []phases.Event // a ring
	next     int
	watchers map[*Watcher]struct{}
}

const (
	feedKept   = 8192 // events that who comes back may have missed
	feedBehind = 1024 // events that a watcher may be behind
)

// Watcher gets events as they happen.
type Watcher struct {
	C    <-chan phases.Event // closed when the watcher could not keep up, or was stopped
	c    chan phases.Event
	feed *feed
}

func newFeed() *feed { return &feed{watchers: map[*Watcher]struct{}{}} }

// put hands on an event that was taken.
func (f *feed) put(e phases.Event) {
	e.Inputs = nil
	if e.Result != nil && (e.Result.Outputs != nil) {
		r := *e.Result
		r.Outputs = nil // they may be large, and whoever wants them asks for the sector
		e.Result = &r
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.last) < feedKept {
		f.last = append(f.last, e)
	} else {
		f.last[f.next] = e
		f.next = (f.next + 1) % feedKept
	}
	for w := range f.watchers {
		select {
		case w.c <- e:
		default:
			f.drop(w)
		}
	}
}

func (f *feed) drop(w *Watcher) {
	delete(f.watchers, w)
	close(w.c)
}

// watch begins at the event after since (0: now). missed holds what came between; gap says
// that it cannot be told any more.
func (f *feed) watch(since uint64) (w *Watcher, missed []phases.Event, gap bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := make(chan phases.Event, feedBehind)
	w = &Watcher{C: c, c: c, feed: f}
	f.watchers[w] = struct{}{}
	if since == 0 {
		return w, nil, false
	}
	for i := range f.last {
		if e := f.last[(f.next+i)%len(f.last)]; e.Seq > since {
			missed = append(missed, e)
		}
	}
	oldest := uint64(0)
	if len(f.last) > 0 {
		oldest = f.last[f.next%len(f.last)].Seq
	}
	return w, missed, len(f.last) == 0 || oldest > since+1
}

// Stop ends watching.
func (w *Watcher) Stop() {
	w.feed.mu.Lock()
	defer w.feed.mu.Unlock()
	if _, on := w.feed.watchers[w]; on {
		w.feed.drop(w)
	}
}

// Watch begins to tell events as this dispatcher takes them, without inputs and outputs.
// since is the sequence of the last one that is known, 0 for none. missed are those that
// came between; gap says that they are not remembered: read everything again. Stop the
// watcher when it is not wanted any more.
func (d *Dispatcher) Watch(since uint64) (w *Watcher, missed []phases.Event, gap bool) {
	if since >= d.board.position() {
		w, _, _ = d.board.feed.watch(0)
		return w, nil, false
	}
	return d.board.feed.watch(since)
}
