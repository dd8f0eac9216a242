//go:build !amd64 || purego

package msm

// HasWide tells whether this processor adds points of G1 faster with wide coordinates.
func HasWide() bool { return false }

type wideScratch struct{}

func newWideScratch() *wideScratch { return nil }

func runWide(*adder[Wide, *Wide], int) bool { return false }
