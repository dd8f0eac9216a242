package storage

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // S3 names parts by it; what is believed is SHA-256
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/minio/minio-go/v7"

	"sealfleet/internal/phases"
	"sealfleet/internal/throttle"
)

// runS3 is run for an object store. A file larger than a chunk becomes a multipart upload
// with a part per chunk; the server checks each part against its MD5 and its signed
// SHA-256. An upload that a killed attempt left is gone on with: the parts that the server
// has are compared, by MD5, with the source, which is read again. An object appears only
// when it is complete, so there is no temporary name; it is then read back in full, and
// removed again if it isn't what was sent.
func (c Copy) runS3(ctx context.Context) (Receipt, error) {
	files, total, err := c.sources()
	if err != nil {
		return Receipt{}, err
	}
	b, err := openS3(c.Dir, c.S3)
	if err != nil {
		return Receipt{}, &Fault{Code: "bad_path", Class: phases.Permanent, Err: err}
	}
	receipt := Receipt{Node: c.Node, Path: c.Dir}
	progress := counter{total: total, tell: c.OnBytes}
	for _, f := range files {
		done, err := c.object(ctx, b, f, &progress)
		if err != nil {
			return Receipt{}, fmt.Errorf("copy of %s to storage node %s: %w", f.name, c.Node, s3Fault(err))
		}
		receipt.Files = append(receipt.Files, done)
	}
	return receipt, nil
}

// upload is one file's way into an object store.
type upload struct {
	Copy
	b        *bucket
	key      string
	in       *os.File
	of       origin
	id       string                   // of the multipart upload
	had      map[int]minio.ObjectPart // by number, from 1
	parts    []minio.CompletePart
	sums     [][sha256.Size]byte
	whole    hash.Hash // of the source
	progress *counter
	redone   int
}

func (c Copy) object(ctx context.Context, b *bucket, f source, progress *counter) (File, error) {
	in, err := os.Open(f.path)
	if err != nil {
		return File{}, err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return File{}, err
	}
	u := &upload{
		Copy: c, b: b, key: b.key(f.name), in: in, whole: sha256.New(), progress: progress,
		of: origin{V: 1, Name: f.name, Size: info.Size(), Chunk: c.chunk(), ModTime: info.ModTime().UnixNano()},
	}
	if u.of.chunks() <= 1 {
		err = u.small(ctx)
	} else {
		err = u.multipart(ctx)
	}
	if err != nil {
		return File{}, err
	}
	if now, err := os.Stat(f.path); err != nil {
		return File{}, err
	} else if now.Size() != info.Size() || !now.ModTime().Equal(info.ModTime()) {
		return File{}, errors.Join(fmt.Errorf("%s was changed while it was copied: do p5 again", f.path), u.remove(ctx))
	}
	if err := u.readBack(ctx); err != nil {
		return File{}, err
	}
	root := treeRoot(u.sums)
	return File{
		Name: f.name, Size: u.of.Size, SHA256: hex.EncodeToString(u.whole.Sum(nil)),
		Chunk: u.of.Chunk, Root: hex.EncodeToString(root[:]),
	}, nil
}

// read reads a chunk of the source and returns it with its hashes.
func (u *upload) read(i int) (data []byte, sum [sha256.Size]byte, md [md5.Size]byte, err error) {
	off, n := u.of.span(i)
	data = make([]byte, n)
	if _, err := u.in.ReadAt(data, off); err != nil && !(errors.Is(err, io.EOF) && n == 0) {
		return nil, sum, md, err
	}
	u.whole.Write(data)
	return data, sha256.Sum256(data), md5.Sum(data), nil //nolint:gosec // see above
}

// slow is a body that passes the limit and counts, and that a retry can rewind.
type slow struct {
	io.Reader
	data *bytes.Reader
}

func (s slow) Seek(offset int64, whence int) (int64, error) { return s.data.Seek(offset, whence) }

func (u *upload) body(ctx context.Context, data []byte) slow {
	r := bytes.NewReader(data)
	return slow{u.Limit.Reader(ctx, r), r}
}

// small uploads a file of one chunk at the most.
func (u *upload) small(ctx context.Context) error {
	var data []byte
	sum, md := sha256.Sum256(nil), md5.Sum(nil) //nolint:gosec // see above
	if u.of.Size > 0 {
		var err error
		if data, sum, md, err = u.read(0); err != nil {
			return err
		}
		u.sums = append(u.sums, sum)
	}
	_, err := u.b.core.PutObject(ctx, u.b.name, u.key, u.body(ctx, data), int64(len(data)),
		base64.StdEncoding.EncodeToString(md[:]), hex.EncodeToString(sum[:]), minio.PutObjectOptions{DisableContentSha256: true})
	u.progress.add("copy", len(data))
	return err
}

func (u *upload) multipart(ctx context.Context) error {
	if err := u.find(ctx); err != nil {
		return err
	}
	for i := range u.of.chunks() {
		if err := u.part(ctx, i); err != nil {
			return err
		}
	}
	if n := len(u.had); n > 0 && u.OnResume != nil {
		u.OnResume(u.of.Name, n, u.redone)
	}
	_, err := u.b.core.CompleteMultipartUpload(ctx, u.b.name, u.key, u.id, u.parts, minio.PutObjectOptions{})
	return err
}

// find looks for an upload of this object that an earlier attempt began, or begins one.
func (u *upload) find(ctx context.Context) error {
	list, err := u.b.core.ListMultipartUploads(ctx, u.b.name, u.key, "", "", "", 1000)
	if err != nil && minio.ToErrorResponse(err).Code != "NoSuchUpload" { // so some servers say that there are none
		return err
	}
	for _, m := range list.Uploads {
		if m.Key == u.key {
			u.id = m.UploadID // of several the last begun
		}
	}
	if u.id == "" {
		u.id, err = u.b.core.NewMultipartUpload(ctx, u.b.name, u.key, minio.PutObjectOptions{ContentType: "application/octet-stream"})
		return err
	}
	u.had = map[int]minio.ObjectPart{}
	for marker := 0; ; {
		page, err := u.b.core.ListObjectParts(ctx, u.b.name, u.key, u.id, marker, 1000)
		if err != nil {
			return err
		}
		for _, p := range page.ObjectParts {
			u.had[p.PartNumber] = p
		}
		if !page.IsTruncated || page.NextPartNumberMarker <= marker {
			return nil
		}
		marker = page.NextPartNumberMarker
	}
}

// part makes sure that the server has one part.
func (u *upload) part(ctx context.Context, i int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	data, sum, md, err := u.read(i)
	if err != nil {
		return err
	}
	u.sums = append(u.sums, sum)
	if p, ok := u.had[i+1]; ok {
		if p.Size == int64(len(data)) && strings.EqualFold(strings.Trim(p.ETag, `"`), hex.EncodeToString(md[:])) {
			u.parts = append(u.parts, minio.CompletePart{PartNumber: i + 1, ETag: p.ETag})
			u.progress.add("copy", len(data))
			return nil
		}
		u.redone++
	}
	p, err := u.b.core.PutObjectPart(ctx, u.b.name, u.key, u.id, i+1, u.body(ctx, data), int64(len(data)), minio.PutObjectPartOptions{
		Md5Base64: base64.StdEncoding.EncodeToString(md[:]), Sha256Hex: hex.EncodeToString(sum[:]), DisableContentSha256: true,
	})
	if err != nil {
		return err
	}
	u.parts = append(u.parts, minio.CompletePart{PartNumber: i + 1, ETag: p.ETag})
	u.progress.add("copy", len(data))
	return nil
}

func (u *upload) readBack(ctx context.Context) error {
	if u.written != nil {
		u.written(u.key)
	}
	body, info, _, err := u.b.core.GetObject(ctx, u.b.name, u.key, minio.GetObjectOptions{})
	if err != nil {
		return err
	}
	defer body.Close()
	sum, n, err := pump(ctx, u.Limit.Reader(ctx, body), func(b []byte) error {
		u.progress.add("verify", len(b))
		return nil
	})
	if err != nil {
		return err
	}
	if want := u.whole.Sum(nil); !bytes.Equal(sum[:], want) || n != u.of.Size {
		return errors.Join(&Fault{Code: "copy_corrupt", Class: phases.Retryable, Err: fmt.Errorf(
			"%s: sent %d bytes with SHA-256 %x, read back %d (of %d) with %x: storage node %s corrupts data",
			u.of.Name, u.of.Size, want, n, info.Size, sum, u.Node)}, u.remove(ctx))
	}
	return nil
}

// remove removes the object, so that nobody takes it for the sector's.
func (u *upload) remove(ctx context.Context) error {
	return u.b.core.RemoveObject(ctx, u.b.name, u.key, minio.RemoveObjectOptions{})
}

// verifyS3Receipt is VerifyReceipt for an object store.
func verifyS3Receipt(ctx context.Context, addr string, o S3Options, r Receipt, sector string, all bool, limit *throttle.Limiter) error {
	if err := r.check(sector); err != nil {
		return err
	}
	b, err := openS3(addr, o)
	if err != nil {
		return &Fault{Code: "bad_path", Class: phases.Permanent, Err: err}
	}
	for _, f := range r.Files {
		if err := b.verify(ctx, f, r.Node, filepath.Base(f.Name) != sector || all, limit); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err = s3Fault(err); errors.Is(err, fs.ErrNotExist) {
				err = brokenReceipt("storage node %s no longer has %s: %w; nothing was deleted; mend: dispatcher redo %s --phase p5", r.Node, f.Name, err, sector)
			}
			return classify(err)
		}
	}
	return nil
}

func (b *bucket) verify(ctx context.Context, f File, node string, read bool, limit *throttle.Limiter) error {
	info, err := b.core.StatObject(ctx, b.name, b.key(f.Name), minio.StatObjectOptions{})
	if err != nil {
		return err
	}
	if info.Size != f.Size {
		return brokenReceipt("storage node %s: %s has %d bytes, p5's receipt says %d: nothing was deleted", node, f.Name, info.Size, f.Size)
	}
	if !read {
		return nil
	}
	body, _, _, err := b.core.GetObject(ctx, b.name, b.key(f.Name), minio.GetObjectOptions{})
	if err != nil {
		return err
	}
	defer body.Close()
	sum, _, err := pump(ctx, limit.Reader(ctx, body), func([]byte) error { return nil })
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(sum[:]); got != f.SHA256 {
		return brokenReceipt("storage node %s: %s has SHA-256 %s, p5's receipt says %s: the copy is damaged, or the receipt is forged; nothing was deleted", node, f.Name, got, f.SHA256)
	}
	return nil
}
