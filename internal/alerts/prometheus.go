package alerts

import (
	"bytes"
	"fmt"
	"maps"

	"go.yaml.in/yaml/v3"
)

type ruleFile struct {
	Groups []ruleGroup `yaml:"groups"`
}

type ruleGroup struct {
	Name  string     `yaml:"name"`
	Rules []ruleYAML `yaml:"rules"`
}

type ruleYAML struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for,omitempty"`
	Keep        string            `yaml:"keep_firing_for,omitempty"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

// PrometheusRules are the rules as a file for Prometheus. runbooks stands before the file
// name of a runbook's page.
func PrometheusRules(runbooks string) ([]byte, error) {
	g := ruleGroup{Name: "sealfleet"}
	for _, r := range Rules() {
		y := ruleYAML{
			Alert: r.Name, Expr: r.Expr(), Labels: map[string]string{"severity": string(r.Severity)},
			Annotations: map[string]string{"summary": r.Summary, "mend": r.Mend, "runbook_url": runbooks + Page(r.Name)},
		}
		maps.Copy(y.Labels, r.More)
		if r.For > 0 {
			y.For = span(r.For)
		}
		if !r.Absent {
			y.Keep = span(unchanged)
		}
		g.Rules = append(g.Rules, y)
	}
	var b bytes.Buffer
	b.WriteString("# Made from internal/alerts by `make docs`; do not edit. `dispatcher alerts rules --runbooks URL` prints it with links to your copy of docs/runbooks.\n")
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(ruleFile{[]ruleGroup{g}}); err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	return b.Bytes(), enc.Close()
}
