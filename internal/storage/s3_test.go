package storage

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"

	"sealfleet/internal/phases"
	"sealfleet/internal/storage/storagetest"
)

// store is a real S3 server in this process.
func store(t *testing.T) (addr string, o S3Options, b *bucket) {
	t.Helper()
	endpoint, _ := storagetest.S3(t, nil)
	addr, o = "s3://sectors/f01000", S3Options{Endpoint: endpoint, Region: storagetest.Region}
	b, err := openS3(addr, o)
	if err != nil {
		t.Fatal(err)
	}
	return addr, o, b
}

func TestCopyToS3(t *testing.T) {
	l, hashes := sealedSector(t, t.TempDir(), sector)
	addr, o, b := store(t)
	last := map[string]int64{}
	c := Copy{From: l, Node: "far", Dir: addr, S3: o, chunkBytes: 1 << 20, OnBytes: func(step string, done, _ int64) { last[step] = done }}
	r, err := c.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Files) != 5 || last["copy"] != r.Bytes() || last["verify"] != r.Bytes() || r.Path != addr {
		t.Errorf("receipt %+v, progress %v", r, last)
	}
	for _, f := range r.Files {
		source := l.Sealed()
		if !strings.HasPrefix(f.Name, "sealed/") {
			source = filepath.Join(l.Cache(), filepath.Base(f.Name))
		}
		if f.SHA256 != hashes[source] {
			t.Errorf("%s has %s, want %s", f.Name, f.SHA256, hashes[source])
		}
	}
	// The same hash tree as over a mount.
	mounted, err := Copy{From: l, Node: "far", Dir: t.TempDir(), chunkBytes: 1 << 20}.Run(t.Context())
	if err != nil || mounted.Files[4].Root != r.Files[4].Root || r.Files[4].Root == "" {
		t.Errorf("roots %v and %v: %v", mounted.Files, r.Files, err)
	}
	if err := VerifyReceipt(t.Context(), addr, o, r, sector, true, nil); err != nil {
		t.Error(err)
	}
	text, _ := json.Marshal(r)
	if bytes.Contains(text, []byte("of-the-test")) {
		t.Error("the receipt holds credentials")
	}

	// Spoilt behind our back, with the same size; then gone.
	if _, err := b.core.PutObject(t.Context(), b.name, b.key("cache/"+sector+"/p_aux"), bytes.NewReader(make([]byte, 64)), 64, "", "", minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	wantFault(t, VerifyReceipt(t.Context(), addr, o, r, sector, false, nil), "receipt_broken", phases.Permanent)
	if err := b.core.RemoveObject(t.Context(), b.name, b.key("sealed/"+sector), minio.RemoveObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	wantFault(t, VerifyReceipt(t.Context(), addr, o, r, sector, false, nil), "receipt_broken", phases.Permanent)
}

func TestCopyToS3GoesOnAndRedoesABadPart(t *testing.T) {
	l, hashes := sealedSector(t, t.TempDir(), sector)
	addr, o, b := store(t)
	ctx, cancel := context.WithCancel(t.Context())
	c := Copy{From: l, Node: "far", Dir: addr, S3: o, chunkBytes: 1 << 20, OnBytes: func(_ string, done, _ int64) {
		if done > 2<<20 {
			cancel() // after two parts of the sealed file
		}
	}}
	if _, err := c.Run(ctx); err == nil {
		t.Fatal("was not stopped")
	}
	list, err := b.core.ListMultipartUploads(t.Context(), b.name, b.key("sealed"), "", "", "", 10)
	if err != nil || len(list.Uploads) != 1 {
		t.Fatalf("uploads %+v: %v", list.Uploads, err)
	}
	// The server has another first part than the source.
	if _, err := b.core.PutObjectPart(t.Context(), b.name, b.key("sealed/"+sector), list.Uploads[0].UploadID, 1,
		bytes.NewReader(make([]byte, 1<<20)), 1<<20, minio.PutObjectPartOptions{DisableContentSha256: true}); err != nil {
		t.Fatal(err)
	}
	had, redone := 0, 0
	c.OnBytes, c.OnResume = nil, func(_ string, h, r int) { had, redone = h, r }
	r, err := c.Run(t.Context())
	if err != nil || had < 2 || redone != 1 {
		t.Errorf("gone on from %d parts, %d again: %v", had, redone, err)
	}
	if f := r.Files[len(r.Files)-1]; f.SHA256 != hashes[l.Sealed()] {
		t.Errorf("sealed file %+v", f)
	}
}

func TestCopyToS3ReadsBack(t *testing.T) {
	l, _ := sealedSector(t, t.TempDir(), sector)
	addr, o, b := store(t)
	c := Copy{From: l, Node: "far", Dir: addr, S3: o, chunkBytes: 1 << 20, written: func(key string) {
		if strings.Contains(key, "/sealed/") {
			if _, err := b.core.PutObject(t.Context(), b.name, key, bytes.NewReader([]byte("other")), 5, "", "", minio.PutObjectOptions{}); err != nil {
				t.Error(err)
			}
		}
	}}
	_, err := c.Run(t.Context())
	wantFault(t, err, "copy_corrupt", phases.Retryable)
	if _, err := b.core.StatObject(t.Context(), b.name, b.key("sealed/"+sector), minio.StatObjectOptions{}); err == nil {
		t.Error("the bad object was kept")
	}
}

func TestS3Faults(t *testing.T) {
	l, _ := sealedSector(t, t.TempDir(), sector)
	addr, o, _ := store(t)
	_, err := Copy{From: l, Node: "far", Dir: "s3://absent/x", S3: o}.Run(t.Context())
	wantFault(t, err, "storage_away", phases.Transient)
	_, err = Copy{From: l, Node: "far", Dir: addr, S3: S3Options{Endpoint: "http://127.0.0.1:1", Region: "us-east-1"}}.Run(t.Context())
	wantFault(t, err, "storage_away", phases.Transient)
	if strings.Contains(err.Error(), "of-the-test") {
		t.Error("the error holds credentials:", err)
	}
	for _, bad := range []string{"s3://", "s3://UPPER/x", "s3://bucket/../x/ y", "/s3://bucket", "s3://b"} {
		if CheckS3(bad) == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	var opts S3Options
	for _, bad := range []string{"ftp://x", "https://key:secret@host", "host:9000", "https://host/path"} {
		if opts.Set("endpoint", bad) == nil {
			t.Errorf("endpoint %q is accepted", bad)
		}
	}
	if err := opts.Set("credentials", filepath.Join(os.TempDir(), "x")); err != nil || opts.Set("credentials", "x") == nil {
		t.Error("credentials file:", err)
	}
}
