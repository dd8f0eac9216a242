// Package r1cstest holds circuits that are small enough for tests.
package r1cstest

import (
	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"

	"sealfleet/internal/sealcore/r1cs"
)

// Toy synthesises the circuit of groth16-small.json: y₀ = x is auxiliary variable 0 and
// y_{i+1} = y_i² + x for i in 0 … n−1; the last y is the only public input beside the
// constant one. Each step enforces y_i · y_i = y_{i+1} − x. Where 7 divides i it also
// allocates z = 2·y_i + 3·x + 5 and enforces (2·y_i + 3·x + 5) · 1 = z. At step 0 y_i is x
// itself, so that linear combination holds one variable twice.
func Toy(s r1cs.Sink, x uint64, n int) {
	var one, two, three, five, minusOne fr.Element
	one.SetOne()
	two.SetUint64(2)
	three.SetUint64(3)
	five.SetUint64(5)
	minusOne.Neg(&one)

	xValue := fr.NewElement(x)
	xVar := s.AllocAux(xValue)
	y, yVar := xValue, xVar
	for i := range n {
		var next fr.Element
		next.Square(&y)
		next.Add(&next, &xValue)
		var nextVar r1cs.Var
		if i == n-1 {
			nextVar = s.AllocInput(next)
		} else {
			nextVar = s.AllocAux(next)
		}
		s.Enforce(
			r1cs.LC{{Var: yVar, Coeff: one}},
			r1cs.LC{{Var: yVar, Coeff: one}},
			r1cs.LC{{Var: nextVar, Coeff: one}, {Var: xVar, Coeff: minusOne}},
		)
		if i%7 == 0 {
			var z, t fr.Element
			z.Mul(&two, &y)
			t.Mul(&three, &xValue)
			z.Add(&z, &t)
			z.Add(&z, &five)
			zVar := s.AllocAux(z)
			s.Enforce(
				r1cs.LC{{Var: yVar, Coeff: two}, {Var: xVar, Coeff: three}, {Var: r1cs.One, Coeff: five}},
				r1cs.LC{{Var: r1cs.One, Coeff: one}},
				r1cs.LC{{Var: zVar, Coeff: one}},
			)
		}
		y, yVar = next, nextVar
	}
}
