package engine

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sealfleet/internal/phases"
)

type schemaNode struct {
	Required   []string
	Properties map[string]schemaNode
	Items      *schemaNode
	Const      any
	Enum       []string
}

// The published schema knows every field that the protocol's types have, and no other.
func TestSchemaIsThatOfTheTypes(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../docs/engine-protocol.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Defs map[string]schemaNode `json:"$defs"`
	}
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	defs := schema.Defs
	request := defs["request"]
	for name, test := range map[string]struct {
		node  schemaNode
		typ   reflect.Type
		extra []string
	}{
		"request": {request, reflect.TypeFor[Request](), []string{"limits", "scratch"}}, "paths": {request.Properties["paths"], reflect.TypeFor[Paths](), nil},
		"proof": {request.Properties["proof"], reflect.TypeFor[Proof](), nil}, "limits": {request.Properties["limits"], reflect.TypeFor[Bounds](), nil},
		"pieces": {*request.Properties["pieces"].Items, reflect.TypeFor[phases.Piece](), nil}, "control": {defs["control"], reflect.TypeFor[control](), nil},
		"progress": {defs["progress"], reflect.TypeFor[Progress](), []string{"type"}}, "result": {defs["result"], reflect.TypeFor[Result](), []string{"type"}},
		"error": {defs["error"], reflect.TypeFor[Error](), []string{"type"}},
	} {
		want, must := jsonNames(test.typ)
		want = append(want, test.extra...)
		slices.Sort(want)
		if got := sortedNames(test.node.Properties); !slices.Equal(got, want) {
			t.Errorf("%s: schema has %v, the type %v", name, got, want)
		}
		for _, field := range test.node.Required {
			if field != "type" && field != "outputs" && !slices.Contains(must, field) {
				t.Errorf("%s: %s is required, yet the type may leave it out", name, field)
			}
		}
	}
	if v := request.Properties["v"].Const; v != float64(Version) {
		t.Errorf("schema is of version %v", v)
	}

	// Builtin gives just the outputs that it names.
	for _, p := range []phases.Step{phases.P1, phases.P2, phases.P3} {
		result, err := execEngine(t, "builtin").Run(t.Context(), sectorRequest(t, "2k", p), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := sortedKeys(result.Outputs), sortedNames(defs["outputs_"+string(p)].Properties); !slices.Equal(got, want) {
			t.Errorf("%s: outputs %v, schema %v", p, got, want)
		}
	}
}

func jsonNames(typ reflect.Type) (all, always []string) {
	for f := range typ.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		all = append(all, name)
		if options == "" {
			always = append(always, name)
		}
	}
	return all, always
}

func sortedNames(m map[string]schemaNode) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
