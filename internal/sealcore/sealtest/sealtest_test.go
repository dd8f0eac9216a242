package sealtest

import (
	"crypto/sha256"
	"io"
	"testing"
	"testing/iotest"

	"sealfleet/internal/sealcore"
)

// The replica id binds prover, sector, ticket, CommD and PoRep id: if it comes out right, the
// vectors were read right.
func TestVectorsLoad(t *testing.T) {
	for _, name := range []string{"2k", "2k-pieces", "2k-v1", "8m", "512m", "16k", "32k"} {
		s := LoadVector(t, name)
		p := s.Params(t)
		id := sealcore.ReplicaID(sealcore.Domain(s.ProverID), s.SectorNumber, sealcore.Domain(s.Ticket),
			sealcore.Domain(s.CommD), p.PoRepID)
		if id != sealcore.Domain(s.ReplicaID) {
			t.Errorf("%s: replica id %x, want %x", name, id, s.ReplicaID)
		}
		if len(s.CacheAfterP1) != p.Layers+1 {
			t.Errorf("%s: %d files after p1, want %d layers and tree D", name, len(s.CacheAfterP1), p.Layers)
		}
		if len(s.C1SHA256) != sha256.Size || len(s.CacheAfterP2) <= len(s.CacheAfterP1) || len(s.Pieces) == 0 {
			t.Errorf("%s: incomplete: %+v", name, s)
		}
	}
}

func TestPieceData(t *testing.T) {
	const n = 1016
	if err := iotest.TestReader(PieceData("x", n), readAll(t, PieceData("x", n))); err != nil {
		t.Fatal(err)
	}
	data := readAll(t, PieceData("x", n))
	first := sha256.Sum256([]byte("x\x00\x00\x00\x00\x00\x00\x00\x00"))
	if len(data) != n || string(data[:32]) != string(first[:]) {
		t.Errorf("%d bytes that start with %x, want %d with %x", len(data), data[:32], n, first)
	}
}

func readAll(t *testing.T, r io.Reader) []byte {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
