package porepsnark

import (
	"fmt"
	"runtime"

	"sealfleet/internal/memory"
	"sealfleet/internal/sealcore/groth16"
)

// MemoryError says that a proof would need more memory than there is.
type MemoryError struct{ Need, Available uint64 } // bytes

func (e *MemoryError) Error() string {
	const gib = 1 << 30
	return fmt.Sprintf("too little memory: the proof needs %.1f GiB, %.1f GiB are available: "+
		"wait for other jobs to end, or raise the memory limit", float64(e.Need)/gib, float64(e.Available)/gib)
}

// enoughMemory compares a proof's need with what the machine and the control group have.
// root is where /proc and /sys are.
func enoughMemory(root string, p *groth16.Params, threads int) error {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	need := groth16.MemoryNeed(p.Domain(), p.Aux(), threads)
	if have := memory.Available(root); need > have {
		return &MemoryError{need, have}
	}
	return nil
}
