package poseidon

import "github.com/consensys/gnark-crypto/ecc/bls12-381/fr"

// Matrix is a matrix over the scalar field as rows: m[i][j] is in row i, column j.
// Poseidon here multiplies from the left with a row vector: (s·m)[j] = Σ_i s[i]·m[i][j].
type Matrix [][]fr.Element

func newMatrix(n int) Matrix {
	m := make(Matrix, n)
	for i := range m {
		m[i] = make([]fr.Element, n)
	}
	return m
}

// cauchy returns the MDS matrix 1/(x_i + y_j) with x = 0 … n-1 and y = n … 2n-1. It is
// symmetric.
func cauchy(n int) Matrix {
	m := newMatrix(n)
	for i := range m {
		for j := range m[i] {
			m[i][j].SetUint64(uint64(i + j + n))
			m[i][j].Inverse(&m[i][j])
		}
	}
	return m
}

// mul returns m·o.
func (m Matrix) mul(o Matrix) Matrix {
	p := newMatrix(len(m))
	for i := range m {
		p[i] = o.apply(m[i])
	}
	return p
}

// apply returns the row vector v·m.
func (m Matrix) apply(v []fr.Element) []fr.Element {
	out := make([]fr.Element, len(v))
	var t fr.Element
	for i := range m {
		for j := range out {
			out[j].Add(&out[j], t.Mul(&v[i], &m[i][j]))
		}
	}
	return out
}

// inverse returns m⁻¹ by Gauss and Jordan. It panics if m has none, which cannot be for
// the matrices made from a Cauchy matrix here.
func (m Matrix) inverse() Matrix {
	n := len(m)
	work, inv := newMatrix(n), newMatrix(n)
	for i := range m {
		copy(work[i], m[i])
		inv[i][i].SetOne()
	}
	var t, f fr.Element
	for c := range n {
		pivot := c
		for pivot < n && work[pivot][c].IsZero() {
			pivot++
		}
		if pivot == n {
			panic("poseidon: matrix is singular")
		}
		work[c], work[pivot] = work[pivot], work[c]
		inv[c], inv[pivot] = inv[pivot], inv[c]
		f.Inverse(&work[c][c])
		for j := range n {
			work[c][j].Mul(&work[c][j], &f)
			inv[c][j].Mul(&inv[c][j], &f)
		}
		for i := range n {
			if i == c || work[i][c].IsZero() {
				continue
			}
			f = work[i][c]
			for j := range n {
				work[i][j].Sub(&work[i][j], t.Mul(&f, &work[c][j]))
				inv[i][j].Sub(&inv[i][j], t.Mul(&f, &inv[c][j]))
			}
		}
	}
	return inv
}

// minor returns m without its first row and column.
func (m Matrix) minor() Matrix {
	out := make(Matrix, len(m)-1)
	for i := range out {
		out[i] = m[i+1][1:]
	}
	return out
}

func (m Matrix) transposed() Matrix {
	out := newMatrix(len(m))
	for i := range m {
		for j := range m[i] {
			out[j][i] = m[i][j]
		}
	}
	return out
}
