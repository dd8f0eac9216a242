//go:build !amd64 || purego

package sdr

func accelerated() bool { return false }

func (p *prefix) states([][8]uint32, uint64) {}

func hashLanes(b *batch, group []*hasher) {
	for _, h := range group {
		h.hashGeneric(b)
	}
}
