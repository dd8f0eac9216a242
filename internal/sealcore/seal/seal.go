// Package seal runs p1, p2 and p3 of one sector over files: the same files, names and
// contents, and the same JSON between the phases as the reference implementation, so
// that a sector can change engine between any two of them.
//
// No phase changes its inputs: each writes new files under temporary names, syncs and
// renames them, so that a phase can be done again and gives the same bytes.
package seal

import (
	"path/filepath"

	"sealfleet/internal/sealcore"
)

// Sector names what is sealed and for whom.
type Sector struct {
	Params   sealcore.Params
	ProverID sealcore.Domain
	Number   uint64
	Ticket   sealcore.Domain // randomness of the chain at the ticket's epoch
}

// Piece is one piece of user data in its order in the sector.
type Piece struct {
	Path         string // unpadded bytes; empty for zeros (committed capacity)
	UnpaddedSize uint64 // bytes, 127·2^k
}

// PieceInfo is what a sector's commitment says of one piece.
type PieceInfo struct {
	UnpaddedSize uint64
	CommP        sealcore.Domain
}

// Paths are the places of one sector's files.
type Paths struct {
	Unsealed string // file: the fr32-padded data with the pieces aligned, a whole sector
	Sealed   string // file: after p1 a copy of Unsealed (as the reference leaves it), after p2 the replica
	Cache    string // directory: tree D, labels, tree C, tree R, p_aux, t_aux
}

// InDir returns the places below one directory, as `consumer bench` lays them out.
func InDir(dir string) Paths {
	return Paths{
		Unsealed: filepath.Join(dir, "unsealed"),
		Sealed:   filepath.Join(dir, "sealed"),
		Cache:    filepath.Join(dir, "cache"),
	}
}

// Options bound and observe a phase.
type Options struct {
	// Threads is the most cores to use; 0 stands for GOMAXPROCS.
	Threads int
	// Progress, if set, is called now and then, from any goroutine, with the step
	// ("tree-d", "layer 1/2", "tree-c", …) and how far it is in the step's own units.
	Progress func(step string, done, total uint64)
}
