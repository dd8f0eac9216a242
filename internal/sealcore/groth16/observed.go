package groth16

import "sealfleet/internal/sealcore/r1cs"

// observed tells how many constraints have come, every so often.
type observed struct {
	r1cs.Sink
	report func(constraints int)
	n      int
}

// Enforce implements r1cs.Sink.
func (s *observed) Enforce(a, b, c r1cs.LC) {
	s.Sink.Enforce(a, b, c)
	if s.n++; s.n&(1<<16-1) == 0 {
		s.report(s.n)
	}
}
