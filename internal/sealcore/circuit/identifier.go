package circuit

import (
	"crypto/sha256"
	"fmt"

	"sealfleet/internal/sealcore"
)

// Identifier returns the name that the reference, and so Filecoin's published
// parameters, gives the circuit: parameter files are called v28-<identifier>.params and
// v28-<identifier>.vk. It is the same for all sectors of a size, whatever their graph's
// seed and API version.
//
// Source: storage-proofs-core, parameter_cache.rs; storage-proofs-porep,
// stacked/vanilla/{params,graph}.rs.
func Identifier(p sealcore.Params) string {
	tree := "merkletree-poseidon_hasher-" + p.Shape.String()
	// The reference's description of the public parameters, which its name hashes.
	description := fmt.Sprintf(
		"layered_drgporep::PublicParams{ graph: stacked_graph::StackedGraph{expansion_degree: %d "+
			"base_graph: drgraph::BucketGraph{size: %d; degree: %d; hasher: poseidon_hasher} }, "+
			"challenges: LayerChallenges { layers: %d, max_count: %d }, tree: %s }",
		sealcore.ExpDegree, p.Nodes(), sealcore.DRGDegree, p.Layers, p.Challenges, tree)
	return fmt.Sprintf("stacked-proof-of-replication-%s-sha256_hasher-%x", tree, sha256.Sum256([]byte(description)))
}
