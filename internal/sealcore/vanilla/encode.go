package vanilla

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/merkle"
)

// WriteJSON writes c as the reference's SealCommitPhase1Output, byte for byte as serde
// writes it. It writes one challenge's proof at a time (some 250 kB for 32 GiB, whose
// whole JSON has about 40 MB), so that nothing larger is held.
//
// A toy shape has no registered proof: it is written as the inner SealCommitPhase1Output
// of filecoin-proofs, which knows none, with the proofs directly under vanilla_proofs.
//
// It fails only if w fails or c does not have the shape of p's proofs.
func (c *Commit1) WriteJSON(w io.Writer, p sealcore.Params) error {
	if err := checkShape(p, c.Partitions); err != nil {
		return err
	}
	e := encoder{shape: p.Shape}
	e.text(`{`)
	if name := p.RegisteredProof(); name != "" {
		e.text(`"registered_proof":"` + name + `",`)
	}
	e.text(`"vanilla_proofs":`)
	if v := variant(p); v != "" {
		e.text(`{"` + v + `":`)
	}
	for k, proofs := range c.Partitions {
		e.text(separator(k))
		for i := range proofs {
			e.text(separator(i))
			e.proof(&proofs[i])
			if err := e.flush(w); err != nil {
				return err
			}
		}
		e.text(`]`)
	}
	e.text(`]`)
	if variant(p) != "" {
		e.text(`}`)
	}
	for _, f := range []struct {
		name string
		d    *sealcore.Domain
	}{{"comm_r", &c.CommR}, {"comm_d", &c.CommD}, {"replica_id", &c.ReplicaID}, {"seed", &c.Seed}, {"ticket", &c.Ticket}} {
		e.text(`,"` + f.name + `":`)
		e.domain(f.d)
	}
	e.text(`}`)
	return e.flush(w)
}

// variant is the name under which the reference files the proofs of a sector size: that
// of the V1 proof type, whatever the API version. It is empty for a toy shape.
func variant(p sealcore.Params) string {
	return strings.TrimSuffix(p.RegisteredProof(), "_1")
}

// encoder builds JSON in the order in which the reference's structures declare their fields.
type encoder struct {
	shape sealcore.TreeShape
	buf   []byte
}

func (e *encoder) text(s string) { e.buf = append(e.buf, s...) }

// separator opens a list or goes on with it.
func separator(i int) string {
	if i == 0 {
		return `[`
	}
	return `,`
}

func (e *encoder) number(n uint64) { e.buf = strconv.AppendUint(e.buf, n, 10) }

func (e *encoder) flush(w io.Writer) error {
	_, err := w.Write(e.buf)
	e.buf = e.buf[:0]
	if err != nil {
		return fmt.Errorf("write the commit-phase-1 JSON: %w", err)
	}
	return nil
}

func (e *encoder) domain(d *sealcore.Domain) {
	for i, b := range d {
		e.text(separator(i))
		e.number(uint64(b))
	}
	e.text(`]`)
}

func (e *encoder) domains(ds []sealcore.Domain) {
	if len(ds) == 0 {
		e.text(`[`)
	}
	for i := range ds {
		e.text(separator(i))
		e.domain(&ds[i])
	}
	e.text(`]`)
}

func (e *encoder) proof(p *Proof) {
	e.text(`{"comm_d_proofs":`)
	e.merkle(&p.CommD, merkle.Binary)
	e.text(`,"comm_r_last_proof":`)
	e.merkle(&p.CommR, e.shape)
	e.text(`,"replica_column_proofs":{"c_x":`)
	e.column(&p.Columns.Challenged)
	e.text(`,"drg_parents":`)
	e.columns(p.Columns.DRGParents)
	e.text(`,"exp_parents":`)
	e.columns(p.Columns.ExpParents)
	e.text(`},"labeling_proofs":`)
	for i := range p.Labels {
		e.text(separator(i))
		e.labeling(&p.Labels[i])
	}
	e.text(`],"encoding_proof":`)
	e.labeling(&p.Encoding)
	e.text(`}`)
}

func (e *encoder) columns(cs []ColumnProof) {
	for i := range cs {
		e.text(separator(i))
		e.column(&cs[i])
	}
	e.text(`]`)
}

func (e *encoder) column(c *ColumnProof) {
	e.text(`{"column":{"index":`)
	e.number(uint64(c.Node))
	e.text(`,"rows":`)
	e.domains(c.Rows)
	e.text(`,"_h":null},"inclusion_proof":`)
	e.merkle(&c.Inclusion, e.shape)
	e.text(`}`)
}

func (e *encoder) labeling(l *LabelingProof) {
	e.text(`{"parents":`)
	e.domains(l.Parents)
	e.text(`,"layer_index":`)
	e.number(uint64(l.Layer))
	e.text(`,"node":`)
	e.number(l.Node)
	e.text(`}`)
}

// merkle writes a path as one of the reference's three variants of ProofData.
func (e *encoder) merkle(m *merkle.Proof, shape sealcore.TreeShape) {
	switch {
	case shape.Sub == 0:
		e.text(`{"data":{"Single":{"root":`)
		e.domain(&m.Root)
		e.text(`,"leaf":`)
		e.domain(&m.Leaf)
		e.text(`,"path":`)
		e.steps(m.Base)
		e.text(`}}}`)
		return
	case shape.Top == 0:
		e.text(`{"data":{"Sub":{"base_proof":`)
		e.steps(m.Base)
		e.text(`,"sub_proof":`)
		e.steps(m.Sub)
	default:
		e.text(`{"data":{"Top":{"base_proof":`)
		e.steps(m.Base)
		e.text(`,"sub_proof":`)
		e.steps(m.Sub)
		e.text(`,"top_proof":`)
		e.steps(m.Top)
	}
	e.text(`,"root":`)
	e.domain(&m.Root)
	e.text(`,"leaf":`)
	e.domain(&m.Leaf)
	e.text(`}}}`)
}

func (e *encoder) steps(steps []merkle.Step) {
	e.text(`{"path":`)
	if len(steps) == 0 {
		e.text(`[`)
	}
	for i := range steps {
		e.text(separator(i))
		e.text(`{"hashes":`)
		e.domains(steps[i].Hashes)
		e.text(`,"index":`)
		e.number(steps[i].Index)
		e.text(`}`)
	}
	e.text(`]}`)
}
