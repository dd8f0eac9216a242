package engine

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"

	"sealfleet/internal/phases"
	"sealfleet/internal/storage"
	"sealfleet/internal/storage/storagetest"
)

func TestP5AndP6ChallengeAnObjectStore(t *testing.T) {
	endpoint, client := storagetest.S3(t, nil)
	o := storage.S3Options{Endpoint: endpoint, Region: storagetest.Region}
	r := onShare(t)
	r.Phase, r.Copy = phases.P5, &Copy{Node: "far", Dir: "s3://sectors/x", S3: o, Samples: 100}
	result, err := Builtin{}.Run(t.Context(), r, nil)
	if err != nil || !strings.Contains(result.Message, "100 random challenges answered") {
		t.Fatalf("p5: %v, %q", err, result.Message)
	}
	r.Inputs["receipt"] = result.Outputs["receipt"]

	// Another replica of the same size lies in the store, and the receipt was forged along
	// with it: only CommR tells.
	sealed, err := os.ReadFile(r.Paths.Sealed)
	if err != nil {
		t.Fatal(err)
	}
	other := bytes.Repeat([]byte{1}, len(sealed))
	put := func(data []byte) {
		t.Helper()
		if _, err := client.PutObject(t.Context(), "sectors", "x/sealed/"+r.Sector, bytes.NewReader(data), int64(len(data)), "", "", minio.PutObjectOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	put(other)
	good := r.Inputs["receipt"]
	r.Inputs["receipt"] = strings.Replace(good, fmt.Sprintf("%x", sha256.Sum256(sealed)), fmt.Sprintf("%x", sha256.Sum256(other)), 1)
	r.Phase, r.Clean = phases.P6, &Clean{Receipt: true, NodeDir: "s3://sectors/x", S3: o, Samples: 20, Unsealed: true, Sealed: true}
	_, err = Builtin{}.Run(t.Context(), r, nil)
	wantFailure(t, err, "audit_failed", phases.Permanent)
	if _, err := os.Stat(filepath.Join(r.Paths.Cache, "p_aux")); err != nil {
		t.Error("deleted all the same:", err)
	}
	put(sealed)
	r.Inputs["receipt"] = good
	if _, err := (Builtin{}).Run(t.Context(), r, nil); err != nil {
		t.Error(err)
	}
}
