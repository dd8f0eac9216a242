package r1cs

import "github.com/consensys/gnark-crypto/ecc/bls12-381/fr"

// Checker is a sink that evaluates each constraint on the witness as it comes. It keeps
// all values: 32 bytes for each variable. The zero value is ready for use.
type Checker struct {
	inputs, aux []fr.Element
	constraints int
	failed      []int
}

// maxFailed is how many unsatisfied constraints a Checker remembers.
const maxFailed = 16

// AllocInput adds a public input.
func (c *Checker) AllocInput(value fr.Element) Var {
	if c.inputs == nil {
		c.inputs = []fr.Element{one}
	}
	c.inputs = append(c.inputs, value)
	return Input(len(c.inputs) - 1)
}

// AllocAux adds a private variable.
func (c *Checker) AllocAux(value fr.Element) Var {
	c.aux = append(c.aux, value)
	return Aux(len(c.aux) - 1)
}

// Enforce evaluates a constraint.
func (c *Checker) Enforce(a, b, z LC) {
	va, vb, vz := c.eval(a), c.eval(b), c.eval(z)
	va.Mul(&va, &vb)
	if va != vz && len(c.failed) < maxFailed {
		c.failed = append(c.failed, c.constraints)
	}
	c.constraints++
}

func (c *Checker) eval(lc LC) fr.Element {
	var sum, t fr.Element
	for i := range lc {
		v := &one
		if k := lc[i].Var; k.IsAux() {
			v = &c.aux[k.Index()]
		} else if k != One {
			v = &c.inputs[k.Index()]
		}
		switch lc[i].Coeff {
		case one:
			sum.Add(&sum, v)
		case minusOne:
			sum.Sub(&sum, v)
		default:
			sum.Add(&sum, t.Mul(v, &lc[i].Coeff))
		}
	}
	return sum
}

// Unsatisfied returns the indices, from 0, of the first few constraints that do not hold.
func (c *Checker) Unsatisfied() []int { return c.failed }

// Constraints returns how many constraints there were.
func (c *Checker) Constraints() int { return c.constraints }

// Inputs returns the values of the public inputs, without the leading constant one.
func (c *Checker) Inputs() []fr.Element {
	if len(c.inputs) == 0 {
		return nil
	}
	return c.inputs[1:]
}

// Counter is a sink that counts and nothing else. The zero value is ready for use.
type Counter struct {
	Inputs      int // public inputs, without the constant one
	Aux         int
	Constraints int
	Terms       uint64 // of all linear combinations, as the circuit gives them
}

// AllocInput counts a public input.
func (c *Counter) AllocInput(fr.Element) Var {
	c.Inputs++
	return Input(c.Inputs)
}

// AllocAux counts a private variable.
func (c *Counter) AllocAux(fr.Element) Var {
	c.Aux++
	return Aux(c.Aux - 1)
}

// Enforce counts a constraint.
func (c *Counter) Enforce(a, b, z LC) {
	c.Constraints++
	c.Terms += uint64(len(a) + len(b) + len(z))
}
