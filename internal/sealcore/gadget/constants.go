package gadget

import (
	"sync"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"
)

// powers holds 2^i and −2^i of the scalar field: nearly every coefficient of the circuit
// is one of them.
type powers struct {
	pow2    [fieldBits + 1]fr.Element
	negPow2 [fieldBits + 1]fr.Element
	bit     [2]fr.Element // 0 and 1, the values of a bit
}

// fieldConstants computes the powers of two once.
var fieldConstants = sync.OnceValue(func() *powers {
	k := new(powers)
	k.pow2[0].SetOne()
	for i := 1; i < len(k.pow2); i++ {
		k.pow2[i].Double(&k.pow2[i-1])
	}
	for i := range k.pow2 {
		k.negPow2[i].Neg(&k.pow2[i])
	}
	k.bit[1].SetOne()
	return k
})
