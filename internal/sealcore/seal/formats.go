package seal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"path/filepath"

	"sealfleet/internal/sealcore"
)

// Names of a sector's cache files that are not stores.
const (
	PAuxName = "p_aux" // CommC and CommR_last, kept for as long as the sector lives
	TAuxName = "t_aux" // where the trees and labels are, until the sector is proven
)

// StoreConfig tells where a tree or a layer is kept and how big it is, as the reference
// writes it in JSON and in t_aux (merkletree's StoreConfig).
type StoreConfig struct {
	Path          string // directory
	ID            string // "layer-1", "tree-d", "tree-c-3", …
	Size          uint64 // in nodes; for tree C and tree R of one base tree, with its rows to discard
	RowsToDiscard uint64 // rows above the leaves that are left out of the file
}

// File returns the path of the store's data.
func (c StoreConfig) File() string { return filepath.Join(c.Path, "sc-02-data-"+c.ID+".dat") }

// In returns the same store in another directory.
func (c StoreConfig) In(dir string) StoreConfig {
	c.Path = dir
	return c
}

// LabelsConfig returns the store of the labels of one layer, counted from 1.
func LabelsConfig(p sealcore.Params, cache string, layer int) StoreConfig {
	return StoreConfig{Path: cache, ID: fmt.Sprintf("layer-%d", layer), Size: p.Nodes()}
}

// TreeDConfig returns the store of tree D: a binary tree with its leaves.
func TreeDConfig(p sealcore.Params, cache string) StoreConfig {
	return StoreConfig{Path: cache, ID: "tree-d", Size: 2*p.Nodes() - 1}
}

// TreeCConfig returns the store of tree C. Shapes with more than one base tree keep each in
// its own file: see Split.
func TreeCConfig(p sealcore.Params, cache string) StoreConfig {
	return StoreConfig{Path: cache, ID: "tree-c", Size: baseTreeLen(p)}
}

// TreeRLastConfig returns the store of tree R. Shapes with more than one base tree keep each
// in its own file: see Split. Neither the leaves (they are the replica) nor the discarded
// rows are in the files, yet Size counts them.
func TreeRLastConfig(p sealcore.Params, cache string) StoreConfig {
	return StoreConfig{Path: cache, ID: "tree-r-last", Size: baseTreeLen(p), RowsToDiscard: uint64(p.RowsToDiscard())}
}

// baseTreeLen counts the nodes of a base tree of tree C or tree R: leaves, every row, root.
func baseTreeLen(p sealcore.Params) uint64 {
	shift := bits.Len(uint(p.Shape.Base)) - 1
	var n uint64
	for row := p.Nodes() / uint64(p.Shape.BaseTrees()); row > 0; row >>= shift {
		n += row
	}
	return n
}

// Split returns the stores of the base trees: c itself if there is one, otherwise c with its
// number appended to the id.
func (c StoreConfig) Split(p sealcore.Params) []StoreConfig {
	n := p.Shape.BaseTrees()
	if n == 1 {
		return []StoreConfig{c}
	}
	all := make([]StoreConfig, n)
	for i := range all {
		all[i] = c
		all[i].ID = fmt.Sprintf("%s-%d", c.ID, i)
	}
	return all
}

// TAux is the content of t_aux: where p3 finds labels and trees.
type TAux struct {
	Labels    []StoreConfig // layer 1 first
	TreeD     StoreConfig
	TreeRLast StoreConfig
	TreeC     StoreConfig
}

// NewTAux returns what p2 leaves in t_aux of a sector whose cache is in the directory cache.
func NewTAux(p sealcore.Params, cache string) TAux {
	t := TAux{
		TreeD:     TreeDConfig(p, cache),
		TreeRLast: TreeRLastConfig(p, cache),
		TreeC:     TreeCConfig(p, cache),
	}
	for layer := 1; layer <= p.Layers; layer++ {
		t.Labels = append(t.Labels, LabelsConfig(p, cache, layer))
	}
	return t
}

// In returns t_aux as it is for a cache in another directory; the reference does the same
// when it reads the file.
func (t TAux) In(cache string) TAux {
	labels := make([]StoreConfig, len(t.Labels))
	for i, c := range t.Labels {
		labels[i] = c.In(cache)
	}
	return TAux{labels, t.TreeD.In(cache), t.TreeRLast.In(cache), t.TreeC.In(cache)}
}

// Check tells whether t_aux describes a sector of these parameters. Paths don't matter.
func (t TAux) Check(p sealcore.Params) error {
	want, got := NewTAux(p, ""), t.In("")
	if len(got.Labels) != len(want.Labels) {
		return fmt.Errorf("t_aux has %d layers, %s has %d: it is of another kind of sector", len(got.Labels), p, len(want.Labels))
	}
	for i := range want.Labels {
		if err := got.Labels[i].check(want.Labels[i]); err != nil {
			return fmt.Errorf("t_aux: %w", err)
		}
	}
	return errors.Join(got.TreeD.check(want.TreeD), got.TreeC.check(want.TreeC), got.TreeRLast.check(want.TreeRLast))
}

// check compares all but the path.
func (c StoreConfig) check(want StoreConfig) error {
	if c.In("") != want.In("") {
		return fmt.Errorf("store %q of %d nodes with %d rows discarded, want %q of %d with %d",
			c.ID, c.Size, c.RowsToDiscard, want.ID, want.Size, want.RowsToDiscard)
	}
	return nil
}

// MarshalBinary encodes t_aux as the reference does (bincode: numbers as 64-bit
// little-endian, strings with their length, options with a byte).
func (t TAux) MarshalBinary() ([]byte, error) {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(t.Labels)))
	for _, c := range t.Labels {
		b = c.appendBinary(b)
	}
	for _, c := range []StoreConfig{t.TreeD, t.TreeRLast, t.TreeC} {
		b = c.appendBinary(b)
	}
	return b, nil
}

func (c StoreConfig) appendBinary(b []byte) []byte {
	for _, s := range []string{c.Path, c.ID} {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(s)))
		b = append(b, s...)
	}
	b = append(b, 1) // the size is there
	b = binary.LittleEndian.AppendUint64(b, c.Size)
	return binary.LittleEndian.AppendUint64(b, c.RowsToDiscard)
}

// ParseTAux decodes t_aux. Use In to place it in the directory that it was read from, and
// Check to see that it belongs to the sector.
func ParseTAux(data []byte) (TAux, error) {
	r := binaryReader{rest: data}
	var t TAux
	n := r.uint64()
	if n > maxLayers {
		return TAux{}, fmt.Errorf("t_aux is damaged: it counts %d layers", n)
	}
	for range n {
		t.Labels = append(t.Labels, r.storeConfig())
	}
	for _, c := range []*StoreConfig{&t.TreeD, &t.TreeRLast, &t.TreeC} {
		*c = r.storeConfig()
	}
	if r.err == nil && len(r.rest) > 0 {
		r.err = fmt.Errorf("%d bytes too many", len(r.rest))
	}
	if r.err != nil {
		return TAux{}, fmt.Errorf("t_aux is damaged: %w: do p2 again", r.err)
	}
	return t, nil
}

// maxLayers is more layers than any sector has; it bounds what a damaged file can ask for.
const maxLayers = 64

// binaryReader reads bincode. After an error it returns zeros.
type binaryReader struct {
	rest []byte
	err  error
}

var errShort = errors.New("cut short")

func (r *binaryReader) bytes(n uint64) []byte {
	if r.err == nil && n > uint64(len(r.rest)) {
		r.err = errShort
	}
	if r.err != nil {
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *binaryReader) uint64() uint64 {
	b := r.bytes(8)
	if b == nil {
		return 0
	}
	return binary.LittleEndian.Uint64(b)
}

func (r *binaryReader) storeConfig() StoreConfig {
	var c StoreConfig
	c.Path = string(r.bytes(r.uint64()))
	c.ID = string(r.bytes(r.uint64()))
	if b := r.bytes(1); b != nil && b[0] != 1 {
		r.err = fmt.Errorf("store %q has no size", c.ID)
	}
	c.Size = r.uint64()
	c.RowsToDiscard = r.uint64()
	return c
}

// PAux is the content of p_aux.
type PAux struct{ CommC, CommRLast sealcore.Domain }

// MarshalBinary encodes p_aux: its two nodes, 64 bytes.
func (a PAux) MarshalBinary() ([]byte, error) {
	return append(append([]byte(nil), a.CommC[:]...), a.CommRLast[:]...), nil
}

// ParsePAux decodes p_aux.
func ParsePAux(data []byte) (PAux, error) {
	var a PAux
	if len(data) != len(a.CommC)+len(a.CommRLast) {
		return a, fmt.Errorf("p_aux has %d bytes, want 64: do p2 again", len(data))
	}
	copy(a.CommC[:], data)
	copy(a.CommRLast[:], data[len(a.CommC):])
	return a, nil
}
