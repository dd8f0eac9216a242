package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/renameio/v2"
)

// seen remembers how far the event log was when it was last acknowledged, over restarts.
// A server that lost a block of its store reports health "ok" and a smaller last
// sequence; only somebody who remembers can tell.
type seen struct {
	path string // empty: not kept
	log  *slog.Logger

	mu    sync.Mutex
	mark  mark
	saved mark
	last  time.Time // of the save
}

type mark struct {
	Created time.Time `json:"stream_created"`
	Highest uint64    `json:"highest_seq"`
}

func newSeen(c Config, log *slog.Logger) *seen {
	s := &seen{log: log}
	switch {
	case c.StateDir == "":
	case c.Role == RoleHost:
		s.path = filepath.Join(c.StateDir, "bus-seen-host.json")
	default:
		s.path = filepath.Join(c.StateDir, "bus-seen.json")
	}
	s.mark = s.load()
	s.saved = s.mark
	return s
}

func (s *seen) load() mark {
	var m mark
	if s.path == "" {
		return m
	}
	data, err := os.ReadFile(s.path)
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err != nil && !os.IsNotExist(err) {
		s.log.Warn("cannot read how far the event log was; going on without", "file", s.path, "error", err)
	}
	return m
}

func (s *seen) highest() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mark.Highest
}

// note remembers a sequence, and writes it down about once a second.
func (s *seen) note(seq uint64) {
	s.mu.Lock()
	due := false
	if seq > s.mark.Highest {
		s.mark.Highest = seq
		if now := time.Now(); now.Sub(s.last) > time.Second {
			s.last, due = now, true
		}
	}
	s.mu.Unlock()
	if due {
		go s.save()
	}
}

// save writes the mark down. The file is shared by the programs of one state directory,
// so a higher mark of the same stream that lies there already stays.
func (s *seen) save() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.path == "" || s.mark == s.saved || s.mark.Created.IsZero() {
		return
	}
	if there := s.load(); there.Created.Equal(s.mark.Created) && there.Highest >= s.mark.Highest {
		s.saved = s.mark
		return
	}
	data, err := json.Marshal(s.mark)
	if err == nil {
		err = renameio.WriteFile(s.path, append(data, '\n'), 0o644)
	}
	if err != nil {
		s.log.Debug("cannot write down how far the event log is", "file", s.path, "error", err)
		return
	}
	s.saved = s.mark
}

// check compares the stream with what is remembered, and remembers the stream.
func (s *seen) check(created time.Time, last uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch m := s.mark; {
	case m.Created.IsZero():
		s.mark.Created = created
	case !m.Created.Equal(created):
		return fmt.Errorf("%w: its stream was made at %s, the remembered one at %s", ErrWentBack,
			created.Format(time.RFC3339), m.Created.Format(time.RFC3339))
	case last < m.Highest:
		return fmt.Errorf("%w: its last sequence is %d, %d was acknowledged", ErrWentBack, last, m.Highest)
	}
	s.mark.Highest = max(s.mark.Highest, last)
	return nil
}

// acknowledged takes a new event's sequence. It is above everything acknowledged before
// the event was sent, or the log went backwards meanwhile.
func (b *Bus) acknowledged(seq, before uint64) error {
	if seq <= before {
		return b.stop(fmt.Errorf("%w: a new event got sequence %d after %d was acknowledged", ErrWentBack, seq, before))
	}
	b.seen.note(seq)
	return nil
}

func (b *Bus) stop(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.wentBack == nil {
		b.wentBack = err
		b.log.Error("stopping", "error", err)
	}
	return err
}

type streamInfo struct {
	Created time.Time `json:"created"`
	State   struct {
		Msgs     uint64            `json:"messages"`
		LastSeq  uint64            `json:"last_seq"`
		Subjects map[string]uint64 `json:"subjects"`
	} `json:"state"`
	Total int `json:"total"`
}

func (b *Bus) streamState(ctx context.Context) (*streamInfo, error) {
	var info streamInfo
	for try := 0; ; try++ {
		err := b.api(ctx, "$JS.API.STREAM.INFO."+EventsStream, struct{}{}, &info)
		switch {
		case err == nil:
			return &info, nil
		case isCode(err, codeNoStream):
			return nil, fmt.Errorf("%s: %w", EventsStream, ErrNoStream)
		case final(err):
			return nil, err
		}
		if !pause(ctx, try) {
			return nil, unreachable(err)
		}
	}
}

// checkLog stops the bus if the event log went backwards. Hosts may not ask for the
// stream; they notice by the sequences that their own events get.
func (b *Bus) checkLog(ctx context.Context) error {
	if b.cfg.Role == RoleHost {
		b.seen.mu.Lock()
		b.seen.mark.Created = time.Unix(0, 0) // hosts don't know it
		b.seen.mu.Unlock()
		return nil
	}
	info, err := b.streamState(ctx)
	if err != nil {
		// No stream is no news on the first start; Apply makes it.
		b.log.Debug("the event log could not be checked", "error", err)
		return nil
	}
	if err := b.seen.check(info.Created, info.State.LastSeq); err != nil {
		return b.stop(err)
	}
	return nil
}
