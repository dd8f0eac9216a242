//go:build !amd64 || purego

package sdr

func accelerated() bool { return false }

func (p *prefix) prefixes(*batch) {}

func (h *hasher) hash(b *batch) { h.hashGeneric(b) }
