package main

import (
	"log/slog"
	"testing"

	"pgregory.net/rapid"

	"sealfleet/internal/phases"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestParseSector(t *testing.T) {
	for _, text := range []string{"s-t01000-7", "1000/7", "f01000-7", "t01000-7", "f01000/7", "01000-7", " 1000/7 "} {
		if id, err := parseSector(text); err != nil || id != "s-t01000-7" {
			t.Errorf("%q: %s, %v", text, id, err)
		}
	}
	for _, text := range []string{"", "7", "1000", "1000/", "/7", "s-t01000-7-8", "1000/-7", "x1000/7", "1000/7x"} {
		if id, err := parseSector(text); err == nil {
			t.Errorf("%q was read as %s", text, id)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		want := phases.SectorID(rapid.Uint64().Draw(t, "miner"), rapid.Uint64().Draw(t, "number"))
		if id, err := parseSector(want); err != nil || id != want {
			t.Fatalf("%q: %s, %v", want, id, err)
		}
	})
}
