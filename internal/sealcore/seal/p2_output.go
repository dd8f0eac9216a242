package seal

import (
	"fmt"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/field"
)

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

// ParsePreCommit2 reads a SealPreCommitPhase2Output, ours or the reference's, of a sector of
// the given kind. CommC and CommRLast are not in it: they stand in p_aux.
func ParsePreCommit2(params sealcore.Params, data []byte) (*PreCommit2, error) {
	var in struct {
		RegisteredProof *string   `json:"registered_proof"`
		CommR           []*uint16 `json:"comm_r"` // uint8 would be read from base64
		CommD           []*uint16 `json:"comm_d"`
	}
	if err := decodeStrict(data, &in); err != nil {
		return nil, fmt.Errorf("the output of p2 is malformed: %w", err)
	}
	var registered string
	if in.RegisteredProof != nil {
		registered = *in.RegisteredProof
	}
	if want := params.RegisteredProof(); registered != want {
		return nil, fmt.Errorf("the output of p2 has registered_proof %q, a %s has %q", registered, params, want)
	}
	o := &PreCommit2{Params: params}
	for _, c := range []struct {
		name string
		from []*uint16
		to   *sealcore.Domain
	}{{"comm_r", in.CommR, &o.CommR}, {"comm_d", in.CommD, &o.CommD}} {
		if len(c.from) != len(c.to) {
			return nil, fmt.Errorf("the output of p2 is malformed: %s has %d bytes, want %d", c.name, len(c.from), len(c.to))
		}
		for i, x := range c.from {
			if x == nil || *x > 0xff {
				return nil, fmt.Errorf("the output of p2 is malformed: %s's element %d is no byte", c.name, i)
			}
			c.to[i] = byte(*x)
		}
		if !field.Canonical(c.to) {
			return nil, fmt.Errorf("the output of p2 is malformed: %s is not a field element", c.name)
		}
	}
	return o, nil
}
