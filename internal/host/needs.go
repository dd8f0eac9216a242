package host

import (
	"fmt"
	"strings"

	"sealfleet/internal/phases"
)

// Need is what one phase of one sector takes of a host, at its peak.
type Need struct {
	Scratch uint64 // bytes that it adds to the share while it runs
	Node    uint64 // bytes that it adds to a storage node
	Memory  uint64 // bytes that cannot be given back under pressure; mapped files can
	Cache   uint64 // bytes of mapped files without which it crawls
	Cores   int    // that it keeps busy; p2 to p4 take more if they are given more
}

// size is one column of the table. A sector is what lies in it: labels, trees and
// replicas are multiples of it.
type size struct {
	name   string
	bytes  uint64
	layers uint64 // of labels
	tree   uint64 // p2's trees C and R, p_aux and t_aux, in thousandths of a sector
	copied uint64 // what p5 copies besides the replica: tree R, p_aux, t_aux, in thousandths
	c1     uint64 // p3's vanilla proofs as JSON, bytes
	p2, p3 uint64 // memory, bytes
	p4     uint64
}

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)

// sizes: layers and tree shapes are the protocol's; c1 and memory of the three small
// sizes were measured, those of 32 and 64 GiB follow from 180 challenges over 11 layers and from
// 130 million constraints (groth16.MemoryNeed).
var sizes = []size{
	{"2KiB", 2 * kib, 2, 1330, 190, 1 * mib, 32 * mib, 32 * mib, 640 * mib},
	{"8MiB", 8 * mib, 2, 1150, 3, 1 * mib, 64 * mib, 32 * mib, 650 * mib},
	{"512MiB", 512 * mib, 2, 1150, 3, 2 * mib, 2 * gib, 256 * mib, 1100 * mib},
	{"32GiB", 32 * gib, 11, 1150, 3, 256 * mib, 4 * gib, 1 * gib, 15 * gib},
	{"64GiB", 64 * gib, 11, 1150, 3, 256 * mib, 4 * gib, 1 * gib, 15 * gib},
}

// slack is for the small files of a phase and for the rounding of its files to blocks.
const slack = 256 * kib

// NeedOf returns what a phase of a sector of so many bytes takes. Of sizes that are not
// in the table (toys) it takes the next bigger one's shares; false above 64 GiB.
func NeedOf(sector uint64, p phases.Step) (Need, bool) {
	for _, s := range sizes {
		if sector <= s.bytes {
			return s.need(sector, p), true
		}
	}
	return Need{}, false
}

func (s size) need(sector uint64, p phases.Step) Need {
	n := Need{Memory: 32 * mib, Cores: 1}
	parts := func(thousandths uint64) uint64 {
		return sector/1000*thousandths + sector%1000*thousandths/1000 + slack
	}
	switch p {
	case phases.P1:
		// The labels; tree D, which has the data's leaves and as many again above them; the
		// unsealed file; and its copy, which p2 encodes.
		n.Scratch = sector*(s.layers+4) + slack
		if sector >= 512*mib {
			n.Memory = 128 * mib
		}
		n.Cache = 2 * sector // the layer that is written and the one before it
	case phases.P2:
		// The trees, and the replica a second time under a temporary name until it is whole.
		n.Scratch = sector + parts(s.tree)
		n.Memory = s.p2
	case phases.P3:
		n.Scratch = s.c1 + slack
		n.Memory = s.p3
	case phases.P4:
		n.Memory = s.p4
	case phases.P5:
		n.Node = sector + parts(s.copied)
		n.Memory = 96 * mib
	}
	return n
}

// SizeName writes a sector's size as the field does: 32GiB.
func SizeName(sector uint64) string {
	for _, s := range sizes {
		if s.bytes == sector {
			return s.name
		}
	}
	return Bytes(sector)
}

// SectorSize is SECTOR_SIZE: the name of a size, or its bytes as in the old config.toml;
// 0 where nobody said.
type SectorSize uint64

// UnmarshalText reads "32GiB" or "34359738368".
func (s *SectorSize) UnmarshalText(text []byte) error {
	want := strings.ToLower(strings.ReplaceAll(string(text), " ", ""))
	var names []string
	for _, known := range sizes {
		if want == strings.ToLower(known.name) || want == fmt.Sprint(known.bytes) {
			*s = SectorSize(known.bytes)
			return nil
		}
		names = append(names, known.name)
	}
	return fmt.Errorf("unknown sector size: use one of %s", strings.Join(names, ", "))
}

// Bytes writes a number of bytes for people, in binary units with a digit or two.
func Bytes(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	if i == 0 || v >= 100 {
		return fmt.Sprintf("%.0f %s", v, units[i])
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}
