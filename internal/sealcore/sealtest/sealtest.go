// Package sealtest gives tests the reference's answers and the data that they were made from.
//
// It must not be imported by product code, and imports nothing of it but package sealcore, so
// that every room of sealcore can use it from its tests.
package sealtest

import (
	"crypto/sha256"
	"embed"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealfleet/internal/sealcore"
)

//go:embed testdata
var files embed.FS

// Read returns one of the reference's files, such as "seal-2k.c1.json" or "poseidon.json".
func Read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := files.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Hex is bytes that a vector writes in hex.
type Hex []byte

// UnmarshalText decodes hex.
func (h *Hex) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	*h = b
	return err
}

// Domain is 32 bytes that a vector writes in hex.
type Domain sealcore.Domain

// UnmarshalText decodes hex and insists on 32 bytes.
func (d *Domain) UnmarshalText(text []byte) error {
	n, err := hex.Decode(d[:], text)
	if err == nil && n != len(d) {
		err = fmt.Errorf("%d bytes, want %d", n, len(d))
	}
	return err
}

// File is what a vector knows of a file.
type File struct {
	Size   int64 `json:"size"`
	SHA256 Hex   `json:"sha256"`
}

// Piece is a piece of a vector; its data is PieceData(Label, UnpaddedSize).
type Piece struct {
	UnpaddedSize uint64 `json:"unpadded_size"`
	Label        string `json:"stream_label"`
	CommP        Domain `json:"comm_p"`
}

// Seal is a sealed sector of the reference. The toy shapes (16k, 32k) use the same fields.
type Seal struct {
	Name         string  `json:"-"`
	ProofType    int     `json:"registered_seal_proof"` // 5 for toy shapes
	SectorSize   uint64  `json:"sector_size"`
	ProverID     Domain  `json:"prover_id"`
	PoRepID      Domain  `json:"porep_id"`
	SectorNumber uint64  `json:"sector_number"`
	Ticket       Domain  `json:"ticket"`
	Seed         Domain  `json:"seed"`
	Pieces       []Piece `json:"pieces"`

	CommD          Domain `json:"comm_d"`
	CommC          Domain `json:"comm_c"`
	CommRLast      Domain `json:"comm_r_last"`
	CommR          Domain `json:"comm_r"`
	ReplicaID      Domain `json:"replica_id"`
	UnsealedSHA256 Hex    `json:"unsealed_sha256"`
	SealedSHA256   Hex    `json:"sealed_sha256"`

	// Layers and tree D.
	CacheAfterP1 map[string]File `json:"cache_after_p1"`
	// All files of the cache. The hash of t_aux is useless: it holds a path of the machine
	// that made it; its size tells that path's length.
	CacheAfterP2 map[string]File `json:"cache_after_p2"`

	C1SHA256 Hex   `json:"c1_json_sha256"` // of the commit-phase-1 JSON
	C1Bytes  int64 `json:"c1_json_bytes"`  // 0 if the vector doesn't say
	Proof    Hex   `json:"proof"`          // only 2k

	// PublicInputs of each partition, only of toy shapes.
	PublicInputs [][]Domain `json:"public_inputs_le_hex"`
}

// LoadVector returns seal-<name>.json: 2k, 2k-pieces, 2k-v1, 8m, 512m, 16k or 32k.
func LoadVector(t testing.TB, name string) Seal {
	t.Helper()
	data := Read(t, "seal-"+name+".json")
	s := Seal{Name: name}
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatalf("seal-%s.json: %v", name, err)
	}
	if s.CacheAfterP2 != nil {
		return s
	}
	// The toy shapes' vectors name and group some things differently.
	var toy struct {
		CacheFiles map[string]File `json:"cache_files"`
		Layers     map[string]File `json:"layers"`
		C1SHA256   Hex             `json:"commit_phase1_json_sha256"`
	}
	if err := json.Unmarshal(data, &toy); err != nil {
		t.Fatalf("seal-%s.json: %v", name, err)
	}
	s.C1SHA256 = toy.C1SHA256
	s.CacheAfterP1, s.CacheAfterP2 = map[string]File{}, map[string]File{}
	for name, f := range toy.Layers {
		s.CacheAfterP1[name], s.CacheAfterP2[name] = f, f
	}
	for name, f := range toy.CacheFiles {
		s.CacheAfterP2[name] = f
		if strings.Contains(name, "tree-d") {
			s.CacheAfterP1[name] = f
		}
	}
	return s
}

// Params returns the sector's parameters with the vector's PoRep id.
func (s Seal) Params(t testing.TB) sealcore.Params {
	t.Helper()
	var p sealcore.Params
	var err error
	switch s.SectorSize {
	case 16 << 10:
		p, err = sealcore.ForShape("16KiB")
	case 32 << 10:
		p, err = sealcore.ForShape("32KiB")
	default:
		p, err = sealcore.ForProofType(s.ProofType)
	}
	if err != nil {
		t.Fatal(err)
	}
	if p.SectorSize != s.SectorSize {
		t.Fatalf("vector %s is of %d bytes, its parameters of %d", s.Name, s.SectorSize, p.SectorSize)
	}
	p.PoRepID = sealcore.Domain(s.PoRepID)
	return p
}

// WritePieces writes the data of the sector's pieces below dir and returns the files' paths.
func (s Seal) WritePieces(t testing.TB, dir string) []string {
	t.Helper()
	paths := make([]string, len(s.Pieces))
	for i, p := range s.Pieces {
		paths[i] = filepath.Join(dir, fmt.Sprintf("piece-%d", i))
		f, err := os.Create(paths[i])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(f, PieceData(p.Label, int64(p.UnpaddedSize))); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

// CheckFile compares a file's size and hash with a vector's.
func CheckFile(t testing.TB, path string, want File) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		t.Error(err)
		return
	}
	if n != want.Size {
		t.Errorf("%s has %d bytes, want %d", filepath.Base(path), n, want.Size)
	} else if got := h.Sum(nil); string(got) != string(want.SHA256) {
		t.Errorf("%s has SHA-256 %x, want %x", filepath.Base(path), got, want.SHA256)
	}
}

// PieceData returns the data of a vector's piece: a counter stream
// sha256(label ‖ u64le(0)) ‖ sha256(label ‖ u64le(1)) ‖ …, cut to the unpadded size in bytes.
func PieceData(label string, unpadded int64) io.Reader {
	return &counterStream{buf: []byte(label), label: len(label), left: unpadded}
}

type counterStream struct {
	buf     []byte // label, then the counter
	label   int
	counter uint64
	left    int64
	block   [sha256.Size]byte
	rest    []byte // of block
}

// Read implements io.Reader.
func (s *counterStream) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), s.left)]
	n := 0
	for n < len(p) {
		if len(s.rest) == 0 {
			s.buf = binary.LittleEndian.AppendUint64(s.buf[:s.label], s.counter)
			s.block = sha256.Sum256(s.buf)
			s.rest = s.block[:]
			s.counter++
		}
		c := copy(p[n:], s.rest)
		s.rest = s.rest[c:]
		n += c
	}
	s.left -= int64(n)
	return n, nil
}
