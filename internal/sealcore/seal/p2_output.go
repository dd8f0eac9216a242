package seal

import "sealfleet/internal/sealcore"

// PreCommit2 is what p2 finds: the commitments of a sealed sector. CommR and CommD go to
// the chain; CommC and CommRLast are in p_aux.
type PreCommit2 struct {
	Params    sealcore.Params
	CommR     sealcore.Domain // Poseidon(CommC, CommRLast)
	CommD     sealcore.Domain
	CommC     sealcore.Domain // root of tree C
	CommRLast sealcore.Domain // root of tree R
}

// JSON writes the reference's SealPreCommitPhase2Output, byte for byte. A toy shape has no
// proof type; its JSON lacks registered_proof, as the inner type of the reference does.
func (o *PreCommit2) JSON() []byte {
	b := []byte{'{'}
	if o.Params.ProofType >= 0 {
		b = append(b, `"registered_proof":"`+o.Params.RegisteredProof()+`",`...)
	}
	b = append(b, `"comm_r":`...)
	b = appendJSONBytes(b, o.CommR[:])
	b = append(b, `,"comm_d":`...)
	b = appendJSONBytes(b, o.CommD[:])
	return append(b, '}')
}
