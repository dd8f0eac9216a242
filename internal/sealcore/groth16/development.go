package groth16

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"sealfleet/internal/sealcore/durable"
)

// Mark is the content of the file that lies beside parameters for development.
type Mark struct {
	Note      string    `json:"note"`
	Maker     string    `json:"maker"`
	Made      time.Time `json:"made"`
	KeySHA256 string    `json:"vk_sha256"`
	Size      int64     `json:"params_bytes"`
}

const markNote = "for development only: whoever made these parameters can forge proofs under them"

// ReadMark returns the mark of a circuit's parameters; nil if they have none.
func ReadMark(dir, identifier string) (*Mark, error) {
	data, err := os.ReadFile(MarkPath(dir, identifier))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m := &Mark{}
	if err := json.Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", MarkPath(dir, identifier), ErrMalformed, err)
	}
	return m, nil
}

// Development tells whether the given key, of a circuit's parameters in a directory, is
// marked as made for development. The mark of a key that has since been replaced does not
// count.
func Development(dir, identifier string, key *VerifyingKey) (bool, error) {
	m, err := ReadMark(dir, identifier)
	return m != nil && m.KeySHA256 == fingerprint(key), err
}

func fingerprint(key *VerifyingKey) string { return fmt.Sprintf("%x", sha256.Sum256(key.Bytes())) }

// Make makes development parameters of a circuit in a directory, unless there are
// parameters already: the mark first, then the key, then the parameters, each atomically,
// so that parameters without a mark are never ours. Of several processes one does the
// work, and the others wait for it. It tells whether this one made them.
//
// It never writes over a file that has no mark.
func Make(ctx context.Context, dir, identifier, maker string, circuit Circuit, o Options) (made bool, err error) {
	if Find(dir, identifier) == nil {
		return false, nil
	}
	paramsPath := ParamsPath(dir, identifier)
	if err := os.MkdirAll(filepath.Dir(paramsPath), 0o755); err != nil {
		return false, err
	}
	f, err := begin(ctx, paramsPath, o)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Abort()) }() // nothing, once it is committed
	// Under the lock: nobody else is at it now, but someone may have finished before.
	switch err := Find(dir, identifier); {
	case err == nil:
		return false, nil
	case !errors.Is(err, fs.ErrNotExist):
		return false, err
	}
	mark, err := ReadMark(dir, identifier)
	if err != nil {
		return false, err
	}
	for _, p := range []string{paramsPath, KeyPath(dir, identifier)} {
		if _, err := os.Stat(p); err == nil && mark == nil {
			return false, fmt.Errorf("%s is there without its companion (.vk and .params go together) and is not marked as "+
				"made for development: fetch the other one, or move it away", p)
		}
	}
	key, err := Setup(ctx, circuit, rand.Reader, o, f)
	if err != nil {
		return false, err
	}
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	note, err := json.MarshalIndent(Mark{
		Note: markNote, Maker: maker, Made: time.Now().UTC().Truncate(time.Second),
		KeySHA256: fingerprint(key), Size: info.Size(),
	}, "", "  ")
	if err != nil {
		return false, err
	}
	if err := durable.Write(MarkPath(dir, identifier), append(note, '\n')); err != nil {
		return false, err
	}
	if err := durable.Write(KeyPath(dir, identifier), key.Bytes()); err != nil {
		return false, err
	}
	o.report("write", 0, 1)
	if err := f.Commit(); err != nil {
		return false, err
	}
	o.report("write", 1, 1)
	return true, nil
}

// begin creates the parameter file, which is also the lock. While another process is at
// it, it waits.
func begin(ctx context.Context, path string, o Options) (*durable.File, error) {
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		f, err := durable.Create(path)
		if !errors.Is(err, durable.ErrBusy) {
			return f, err
		}
		o.report("wait for another process", 0, 1)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
