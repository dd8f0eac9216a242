package msm

import (
	"context"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fp"
)

// G1Source gives points of G1 in whichever form the processor is faster with.
type G1Source interface {
	Source[fp.Element]
	// LoadWide is Load for wide coordinates.
	LoadWide(i int, p *G1Wide) error
}

type widened struct{ src G1Source }

func (w widened) Load(i int, p *G1Wide) error { return w.src.LoadWide(i, p) }

// MultiExpG1 is MultiExp over G1, eight additions at a time where the processor can.
func MultiExpG1(ctx context.Context, src G1Source, terms Terms, opts Options) (G1, error) {
	if !HasWide() {
		return MultiExp[fp.Element](ctx, src, terms, opts)
	}
	p, err := MultiExp[Wide](ctx, widened{src}, terms, opts)
	return Narrow(&p), err
}

// SumG1 is Sum over G1, eight additions at a time where the processor can.
func SumG1(ctx context.Context, src G1Source, indices []uint32, opts Options) (G1, error) {
	if !HasWide() {
		return Sum[fp.Element](ctx, src, indices, opts)
	}
	p, err := Sum[Wide](ctx, widened{src}, indices, opts)
	return Narrow(&p), err
}
