package main

import "sealfleet/internal/chain"

// verifier checks the proofs that the development chain is given. nil refuses every
// proof; a p4 that made none is accepted with a note.
func verifier() chain.Verifier { return nil }
