package vanilla

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"sealfleet/internal/sealcore"
)

func TestReferencesProofsVerify(t *testing.T) {
	p, data := reference(t)
	c := parse(t, p, data)
	for _, threads := range []int{0, 1} {
		if err := Verify(t.Context(), p, c.PublicInputs(), c.Partitions, threads); err != nil {
			t.Fatal(err)
		}
	}
}

func TestProofsOfAnotherSectorAreRefused(t *testing.T) {
	p, data := reference(t)
	c := parse(t, p, data)
	for _, tc := range []struct {
		name  string
		spoil func(p *sealcore.Params, pi *PublicInputs)
		want  error
	}{
		{"replica id", func(_ *sealcore.Params, pi *PublicInputs) { pi.ReplicaID[0] ^= 1 }, ErrNode},
		{"CommD", func(_ *sealcore.Params, pi *PublicInputs) { pi.CommD[0] ^= 1 }, ErrCommD},
		{"CommR", func(_ *sealcore.Params, pi *PublicInputs) { pi.CommR[0] ^= 1 }, ErrCommR},
		{"seed", func(_ *sealcore.Params, pi *PublicInputs) { pi.Seed[0] ^= 1 }, ErrNode},
		{"PoRep id", func(p *sealcore.Params, _ *PublicInputs) { p.PoRepID[1] ^= 1 }, ErrNode},
		{"API version", func(p *sealcore.Params, _ *PublicInputs) { p.APIVersion = sealcore.V1_0_0 }, ErrNode},
		{"CommR beyond the field", func(_ *sealcore.Params, pi *PublicInputs) { pi.CommR[31] |= 0x80 }, ErrNotField},
		{"partitions", func(p *sealcore.Params, _ *PublicInputs) { p.Partitions = 2 }, ErrShape},
		{"challenges", func(p *sealcore.Params, _ *PublicInputs) { p.Challenges = 3 }, ErrShape},
		{"layers", func(p *sealcore.Params, _ *PublicInputs) { p.Layers = 11 }, ErrShape},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, pi := p, c.PublicInputs()
			tc.spoil(&p, &pi)
			err := Verify(t.Context(), p, pi, c.Partitions, 0)
			var bad *ProofError
			if !errors.As(err, &bad) || !errors.Is(err, tc.want) {
				t.Fatalf("error %v, want a *ProofError of %v", err, tc.want)
			}
		})
	}
}

func TestEachPartIsCheckedForItself(t *testing.T) {
	p, data := reference(t)
	for _, tc := range []struct {
		part  string
		spoil func(p *Proof)
		want  error
	}{
		{partData, func(p *Proof) { p.CommD.Leaf[3] ^= 1 }, ErrPath},
		{partData, func(p *Proof) { p.CommD.Base[2].Hashes[0][3] ^= 1 }, ErrPath},
		{partData, func(p *Proof) { p.CommD.Base[2].Index ^= 1 }, ErrNode},
		{partData, func(p *Proof) { p.CommD.Base = p.CommD.Base[:5] }, ErrShape},
		{partData, func(p *Proof) { p.CommD.Base = append(p.CommD.Base, p.CommD.Base[4]) }, ErrShape},
		{partData, func(p *Proof) { p.CommD.Base[1].Hashes = nil }, ErrShape},
		{partData, func(p *Proof) { p.CommD.Base[1].Hashes[0][31] |= 0x80 }, ErrNotField},
		{partReplica, func(p *Proof) { p.CommR.Leaf[3] ^= 1 }, ErrPath},
		{partReplica, func(p *Proof) { p.CommR.Base[1].Hashes[6][3] ^= 1 }, ErrPath},
		{partReplica, func(p *Proof) { p.CommR.Base[0].Index = 1 << 60 }, ErrNode},
		{partReplica, func(p *Proof) { p.CommR.Sub = p.CommR.Base[:1] }, ErrShape},
		{columnName(0), func(p *Proof) { p.Columns.Challenged.Rows[0][3] ^= 1 }, ErrColumn},
		{columnName(0), func(p *Proof) { p.Columns.Challenged.Inclusion.Leaf[3] ^= 1 }, ErrColumn},
		{columnName(3), func(p *Proof) { p.Columns.DRGParents[2].Node++ }, ErrNode},
		{columnName(3), func(p *Proof) { p.Columns.DRGParents[2] = p.Columns.Challenged }, ErrNode},
		{columnName(14), func(p *Proof) { p.Columns.ExpParents[7].Inclusion.Root[0] ^= 1 }, ErrRoots},
		{columnName(14), func(p *Proof) { p.Columns.ExpParents[7].Inclusion.Base[0].Hashes[0][0] ^= 1 }, ErrPath},
		{labelName(1), func(p *Proof) { p.Labels[0].Layer = 2 }, ErrNode},
		{labelName(2), func(p *Proof) { p.Labels[1].Node++ }, ErrNode},
		{labelName(2), func(p *Proof) { p.Labels[1].Parents[36][0] ^= 1 }, ErrParents},
		{partEncoding, func(p *Proof) { p.Encoding.Layer = 1 }, ErrNode},
		{partEncoding, func(p *Proof) { p.Encoding.Parents[0][0] ^= 1 }, ErrParents},
	} {
		for i := range 2 {
			c := parse(t, p, data)
			tc.spoil(&c.Partitions[0][i])
			err := Verify(t.Context(), p, c.PublicInputs(), c.Partitions, 0)
			var bad *ProofError
			if !errors.As(err, &bad) || bad.Part != tc.part || !errors.Is(err, tc.want) || bad.Challenge != i || bad.Partition != 0 {
				t.Errorf("error %v, want %v in %s of challenge %d", err, tc.want, tc.part, i)
			}
		}
	}
}

// The openings of a consistent but false replica: all hashes fit, the encoding does not.
func TestFalseEncodingIsRefused(t *testing.T) {
	p, data := reference(t)
	c := parse(t, p, data)
	proof := &c.Partitions[0][0]
	v, err := newVerifier(p, c.PublicInputs())
	if err != nil {
		t.Fatal(err)
	}
	if err := v.encoding(proof); err != nil {
		t.Fatal(err)
	}
	proof.CommR.Leaf[0] ^= 1
	if err := v.encoding(proof); !errors.Is(err, ErrEncoding) {
		t.Errorf("error %v, want %v", err, ErrEncoding)
	}
}

// The openings of a false column: a label that is not the hash of its parents.
func TestFalseLabelIsRefused(t *testing.T) {
	p, data := reference(t)
	c := parse(t, p, data)
	proof := &c.Partitions[0][0]
	v, err := newVerifier(p, c.PublicInputs())
	if err != nil {
		t.Fatal(err)
	}
	node := proof.Labels[0].Node
	if err := v.label(proof, 1, node); err != nil {
		t.Fatal(err)
	}
	proof.Columns.Challenged.Rows[0][0] ^= 1
	if err := v.label(proof, 1, node); !errors.Is(err, ErrLabel) {
		t.Errorf("error %v, want %v", err, ErrLabel)
	}
}

func TestVerifyStopsWhenCancelled(t *testing.T) {
	p, data := reference(t)
	c := parse(t, p, data)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Verify(ctx, p, c.PublicInputs(), c.Partitions, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
}

// values lists every hash and number below v, with its place.
func values(v reflect.Value, at string, visit func(at string, v reflect.Value)) {
	switch {
	case v.Type() == reflect.TypeFor[sealcore.Domain](), v.CanUint():
		visit(at, v)
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			values(v.Field(i), at+"."+v.Type().Field(i).Name, visit)
		}
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			values(v.Index(i), fmt.Sprintf("%s[%d]", at, i), visit)
		}
	default:
		panic(at + " is of kind " + v.Kind().String())
	}
}

func TestAnyFlippedBitIsRefused(t *testing.T) {
	p, data := reference(t)
	c := parse(t, p, data)
	type value struct {
		at string
		v  reflect.Value
	}
	var all []value
	values(reflect.ValueOf(c.Partitions), "partitions", func(at string, v reflect.Value) { all = append(all, value{at, v}) })
	// 2 challenges × (1 path of 6 steps + 16 of 2 steps + 15 columns of 2 rows + 3 labels of 37 parents)
	if want := 2 * (2 + 6*2 + 16*(2+2*8) + 15*3 + 3*39); len(all) != want {
		t.Fatalf("%d values to spoil, want %d", len(all), want)
	}
	pi := c.PublicInputs()
	rapid.Check(t, func(t *rapid.T) {
		i := rapid.IntRange(0, len(all)-1).Draw(t, "value")
		v := all[i].v
		old := reflect.New(v.Type()).Elem()
		old.Set(v)
		defer v.Set(old)
		if v.CanUint() {
			v.SetUint(v.Uint() ^ 1<<rapid.IntRange(0, v.Type().Bits()-1).Draw(t, "bit"))
		} else {
			bit := rapid.IntRange(0, 8*sealcore.NodeSize-1).Draw(t, "bit")
			b := v.Index(bit / 8)
			b.SetUint(b.Uint() ^ 1<<(bit%8))
		}
		var bad *ProofError
		if err := Verify(context.Background(), p, pi, c.Partitions, 1); !errors.As(err, &bad) {
			t.Fatalf("%s was changed: error %v, want a *ProofError", all[i].at, err)
		}
	})
}
