package merkle

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"sealfleet/internal/sealcore"
)

// Ids of the trees, as they stand in file names and in t_aux.
const (
	TreeDID = "tree-d"
	TreeCID = "tree-c"
	TreeRID = "tree-r-last"
)

// FileName returns the name of a store by its id: "sc-02-data-tree-d.dat".
func FileName(id string) string { return "sc-02-data-" + id + ".dat" }

// Files returns the paths of a tree's files in dir: one for each base tree of the
// shape, numbered from 0 if there are several ("sc-02-data-tree-c-3.dat").
func Files(dir, id string, shape sealcore.TreeShape) []string {
	n := shape.BaseTrees()
	if n == 1 {
		return []string{filepath.Join(dir, FileName(id))}
	}
	paths := make([]string, n)
	for i := range paths {
		paths[i] = filepath.Join(dir, FileName(fmt.Sprintf("%s-%d", id, i)))
	}
	return paths
}

// File is what a tree is read from: an *os.File, or an object of a store that can be read
// in pieces.
type File interface {
	io.ReaderAt
	io.Closer
	Name() string
	Stat() (fs.FileInfo, error)
}

// Open opens one file of a tree.
type Open func(path string) (File, error)

func openFile(path string) (File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err // no *os.File that is nil in a File that is not
	}
	return f, nil
}

// baseTree is one base tree in its file, the rows from firstRow up.
type baseTree struct {
	file     File
	leaves   uint64
	arity    uint64
	rows     int // with leaves and root
	firstRow int // the lowest row that the file has
}

func openBase(open Open, path string, leaves uint64, arity, firstRow int) (*baseTree, error) {
	rows, err := Rows(leaves, arity)
	if err != nil {
		return nil, err
	}
	if firstRow >= rows {
		return nil, fmt.Errorf("%d rows cannot be left out of a tree of %d rows", firstRow, rows)
	}
	t := &baseTree{leaves: leaves, arity: uint64(arity), rows: rows, firstRow: firstRow}
	if t.file, err = open(path); err != nil {
		return nil, err
	}
	if err := checkSize(t.file, t.offset(rows)); err != nil {
		t.file.Close()
		return nil, err
	}
	return t, nil
}

// checkSize refuses a file that is not of the wanted size in bytes.
func checkSize(f File, want int64) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != want {
		return fmt.Errorf("%s has %d bytes, want %d: it is cut short or belongs to another sector size", f.Name(), info.Size(), want)
	}
	return nil
}

// width returns how many nodes a row has.
func (t *baseTree) width(row int) uint64 {
	w := t.leaves
	for range row {
		w /= t.arity
	}
	return w
}

// offset returns where in the file a row begins; offset(rows) is the file's size.
func (t *baseTree) offset(row int) int64 {
	var n uint64
	for r := t.firstRow; r < row; r++ {
		n += t.width(r)
	}
	return int64(n * sealcore.NodeSize)
}

// read returns n nodes of a row from the given one on.
func (t *baseTree) read(row int, first uint64, n int) ([]sealcore.Domain, error) {
	return readNodes(t.file, t.offset(row)+int64(first)*sealcore.NodeSize, n)
}

func readNodes(f File, offset int64, n int) ([]sealcore.Domain, error) {
	buf := make([]byte, n*sealcore.NodeSize)
	if _, err := f.ReadAt(buf, offset); err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	nodes := make([]sealcore.Domain, n)
	for i := range nodes {
		nodes[i] = sealcore.Domain(buf[i*sealcore.NodeSize:])
	}
	return nodes, nil
}

func (t *baseTree) root() (sealcore.Domain, error) {
	nodes, err := t.read(t.rows-1, 0, 1)
	if err != nil {
		return sealcore.Domain{}, err
	}
	return nodes[0], nil
}

// steps returns the path from a node of fromRow to the root, all from the file.
func (t *baseTree) steps(fromRow int, node uint64) ([]Step, error) {
	var out []Step
	for row := fromRow; row < t.rows-1; row++ {
		group, err := t.read(row, node/t.arity*t.arity, int(t.arity))
		if err != nil {
			return nil, err
		}
		out = append(out, stepAmong(group, node%t.arity))
		node /= t.arity
	}
	return out, nil
}

func stepAmong(group []sealcore.Domain, index uint64) Step {
	s := Step{Hashes: make([]sealcore.Domain, 0, len(group)-1), Index: index}
	s.Hashes = append(s.Hashes, group[:index]...)
	s.Hashes = append(s.Hashes, group[index+1:]...)
	return s
}

// TreeD is tree D in its file.
type TreeD struct {
	base     *baseTree
	rootNode sealcore.Domain
}

// OpenTreeD opens the binary tree of that many leaves.
func OpenTreeD(path string, leaves uint64) (*TreeD, error) {
	base, err := openBase(openFile, path, leaves, Binary.Base, 0)
	if err != nil {
		return nil, fmt.Errorf("open tree D: %w", err)
	}
	root, err := base.root()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open tree D: %w", err), base.file.Close())
	}
	return &TreeD{base, root}, nil
}

// Root returns CommD.
func (t *TreeD) Root() sealcore.Domain { return t.rootNode }

// Prove makes the inclusion proof of a leaf. The rows are taken as they stand in the
// file; Proof.Verify tells whether they fit together.
func (t *TreeD) Prove(leaf uint64) (Proof, error) {
	if leaf >= t.base.leaves {
		return Proof{}, fmt.Errorf("tree D has no leaf %d, only %d leaves", leaf, t.base.leaves)
	}
	nodes, err := t.base.read(0, leaf, 1)
	if err != nil {
		return Proof{}, err
	}
	steps, err := t.base.steps(0, leaf)
	if err != nil {
		return Proof{}, err
	}
	return Proof{Leaf: nodes[0], Root: t.rootNode, Base: steps}, nil
}

// Close closes the file.
func (t *TreeD) Close() error { return t.base.file.Close() }

// upper holds the base trees' roots and what is hashed over them.
type upper struct {
	shape sealcore.TreeShape
	roots []sealcore.Domain // of the base trees
	subs  []sealcore.Domain // of the sub trees; nil where the shape has none
	root  sealcore.Domain
}

// over hashes the sub and top trees over the base trees' roots.
func over(shape sealcore.TreeShape, roots []sealcore.Domain) (*upper, error) {
	u := &upper{shape: shape, roots: roots}
	last := roots
	if shape.Sub > 0 {
		for i := 0; i < len(roots); i += shape.Sub {
			sub, err := Poseidon(roots[i : i+shape.Sub])
			if err != nil {
				return nil, fmt.Errorf("sub tree %d: %w", i/shape.Sub, err)
			}
			u.subs = append(u.subs, sub)
		}
		last = u.subs
	}
	u.root = last[0]
	if shape.Top > 0 {
		var err error
		if u.root, err = Poseidon(last); err != nil {
			return nil, fmt.Errorf("top tree: %w", err)
		}
	}
	return u, nil
}

// finish adds the root and the steps above the given base tree to p.
func (u *upper) finish(p *Proof, base int) {
	p.Root = u.root
	if u.shape.Sub > 0 {
		at := base / u.shape.Sub * u.shape.Sub
		p.Sub = []Step{stepAmong(u.roots[at:at+u.shape.Sub], uint64(base-at))}
		base /= u.shape.Sub
	}
	if u.shape.Top > 0 {
		p.Top = []Step{stepAmong(u.subs, uint64(base))}
	}
}

// forest is the base trees of tree C or tree R, opened.
type forest struct {
	*upper
	name  string
	bases []*baseTree
}

func openForest(open Open, name, dir, id string, params sealcore.Params, firstRow int) (*forest, error) {
	f := &forest{name: name}
	leaves := params.Nodes() / uint64(params.Shape.BaseTrees())
	var roots []sealcore.Domain
	for _, path := range Files(dir, id, params.Shape) {
		base, err := openBase(open, path, leaves, params.Shape.Base, firstRow)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open %s: %w", name, err), f.Close())
		}
		f.bases = append(f.bases, base)
		root, err := base.root()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open %s: %w", name, err), f.Close())
		}
		roots = append(roots, root)
	}
	var err error
	if f.upper, err = over(params.Shape, roots); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", name, err), f.Close())
	}
	return f, nil
}

// Root returns the root over all base trees.
func (f *forest) Root() sealcore.Domain { return f.root }

// Close closes the files.
func (f *forest) Close() error {
	var errs []error
	for _, b := range f.bases {
		errs = append(errs, b.file.Close())
	}
	return errors.Join(errs...)
}

// locate splits a leaf of the sector into its base tree and its leaf there.
func (f *forest) locate(leaf uint64) (int, uint64, error) {
	per := f.bases[0].leaves
	if leaf/per >= uint64(len(f.bases)) {
		return 0, 0, fmt.Errorf("%s has no leaf %d, only %d leaves", f.name, leaf, per*uint64(len(f.bases)))
	}
	return int(leaf / per), leaf % per, nil
}

// TreeC is tree C in its files.
type TreeC struct{ *forest }

// OpenTreeC opens the tree C of a sector's cache directory.
func OpenTreeC(dir string, params sealcore.Params) (*TreeC, error) {
	f, err := openForest(openFile, "tree C", dir, TreeCID, params, 0)
	if err != nil {
		return nil, err
	}
	return &TreeC{f}, nil
}

// Prove makes the inclusion proof of a leaf, 0 to nodes-1 of the sector. The rows are
// taken as they stand in the files; Proof.Verify tells whether they fit together.
func (t *TreeC) Prove(leaf uint64) (Proof, error) {
	i, at, err := t.locate(leaf)
	if err != nil {
		return Proof{}, err
	}
	base := t.bases[i]
	nodes, err := base.read(0, at, 1)
	if err != nil {
		return Proof{}, err
	}
	p := Proof{Leaf: nodes[0]}
	if p.Base, err = base.steps(0, at); err != nil {
		return Proof{}, err
	}
	t.finish(&p, i)
	return p, nil
}

// TreeR is tree R: its upper rows in its files, its leaves in the sealed file, and the
// rows in between nowhere.
type TreeR struct {
	*forest
	sealed File
}

// OpenTreeR opens the tree R of a sector's cache directory and its sealed file.
func OpenTreeR(dir, sealedPath string, params sealcore.Params) (*TreeR, error) {
	return OpenTreeRFrom(openFile, dir, sealedPath, params)
}

// OpenTreeRFrom opens them where open finds them, with the paths that they have there.
func OpenTreeRFrom(open Open, dir, sealedPath string, params sealcore.Params) (*TreeR, error) {
	sealed, err := open(sealedPath)
	if err != nil {
		return nil, fmt.Errorf("open tree R: %w", err)
	}
	if err := checkSize(sealed, int64(params.SectorSize)); err != nil {
		return nil, errors.Join(fmt.Errorf("open tree R: %w", err), sealed.Close())
	}
	f, err := openForest(open, "tree R", dir, TreeRID, params, 1+params.RowsToDiscard())
	if err != nil {
		return nil, errors.Join(err, sealed.Close())
	}
	return &TreeR{f, sealed}, nil
}

// Prove makes the inclusion proof of a leaf, 0 to nodes-1 of the sector. The discarded
// rows are hashed again from the part of the sealed file below them; if that does not
// give the node that the file holds above them, the two do not belong together and an
// error says so.
func (t *TreeR) Prove(leaf uint64) (Proof, error) {
	i, at, err := t.locate(leaf)
	if err != nil {
		return Proof{}, err
	}
	base := t.bases[i]
	span := uint64(1) // leaves below one node of the lowest row in the file
	for range base.firstRow {
		span *= base.arity
	}
	first := at / span * span
	row, err := readNodes(t.sealed, int64((uint64(i)*base.leaves+first)*sealcore.NodeSize), int(span))
	if err != nil {
		return Proof{}, err
	}
	node := at - first
	p := Proof{Leaf: row[node]}
	for range base.firstRow {
		p.Base = append(p.Base, stepAmong(row[node/base.arity*base.arity:][:base.arity], node%base.arity))
		above := make([]sealcore.Domain, len(row)/int(base.arity))
		for j := range above {
			if above[j], err = Poseidon(row[j*int(base.arity):][:base.arity]); err != nil {
				return Proof{}, fmt.Errorf("%s below leaf %d of base tree %d: %w", t.sealed.Name(), first, i, err)
			}
		}
		row = above
		node /= base.arity
	}
	kept, err := base.read(base.firstRow, at/span, 1)
	if err != nil {
		return Proof{}, err
	}
	if row[0] != kept[0] {
		return Proof{}, fmt.Errorf("%s and %s do not belong together: leaves %d to %d of base tree %d hash to another node than the file holds",
			t.sealed.Name(), base.file.Name(), first, first+span-1, i)
	}
	upper, err := base.steps(base.firstRow, at/span)
	if err != nil {
		return Proof{}, err
	}
	p.Base = append(p.Base, upper...)
	t.finish(&p, i)
	return p, nil
}

// Close closes the files.
func (t *TreeR) Close() error { return errors.Join(t.forest.Close(), t.sealed.Close()) }
