package web

import (
	_ "embed" // the specification
	"encoding/json"
	"fmt"
	"net/http"
	"sync"

	"go.yaml.in/yaml/v3"
)

// Spec is the HTTP API's specification, OpenAPI 3.1 in YAML. Handlers are tested against it.
//
//go:embed openapi.yaml
var Spec []byte

// SpecJSON is the same as JSON.
var SpecJSON = sync.OnceValues(func() ([]byte, error) {
	var doc any
	if err := yaml.Unmarshal(Spec, &doc); err != nil {
		return nil, fmt.Errorf("openapi.yaml: %w", err)
	}
	return json.MarshalIndent(doc, "", "  ")
})

// HandleSpec serves the specification.
func (s *Server) HandleSpec() {
	s.Handle("GET /v1/openapi.yaml", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(Spec) // the client has gone: nobody is left to tell
	}))
	s.Handle("GET /v1/openapi.json", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		doc, err := SpecJSON()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(doc)
	}))
}
