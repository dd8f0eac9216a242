package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"sealfleet/internal/phases"
)

const (
	heartbeatEvery = 10 * time.Second
	writeWithin    = 10 * time.Second // a reader that takes longer is cut off
	mostStreams    = 500
)

// sse writes server-sent events.
type sse struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func (s *sse) send(kind, id string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := s.rc.SetWriteDeadline(time.Now().Add(writeWithin)); err != nil {
		return err
	}
	if id != "" {
		id = "id: " + id + "\n"
	}
	if _, err := fmt.Fprintf(s.w, "event: %s\n%sdata: %s\n\n", kind, id, data); err != nil {
		return err
	}
	return s.rc.Flush()
}

func (s *sse) event(e phases.Event) error {
	return s.send("event", strconv.FormatUint(e.Seq, 10), eventOf(e))
}

// reset tells the reader to read anew what it shows; its last id is then the sequence.
func (s *sse) reset(seq uint64) error {
	return s.send("reset", strconv.FormatUint(seq, 10), beat{time.Now().UTC(), seq})
}

type beat struct {
	At  time.Time `json:"at"`
	Seq uint64    `json:"sequence"`
}

// stream tells what happens, as it happens.
func (a *API) stream(w http.ResponseWriter, r *http.Request) {
	p := query(r)
	sector := p.text("sector")
	if err := p.done(); err != nil {
		answer(w, nil, err)
		return
	}
	var since uint64
	if text := r.Header.Get("Last-Event-ID"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			answer(w, nil, failf(http.StatusBadRequest, "bad_cursor", "Last-Event-ID %q is no sequence of the log", text).mended("connect without it"))
			return
		}
		since = n
	}
	if n := a.streams.Add(1); n > mostStreams {
		a.streams.Add(-1)
		answer(w, nil, failf(http.StatusServiceUnavailable, "starting", "%d readers watch already", mostStreams).mended("try again later"))
		return
	}
	defer a.streams.Add(-1)
	watcher, missed, gap := a.Dispatcher.Watch(since)
	defer watcher.Stop()
	controls, stop := a.controls.watch()
	defer stop()

	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // of a proxy
	w.WriteHeader(http.StatusOK)
	out := &sse{w, http.NewResponseController(w)}
	mine := func(e phases.Event) bool { return sector == "" || e.Sector == sector }
	var err error
	if gap {
		err = out.reset(a.Dispatcher.Position())
	} else {
		err = out.send("heartbeat", "", beat{time.Now().UTC(), a.Dispatcher.Position()})
		for _, e := range missed {
			if err == nil && mine(e) {
				err = out.event(e)
			}
		}
	}
	tick := time.NewTicker(heartbeatEvery)
	defer tick.Stop()
	for err == nil {
		select {
		case e, open := <-watcher.C:
			if !open {
				_ = out.reset(a.Dispatcher.Position()) // its last message, if it takes that one
				return
			}
			if mine(e) {
				err = out.event(e)
			}
		case c := <-controls:
			err = out.send("control", "", controlOf(c, a.Bus.Now()))
		case <-tick.C:
			err = out.send("heartbeat", "", beat{time.Now().UTC(), a.Dispatcher.Position()})
		case <-r.Context().Done():
			return
		}
	}
}
