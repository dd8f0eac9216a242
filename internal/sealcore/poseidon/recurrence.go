package poseidon

import "github.com/consensys/gnark-crypto/ecc/bls12-381/fr"

// recurrence is the partial rounds in a form with one reduction a round.
//
// Write the state before partial round r as (x_r, u_r): element 0 and the other n =
// width-1. The round replaces x_r by y_r = x_r^5 + k_r and multiplies by the MDS matrix,
// whose corner is m, first column w, first row v and minor H:
//
//	x_{r+1} = u_r·w + y_r·m        u_{r+1} = u_r·H + y_r·v
//
// Nothing but x sees an S-box, so u is a linear filter from y to x, and need not be
// computed at all: with the characteristic polynomial H^n = Σ_i a_i·H^i, x_{r+1} is a
// fixed combination of the last n values of x and the last n+1 of y. That is as many
// products as a sparse matrix takes, but all under one sum, which is reduced once, and
// with the same coefficients in every round. Only the first n rounds look at u_0, and
// only the end asks for u again.
type recurrence struct {
	n int
	// first[k], k < n, gives x_{k+1} from u_0[0…n-1], y_0 … y_k.
	first [][]fr.Element
	// step gives x_{r+1}, r ≥ n, from x_{r-n+1} … x_r, y_{r-n} … y_r.
	step []fr.Element
	// last[j] gives u_P[j] after all P rounds from x_{P-n+1} … x_P, y_{P-n} … y_{P-1}.
	last [][]fr.Element
}

func newRecurrence(m Matrix, rounds int) *recurrence {
	n := len(m) - 1
	corner, v, hat := m[0][0], m[0][1:], m.minor()
	w := make([]fr.Element, n)
	for i := range w {
		w[i] = m[i+1][0]
	}
	hatT := hat.transposed()
	// seen[k] = H^k·w: what x sees of u, k rounds later. echo[k] = v·H^k.
	seen, echo := make([][]fr.Element, n+1), make([][]fr.Element, n+1)
	seen[0], echo[0] = w, v
	for k := 1; k <= n; k++ {
		seen[k] = hatT.apply(seen[k-1])
		echo[k] = hat.apply(echo[k-1])
	}
	// impulse[k] is what x_{r+k+1} gets of y_r: the corner at once, then through u.
	impulse := make([]fr.Element, n+1)
	impulse[0] = corner
	for k := 1; k <= n; k++ {
		dot(&impulse[k], v, seen[k-1])
	}

	rec := &recurrence{n: n, first: make([][]fr.Element, n)}
	for k := range rec.first {
		rec.first[k] = append(rec.first[k], seen[k]...)
		for i := 0; i <= k; i++ {
			rec.first[k] = append(rec.first[k], impulse[k-i])
		}
	}

	// Row i of observe is seen[i]; a·observe = seen[n] gives the polynomial.
	observe := make(Matrix, n)
	copy(observe, seen)
	inverse := observe.inverse()
	a := inverse.apply(seen[n])

	// x_{r+1}: take s_j = x_{j+1} - corner·y_j = u_j·w for the n rounds before.
	ys := make([]fr.Element, n+1) // coefficients of y_{r-n} … y_r
	var t fr.Element
	for d := range ys { // of y_{r-n+d}
		ys[d] = impulse[n-d]
		for i := d; i < n; i++ { // s_{r-n+i} holds impulse[i-d] of it (and x holds the corner)
			ys[d].Sub(&ys[d], t.Mul(&a[i], &impulse[i-d]))
		}
	}
	rec.step = append(append(rec.step, a...), ys...)

	// u_P = u_{P-n}·H^n + Σ_i y_{P-n+i}·v·H^{n-1-i}, and u_{P-n} is what x showed since:
	// x_{P-n+i+1} = u_{P-n}·seen[i] + Σ_{j≤i} y_{P-n+j}·impulse[i-j].
	power := newMatrix(n) // H^n
	for i := range power {
		power[i][i].SetOne()
	}
	for range n {
		power = power.mul(hat)
	}
	// As a row vector u_{P-n} = z·(observeᵀ)⁻¹ with z the x's less their y's.
	back := inverse.transposed().mul(power)
	rec.last = make([][]fr.Element, n)
	for j := range rec.last {
		xs, ys := make([]fr.Element, n), make([]fr.Element, n)
		for i := range n {
			xs[i] = back[i][j]
			ys[i] = echo[n-1-i][j]
			for l := i; l < n; l++ {
				ys[i].Sub(&ys[i], t.Mul(&back[l][j], &impulse[l-i]))
			}
		}
		rec.last[j] = append(xs, ys...)
	}
	return rec
}
