package groth16

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"sync/atomic"

	bls12381 "github.com/consensys/gnark-crypto/ecc/bls12-381"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"sealfleet/internal/sealcore/groth16/msm"
)

// Params are the parameters of a circuit, mapped from their file. Points are decoded
// when they are used.
type Params struct {
	Key *VerifyingKey

	data   []byte
	mapped bool
	h, l   section
	a      section
	b1, b2 section
}

// section is a run of encoded points.
type section struct {
	name string
	data []byte
	size int // of a point
}

func (s *section) len() int { return len(s.data) / s.size }

func (s *section) at(i int) []byte { return s.data[i*s.size : (i+1)*s.size] }

// g1Points and g2Points make a section a source of points.
type (
	g1Points struct{ *section }
	g2Points struct{ *section }
)

func (s g1Points) Load(i int, p *msm.G1) error         { return s.where(i, decodeG1(s.at(i), p)) }
func (s g1Points) LoadWide(i int, p *msm.G1Wide) error { return s.where(i, decodeG1Wide(s.at(i), p)) }
func (s g2Points) Load(i int, p *msm.G2) error         { return s.where(i, decodeG2(s.at(i), p)) }

// where names the point that an error is about.
func (s *section) where(i int, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("parameters: point %d of section %s: %w", i, s.name, err)
}

// OpenParams maps a parameter file and checks it cheaply: the key in full, the lengths
// of all sections, that the file ends where they end, and some points of each section.
// The parameters must be closed.
func OpenParams(path string) (*Params, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // the mapping stays
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() < int64(keyLen(1)) || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("parameters %s: %w: it has %d bytes, too few for a key", path, ErrMalformed, info.Size())
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", path, err)
	}
	var p *Params
	err = guard(func() (err error) {
		p, err = ParseParams(data)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w: get the file again", path, err), unix.Munmap(data))
	}
	p.mapped = true
	return p, nil
}

// ParseParams is OpenParams over a file in memory. The parameters refer to data.
func ParseParams(data []byte) (*Params, error) {
	r := &reader{data: data}
	p := &Params{data: data, Key: r.key()}
	for _, s := range []struct {
		to   *section
		name string
		size int
	}{{&p.h, "h", g1Len}, {&p.l, "l", g1Len}, {&p.a, "a", g1Len}, {&p.b1, "b_g1", g1Len}, {&p.b2, "b_g2", g2Len}} {
		what := "section " + s.name
		n := r.count("points of "+what, s.size)
		*s.to = section{s.name, r.next(what, n*s.size), s.size}
	}
	if r.err == nil && r.off != len(data) {
		r.fail("their end", fmt.Errorf("%w: %d bytes follow", ErrMalformed, len(data)-r.off))
	}
	if r.err == nil {
		r.err = p.checkCounts()
	}
	if r.err == nil {
		r.err = p.sample()
	}
	if r.err != nil {
		return nil, fmt.Errorf("parameters: %w", r.err)
	}
	return p, nil
}

// checkCounts checks how the sections' lengths hang together.
func (p *Params) checkCounts() error {
	domain := p.h.len() + 1
	variables := len(p.Key.IC) + p.l.len()
	switch {
	case bits.OnesCount(uint(domain)) != 1:
		return fmt.Errorf("section h: %w: %d points are not one less than a power of two", ErrMalformed, p.h.len())
	case p.b1.len() != p.b2.len():
		return fmt.Errorf("sections b_g1 and b_g2: %w: they have %d and %d points", ErrMalformed, p.b1.len(), p.b2.len())
	case p.a.len() < len(p.Key.IC) || p.a.len() > variables || p.b1.len() > variables:
		return fmt.Errorf("sections a and b_g1: %w: %d and %d points for %d variables", ErrMalformed, p.a.len(), p.b1.len(), variables)
	}
	return nil
}

// sample checks some points of each section in full.
func (p *Params) sample() error {
	const samples = 8
	for _, s := range p.sections() {
		n := s.len()
		for k := range min(n, samples) {
			// First, last, and evenly between.
			i := 0
			if n > 1 {
				i = k * (n - 1) / (min(n, samples) - 1)
			}
			if err := s.check(i, true); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *Params) sections() []*section { return []*section{&p.h, &p.l, &p.a, &p.b1, &p.b2} }

// check decodes one point and checks that it is on the curve, and on demand in the
// subgroup.
func (s *section) check(i int, subgroup bool) error {
	if s.size == g1Len {
		var q bls12381.G1Affine
		err := decodeG1(s.at(i), (*msm.G1)(&q))
		if err == nil && subgroup {
			err = checkG1(&q)
		} else if err == nil && !q.IsOnCurve() {
			err = fmt.Errorf("%w: the point is not on the curve", ErrMalformed)
		}
		return s.where(i, err)
	}
	var q bls12381.G2Affine
	err := decodeG2(s.at(i), (*msm.G2)(&q))
	if err == nil && subgroup {
		err = checkG2(&q)
	} else if err == nil && !q.IsOnCurve() {
		err = fmt.Errorf("%w: the point is not on the curve", ErrMalformed)
	}
	return s.where(i, err)
}

// CheckCurve decodes every point and checks that it is on the curve: less than a second
// for each million points and thread. Damage of a file hardly ever leaves a point there.
func (p *Params) CheckCurve(ctx context.Context, o Options) error {
	const step = 1 << 14
	var total, done atomic.Uint64
	for _, s := range p.sections() {
		total.Add(uint64(s.len()))
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(o.threads())
	for _, s := range p.sections() {
		for from := 0; from < s.len() && ctx.Err() == nil; from += step {
			g.Go(func() error {
				to := min(from+step, s.len())
				err := guard(func() error {
					for i := from; i < to; i++ {
						if err := s.check(i, false); err != nil {
							return err
						}
					}
					return ctx.Err()
				})
				o.report("check parameters", done.Add(uint64(to-from)), total.Load())
				return err
			})
		}
	}
	return g.Wait()
}

// guard makes an error of a fault in the mapped file.
func guard(f func() error) error { return explain(msm.Guard(f)) }

func explain(err error) error {
	if errors.Is(err, msm.ErrFault) {
		return fmt.Errorf("parameters: %w: the file was cut short, or its disk failed, while it was in use: %w", ErrMalformed, err)
	}
	return err
}

// Close unmaps the file. The parameters are of no use after it.
func (p *Params) Close() error {
	if !p.mapped {
		return nil
	}
	p.mapped = false
	data := p.data
	*p = Params{Key: p.Key}
	return unix.Munmap(data)
}

// Domain returns the size of the circuit's evaluation domain: the power of two that
// holds all constraints and one more for each public input.
func (p *Params) Domain() int { return p.h.len() + 1 }

// Aux returns the number of the circuit's auxiliary variables.
func (p *Params) Aux() int { return p.l.len() }

// SameKey tells whether the parameters were made together with the given key.
func (p *Params) SameKey(k *VerifyingKey) bool { return bytes.Equal(p.Key.Bytes(), k.Bytes()) }

// release tells the kernel that a section's pages are not needed any more.
func (p *Params) release(s *section) {
	if !p.mapped || len(s.data) == 0 {
		return
	}
	page := os.Getpagesize()
	from := len(p.data) - cap(s.data) // s.data is a part of p.data
	to := from + len(s.data)
	from, to = (from+page-1)/page*page, to/page*page
	if from < to {
		_ = unix.Madvise(p.data[from:to], unix.MADV_DONTNEED) // only advice
	}
}
