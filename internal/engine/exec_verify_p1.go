package engine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/fr32"
	"sealfleet/internal/sealcore/graph"
	"sealfleet/internal/sealcore/merkle"
	"sealfleet/internal/sealcore/pieces"
	"sealfleet/internal/sealcore/seal"
	"sealfleet/internal/sealcore/vanilla"
)

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// check1 checks the data, tree D and the labels.
func (v *verifier) check1(ctx context.Context) (map[string]string, error) {
	p := v.sector.Params
	infos, commD, err := v.commitments(ctx)
	if err != nil {
		return nil, err
	}
	data, err := readSmall(v.Paths.P1JSON)
	if err != nil {
		return nil, err
	}
	p1, err := seal.ParsePreCommit1(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", v.Paths.P1JSON, err)
	}
	if err := p1.Bind(v.sector); err != nil {
		return nil, fmt.Errorf("%s: %w", v.Paths.P1JSON, err)
	}
	if p1.CommD != commD {
		return nil, fmt.Errorf("%s has CommD %x, the pieces give %x", v.Paths.P1JSON, p1.CommD, commD)
	}
	f, err := openP1Files(p, v.paths)
	if err != nil {
		return nil, err
	}
	defer f.close()
	if err := f.checkData(ctx, commD); err != nil {
		return nil, err
	}
	nodes, err := randomNodes(v.engine.samples(), p.Nodes())
	if err != nil {
		return nil, err
	}
	if err := f.checkTreeD(ctx, commD, nodes); err != nil {
		return nil, err
	}
	if err := f.checkLabels(ctx, p1.ReplicaID, nodes); err != nil {
		return nil, err
	}
	list, err := json.Marshal(infos)
	if err != nil {
		return nil, err
	}
	return map[string]string{
		"comm_d": hex.EncodeToString(commD[:]), "replica_id": hex.EncodeToString(p1.ReplicaID[:]), "pieces": string(list),
	}, nil
}

// commitments computes what the pieces commit to.
func (v *verifier) commitments(ctx context.Context) ([]PieceInfo, sealcore.Domain, error) {
	var list []PieceInfo
	var infos []pieces.Info
	for _, piece := range SealPieces(v.sector.Params, v.Pieces) {
		commP, err := pieces.ZeroCommP(piece.UnpaddedSize)
		if piece.Path != "" {
			commP, err = commPOfFile(ctx, piece)
		}
		if err != nil {
			return nil, sealcore.Domain{}, err
		}
		list = append(list, PieceInfo{piece.UnpaddedSize, hex.EncodeToString(commP[:])})
		infos = append(infos, pieces.Info{UnpaddedSize: piece.UnpaddedSize, CommP: commP})
	}
	commD, err := pieces.CommD(v.sector.Params, infos)
	return list, commD, err
}

// p1Files are what p1 left.
type p1Files struct {
	params           sealcore.Params
	unsealed, sealed *os.File
	data             *os.File // tree D, read as the data that are its leaves
	treeD            *merkle.TreeD
	layers           []*os.File // layer 1 first
	all              []*os.File
}

func openP1Files(p sealcore.Params, paths seal.Paths) (_ *p1Files, err error) {
	f := &p1Files{params: p}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	if f.unsealed, err = f.open(paths.Unsealed, int64(p.SectorSize)); err != nil {
		return nil, err
	}
	if f.sealed, err = f.open(paths.Sealed, int64(p.SectorSize)); err != nil {
		return nil, err
	}
	treeD := seal.TreeDConfig(p, paths.Cache).File()
	if f.data, err = f.open(treeD, pieces.TreeSize(p)); err != nil {
		return nil, err
	}
	for layer := 1; layer <= p.Layers; layer++ {
		labels, err := f.open(seal.LabelsConfig(p, paths.Cache, layer).File(), int64(p.SectorSize))
		if err != nil {
			return nil, err
		}
		f.layers = append(f.layers, labels)
	}
	f.treeD, err = merkle.OpenTreeD(treeD, p.Nodes())
	return f, err
}

// open opens a regular file of the given size; a pipe in its place would block.
func (f *p1Files) open(path string, size int64) (*os.File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() != size {
		return nil, fmt.Errorf("%s is no file of %d bytes (mode %v, %d bytes)", path, size, info.Mode(), info.Size())
	}
	file, err := os.Open(path)
	if err == nil {
		f.all = append(f.all, file)
	}
	return file, err
}

func (f *p1Files) close() {
	for _, file := range f.all {
		file.Close() // only read
	}
	if f.treeD != nil {
		_ = f.treeD.Close() // only read
	}
}

// checkData hashes all of the unsealed data to CommD, and compares with it the leaves of
// tree D, which p2 encodes, and the sealed file, which other engines' p2 may encode.
func (f *p1Files) checkData(ctx context.Context, commD sealcore.Domain) error {
	same := &sameReader{ctx: ctx, first: f.unsealed, others: []*os.File{f.data, f.sealed}}
	unpadded := fr32.NewUnpadReader(bufio.NewReaderSize(same, 1<<20))
	got, err := pieces.CommP(ctx, unpadded, f.params.UnpaddedSize())
	if err != nil {
		return fmt.Errorf("the data in %s: %w", f.unsealed.Name(), err)
	}
	if got != commD {
		return fmt.Errorf("the data in %s give CommD %x, the pieces %x", f.unsealed.Name(), got, commD)
	}
	return nil
}

// sameReader reads the first file and fails where one of the others has other bytes, or
// where a node's two topmost bits are set: no padding leaves them so.
type sameReader struct {
	ctx    context.Context
	first  *os.File
	others []*os.File
	off    int64
	buf    []byte
}

// Read reads whole nodes into large buffers, the rest as it comes.
func (r *sameReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.first.ReadAt(p, r.off)
	for i := range p[:n] {
		if (r.off+int64(i))%sealcore.NodeSize == sealcore.NodeSize-1 && p[i] > 0x3f {
			return 0, fmt.Errorf("byte %d is no padded data", r.off+int64(i))
		}
	}
	r.buf = append(r.buf[:0], p[:n]...)
	for _, other := range r.others {
		if _, err := other.ReadAt(r.buf, r.off); err != nil {
			return 0, err
		}
		if !bytes.Equal(r.buf, p[:n]) {
			return 0, fmt.Errorf("%s has other data than %s after byte %d", other.Name(), r.first.Name(), r.off)
		}
	}
	r.off += int64(n)
	if errors.Is(err, io.EOF) && n > 0 {
		err = nil
	}
	return n, err
}

// checkTreeD checks the root and a sample of paths.
func (f *p1Files) checkTreeD(ctx context.Context, commD sealcore.Domain, nodes []uint64) error {
	if root := f.treeD.Root(); root != commD {
		return fmt.Errorf("tree D has the root %x, the pieces give CommD %x", root, commD)
	}
	for _, node := range nodes {
		if err := ctx.Err(); err != nil {
			return err
		}
		path, err := f.treeD.Prove(node)
		if err == nil {
			err = path.Verify(merkle.Binary, f.params.Nodes(), node, merkle.SHA256)
		}
		if err != nil {
			return fmt.Errorf("tree D, node %d: %w", node, err)
		}
	}
	return nil
}

// checkLabels computes a sample of every layer's labels from their parents.
func (f *p1Files) checkLabels(ctx context.Context, replicaID sealcore.Domain, nodes []uint64) error {
	g, err := graph.New(f.params.Nodes(), f.params.PoRepID, f.params.APIVersion)
	if err != nil {
		return err
	}
	for i := range f.layers {
		for _, node := range nodes {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := f.checkLabel(g, replicaID, i+1, node); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *p1Files) checkLabel(g *graph.Graph, replicaID sealcore.Domain, layer int, node uint64) error {
	proof := vanilla.LabelingProof{Layer: uint32(layer), Node: node}
	if node > 0 { // the first has no parents
		var base [sealcore.DRGDegree]uint32
		var exp [sealcore.ExpDegree]uint32
		g.BaseParents(node, &base)
		parents, err := readNodes(f.layers[layer-1], base[:])
		if err != nil {
			return err
		}
		if layer > 1 {
			g.ExpParents(node, &exp)
			more, err := readNodes(f.layers[layer-2], exp[:])
			if err != nil {
				return err
			}
			parents = append(parents, more...)
		}
		for i := range sealcore.LabelParents {
			proof.Parents = append(proof.Parents, parents[i%len(parents)])
		}
	}
	got, err := readNodes(f.layers[layer-1], []uint32{uint32(node)})
	if err != nil {
		return err
	}
	if want := proof.Label(replicaID); got[0] != want {
		return fmt.Errorf("layer %d, node %d: the label is %x, its parents give %x", layer, node, got[0], want)
	}
	return nil
}

func readNodes(f *os.File, nodes []uint32) ([]sealcore.Domain, error) {
	out := make([]sealcore.Domain, len(nodes))
	for i, node := range nodes {
		if _, err := f.ReadAt(out[i][:], int64(node)*sealcore.NodeSize); err != nil {
			return nil, fmt.Errorf("read %s: %w", f.Name(), err)
		}
	}
	return out, nil
}
