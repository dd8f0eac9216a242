package seal

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/merkle"
)

// ErrAudit says that a stored sector cannot answer for its CommR.
var ErrAudit = errors.New("the stored copy does not answer for its CommR")

// Audit challenges a stored sector: p_aux must give commR (Poseidon over CommC and
// CommR_last), tree R's files must end in CommR_last, and for each sampled leaf the sealed
// file must give the leaf, and the part of it around the leaf the row of tree R that is
// kept, from which the path must lead to the root. This is the vanilla proof of space that
// WindowPoSt would make of the sector. cache needs p_aux and sc-02-data-tree-r-last*.dat
// only. Of the sector's kind only size and shape matter, so any proof type of the size does.
//
// The leaves follow from the seed: SHA-256 over seed and the sample's number (u64,
// little-endian), read as a little-endian number, modulo the leaves. An error wraps ErrAudit
// if the files are there and wrong; it wraps fs.ErrNotExist or another error of the file
// system if they can't be read, which says nothing of the sector.
func Audit(ctx context.Context, params sealcore.Params, commR, seed sealcore.Domain, samples int, sealed, cache string) error {
	return AuditFrom(ctx, func(path string) (merkle.File, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		return f, nil
	}, params, commR, seed, samples, sealed, cache)
}

// AuditFrom is Audit of a sector that lies where open finds it, with the paths that it has
// there. Only what a challenge needs is read. Faults of reading must be *fs.PathError, or
// they are taken for damage.
func AuditFrom(ctx context.Context, open merkle.Open, params sealcore.Params, commR, seed sealcore.Domain, samples int, sealed, cache string) error {
	data, err := readSmall(open, filepath.Join(cache, PAuxName))
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	aux, err := ParsePAux(data)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAudit, err)
	}
	got, err := merkle.Poseidon([]sealcore.Domain{aux.CommC, aux.CommRLast})
	if err != nil {
		return fmt.Errorf("%w: p_aux is damaged: %w", ErrAudit, err)
	}
	if got != commR {
		return fmt.Errorf("%w: p_aux gives %x, not %x", ErrAudit, got, commR)
	}
	tree, err := merkle.OpenTreeRFrom(open, cache, sealed, params)
	if err != nil {
		return auditFault(err)
	}
	defer tree.Close() // only read
	if tree.Root() != aux.CommRLast {
		return fmt.Errorf("%w: tree R has the root %x, p_aux says %x", ErrAudit, tree.Root(), aux.CommRLast)
	}
	for i := range samples {
		if err := ctx.Err(); err != nil {
			return err
		}
		leaf := auditLeaf(seed, uint64(i), params.Nodes())
		proof, err := tree.Prove(leaf)
		if err != nil {
			return auditFault(fmt.Errorf("leaf %d: %w", leaf, err))
		}
		if err := proof.Verify(params.Shape, params.Nodes(), leaf, merkle.Poseidon); err != nil {
			return fmt.Errorf("%w: leaf %d: %w", ErrAudit, leaf, err)
		}
		if proof.Root != aux.CommRLast {
			return fmt.Errorf("%w: leaf %d: its path leads to %x, not to %x", ErrAudit, leaf, proof.Root, aux.CommRLast)
		}
	}
	return nil
}

// readSmall reads the whole of a file that is small if it is what it should be.
func readSmall(open merkle.Open, path string) ([]byte, error) {
	const most = 1 << 20
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	return io.ReadAll(io.NewSectionReader(f, 0, most))
}

// auditFault tells what could not be read from what is wrong.
func auditFault(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return fmt.Errorf("audit: %w", err)
	}
	return fmt.Errorf("%w: %w", ErrAudit, err)
}

func auditLeaf(seed sealcore.Domain, i, leaves uint64) uint64 {
	sum := sha256.Sum256(binary.LittleEndian.AppendUint64(seed[:], i))
	var rem uint64
	for at := sha256.Size - 1; at >= 0; at-- {
		rem = (rem<<8 | uint64(sum[at])) % leaves // leaves are below 2^56
	}
	return rem
}
