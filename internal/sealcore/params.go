// Package sealcore holds the facts that every room of the proof of replication
// shares: which sector sizes and proof types exist, the shape of their trees,
// how many layers and challenges they have, and how a replica is named.
//
// The rooms below it do the work: fr32 (padding), pieces (CommP, CommD), graph
// (parents), sdr (labels), poseidon, merkle (trees on disk), vanilla
// (challenges, proofs, their JSON), seal (p1, p2, p3 over a directory), r1cs,
// circuit and groth16 (p4). None of them knows NATS, the environment or a log.
//
// Source: Filecoin spec, "Stacked DRG Proof of Replication", and the constants of
// the reference implementation (filecoin-proofs 19.1.0).
package sealcore

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"strings"
)

// Sizes and degrees that are the same for every sector.
const (
	NodeSize  = 32 // bytes of a node: one label, one leaf, one field element
	DRGDegree = 6  // base parents of a node
	ExpDegree = 8  // expander parents of a node, in all layers but the first
	Degree    = DRGDegree + ExpDegree
	// LabelParents is the number of parents that a label hashes, with repetition.
	LabelParents = 37
	// ProofSize is the length in bytes of one partition's Groth16 proof.
	ProofSize = 192
	// MinPieceSize is the smallest unpadded piece in bytes.
	MinPieceSize = 127
)

// Domain is a 32-byte commitment or tree node. As a field element it is little-endian.
type Domain = [NodeSize]byte

// APIVersion selects how the graph draws its parents.
type APIVersion string

// The two versions of the graph. V1_0_0 is the legacy one (proof types 0 to 4).
const (
	V1_0_0 APIVersion = "1.0.0"
	V1_1_0 APIVersion = "1.1.0"
)

// TreeShape is the arity of the three parts of tree C and tree R: base trees, the sub
// tree over them and the top tree over those. 0 means that the part is absent.
type TreeShape struct{ Base, Sub, Top int }

// BaseTrees returns how many base trees (and so how many tree files) a sector has.
func (s TreeShape) BaseTrees() int { return max(1, s.Sub) * max(1, s.Top) }

// String returns the shape as the reference writes it in parameter names: "8-8-2".
func (s TreeShape) String() string { return fmt.Sprintf("%d-%d-%d", s.Base, s.Sub, s.Top) }

// Params describes one kind of sector: everything that the proof of replication
// needs besides the data, the prover and the randomness.
type Params struct {
	Name       string     // "2KiB", "512MiB", or the toy shapes "16KiB" and "32KiB"
	ProofType  int        // Filecoin's registered seal proof, 0 to 9; -1 for a toy shape
	SectorSize uint64     // bytes, a power of two
	APIVersion APIVersion //
	PoRepID    Domain     // seeds the graph and the replica id's domain
	Shape      TreeShape  // of tree C and tree R
	Layers     int        // of labels
	Partitions int        // SNARK proofs per sector
	Challenges int        // per partition
}

// Nodes returns the number of 32-byte nodes of a layer.
func (p Params) Nodes() uint64 { return p.SectorSize / NodeSize }

// UnpaddedSize returns how many bytes of user data fit in the sector (127 of each 128).
func (p Params) UnpaddedSize() uint64 { return p.SectorSize / 128 * 127 }

// RowsToDiscard returns how many of tree R's lowest rows above the leaves are left out
// of its files: two, or fewer where the base tree is too small to have them.
func (p Params) RowsToDiscard() int {
	baseLeaves := p.Nodes() / uint64(p.Shape.BaseTrees())
	rows := (bits.Len64(baseLeaves)-1)/(bits.Len(uint(p.Shape.Base))-1) + 1 // with leaves and root
	// A base tree keeps at least its root; the reference caps at rows-2 and at 2.
	return min(2, rows-2)
}

// String names the kind of sector for people.
func (p Params) String() string {
	if p.ProofType < 0 {
		return "toy shape " + p.Name
	}
	return fmt.Sprintf("%s (proof type %d, api %s)", p.Name, p.ProofType, p.APIVersion)
}

// RegisteredProof returns the name that the reference gives the proof type in its JSON,
// such as StackedDrg2KiBV1_1. It is empty for a toy shape.
func (p Params) RegisteredProof() string {
	if p.ProofType < 0 {
		return ""
	}
	name := "StackedDrg" + p.Name + "V1"
	if p.APIVersion == V1_1_0 {
		name += "_1"
	}
	return name
}

type size struct {
	name       string
	bytes      uint64
	shape      TreeShape
	layers     int
	partitions int
	challenges int
}

var (
	sizes = []size{
		{"2KiB", 2 << 10, TreeShape{8, 0, 0}, 2, 1, 2},
		{"8MiB", 8 << 20, TreeShape{8, 0, 0}, 2, 1, 2},
		{"512MiB", 512 << 20, TreeShape{8, 0, 0}, 2, 1, 2},
		{"32GiB", 32 << 30, TreeShape{8, 8, 0}, 11, 10, 18},
		{"64GiB", 64 << 30, TreeShape{8, 8, 2}, 11, 10, 18},
	}
	// Toy shapes: small sectors with the tree shapes of the production ones.
	toys = []size{
		{"16KiB", 16 << 10, TreeShape{8, 8, 0}, 2, 1, 2},
		{"32KiB", 32 << 10, TreeShape{8, 8, 2}, 2, 1, 2},
	}
)

func (s size) params(proofType int, v APIVersion, porepID Domain) Params {
	return Params{
		Name: s.name, ProofType: proofType, SectorSize: s.bytes, APIVersion: v, PoRepID: porepID,
		Shape: s.shape, Layers: s.layers, Partitions: s.partitions, Challenges: s.challenges,
	}
}

// ForProofType returns the parameters of one of Filecoin's registered seal proofs:
// 0 to 4 are V1, 5 to 9 are V1_1, each of 2 KiB, 8 MiB, 512 MiB, 32 GiB, 64 GiB.
// Its PoRep id is the one that the network uses; a caller may replace it.
func ForProofType(t int) (Params, error) {
	if t < 0 || t >= 2*len(sizes) {
		return Params{}, fmt.Errorf("proof type %d is unknown: use 0 to 4 (V1) or 5 to 9 (V1_1)", t)
	}
	v := V1_0_0
	if t >= len(sizes) {
		v = V1_1_0
	}
	var porepID Domain
	binary.LittleEndian.PutUint64(porepID[:], uint64(t)) // the nonce in bytes 8 to 15 is zero for all of them
	return sizes[t%len(sizes)].params(t, v, porepID), nil
}

// ForShape returns the parameters of a shape by its size's name ("16KiB", "512MiB", case
// and spaces ignored), under API version 1.1. Real sizes get their V1_1 proof type;
// 16KiB and 32KiB are toy shapes, which take the PoRep id of proof type 5.
func ForShape(name string) (Params, error) {
	want := strings.ToLower(strings.ReplaceAll(name, " ", ""))
	for i, s := range sizes {
		if strings.ToLower(s.name) == want {
			return ForProofType(len(sizes) + i)
		}
	}
	for _, s := range toys {
		if strings.ToLower(s.name) == want {
			return s.params(-1, V1_1_0, Domain{5}), nil
		}
	}
	return Params{}, fmt.Errorf("shape %q is unknown: use one of %s", name, strings.Join(SizeNames(), ", "))
}

// SizeNames lists the names that ForShape takes, the smallest first.
func SizeNames() []string {
	all := slices.Concat(sizes, toys)
	slices.SortFunc(all, func(a, b size) int { return int(a.bytes>>8) - int(b.bytes>>8) })
	names := make([]string, len(all))
	for i, s := range all {
		names[i] = s.name
	}
	return names
}

// ProverID returns the 32-byte id of a miner actor: the payload of its ID address
// (unsigned LEB128), filled with zeros.
func ProverID(minerActorID uint64) Domain {
	var id Domain
	binary.PutUvarint(id[:], minerActorID)
	return id
}

// ReplicaID names one replica: SHA-256 over prover, sector number (big-endian), ticket,
// CommD and PoRep id, with the two topmost bits cleared so that it is a field element.
func ReplicaID(proverID Domain, sector uint64, ticket, commD, porepID Domain) Domain {
	h := sha256.New()
	h.Write(proverID[:])
	h.Write(binary.BigEndian.AppendUint64(nil, sector))
	h.Write(ticket[:])
	h.Write(commD[:])
	h.Write(porepID[:])
	var id Domain
	h.Sum(id[:0])
	id[NodeSize-1] &= 0x3f
	return id
}
