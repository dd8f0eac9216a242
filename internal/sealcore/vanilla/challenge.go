package vanilla

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/field"
	"sealfleet/internal/sealcore/graph"
)

// InputsPerChallenge is how many public inputs of the SNARK one challenge takes: a node
// in tree D, the parents in tree C, the challenge itself, a node in tree R, one in tree C.
const InputsPerChallenge = 1 + sealcore.Degree + 1 + 1 + 1

// PublicInputs are what everybody knows of a replica; the proofs are checked against them.
type PublicInputs struct {
	ReplicaID sealcore.Domain
	CommD     sealcore.Domain
	CommR     sealcore.Domain
	Seed      sealcore.Domain // interactive randomness
}

// Challenges returns the nodes that one partition (from 0) must open, in order. They are
// drawn alike under both API versions: SHA-256 over replica id, seed and the challenge's
// number within the sector (u32, little-endian), read as a little-endian number, modulo
// nodes-1, plus 1, so that node 0 (which has no parents) is never challenged.
//
// Source: stacked/vanilla/challenges.rs, InteractiveChallenges.
func (pi PublicInputs) Challenges(p sealcore.Params, partition int) []uint64 {
	out := make([]uint64, p.Challenges)
	buf := make([]byte, 2*sealcore.NodeSize+4)
	copy(buf, pi.ReplicaID[:])
	copy(buf[sealcore.NodeSize:], pi.Seed[:])
	for i := range out {
		j := uint32(p.Challenges*partition + i)
		binary.LittleEndian.PutUint32(buf[2*sealcore.NodeSize:], j)
		out[i] = modLittleEndian(sha256.Sum256(buf), p.Nodes()-1) + 1
	}
	return out
}

// modLittleEndian reads d as a little-endian number and returns it modulo m, m > 0.
func modLittleEndian(d [sha256.Size]byte, m uint64) uint64 {
	var rem uint64
	for i := len(d) - 8; i >= 0; i -= 8 {
		_, rem = bits.Div64(rem, binary.LittleEndian.Uint64(d[i:]), m)
	}
	return rem
}

// SNARKInputs returns the public inputs of every partition's SNARK, without the leading
// constant one: replica id, CommD, CommR, and then for each challenge the node itself
// (tree D), its six base and eight expander parents (tree C), the node again (for its
// labels), again (tree R) and again (tree C). A node takes a whole element.
//
// It fails if the replica id or a commitment is not a field element.
//
// Source: stacked/circuit/proof.rs, generate_public_inputs.
func (pi PublicInputs) SNARKInputs(p sealcore.Params) ([][]fr.Element, error) {
	g, err := graph.New(p.Nodes(), p.PoRepID, p.APIVersion)
	if err != nil {
		return nil, err
	}
	var common [3]fr.Element
	for i, c := range []struct {
		name  string
		value sealcore.Domain
	}{{"replica id", pi.ReplicaID}, {"CommD", pi.CommD}, {"CommR", pi.CommR}} {
		if common[i], err = field.FromDomain(c.value); err != nil {
			return nil, fmt.Errorf("%s %x is not below the modulus of the scalar field, so no sector has it", c.name, c.value)
		}
	}
	all := make([][]fr.Element, p.Partitions)
	for k := range all {
		inputs := make([]fr.Element, 0, len(common)+InputsPerChallenge*p.Challenges)
		inputs = append(inputs, common[:]...)
		for _, challenge := range pi.Challenges(p, k) {
			var base [sealcore.DRGDegree]uint32
			var exp [sealcore.ExpDegree]uint32
			g.BaseParents(challenge, &base)
			g.ExpParents(challenge, &exp)

			node := fr.NewElement(challenge)
			inputs = append(inputs, node)
			for _, parent := range base {
				inputs = append(inputs, fr.NewElement(uint64(parent)))
			}
			for _, parent := range exp {
				inputs = append(inputs, fr.NewElement(uint64(parent)))
			}
			inputs = append(inputs, node, node, node)
		}
		all[k] = inputs
	}
	return all, nil
}
