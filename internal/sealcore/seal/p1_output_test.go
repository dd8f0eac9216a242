package seal

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/sealtest"
)

// sectorOf returns a vector's sector, with nothing that would make two of them alike.
func sectorOf(t testing.TB, v sealtest.Seal) Sector {
	return Sector{
		Params: v.Params(t), ProverID: sealcore.Domain(v.ProverID),
		Number: v.SectorNumber, Ticket: sealcore.Domain(v.Ticket),
	}
}

func outputOf(t testing.TB, name string) *PreCommit1 {
	v := sealtest.LoadVector(t, name)
	return &PreCommit1{
		Sector: sectorOf(t, v), CommD: sealcore.Domain(v.CommD),
		ReplicaID: sealcore.Domain(v.ReplicaID), Cache: "/a dir/\"ü\\\n<&>\u2028\x01",
	}
}

func commDJSON(o *PreCommit1) string {
	return strings.ReplaceAll(fmt.Sprint(o.CommD), " ", ",")
}

// The expected text follows the reference's types field by field as serde writes them.
func TestPreCommit1JSONIsTheReferences(t *testing.T) {
	const path = `"path":"/a dir/\"ü\\\n<&>` + "\u2028" + `\u0001"`
	labels := func(nodes int) string {
		return fmt.Sprintf(`{"labels":[{%s,"id":"layer-1","size":%d,"rows_to_discard":0},`+
			`{%[1]s,"id":"layer-2","size":%d,"rows_to_discard":0}],"_h":null}`, path, nodes, nodes)
	}
	o := outputOf(t, "2k-v1")
	want := `{"registered_proof":"StackedDrg2KiBV1","labels":{"StackedDrg2KiBV1":` + labels(64) +
		`},"config":{` + path + `,"id":"tree-d","size":127,"rows_to_discard":0},"comm_d":` + commDJSON(o) + `}`
	checkJSON(t, o, want)

	o = outputOf(t, "512m")
	want = `{"registered_proof":"StackedDrg512MiBV1_1","labels":{"StackedDrg512MiBV1":` + labels(1<<24) +
		`},"config":{` + path + `,"id":"tree-d","size":33554431,"rows_to_discard":0},"comm_d":` + commDJSON(o) + `}`
	checkJSON(t, o, want)

	o = outputOf(t, "32k")
	want = `{"labels":` + labels(1024) +
		`,"config":{` + path + `,"id":"tree-d","size":2047,"rows_to_discard":0},"comm_d":` + commDJSON(o) + `}`
	checkJSON(t, o, want)
}

func checkJSON(t *testing.T, o *PreCommit1, want string) {
	t.Helper()
	got, err := o.JSON()
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("JSON of %s:\n got %s\nwant %s", o.Sector.Params, got, want)
	}
	// And back, then completed with its sector.
	back, err := ParsePreCommit1(got)
	if err != nil {
		t.Fatal(err)
	}
	if back.CommD != o.CommD || back.Cache != o.Cache {
		t.Errorf("parsed %+v, want %+v", back, o)
	}
	if err := back.Bind(o.Sector); err != nil {
		t.Fatal(err)
	}
	if back.ReplicaID != o.ReplicaID || back.Sector != o.Sector {
		t.Errorf("bound %+v, want %+v", back, o)
	}
}

func TestPreCommit1JSONNeedsUTF8(t *testing.T) {
	o := outputOf(t, "2k")
	o.Cache = "/tmp/\xff"
	if b, err := o.JSON(); err == nil {
		t.Errorf("wrote %s", b)
	}
}

func TestPreCommit1ParseRefuses(t *testing.T) {
	o := outputOf(t, "2k")
	o.Cache = "/cache"
	good, err := o.JSON()
	if err != nil {
		t.Fatal(err)
	}
	last := fmt.Sprintf("%d]", o.CommD[31])
	for what, edit := range map[string][2]string{
		"proof type":      {`StackedDrg2KiBV1_1"`, `StackedDrg2KiBV1_1_Feat_SyntheticPoRep"`},
		"null proof type": {`"registered_proof":"StackedDrg2KiBV1_1"`, `"registered_proof":null`},
		"tag":             {`{"StackedDrg2KiBV1":`, `{"StackedDrg8MiBV1":`},
		"tree's name":     {`tree-d`, `tree-c`},
		"tree's size":     {`"size":127`, `"size":128`},
		"layer's size":    {`"size":64`, `"size":65`},
		"rows":            {`"rows_to_discard":0`, `"rows_to_discard":1`},
		"null size":       {`"size":64`, `"size":null`},
		"no id":           {`"id":"layer-1",`, ``},
		"layer twice":     {`layer-2`, `layer-1`},
		"unknown field":   {`"config":`, `"x":1,"config":`},
		"no comm_d":       {`"comm_d"`, `"comm_e"`},
		"short comm_d":    {`,` + last, `]`},
		"no byte":         {last, `256]`},
		"negative byte":   {last, `-1]`},
		"null byte":       {last, `null]`},
		"no node":         {last, `64]`},
		"cut":             {`]}`, `]`},
		"trailing":        {`]}`, `]}}`},
	} {
		bad := strings.Replace(string(good), edit[0], edit[1], 1)
		if what == "cut" || what == "trailing" {
			i := strings.LastIndex(string(good), edit[0])
			bad = string(good)[:i] + edit[1]
		}
		if bad == string(good) {
			t.Fatalf("%s: nothing was changed", what)
		}
		if _, err := ParsePreCommit1([]byte(bad)); err == nil {
			t.Errorf("%s: no error for %s", what, bad)
		}
	}

	other := outputOf(t, "2k-v1").Sector
	parsed, err := ParsePreCommit1(good)
	if err != nil {
		t.Fatal(err)
	}
	if err := parsed.Bind(other); err == nil {
		t.Error("bound an output to a sector of another proof type")
	}
}

func FuzzParsePreCommit1(f *testing.F) {
	for _, name := range []string{"2k", "32k"} {
		b, err := outputOf(f, name).JSON()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := ParsePreCommit1(data)
		if err != nil {
			return
		}
		b, err := o.JSON()
		if err != nil {
			t.Fatalf("read but not written: %v", err)
		}
		again, err := ParsePreCommit1(b)
		if err != nil || again.CommD != o.CommD || again.Sector != o.Sector {
			t.Fatalf("%+v came back as %+v, %v", o, again, err)
		}
	})
}

func TestTAuxIsTheReferences(t *testing.T) {
	for _, name := range []string{"2k", "8m", "512m", "16k", "32k"} {
		v := sealtest.LoadVector(t, name)
		p := v.Params(t)
		// The vectors' hash depends on a path that we don't know, their size only on its length.
		const onlyFixed = 0
		size := func(cache string) int64 {
			b, err := NewTAux(p, cache).MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			return int64(len(b))
		}
		stores := int64(p.Layers + 3)
		if rest := v.CacheAfterP2[TAuxName].Size - size(""); rest <= onlyFixed || rest%stores != 0 {
			t.Errorf("%s: t_aux has %d bytes without paths, the reference's %d with %d times its path",
				name, size(""), v.CacheAfterP2[TAuxName].Size, stores)
		}
	}
}

func TestAuxRoundTrip(t *testing.T) {
	for _, name := range sealcore.SizeNames() {
		p, err := sealcore.ForShape(name)
		if err != nil {
			t.Fatal(err)
		}
		want := NewTAux(p, "/somewhere/cache")
		b, err := want.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseTAux(b)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.Labels, want.Labels) || got.TreeC != want.TreeC || got.TreeD != want.TreeD || got.TreeRLast != want.TreeRLast {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
		if err := got.In("/elsewhere").Check(p); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, cut := range []int{0, 7, 8, len(b) / 2, len(b) - 1} {
			if _, err := ParseTAux(b[:cut]); err == nil {
				t.Errorf("%s: t_aux cut to %d bytes was read", name, cut)
			}
		}
		if _, err := ParseTAux(append(b, 0)); err == nil {
			t.Errorf("%s: t_aux with a byte too many was read", name)
		}
	}
	p2k, _ := sealcore.ForShape("2KiB")
	p8m, _ := sealcore.ForShape("8MiB")
	if err := NewTAux(p2k, "").Check(p8m); err == nil {
		t.Error("t_aux of 2 KiB passes for 8 MiB")
	}

	a := PAux{CommC: sealcore.Domain{1}, CommRLast: sealcore.Domain{2}}
	b, err := a.MarshalBinary()
	if err != nil || len(b) != 64 || b[0] != 1 || b[32] != 2 {
		t.Fatalf("p_aux %x, %v", b, err)
	}
	if got, err := ParsePAux(b); err != nil || got != a {
		t.Errorf("p_aux came back as %+v, %v", got, err)
	}
	if _, err := ParsePAux(b[:63]); err == nil {
		t.Error("a short p_aux was read")
	}
}

func FuzzParseTAux(f *testing.F) {
	p, _ := sealcore.ForShape("2KiB")
	b, _ := NewTAux(p, "/c").MarshalBinary()
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		if a, err := ParseTAux(data); err == nil {
			if b, _ := a.MarshalBinary(); string(b) != string(data) {
				t.Fatalf("%x came back as %x", data, b)
			}
		}
	})
}
