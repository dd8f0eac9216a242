package seal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
)

// FileFact is a file's size in bytes and its SHA-256 in hex.
type FileFact struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// FileFacts hashes a sector's files: "unsealed", "sealed", and those in the cache under
// their base names. Files that are not there yet, those in the making (their names begin
// with a dot) and what is not a regular file are left out.
func FileFacts(ctx context.Context, p Paths) (map[string]FileFact, error) {
	paths := map[string]string{"unsealed": p.Unsealed, "sealed": p.Sealed}
	entries, err := os.ReadDir(p.Cache)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if e.Type().IsRegular() && !strings.HasPrefix(e.Name(), ".") {
			paths[e.Name()] = filepath.Join(p.Cache, e.Name())
		}
	}
	facts := make(map[string]FileFact, len(paths))
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for name, path := range paths {
		group.Go(func() error {
			fact, err := fileFact(ctx, path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			facts[name] = fact
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return facts, nil
}

func fileFact(ctx context.Context, path string) (FileFact, error) {
	f, err := os.Open(path)
	if err != nil {
		return FileFact{}, err
	}
	defer f.Close()
	h := sha256.New()
	buf := make([]byte, 1<<20)
	var size int64
	for {
		if err := ctx.Err(); err != nil {
			return FileFact{}, err
		}
		n, err := f.Read(buf)
		h.Write(buf[:n])
		size += int64(n)
		if err == io.EOF {
			return FileFact{Size: size, SHA256: hex.EncodeToString(h.Sum(nil))}, nil
		}
		if err != nil {
			return FileFact{}, fmt.Errorf("hash %s: %w", path, err)
		}
	}
}
