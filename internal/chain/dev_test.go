package chain_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sealfleet/internal/chain"
	"sealfleet/internal/phases"
	"sealfleet/internal/settings"
)

var genesis = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func config() chain.DevConfig {
	return chain.DevConfig{
		Epoch: time.Second, Genesis: genesis, Seed: "test", TicketLookback: 900,
		PrecommitEpochs: 2, SeedEpochs: 5, CommitEpochs: 3,
	}
}

func request(since time.Time) chain.PrecommitRequest {
	return chain.PrecommitRequest{
		Sector: "s-t01000-7", Issue: 1, Since: since, Miner: 1000, Number: 7, ProofType: 5,
		CommR: [32]byte{1}, CommD: [32]byte{2},
	}
}

func TestPrecommitLandsAndYieldsTheSeed(t *testing.T) {
	ctx := context.Background()
	c := &clock{genesis.Add(10_000*time.Second + 300*time.Millisecond)}
	opened := c.t
	dev := chain.NewDev(config(), nil, c.now)
	r := request(opened)

	out, err := dev.Precommit(ctx, r)
	if err != nil || out.State != chain.Pending {
		t.Fatalf("at the opening: %+v, %v", out, err)
	}
	if want := genesis.Add(10_007 * time.Second); !out.Ready.Equal(want) {
		t.Fatalf("ready at %v, want the beginning of epoch 10,007, %v", out.Ready, want)
	}
	c.t = out.Ready.Add(-time.Nanosecond)
	if out, _ = dev.Precommit(ctx, r); out.State != chain.Pending {
		t.Fatalf("a nanosecond before the seed's epoch: %+v", out)
	}
	c.t = c.t.Add(time.Nanosecond)
	out, _ = dev.Precommit(ctx, r)
	if out.State != chain.Landed || out.Epoch != 10_002 || out.SeedEpoch != 10_007 || out.Seed == ([32]byte{}) {
		t.Fatalf("at the seed's epoch: %+v", out)
	}
	// Another dispatcher, a day later, gets the same answer.
	c.t = c.t.Add(24 * time.Hour)
	again, _ := chain.NewDev(config(), nil, c.now).Precommit(ctx, r)
	if again != out {
		t.Fatalf("another time, another answer: %+v, then %+v", out, again)
	}
}

// The answers of any two dispatchers agree, and once landed stay landed.
func TestAnswersAreAFunctionOfRequestAndClock(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := config()
		cfg.Epoch = time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "epoch"))
		cfg.PrecommitEpochs = rapid.Int64Range(0, 9).Draw(t, "precommit epochs")
		cfg.SeedEpochs = rapid.Int64Range(0, 200).Draw(t, "seed epochs")
		since := genesis.Add(time.Duration(rapid.Int64Range(0, int64(1000*time.Hour)).Draw(t, "since")))
		a, b := &clock{since}, &clock{since}
		r := request(since)
		devA, devB := chain.NewDev(cfg, nil, a.now), chain.NewDev(cfg, nil, b.now)
		first, _ := devA.Precommit(context.Background(), r)
		if first.State == chain.Landed {
			if cfg.Epoch != 0 && cfg.PrecommitEpochs+cfg.SeedEpochs != 0 {
				t.Fatalf("landed without waiting: %+v", first)
			}
			return
		}
		a.t = first.Ready
		b.t = first.Ready.Add(time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "later")))
		one, _ := devA.Precommit(context.Background(), r)
		two, _ := devB.Precommit(context.Background(), r)
		if one.State != chain.Landed || one != two {
			t.Fatalf("at %v: %+v; at %v: %+v", a.t, one, b.t, two)
		}
		if got := int64(one.SeedEpoch - one.Epoch); got != cfg.SeedEpochs {
			t.Fatalf("seed %d epochs after the precommit, want %d", got, cfg.SeedEpochs)
		}
	})
}

func TestTicketIsTheSectorsOwn(t *testing.T) {
	ctx := context.Background()
	c := &clock{genesis.Add(5000 * time.Second)}
	dev := chain.NewDev(config(), nil, c.now)
	a, _ := dev.Ticket(ctx, 1000, 7)
	same, _ := chain.NewDev(config(), nil, c.now).Ticket(ctx, 1000, 7)
	if a != same || a.Epoch != 4100 {
		t.Fatalf("tickets %+v and %+v, want equal ones of epoch 4100", a, same)
	}
	other, _ := dev.Ticket(ctx, 1000, 8)
	otherMiner, _ := dev.Ticket(ctx, 1001, 7)
	reseeded := config()
	reseeded.Seed = "another"
	otherChain, _ := chain.NewDev(reseeded, nil, c.now).Ticket(ctx, 1000, 7)
	for _, o := range []chain.Ticket{other, otherMiner, otherChain} {
		if o.Value == a.Value {
			t.Fatalf("%+v equals %+v", o, a)
		}
	}
}

func TestCommit(t *testing.T) {
	right := []byte("right")
	verifier := chain.VerifierFunc(func(_ context.Context, p chain.Proof) error {
		switch {
		case p.Miner != 1000 || p.Number != 7 || p.ProofType != 5 || p.CommR[0] != 1 || p.CommD[0] != 2 ||
			p.Ticket[0] != 3 || p.Seed[0] != 4:
			return fmt.Errorf("asked about another sector: %+v", p)
		case string(p.Proof) == "right":
			return nil
		case string(p.Proof) == "unknown":
			return errors.New("no verifying key")
		}
		return fmt.Errorf("%w: pairing is not one", chain.ErrInvalidProof)
	})
	for _, test := range []struct {
		name  string
		cfg   func(*chain.DevConfig)
		v     chain.Verifier
		proof []byte
		state chain.State
		word  string // code or note
		fails bool
	}{
		{"right proof", nil, verifier, right, chain.Landed, chain.NoteVerified, false},
		{"bad proof", nil, verifier, []byte("wrong"), chain.Refused, chain.CodeBadProof, false},
		{"verifier cannot tell", nil, verifier, []byte("unknown"), chain.Pending, "", true},
		{"no snark", nil, verifier, nil, chain.Landed, chain.NoteWithoutSnark, false},
		{"no snark, required", func(c *chain.DevConfig) { c.RequireSnark = true }, verifier, nil, chain.Refused, chain.CodeNoSnark, false},
		{"no verifier", nil, nil, right, chain.Refused, chain.CodeNoVerifier, false},
		{"told to fail", func(c *chain.DevConfig) { fill(t, &c.FailCommit, "7") }, verifier, right, chain.Refused, chain.CodeToldToFail, false},
		{"another told to fail", func(c *chain.DevConfig) { fill(t, &c.FailCommit, "8") }, verifier, right, chain.Landed, chain.NoteVerified, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := config()
			if test.cfg != nil {
				test.cfg(&cfg)
			}
			c := &clock{genesis.Add(time.Hour)}
			dev := chain.NewDev(cfg, test.v, c.now)
			r := chain.CommitRequest{PrecommitRequest: request(c.t), Seed: [32]byte{4}, Proof: test.proof}
			r.Ticket.Value[0] = 3
			out, err := dev.Commit(context.Background(), r)
			if err != nil || out.State != chain.Pending {
				t.Fatalf("before its epoch: %+v, %v", out, err)
			}
			c.t = out.Ready
			out, err = dev.Commit(context.Background(), r)
			if (err != nil) != test.fails || out.State != test.state || out.Code+out.Note != test.word {
				t.Fatalf("%+v, %v; want state %v, word %q", out, err, test.state, test.word)
			}
			if out.State == chain.Refused && (out.Reason == "" || out.Class != phases.Permanent) {
				t.Fatalf("refused without a reason or class: %+v", out)
			}
		})
	}
}

func TestToldToFailPrecommit(t *testing.T) {
	for list, fails := range map[string]bool{"all": true, "7": true, "3, s-t01000-7": true, "8,s-t01001-7": false, "": false} {
		cfg := config()
		fill(t, &cfg.FailPrecommit, list)
		c := &clock{genesis.Add(time.Hour)}
		dev := chain.NewDev(cfg, nil, c.now)
		r := request(c.t)
		out, _ := dev.Precommit(context.Background(), r)
		if out.State != chain.Pending {
			t.Fatalf("%q: answered before the message could land: %+v", list, out)
		}
		c.t = out.Ready
		out, _ = dev.Precommit(context.Background(), r)
		if got := out.State == chain.Refused; got != fails {
			t.Errorf("%q: %+v, want refused: %v", list, out, fails)
		}
	}
}

func fill(t *testing.T, l *chain.SectorList, text string) {
	t.Helper()
	if err := l.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

func TestSettings(t *testing.T) {
	var cfg chain.DevConfig
	if err := settings.LoadFrom(&cfg, map[string]string{
		"DEV_CHAIN_EPOCH": "100ms", "DEV_CHAIN_FAIL_PRECOMMIT": "7", "DEV_CHAIN_GENESIS": "2026-02-03T04:05:06Z",
	}); err != nil {
		t.Fatal(err)
	}
	if cfg.Epoch != 100*time.Millisecond || !cfg.FailPrecommit.Has("s-t01000-7", 7) || cfg.Genesis.Month() != time.February {
		t.Fatalf("%+v", cfg)
	}
	for name, bad := range map[string]string{
		"DEV_CHAIN_EPOCH": "-1s", "DEV_CHAIN_FAIL_COMMIT": "seven", "DEV_CHAIN_GENESIS": "yesterday", "DEV_CHAIN_SEED_EPOCHS": "-1",
	} {
		if err := settings.LoadFrom(new(chain.DevConfig), map[string]string{name: bad}); err == nil {
			t.Errorf("%s=%s was accepted", name, bad)
		} else {
			t.Log(err)
		}
	}
}
