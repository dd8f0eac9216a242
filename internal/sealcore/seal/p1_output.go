package seal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"

	"sealfleet/internal/sealcore"
)

// PreCommit1 is what p1 hands to p2.
type PreCommit1 struct {
	Sector    Sector
	ReplicaID sealcore.Domain
	CommD     sealcore.Domain
	Pieces    []PieceInfo
	Cache     string // directory of labels and tree D
}

// labelsTag is the name of the enum variant that the reference wraps labels (and vanilla
// proofs) in: it tells the size only, so V1_1 sectors carry a tag that says V1.
func labelsTag(p sealcore.Params) string { return "StackedDrg" + p.Name + "V1" }

// JSON writes the reference's SealPreCommitPhase1Output, byte for byte. Replica id, pieces and
// all of the sector but its proof type are not part of it. A toy shape has no proof type; its
// JSON lacks registered_proof and the labels' tag, as the inner type of the reference does.
//
// It fails if the cache's path is not UTF-8, which JSON cannot tell.
func (o *PreCommit1) JSON() ([]byte, error) {
	if !utf8.ValidString(o.Cache) {
		return nil, fmt.Errorf("cache directory %q is not valid UTF-8: rename it", o.Cache)
	}
	p := o.Sector.Params
	b := []byte{'{'}
	if p.ProofType >= 0 {
		b = append(b, `"registered_proof":"`+p.RegisteredProof()+`","labels":{"`+labelsTag(p)+`":`...)
	} else {
		b = append(b, `"labels":`...)
	}
	b = append(b, `{"labels":[`...)
	for layer := 1; layer <= p.Layers; layer++ {
		if layer > 1 {
			b = append(b, ',')
		}
		b = LabelsConfig(p, o.Cache, layer).appendJSON(b)
	}
	b = append(b, `],"_h":null}`...)
	if p.ProofType >= 0 {
		b = append(b, '}')
	}
	b = append(b, `,"config":`...)
	b = TreeDConfig(p, o.Cache).appendJSON(b)
	b = append(b, `,"comm_d":`...)
	b = appendJSONBytes(b, o.CommD[:])
	return append(b, '}'), nil
}

func (c StoreConfig) appendJSON(b []byte) []byte {
	b = append(b, `{"path":`...)
	b = appendJSONString(b, c.Path)
	b = append(b, `,"id":`...)
	b = appendJSONString(b, c.ID)
	b = append(b, `,"size":`...)
	b = strconv.AppendUint(b, c.Size, 10)
	b = append(b, `,"rows_to_discard":`...)
	b = strconv.AppendUint(b, c.RowsToDiscard, 10)
	return append(b, '}')
}

// appendJSONBytes writes bytes as an array of numbers.
func appendJSONBytes(b, data []byte) []byte {
	b = append(b, '[')
	for i, x := range data {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(x), 10)
	}
	return append(b, ']')
}

// appendJSONString writes a string with no more escapes than serde_json has: encoding/json
// would escape other characters too.
func appendJSONString(b []byte, s string) []byte {
	const short = `\b` + `\t` + `\n` + `\?` + `\f` + `\r` // of characters 8 to 13
	b = append(b, '"')
	for _, c := range []byte(s) {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c >= 8 && c <= 13 && c != 11:
			b = append(b, short[2*(c-8):2*(c-7)]...)
		case c < 0x20:
			b = fmt.Appendf(b, `\u%04x`, c)
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

type storeConfigJSON struct {
	Path          *string `json:"path"`
	ID            *string `json:"id"`
	Size          *uint64 `json:"size"`
	RowsToDiscard *uint64 `json:"rows_to_discard"`
}

func (c *storeConfigJSON) config() (StoreConfig, error) {
	if c == nil || c.Path == nil || c.ID == nil || c.Size == nil || c.RowsToDiscard == nil {
		return StoreConfig{}, errors.New("a store lacks its path, id, size or rows_to_discard")
	}
	return StoreConfig{*c.Path, *c.ID, *c.Size, *c.RowsToDiscard}, nil
}

type labelsJSON struct {
	Labels []*storeConfigJSON `json:"labels"`
	H      *struct{}          `json:"_h"`
}

// ParsePreCommit1 reads a SealPreCommitPhase1Output, ours or the reference's, whatever path it
// was made on. All of it must be there and fit one kind of sector; anything else is an error.
//
// The JSON tells neither whose sector it is nor its pieces: the result has only the sector's
// parameters (with the usual PoRep id), CommD and the cache directory. Use Bind for the rest.
func ParsePreCommit1(data []byte) (*PreCommit1, error) {
	o, err := parsePreCommit1(data)
	if err != nil {
		return nil, fmt.Errorf("the output of p1 is malformed: %w", err)
	}
	return o, nil
}

func parsePreCommit1(data []byte) (*PreCommit1, error) {
	var in struct {
		RegisteredProof *string          `json:"registered_proof"`
		Labels          json.RawMessage  `json:"labels"`
		Config          *storeConfigJSON `json:"config"`
		CommD           []*uint16        `json:"comm_d"` // uint8 would be read from base64
	}
	if err := decodeStrict(data, &in); err != nil {
		return nil, err
	}
	treeD, err := in.Config.config()
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}

	o := &PreCommit1{Cache: treeD.Path}
	if o.Sector.Params, err = paramsOf(in.RegisteredProof, treeD); err != nil {
		return nil, err
	}
	p := o.Sector.Params
	if err := treeD.check(TreeDConfig(p, "")); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if err := parseLabels(in.Labels, p); err != nil {
		return nil, fmt.Errorf("labels: %w", err)
	}

	if len(in.CommD) != len(o.CommD) {
		return nil, fmt.Errorf("comm_d has %d bytes, want %d", len(in.CommD), len(o.CommD))
	}
	for i, x := range in.CommD {
		if x == nil || *x > 0xff {
			return nil, fmt.Errorf("comm_d's element %d is no byte", i)
		}
		o.CommD[i] = byte(*x)
	}
	if o.CommD[len(o.CommD)-1] > 0x3f {
		return nil, errors.New("comm_d is no node of a tree: its two topmost bits are set")
	}
	return o, nil
}

// paramsOf finds the kind of sector by its proof type, or a toy shape by the size of tree D.
func paramsOf(registered *string, treeD StoreConfig) (sealcore.Params, error) {
	if registered == nil {
		for _, name := range sealcore.SizeNames() {
			p, err := sealcore.ForShape(name)
			if err == nil && p.ProofType < 0 && TreeDConfig(p, "").Size == treeD.Size {
				return p, nil
			}
		}
		return sealcore.Params{}, errors.New("it has no registered_proof")
	}
	for t := 0; ; t++ {
		p, err := sealcore.ForProofType(t)
		if err != nil {
			return sealcore.Params{}, fmt.Errorf("registered_proof %q is unknown or not supported", *registered)
		}
		if p.RegisteredProof() == *registered {
			return p, nil
		}
	}
}

func parseLabels(data json.RawMessage, p sealcore.Params) error {
	if p.ProofType >= 0 {
		var tagged map[string]json.RawMessage
		if err := decodeStrict(data, &tagged); err != nil {
			return err
		}
		tag := labelsTag(p)
		if len(tagged) != 1 || tagged[tag] == nil {
			return fmt.Errorf("they are not tagged %s, as those of a %s are", tag, p)
		}
		data = tagged[tag]
	}
	var in labelsJSON
	if err := decodeStrict(data, &in); err != nil {
		return err
	}
	if len(in.Labels) != p.Layers {
		return fmt.Errorf("%d layers, %s has %d", len(in.Labels), p, p.Layers)
	}
	for i, l := range in.Labels {
		c, err := l.config()
		if err != nil {
			return err
		}
		if err := c.check(LabelsConfig(p, "", i+1)); err != nil {
			return err
		}
	}
	return nil
}

// decodeStrict reads one JSON value and refuses fields that it does not know, and anything
// that follows.
func decodeStrict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return errors.New("it ends too early")
		}
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON value")
	}
	return nil
}

// Bind completes a parsed output with the sector that it belongs to, and the replica id that
// follows from it. It fails if the output is of another kind of sector.
func (o *PreCommit1) Bind(s Sector) error {
	got, want := o.Sector.Params, s.Params
	got.PoRepID = want.PoRepID // not in the JSON; a caller may choose it
	if got != want {
		return fmt.Errorf("the output of p1 is of a %s, the sector is a %s", got, want)
	}
	o.Sector = s
	o.ReplicaID = sealcore.ReplicaID(s.ProverID, s.Number, s.Ticket, o.CommD, s.Params.PoRepID)
	return nil
}
