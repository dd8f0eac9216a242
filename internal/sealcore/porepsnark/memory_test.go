package porepsnark

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"sealfleet/internal/sealcore/groth16"
)

// machine is the root of a machine with so many KiB of memory.
func machine(t *testing.T, kib int) string {
	root := t.TempDir()
	path := filepath.Join(root, "proc/meminfo")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, fmt.Appendf(nil, "MemAvailable: %d kB\n", kib), 0o600); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestTooLittleMemoryIsSaidAtOnce(t *testing.T) {
	data, err := os.ReadFile("../groth16/testdata/groth16-small.params")
	if err != nil {
		t.Fatal(err)
	}
	p, err := groth16.ParseParams(data)
	if err != nil {
		t.Fatal(err)
	}
	need := groth16.MemoryNeed(p.Domain(), p.Aux(), 2)
	poor := machine(t, 100_000)
	var e *MemoryError
	if err := enoughMemory(poor, p, 2); !errors.As(err, &e) || e.Need != need || e.Available != 100_000<<10 {
		t.Errorf("100 MB: %v", err)
	}
	rich := machine(t, 10_000_000)
	if err := enoughMemory(rich, p, 2); err != nil {
		t.Errorf("10 GB: %v", err)
	}
}
