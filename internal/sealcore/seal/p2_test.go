package seal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/field"
	"sealfleet/internal/sealcore/merkle"
	"sealfleet/internal/sealcore/poseidon"
)

// made is a sector after a p1 whose labels are any field elements: p2 does not ask where
// they come from.
type made struct {
	p1     *PreCommit1
	paths  Paths
	layers [][]fr.Element
	data   []fr.Element
}

// stream returns n reproducible field elements.
func stream(label string, n uint64) []fr.Element {
	out := make([]fr.Element, n)
	for i := range out {
		d := sha256.Sum256(binary.LittleEndian.AppendUint64([]byte(label), uint64(i)))
		d[31] &= 0x3f
		out[i], _ = field.FromDomain(d)
	}
	return out
}

func rawBytes(e []fr.Element) []byte {
	b := make([]byte, len(e)*sealcore.NodeSize)
	field.ToBytes(b, e)
	return b
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func makeSector(t testing.TB, shape string, layers int) made {
	t.Helper()
	params, err := sealcore.ForShape(shape)
	if err != nil {
		t.Fatal(err)
	}
	params.Layers = layers
	m := made{paths: InDir(t.TempDir()), data: stream("data", params.Nodes())}
	if err := os.Mkdir(m.paths.Cache, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range layers {
		m.layers = append(m.layers, stream(string(rune('a'+i)), params.Nodes()))
		write(t, LabelsConfig(params, m.paths.Cache, i+1).File(), rawBytes(m.layers[i]))
	}
	row := rawBytes(m.data)
	treeD := bytes.Clone(row)
	for len(row) > sealcore.NodeSize {
		var above []byte
		for i := 0; i < len(row); i += 64 {
			h := sha256.Sum256(row[i : i+64])
			h[31] &= 0x3f
			above = append(above, h[:]...)
		}
		treeD = append(treeD, above...)
		row = above
	}
	write(t, TreeDConfig(params, m.paths.Cache).File(), treeD)
	write(t, m.paths.Sealed, make([]byte, params.SectorSize))
	m.p1 = &PreCommit1{
		Sector: Sector{Params: params, Number: 7},
		CommD:  sealcore.Domain(row),
		Cache:  m.paths.Cache,
	}
	return m
}

// simpleRoot hashes all of a tree in memory, row by row.
func simpleRoot(shape sealcore.TreeShape, row []fr.Element) sealcore.Domain {
	above := func(arity int) {
		out := make([]fr.Element, len(row)/arity)
		for i := range out {
			out[i] = poseidon.For(arity).Sum(row[i*arity : (i+1)*arity])
		}
		row = out
	}
	for len(row) > shape.BaseTrees() {
		above(shape.Base)
	}
	if shape.Sub > 0 {
		above(shape.Sub)
	}
	if shape.Top > 0 {
		above(shape.Top)
	}
	return field.ToDomain(row[0])
}

func TestP2AgainstTheSimpleConstruction(t *testing.T) {
	for _, c := range []struct {
		shape  string
		layers int
	}{{"2KiB", 2}, {"16KiB", 11}, {"32KiB", 2}} {
		t.Run(c.shape, func(t *testing.T) {
			m := makeSector(t, c.shape, c.layers)
			params := m.p1.Sector.Params
			var reported uint64
			out, err := P2(t.Context(), m.p1, m.paths, Options{Progress: func(step string, done, total uint64) {
				if step != "trees" || total != params.Nodes() || done <= reported {
					t.Errorf("progress %q %d/%d after %d", step, done, total, reported)
				}
				reported = done
			}})
			if err != nil {
				t.Fatal(err)
			}
			if reported != params.Nodes() {
				t.Errorf("progress ended at %d of %d nodes", reported, params.Nodes())
			}

			n := int(params.Nodes())
			columns, replica := make([]fr.Element, n), make([]fr.Element, n)
			for i := range n {
				var column []fr.Element
				for _, layer := range m.layers {
					column = append(column, layer[i])
				}
				columns[i] = poseidon.For(c.layers).Sum(column)
				replica[i].Add(&m.data[i], &column[c.layers-1])
			}
			if want := simpleRoot(params.Shape, columns); out.CommC != want {
				t.Errorf("CommC %x, want %x", out.CommC, want)
			}
			if want := simpleRoot(params.Shape, replica); out.CommRLast != want {
				t.Errorf("CommR_last %x, want %x", out.CommRLast, want)
			}
			if want, _ := merkle.Poseidon([]sealcore.Domain{out.CommC, out.CommRLast}); out.CommR != want || out.CommD != m.p1.CommD {
				t.Errorf("CommR %x, want %x", out.CommR, want)
			}
			if got, err := os.ReadFile(m.paths.Sealed); err != nil || !bytes.Equal(got, rawBytes(replica)) {
				t.Errorf("the sealed file differs (%v)", err)
			}
			checkAux(t, m, out)
		})
	}
}

func checkAux(t *testing.T, m made, out *PreCommit2) {
	t.Helper()
	params := m.p1.Sector.Params
	raw, err := os.ReadFile(filepath.Join(m.paths.Cache, PAuxName))
	if err != nil {
		t.Fatal(err)
	}
	if aux, err := ParsePAux(raw); err != nil || aux != (PAux{out.CommC, out.CommRLast}) {
		t.Errorf("p_aux %x, %v", aux, err)
	}
	if raw, err = os.ReadFile(filepath.Join(m.paths.Cache, TAuxName)); err != nil {
		t.Fatal(err)
	}
	aux, err := ParseTAux(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := aux.Check(params); err != nil {
		t.Error(err)
	}
	for _, store := range append(aux.Labels, append(aux.TreeC.Split(params), aux.TreeRLast.Split(params)...)...) {
		if _, err := os.Stat(store.File()); err != nil {
			t.Errorf("t_aux names a file that is not there: %v", err)
		}
	}
}

// snapshot reads all files of a sector.
func snapshot(t *testing.T, p Paths) map[string]string {
	t.Helper()
	out := map[string]string{}
	entries, err := os.ReadDir(p.Cache)
	if err != nil {
		t.Fatal(err)
	}
	paths := []string{p.Sealed}
	for _, e := range entries {
		paths = append(paths, filepath.Join(p.Cache, e.Name()))
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out[path] = string(b)
	}
	return out
}

func sameFiles(t *testing.T, got, want map[string]string) {
	t.Helper()
	for path := range want {
		if got[path] != want[path] {
			t.Errorf("%s changed", path)
		}
	}
	for path := range got {
		if _, ok := want[path]; !ok {
			t.Errorf("%s appeared", path)
		}
	}
}

func TestP2DoneAgainGivesTheSameBytes(t *testing.T) {
	m := makeSector(t, "32KiB", 2)
	first, err := P2(t.Context(), m.p1, m.paths, Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, m.paths)
	second, err := P2(t.Context(), m.p1, m.paths, Options{Threads: 3})
	if err != nil {
		t.Fatal(err)
	}
	if *first != *second {
		t.Errorf("%+v, then %+v", first, second)
	}
	sameFiles(t, snapshot(t, m.paths), before)
}

func TestP2RefusesBadInputAndLeavesNothing(t *testing.T) {
	layer2 := func(m made) string { return LabelsConfig(m.p1.Sector.Params, m.paths.Cache, 2).File() }
	treeD := func(m made) string { return TreeDConfig(m.p1.Sector.Params, m.paths.Cache).File() }
	change := func(t *testing.T, path string, f func([]byte) []byte) {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		write(t, path, f(b))
	}
	for _, c := range []struct {
		name  string
		spoil func(*testing.T, made)
		want  []string // parts of the message
	}{
		{"layer missing", func(t *testing.T, m made) {
			if err := os.Remove(layer2(m)); err != nil {
				t.Fatal(err)
			}
		}, []string{"layer 2", "no such file", "do p1 again"}},
		{"layer short", func(t *testing.T, m made) {
			change(t, layer2(m), func(b []byte) []byte { return b[:len(b)-32] })
		}, []string{"layer 2", "bytes, want"}},
		{"layer long", func(t *testing.T, m made) {
			change(t, layer2(m), func(b []byte) []byte { return append(b, 0) })
		}, []string{"layer 2", "bytes, want"}},
		{"label out of the field", func(t *testing.T, m made) {
			change(t, layer2(m), func(b []byte) []byte { b[33*32+31] = 0xff; return b })
		}, []string{"layer-2.dat", "node 33 is not a field element"}},
		{"data out of the field", func(t *testing.T, m made) {
			change(t, treeD(m), func(b []byte) []byte { b[700*32+31] = 0xff; return b })
		}, []string{"tree-d.dat", "node 700 is not a field element"}},
		{"tree D short", func(t *testing.T, m made) {
			change(t, treeD(m), func(b []byte) []byte { return b[:len(b)/2] })
		}, []string{"tree D", "bytes, want"}},
		{"another CommD", func(t *testing.T, m made) { m.p1.CommD[0] ^= 1 }, []string{"CommD", "another sector's"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := makeSector(t, "32KiB", 2)
			c.spoil(t, m)
			before := snapshot(t, m.paths)
			_, err := P2(t.Context(), m.p1, m.paths, Options{})
			if err == nil {
				t.Fatal("passes")
			}
			for _, part := range append(c.want, "p2 of sector 7") {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not say %q", err, part)
				}
			}
			sameFiles(t, snapshot(t, m.paths), before)
		})
	}
}

// TestP2StopsWhenCancelled cancels from the first report, with many chunks to go.
func TestP2StopsWhenCancelled(t *testing.T) {
	m := makeSector(t, "32KiB", 2)
	before := snapshot(t, m.paths)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reports := 0
	_, err := P2(ctx, m.p1, m.paths, Options{Threads: 1, Progress: func(string, uint64, uint64) {
		reports++
		cancel()
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	if reports != 1 {
		t.Errorf("%d chunks were done after the cancellation", reports-1)
	}
	sameFiles(t, snapshot(t, m.paths), before)
}

func TestPreCommit2JSON(t *testing.T) {
	params, err := sealcore.ForProofType(5)
	if err != nil {
		t.Fatal(err)
	}
	o := &PreCommit2{Params: params, CommR: sealcore.Domain{1, 255}, CommD: sealcore.Domain{31: 9}}
	zeros := strings.Repeat(",0", 30)
	want := `{"registered_proof":"StackedDrg2KiBV1_1","comm_r":[1,255` + zeros + `],"comm_d":[0` + zeros + `,9]}`
	if got := string(o.JSON()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if params, err = sealcore.ForShape("16KiB"); err != nil {
		t.Fatal(err)
	}
	o.Params = params
	if got := string(o.JSON()); got != strings.Replace(want, `"registered_proof":"StackedDrg2KiBV1_1",`, "", 1) {
		t.Errorf("toy shape: %s", got)
	}
}

func TestParsePreCommit2(t *testing.T) {
	params, err := sealcore.ForProofType(5)
	if err != nil {
		t.Fatal(err)
	}
	toy, err := sealcore.ForShape("16KiB")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []sealcore.Params{params, toy} {
		want := &PreCommit2{Params: p, CommR: sealcore.Domain{1, 255}, CommD: sealcore.Domain{31: 9}}
		if got, err := ParsePreCommit2(p, want.JSON()); err != nil || *got != *want {
			t.Errorf("%s: got %+v, %v", p, got, err)
		}
	}
	good := string((&PreCommit2{Params: params}).JSON())
	for name, bad := range map[string]string{
		"empty":             "",
		"cut short":         good[:len(good)-1],
		"something follows": good + "{}",
		"unknown field":     strings.Replace(good, "{", `{"x":1,`, 1),
		"other proof type":  strings.Replace(good, "2KiBV1_1", "2KiBV1", 1),
		"no proof type":     strings.Replace(good, `"registered_proof":"StackedDrg2KiBV1_1",`, "", 1),
		"31 bytes":          strings.Replace(good, "[0,", "[", 1),
		"no byte":           strings.Replace(good, "[0,", "[256,", 1),
		"null":              strings.Replace(good, "[0,", "[null,", 1),
		"negative":          strings.Replace(good, "[0,", "[-1,", 1),
		"base64":            strings.Replace(good, `"comm_r":[0`+strings.Repeat(",0", 31)+`]`, `"comm_r":"AAAA"`, 1),
		"not in the field":  strings.Replace(good, ",0]", ",255]", 1),
	} {
		if bad == good {
			t.Fatalf("%s: not spoilt", name)
		}
		if got, err := ParsePreCommit2(params, []byte(bad)); err == nil {
			t.Errorf("%s: passes as %+v", name, got)
		}
	}
}
