package seal

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"
)

func TestFileFacts(t *testing.T) {
	p := InDir(t.TempDir())
	if facts, err := FileFacts(t.Context(), p); err != nil || len(facts) != 0 {
		t.Errorf("nothing there: %v, error %v", facts, err)
	}
	if err := os.MkdirAll(filepath.Join(p.Cache, "directory"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string]string{
		p.Sealed: "abc", filepath.Join(p.Cache, PAuxName): "", filepath.Join(p.Cache, ".p_aux.tmp"): "half",
	} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	facts, err := FileFacts(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]FileFact{ // SHA-256 of "abc" and of nothing, FIPS 180-2
		"sealed": {3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
		"p_aux":  {0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
	}
	if !maps.Equal(facts, want) {
		t.Errorf("facts %v, want %v", facts, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := FileFacts(ctx, p); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
}
