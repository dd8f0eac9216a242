package storage

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"path"
	"time"

	"github.com/minio/minio-go/v7"

	"sealfleet/internal/phases"
)

// Store is an object store that is read from. Its errors are *fs.PathError, as those of a
// mounted node are.
type Store struct{ b *bucket }

// OpenStore opens an object store, s3://bucket/prefix. Nothing is sent yet.
func OpenStore(addr string, o S3Options) (*Store, error) {
	b, err := openS3(addr, o)
	if err != nil {
		return nil, &Fault{Code: "bad_path", Class: phases.Permanent, Err: err}
	}
	return &Store{b}, nil
}

func (s *Store) fault(op, key string, err error) error {
	return &fs.PathError{Op: op, Path: s3Scheme + s.b.name + "/" + key, Err: s3Fault(err)}
}

// Open finds an object by its name below the prefix. What it returns reads pieces of the
// object as long as ctx lasts, and only of the version that was found.
func (s *Store) Open(ctx context.Context, name string) (*Object, error) {
	key := s.b.key(name)
	info, err := s.b.core.StatObject(ctx, s.b.name, key, minio.StatObjectOptions{})
	if err != nil {
		return nil, s.fault("stat", key, err)
	}
	return &Object{s: s, ctx: ctx, key: key, info: info}, nil
}

// Try writes a small object of the host's own, reads it back and removes it: what p5 will
// need, asked for before p1.
func (s *Store) Try(ctx context.Context, hostName string) (err error) {
	// An object for each trial: the rounds and an operator's doctor may try at once.
	name := ".sealfleet-check-" + hostName + "-" + rand.Text()
	key := s.b.key(name)
	data := []byte("sealfleet checks that it can write here: " + rand.Text() + "\n")
	if _, err := s.b.core.PutObject(ctx, s.b.name, key, bytes.NewReader(data), int64(len(data)), "", "", minio.PutObjectOptions{}); err != nil {
		return s.fault("write", key, err)
	}
	defer func() {
		if removeErr := s.b.core.RemoveObject(ctx, s.b.name, key, minio.RemoveObjectOptions{}); removeErr != nil && err == nil {
			err = s.fault("remove", key, removeErr)
		}
	}()
	object, err := s.Open(ctx, name)
	if err != nil {
		return err
	}
	got := make([]byte, len(data))
	if n, err := object.ReadAt(got, 0); n < len(got) {
		return s.fault("read back", key, err)
	}
	if !bytes.Equal(got, data) {
		return s.fault("read back", key, errors.New("it is another object than was written"))
	}
	return nil
}

// Sealed lists the sectors whose sealed file is in the store, by name.
func (s *Store) Sealed(ctx context.Context) ([]string, error) {
	dir := s.b.key("sealed") + "/"
	var list []string
	for o := range s.b.core.ListObjectsIter(ctx, s.b.name, minio.ListObjectsOptions{Prefix: dir}) {
		if o.Err != nil {
			return nil, s.fault("list", dir, o.Err)
		}
		if name := path.Base(o.Key); sectorName.MatchString(name) && o.Key == dir+name {
			list = append(list, name)
		}
	}
	return list, nil
}

// Used returns how many bytes the objects below the prefix have together. It costs a
// request for every thousand of them.
func (s *Store) Used(ctx context.Context) (bytes int64, err error) {
	prefix := s.b.prefix
	if prefix != "" {
		prefix += "/"
	}
	for o := range s.b.core.ListObjectsIter(ctx, s.b.name, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
		if o.Err != nil {
			return 0, s.fault("list", prefix, o.Err)
		}
		bytes += o.Size
	}
	return bytes, nil
}

// Object is an object of a store.
type Object struct {
	s    *Store
	ctx  context.Context //nolint:containedctx // io.ReaderAt has none
	key  string
	info minio.ObjectInfo
}

// ReadAt fetches a piece by one ranged request.
func (o *Object) ReadAt(p []byte, off int64) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	if off >= o.info.Size {
		return 0, io.EOF
	}
	want := min(int64(len(p)), o.info.Size-off)
	var opts minio.GetObjectOptions
	if err := errors.Join(opts.SetRange(off, off+want-1), opts.SetMatchETag(o.info.ETag)); err != nil {
		return 0, o.s.fault("read", o.key, err)
	}
	body, _, _, err := o.s.b.core.GetObject(o.ctx, o.s.b.name, o.key, opts)
	if err != nil {
		return 0, o.s.fault("read", o.key, err)
	}
	defer body.Close() // only read
	n, err = io.ReadFull(body, p[:want])
	switch {
	case err != nil:
		return n, o.s.fault("read", o.key, err)
	case n < len(p):
		return n, io.EOF
	}
	return n, nil
}

// Name returns the object's address.
func (o *Object) Name() string { return s3Scheme + o.s.b.name + "/" + o.key }

// Stat tells its size and when it was last changed. It asks nobody.
func (o *Object) Stat() (fs.FileInfo, error) { return objectInfo{o.info}, nil }

// Close does nothing: nothing is open between two reads.
func (o *Object) Close() error { return nil }

type objectInfo struct{ o minio.ObjectInfo }

func (i objectInfo) Name() string       { return path.Base(i.o.Key) }
func (i objectInfo) Size() int64        { return i.o.Size }
func (i objectInfo) Mode() fs.FileMode  { return 0o444 }
func (i objectInfo) ModTime() time.Time { return i.o.LastModified }
func (i objectInfo) IsDir() bool        { return false }
func (i objectInfo) Sys() any           { return i.o }
