package porepsnark

import (
	"context"
	"encoding/hex"
	"fmt"
	"path/filepath"

	"golang.org/x/crypto/blake2b"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/circuit"
	"sealfleet/internal/sealcore/groth16"
)

// MakeParameters makes development parameters of a kind of sector in dir, with a mark
// that says so, unless there are parameters already; it tells whether it did. maker is
// written into the mark. It takes about a minute for 2 KiB on two cores.
//
// For 32 and 64 GiB it refuses unless the options say otherwise.
func MakeParameters(ctx context.Context, params sealcore.Params, dir, maker string, o Options) (made bool, err error) {
	id := circuit.Identifier(params)
	if production(params) && !o.SelfMadeParametersForProduction {
		return false, fmt.Errorf("%w: sectors of %s seal what is worth something: fetch Filecoin's file %s, or allow self-made "+
			"parameters for production by name", ErrDevelopmentParameters, params.Name, groth16.ParamsPath(dir, id))
	}
	return groth16.Make(ctx, dir, id, maker, synthesis(params, circuit.Blank(params)), groth16.Options{
		Threads: o.Threads, Progress: o.Progress,
	})
}

// ParametersName returns the name of the parameter file of a kind of sector.
func ParametersName(params sealcore.Params) string {
	return filepath.Base(groth16.ParamsPath("", circuit.Identifier(params)))
}

// production tells whether a sector of this size is one of the network's.
func production(params sealcore.Params) bool { return params.SectorSize >= 32<<30 }

// allowed refuses parameters for production sizes that are not the published ones.
func allowed(params sealcore.Params, dir string, key *groth16.VerifyingKey, o Options) error {
	if !production(params) || o.SelfMadeParametersForProduction || published(key) {
		return nil
	}
	id := circuit.Identifier(params)
	origin := "are not among those that Filecoin has published"
	if marked, err := groth16.Development(dir, id, key); err == nil && marked {
		origin = "are marked as made for development"
	}
	return fmt.Errorf("%w: those in %s %s, so whoever made them could forge proofs: fetch Filecoin's files, or allow "+
		"self-made parameters for production by name", ErrDevelopmentParameters, groth16.ParamsPath(dir, id), origin)
}

// publishedKeys are digests of the verifying keys that Filecoin has published for 32 and
// 64 GiB: the first 16 bytes of BLAKE2b-512 over the file.
//
// Source: filecoin-proofs 19.1.0, parameters.json.
var publishedKeys = map[string]bool{
	"0c7b4aac1c40fdb7eb82bc355b41addf": true, // 32 GiB
	"a89884252c04c298d0b3c81bfd884164": true, // 64 GiB
}

func published(key *groth16.VerifyingKey) bool {
	digest := blake2b.Sum512(key.Bytes())
	return publishedKeys[hex.EncodeToString(digest[:16])]
}
