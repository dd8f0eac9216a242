package host

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ObjectStore is a storage node that is no directory: the doctor asks it to take a small
// object, give it back and remove it.
type ObjectStore struct {
	Subject string // STORAGE_NODES far
	Address string // s3://bucket/prefix
	// Try writes, reads back and removes. Its errors say what to do, and hold no secrets.
	Try func(ctx context.Context) error
}

// checkStore judges an object store: reachable and written now, as a directory is.
func (d *Doctor) checkStore(ctx context.Context, s ObjectStore) Finding {
	limited, cancel := context.WithTimeout(ctx, d.Settings.Limit)
	defer cancel()
	start := time.Now()
	err := s.Try(limited)
	took := time.Since(start)
	switch {
	case err == nil:
		return found("writable", OK, s.Subject, "", "%s: an object was written, read back and removed in %s", s.Address, took.Round(time.Millisecond))
	case ctx.Err() == nil && errors.Is(limited.Err(), context.DeadlineExceeded):
		return found("path_hung", Refuse, s.Subject, "see that the object store is up and can be reached from here: curl its endpoint",
			"%s did not answer within %s", s.Address, d.Settings.Limit)
	}
	return found("not_writable", Refuse, s.Subject, "see endpoint, bucket, credentials and their policy (put, get, delete): docs/storage.md", "%s", fmt.Sprintf("%s: %v", s.Address, err))
}
