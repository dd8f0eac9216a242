package vanilla

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/merkle"
)

// MalformedError says that bytes are not the commit-phase-1 JSON of a kind of sector.
type MalformedError struct {
	Offset int    // byte at which reading stopped
	Where  string // the value, such as vanilla_proofs[0][1].labeling_proofs[0].node
	Reason string
}

// Error names the place and the reason.
func (e *MalformedError) Error() string {
	where := e.Where
	if where == "" {
		where = "the outermost value"
	}
	return fmt.Sprintf("commit-phase-1 JSON: at byte %d, in %s: %s", e.Offset, where, e.Reason)
}

// KindError says that commit-phase-1 JSON is of another kind of sector.
type KindError struct{ Got, Want string } // registered proofs

// Error names both kinds.
func (e *KindError) Error() string {
	return fmt.Sprintf("commit-phase-1 JSON is of the proof type %s, not of %s", e.Got, e.Want)
}

// ParseCommit1 reads the commit-phase-1 JSON of a sector of kind p, as WriteJSON or the
// reference writes it. The order of keys and white space do not matter. All else does:
// every key must be there once and no other, every list must have the length that p's
// proofs have, every number must be in its range. So the memory that it takes depends on
// p alone, whatever the input. It does not verify the proofs.
//
// It fails with a *KindError if the JSON names another proof type, and with a
// *MalformedError otherwise.
func ParseCommit1(p sealcore.Params, data []byte) (*Commit1, error) {
	d := &decoder{data: data, p: p}
	c := new(Commit1)
	keys := topKeys
	if p.RegisteredProof() == "" {
		keys = keys[1:]
	}
	d.object(keys, func(key string) {
		switch key {
		case "registered_proof":
			if got := d.string(); d.err == nil && got != p.RegisteredProof() {
				d.err = &KindError{Got: strconv.Quote(got), Want: p.RegisteredProof()}
			}
		case "vanilla_proofs":
			d.partitions(c)
		case "comm_r":
			d.domain(&c.CommR)
		case "comm_d":
			d.domain(&c.CommD)
		case "replica_id":
			d.domain(&c.ReplicaID)
		case "seed":
			d.domain(&c.Seed)
		case "ticket":
			d.domain(&c.Ticket)
		}
	})
	d.space()
	if d.err == nil && d.pos < len(d.data) {
		d.fail("%d bytes follow the end", len(d.data)-d.pos)
	}
	if d.err != nil {
		return nil, d.err
	}
	return c, nil
}

// The keys of each object, in the reference's order.
var (
	topKeys      = []string{"registered_proof", "vanilla_proofs", "comm_r", "comm_d", "replica_id", "seed", "ticket"}
	proofKeys    = []string{"comm_d_proofs", "comm_r_last_proof", "replica_column_proofs", "labeling_proofs", "encoding_proof"}
	columnsKeys  = []string{"c_x", "drg_parents", "exp_parents"}
	columnKeys   = []string{"column", "inclusion_proof"}
	rowsKeys     = []string{"index", "rows", "_h"}
	labelingKeys = []string{"parents", "layer_index", "node"}
	dataKeys     = []string{"data"}
	singleKeys   = []string{"root", "leaf", "path"}
	subKeys      = []string{"base_proof", "sub_proof", "root", "leaf"}
	topProofKeys = []string{"base_proof", "sub_proof", "top_proof", "root", "leaf"}
	pathKeys     = []string{"path"}
	stepKeys     = []string{"hashes", "index"}
)

// decoder reads one JSON text. Its first error sticks; after it all methods do nothing.
type decoder struct {
	data  []byte
	pos   int
	err   error
	where []place
	p     sealcore.Params
}

// place is one step of the way to a value: a key, or an index if key is empty.
type place struct {
	key   string
	index int
}

func (d *decoder) fail(format string, args ...any) {
	if d.err != nil {
		return
	}
	var where strings.Builder
	for _, at := range d.where {
		switch {
		case at.key == "":
			fmt.Fprintf(&where, "[%d]", at.index)
		case where.Len() > 0:
			where.WriteString("." + at.key)
		default:
			where.WriteString(at.key)
		}
	}
	d.err = &MalformedError{Offset: d.pos, Where: where.String(), Reason: fmt.Sprintf(format, args...)}
}

func (d *decoder) partitions(c *Commit1) {
	list := func() {
		c.Partitions = make([][]Proof, d.p.Partitions)
		d.list(d.p.Partitions, func(k int) {
			c.Partitions[k] = make([]Proof, d.p.Challenges)
			d.list(d.p.Challenges, func(i int) { d.proof(&c.Partitions[k][i]) })
		})
	}
	if v := variant(d.p); v != "" {
		d.object([]string{v}, func(string) { list() })
		return
	}
	list()
}

func (d *decoder) proof(p *Proof) {
	d.object(proofKeys, func(key string) {
		switch key {
		case "comm_d_proofs":
			d.merkle(&p.CommD, merkle.Binary)
		case "comm_r_last_proof":
			d.merkle(&p.CommR, d.p.Shape)
		case "replica_column_proofs":
			d.columns(&p.Columns)
		case "labeling_proofs":
			p.Labels = make([]LabelingProof, d.p.Layers)
			d.list(d.p.Layers, func(i int) { d.labeling(&p.Labels[i]) })
		case "encoding_proof":
			d.labeling(&p.Encoding)
		}
	})
}

func (d *decoder) columns(c *ColumnProofs) {
	d.object(columnsKeys, func(key string) {
		switch key {
		case "c_x":
			d.column(&c.Challenged)
		case "drg_parents":
			c.DRGParents = make([]ColumnProof, sealcore.DRGDegree)
			d.list(sealcore.DRGDegree, func(i int) { d.column(&c.DRGParents[i]) })
		case "exp_parents":
			c.ExpParents = make([]ColumnProof, sealcore.ExpDegree)
			d.list(sealcore.ExpDegree, func(i int) { d.column(&c.ExpParents[i]) })
		}
	})
}

func (d *decoder) column(c *ColumnProof) {
	d.object(columnKeys, func(key string) {
		switch key {
		case "column":
			d.object(rowsKeys, func(key string) {
				switch key {
				case "index":
					c.Node = uint32(d.number(d.p.Nodes() - 1))
				case "rows":
					c.Rows = d.domains(d.p.Layers)
				case "_h":
					d.literal("null")
				}
			})
		case "inclusion_proof":
			d.merkle(&c.Inclusion, d.p.Shape)
		}
	})
}

func (d *decoder) labeling(l *LabelingProof) {
	d.object(labelingKeys, func(key string) {
		switch key {
		case "parents":
			l.Parents = d.domains(sealcore.LabelParents)
		case "layer_index":
			l.Layer = uint32(d.number(uint64(d.p.Layers)))
		case "node":
			l.Node = d.number(d.p.Nodes() - 1)
		}
	})
}

func (d *decoder) merkle(m *merkle.Proof, shape sealcore.TreeShape) {
	variant, keys := "Single", singleKeys
	if shape.Sub > 0 {
		variant, keys = "Sub", subKeys
	}
	if shape.Top > 0 {
		variant, keys = "Top", topProofKeys
	}
	d.object(dataKeys, func(string) {
		d.object([]string{variant}, func(string) {
			d.object(keys, func(key string) {
				switch key {
				case "root":
					d.domain(&m.Root)
				case "leaf":
					d.domain(&m.Leaf)
				case "path", "base_proof":
					m.Base = d.steps(baseSteps(d.p, shape), shape.Base)
				case "sub_proof":
					m.Sub = d.steps(1, shape.Sub)
				case "top_proof":
					m.Top = d.steps(1, shape.Top)
				}
			})
		})
	})
}

func (d *decoder) steps(n, arity int) []merkle.Step {
	steps := make([]merkle.Step, n)
	d.object(pathKeys, func(string) {
		d.list(n, func(i int) {
			d.object(stepKeys, func(key string) {
				switch key {
				case "hashes":
					steps[i].Hashes = d.domains(arity - 1)
				case "index":
					steps[i].Index = d.number(uint64(arity - 1))
				}
			})
		})
	})
	return steps
}

func (d *decoder) domains(n int) []sealcore.Domain {
	out := make([]sealcore.Domain, n)
	d.list(n, func(i int) { d.domain(&out[i]) })
	return out
}

func (d *decoder) domain(out *sealcore.Domain) {
	d.list(sealcore.NodeSize, func(i int) { out[i] = byte(d.number(255)) })
}

// object reads an object that has each of keys once and no other; visit reads the value.
func (d *decoder) object(keys []string, visit func(key string)) {
	if !d.expect('{') {
		return
	}
	var seen uint
	for first := true; ; first = false {
		if first && d.peek() == '}' {
			break
		}
		name := d.string()
		if d.err != nil {
			return
		}
		i := slices.Index(keys, name)
		if i < 0 {
			d.fail("key %s is unknown here: expected %s", strconv.Quote(name), strings.Join(keys, ", "))
			return
		}
		if seen&(1<<i) != 0 {
			d.fail("key %q comes twice", keys[i])
			return
		}
		seen |= 1 << i
		d.expect(':')
		d.where = append(d.where, place{key: keys[i]})
		visit(keys[i])
		d.where = d.where[:len(d.where)-1]
		if d.err != nil {
			return
		}
		if d.peek() == '}' {
			break
		}
		if !d.expect(',') {
			return
		}
	}
	d.expect('}')
	for i, key := range keys {
		if seen&(1<<i) == 0 {
			d.fail("key %q is missing", key)
			return
		}
	}
}

// list reads an array of exactly n values; visit reads the i-th.
func (d *decoder) list(n int, visit func(i int)) {
	if !d.expect('[') {
		return
	}
	for i := range n {
		if d.peek() == ']' {
			d.fail("the list has %d values instead of %d", i, n)
			return
		}
		if i > 0 && !d.expect(',') {
			return
		}
		d.where = append(d.where, place{index: i})
		visit(i)
		d.where = d.where[:len(d.where)-1]
		if d.err != nil {
			return
		}
	}
	if d.peek() == ',' {
		d.fail("the list has more than %d values", n)
		return
	}
	d.expect(']')
}

// space skips white space.
func (d *decoder) space() {
	for d.pos < len(d.data) {
		switch d.data[d.pos] {
		case ' ', '\t', '\n', '\r':
			d.pos++
		default:
			return
		}
	}
}

// peek returns the next byte that is not white space, or 0 at the end or after an error.
func (d *decoder) peek() byte {
	if d.err != nil {
		return 0
	}
	d.space()
	if d.pos == len(d.data) {
		return 0
	}
	return d.data[d.pos]
}

// expect takes the byte c.
func (d *decoder) expect(c byte) bool {
	if d.err != nil {
		return false
	}
	d.space()
	if d.pos == len(d.data) {
		d.fail("it ends where %q should come", c)
		return false
	}
	if d.data[d.pos] != c {
		d.fail("found %q where %q should come", d.data[d.pos], c)
		return false
	}
	d.pos++
	return true
}

func (d *decoder) literal(s string) {
	if d.err != nil {
		return
	}
	d.space()
	if !strings.HasPrefix(string(d.data[d.pos:min(len(d.data), d.pos+len(s))]), s) {
		d.fail("expected %s", s)
		return
	}
	d.pos += len(s)
}

// maxString is the length of the longest string that is read; the names that occur are shorter.
const maxString = 64

// string reads a string without escapes: the reference writes none.
func (d *decoder) string() string {
	if !d.expect('"') {
		return ""
	}
	start := d.pos
	for ; d.pos < len(d.data) && d.pos-start <= maxString; d.pos++ {
		switch c := d.data[d.pos]; {
		case c == '"':
			d.pos++
			return string(d.data[start : d.pos-1])
		case c < 0x20 || c == '\\':
			d.fail("a name with the character %q is unknown here", c)
			return ""
		}
	}
	d.fail("the string does not end within %d bytes", maxString)
	return ""
}

// number reads an unsigned integer up to limit, without sign, fraction or exponent.
func (d *decoder) number(limit uint64) uint64 {
	c := d.peek()
	if d.err != nil {
		return 0
	}
	if c < '0' || c > '9' {
		d.fail("expected a number from 0 to %d", limit)
		return 0
	}
	start, n := d.pos, uint64(0)
	for d.pos < len(d.data) && d.data[d.pos] >= '0' && d.data[d.pos] <= '9' {
		n = n*10 + uint64(d.data[d.pos]-'0') // no overflow: n ≤ limit ≤ 2^32 before
		if n > limit {
			d.fail("the number is larger than %d", limit)
			return 0
		}
		d.pos++
	}
	if d.pos-start > 1 && d.data[start] == '0' {
		d.fail("the number starts with a zero")
	}
	return n
}
