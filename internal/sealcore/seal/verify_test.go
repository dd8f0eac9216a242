package seal

import (
	"context"
	"errors"
	"strings"
	"testing"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/sealtest"
	"sealfleet/internal/sealcore/vanilla"
)

func TestVerifyCommit1(t *testing.T) {
	v := sealtest.LoadVector(t, "2k")
	type input struct {
		s            Sector
		commD, commR sealcore.Domain
		seed         sealcore.Domain
		json         string
		ctx          context.Context
	}
	// spoil changes the byte that follows the last occurrence of key.
	spoil := func(in *input, key string) {
		at := strings.LastIndex(in.json, key) + len(key)
		for in.json[at+1] != ',' {
			at++
		}
		digit := "0"
		if in.json[at] == '0' {
			digit = "1"
		}
		in.json = in.json[:at] + digit + in.json[at+1:]
	}
	for _, tc := range []struct {
		name  string
		spoil func(in *input)
		want  []error // all of them
		says  string
	}{
		{"the reference's", func(*input) {}, nil, ""},
		{"no JSON", func(in *input) { in.json = "" }, []error{ErrMalformed}, "at byte 0"},
		{"cut short", func(in *input) { in.json = in.json[:50_000] }, []error{ErrMalformed}, "at byte 50000"},
		{"another proof type", func(in *input) { in.s.Params, _ = sealcore.ForProofType(0) }, []error{ErrOtherSector}, "StackedDrg2KiBV1_1"},
		{"another miner", func(in *input) { in.s.ProverID[0]++ }, []error{ErrOtherSector}, "replica id"},
		{"another sector number", func(in *input) { in.s.Number++ }, []error{ErrOtherSector}, "replica id"},
		{"another ticket", func(in *input) { in.s.Ticket[0]++ }, []error{ErrOtherSector}, "ticket"},
		{"another PoRep id", func(in *input) { in.s.Params.PoRepID[9]++ }, []error{ErrOtherSector}, "replica id"},
		{"other data", func(in *input) { in.commD[0]++ }, []error{ErrOtherSector}, "CommD"},
		{"another replica", func(in *input) { in.commR[0]++ }, []error{ErrCommR}, "CommR"},
		{"a CommR that its proofs don't have", func(in *input) {
			in.commR[0]++
			in.json = strings.Replace(in.json, `"comm_r":[186,`, `"comm_r":[187,`, 1)
		}, []error{ErrCommR, vanilla.ErrCommR}, "partition 0"},
		{"another seed", func(in *input) { in.seed[0]++ }, []error{ErrOtherSeed}, "seed"},
		{"a false seed in the JSON", func(in *input) {
			in.seed[0]++
			in.json = strings.Replace(in.json, `"seed":[244,`, `"seed":[245,`, 1)
		}, []error{ErrProofFails, vanilla.ErrNode}, "challenge 0"},
		{"a false label's parent", func(in *input) { spoil(in, `"parents":[[`) }, []error{ErrProofFails, vanilla.ErrParents}, "encoding"},
		{"a false column", func(in *input) { spoil(in, `"rows":[[`) }, []error{ErrProofFails, vanilla.ErrColumn}, "expander parent 7"},
		{"a false path", func(in *input) { spoil(in, `"hashes":[[`) }, []error{ErrProofFails, vanilla.ErrPath}, "expander parent 7"},
		{"cancelled", func(in *input) {
			ctx, cancel := context.WithCancel(in.ctx)
			cancel()
			in.ctx = ctx
		}, []error{context.Canceled}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := input{
				s: sectorOf(t, v), commD: sealcore.Domain(v.CommD), commR: sealcore.Domain(v.CommR),
				seed: sealcore.Domain(v.Seed), json: string(sealtest.Read(t, "seal-2k.c1.json")), ctx: t.Context(),
			}
			tc.spoil(&in)
			c, err := VerifyCommit1(in.ctx, in.s, in.commD, in.commR, in.seed, []byte(in.json), Options{})
			if tc.want == nil {
				if err != nil || c.CommR != in.commR {
					t.Fatalf("error %v, CommR %x", err, c.CommR)
				}
				return
			}
			for _, want := range tc.want {
				if !errors.Is(err, want) {
					t.Errorf("error %v, want one of %v", err, want)
				}
			}
			if err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("error %v does not say %q", err, tc.says)
			}
			// Exactly one of the reasons.
			n := 0
			for _, reason := range []error{ErrMalformed, ErrOtherSector, ErrOtherSeed, ErrCommR, ErrProofFails, context.Canceled} {
				if errors.Is(err, reason) {
					n++
				}
			}
			if n != 1 {
				t.Errorf("error %v has %d reasons", err, n)
			}
		})
	}
}
