// Package storagetest has what tests of storage nodes need.
package storagetest

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// The store's one bucket, and its region.
const (
	Bucket = "sectors"
	Region = "us-east-1"
)

// S3 starts a real S3 server in this process with an empty bucket, and sets its credentials in
// the environment. asked, if set, is called for each request.
func S3(t *testing.T, asked func()) (endpoint string, client *minio.Core) {
	t.Helper()
	const key, secret = "key-of-the-test", "secret-of-the-test"
	store := gofakes3.New(s3mem.New(), gofakes3.WithIntegrityCheck(true)).Server()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked != nil {
			asked()
		}
		store.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	t.Setenv("AWS_ACCESS_KEY_ID", key)
	t.Setenv("AWS_SECRET_ACCESS_KEY", secret)
	client, err := minio.NewCore(strings.TrimPrefix(server.URL, "http://"), &minio.Options{Creds: credentials.NewStaticV4(key, secret, ""), Region: Region})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.MakeBucket(t.Context(), Bucket, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	return server.URL, client
}
