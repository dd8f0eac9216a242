package groth16

import "sealfleet/internal/sealcore/r1cs"

// density keeps which variables occur, with a coefficient other than zero, in one of the
// linear combinations that it is shown. Terms of one variable in a combination count
// with their sum, as they do in the parameters: if they cancel, the variable does not
// occur there.
type density struct {
	state []uint8
	fresh []int32 // terms of the combination at work whose variables are tentative
}

const (
	absent    = iota
	tentative // occurs in the combination at work, not before
	present
)

// note takes one combination. Inputs go to inputs, if that is not nil.
func (d *density) note(lc r1cs.LC, inputs *density) {
	twice := false
	for i := range lc {
		t := &lc[i]
		of := d
		if !t.Var.IsAux() {
			if of = inputs; of == nil {
				continue
			}
		}
		switch state := &of.state[t.Var.Index()]; *state {
		case absent:
			if !t.Coeff.IsZero() {
				*state = tentative
				of.fresh = append(of.fresh, int32(i))
			}
		case tentative:
			twice = true
		}
	}
	d.settle(lc, twice)
	if inputs != nil {
		inputs.settle(lc, twice)
	}
}

// settle decides about the tentative variables; twice says that one may occur twice.
func (d *density) settle(lc r1cs.LC, twice bool) {
	for _, i := range d.fresh {
		v := lc[i].Var
		state := &d.state[v.Index()]
		*state = present
		if twice {
			var sum = lc[i].Coeff
			for k := int(i) + 1; k < len(lc); k++ {
				if lc[k].Var == v {
					sum.Add(&sum, &lc[k].Coeff)
				}
			}
			if sum.IsZero() {
				*state = absent
			}
		}
	}
	d.fresh = d.fresh[:0]
}

func (d *density) has(i int) bool { return d.state[i] == present }

func (d *density) count() (n int) {
	for i := range d.state {
		if d.has(i) {
			n++
		}
	}
	return n
}
