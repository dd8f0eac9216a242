package vanilla

import (
	"crypto/sha256"
	"encoding/binary"

	"sealfleet/internal/sealcore"
)

// LabelParents returns the labels that the challenged node's label in a layer (from 1)
// hashes: those of the base parents in this layer and, but for layer 1, those of the
// expander parents in the layer before, repeated until there are sealcore.LabelParents.
func (c *ColumnProofs) LabelParents(layer int) []sealcore.Domain {
	out := make([]sealcore.Domain, 0, sealcore.LabelParents)
	for i := range c.DRGParents {
		out = append(out, c.DRGParents[i].Rows[layer-1])
	}
	if layer > 1 {
		for i := range c.ExpParents {
			out = append(out, c.ExpParents[i].Rows[layer-2])
		}
	}
	for n := len(out); len(out) < sealcore.LabelParents; {
		out = append(out, out[len(out)-n])
	}
	return out
}

// Label hashes the label: SHA-256 over replica id, layer (u32, big-endian), node (u64,
// big-endian), twenty zeros and the parents, with the two topmost bits cleared.
func (l *LabelingProof) Label(replicaID sealcore.Domain) sealcore.Domain {
	var head [2 * sealcore.NodeSize]byte
	copy(head[:], replicaID[:])
	binary.BigEndian.PutUint32(head[sealcore.NodeSize:], l.Layer)
	binary.BigEndian.PutUint64(head[sealcore.NodeSize+4:], l.Node)
	h := sha256.New()
	h.Write(head[:])
	for i := range l.Parents {
		h.Write(l.Parents[i][:])
	}
	var label sealcore.Domain
	h.Sum(label[:0])
	label[sealcore.NodeSize-1] &= 0x3f
	return label
}
