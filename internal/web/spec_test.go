package web_test

import (
	"net/http"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"sealfleet/internal/web"
)

// The specification is a good one, in both of its forms, and says the same in both.
func TestSpecIsServedAndValid(t *testing.T) {
	s := start(t, "127.0.0.1:0", web.Access{}, (*web.Server).HandleSpec)
	var operations [2]int
	for i, form := range []string{"yaml", "json"} {
		code, body := get(t, http.DefaultClient, s.URL()+"/v1/openapi."+form, "")
		if code != http.StatusOK {
			t.Fatalf("%s: %d %s", form, code, body)
		}
		doc, err := openapi3.NewLoader().LoadFromData([]byte(body))
		if err != nil {
			t.Fatalf("%s: %v", form, err)
		}
		if err := doc.Validate(t.Context()); err != nil {
			t.Errorf("%s: %v", form, err)
		}
		for _, p := range doc.Paths.Map() {
			operations[i] += len(p.Operations())
		}
	}
	if operations[0] < 30 || operations[0] != operations[1] {
		t.Errorf("operations: %v", operations)
	}
}
