package storage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"

	"sealfleet/internal/phases"
)

const (
	// ticketFile tells in a sector's cache with which ticket p1 works there.
	ticketFile = "sealfleet-ticket"
	// p1Record is where p1 keeps what it has finished (seal.RecordName).
	p1Record = ".sealfleet-p1.json"
)

// NoteTicket notes in the sector's cache with which ticket p1 works there.
func (l Layout) NoteTicket(ticket string) error {
	err := renameio.WriteFile(filepath.Join(l.Cache(), ticketFile), []byte(ticket+"\n"), 0o644, renameio.WithTempDir(l.Cache()))
	if err == nil {
		err = syncDir(l.Cache())
	}
	if err != nil {
		return classify(fmt.Errorf("note p1's ticket: %w", err))
	}
	return nil
}

// UnfinishedP1 returns how many layers a p1 with this ticket has finished in the sector's
// cache, without its end; 0 also if it was another ticket, or nobody was there. The number
// is what p1 wrote down: p1 that goes on there checks every layer.
func (l Layout) UnfinishedP1(ticket string) (layers int, err error) {
	if err := l.Validate(); err != nil {
		return 0, &Fault{Code: "bad_path", Class: phases.Permanent, Err: err}
	}
	was, err := readSmall(filepath.Join(l.Cache(), ticketFile))
	if err != nil || strings.TrimSpace(string(was)) != ticket {
		return 0, err
	}
	data, err := readSmall(filepath.Join(l.Cache(), p1Record))
	if err != nil {
		return 0, err
	}
	var record struct {
		Labels map[int]string `json:"labels_sha256"`
	}
	if len(data) > 0 && json.Unmarshal(data, &record) != nil {
		return 0, nil // a damaged record counts as none, for p1 too
	}
	return len(record.Labels), nil
}

// readSmall reads a file of some KiB; nothing if it is not there.
func readSmall(path string) ([]byte, error) {
	const most = 1 << 20
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() > most:
		return nil, fmt.Errorf("%s is not what p1 wrote", path)
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}
