package check

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
)

// known is a metric of docs/metrics.md, which a test of the main module holds against
// what real programs tell.
type known struct {
	kind   string
	labels []string
}

func metrics(t *testing.T) map[string]known {
	t.Helper()
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]known{}
	for line := range strings.SplitSeq(string(page), "\n") {
		cells := strings.Split(line, " | ")
		if !strings.HasPrefix(line, "| `sealfleet_") || len(cells) < 5 {
			continue
		}
		all[strings.Trim(cells[0], "| `")] = known{cells[1], strings.Split(cells[2], ", ")}
	}
	if len(all) < 50 {
		t.Fatalf("docs/metrics.md has only %d metrics", len(all))
	}
	return all
}

// What Prometheus adds to every series.
var added = []string{labels.MetricName, "instance", "job", "le"}

// check parses an expression, and holds the metrics and labels that it names against those
// that exist. It returns the metrics.
func check(t *testing.T, where, expr string, all map[string]known) (named []string) {
	t.Helper()
	e, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		t.Errorf("%s: %v in %s", where, err, expr)
		return nil
	}
	parser.Inspect(e, func(n parser.Node, path []parser.Node) error {
		v, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		name := v.Name
		m, is := all[name]
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base, cut := strings.CutSuffix(name, suffix); cut && all[base].kind == "histogram" {
				m, is, name = all[base], true, base
			}
		}
		if !is {
			t.Errorf("%s names %q, which does not exist", where, v.Name)
			return nil
		}
		named = append(named, name)
		for _, match := range v.LabelMatchers {
			if !slices.Contains(added, match.Name) && !slices.Contains(m.labels, match.Name) {
				t.Errorf("%s: %s has no label %q", where, name, match.Name)
			}
		}
		// What is grouped by must be there, or the answer is one number for everything.
		for _, p := range path {
			if a, ok := p.(*parser.AggregateExpr); ok && !a.Without {
				for _, l := range a.Grouping {
					if !slices.Contains(added, l) && !slices.Contains(m.labels, l) {
						t.Errorf("%s: %s has no label %q to group by", where, name, l)
					}
				}
			}
			if c, ok := p.(*parser.Call); ok && slices.Contains([]string{"rate", "increase"}, c.Func.Name) && m.kind == "gauge" && name != "sealfleet_bus_stream_last_sequence" {
				t.Errorf("%s: %s() of %s, a gauge", where, c.Func.Name, name)
			}
		}
		return nil
	})
	return named
}

func TestRulesNameWhatExists(t *testing.T) {
	all := metrics(t)
	text, err := os.ReadFile("../prometheus/sealfleet.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	rules := 0
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			rules++
			if len(check(t, "rule "+r.Alert, r.Expr, all)) == 0 {
				t.Errorf("rule %s names no metric", r.Alert)
			}
			if page := filepath.Join("../..", r.Annotations["runbook_url"]); page == "../.." {
				t.Errorf("rule %s has no runbook", r.Alert)
			} else if _, err := os.Stat(page); err != nil {
				t.Errorf("rule %s: %v", r.Alert, err)
			}
		}
	}
	if rules == 0 {
		t.Error("there are no rules")
	}
}

type panel struct {
	Title      string
	Type       string
	ID         int
	Datasource struct{ UID string }
	Targets    []struct {
		Expr       string
		Datasource struct{ UID string }
	}
	Panels []panel
}

var variable = regexp.MustCompile(`\$\{?(\w+)\}?`)

func TestDashboardsNameWhatExists(t *testing.T) {
	all := metrics(t)
	files, err := filepath.Glob("../grafana/dashboards/*.json")
	if err != nil || len(files) != 4 {
		t.Fatalf("%v %v: want fleet, group, host and bus", files, err)
	}
	uids := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var d struct {
			UID, Title string
			Panels     []panel
			Templating struct {
				List []struct{ Name, Type, Definition string }
			}
		}
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if d.UID+".json" != filepath.Base(file) || uids[d.UID] {
			t.Errorf("%s has the uid %q", file, d.UID)
		}
		uids[d.UID] = true
		variables := map[string]bool{}
		for _, v := range d.Templating.List {
			variables[v.Name] = true
			if expr, ok := strings.CutPrefix(v.Definition, "label_values("); ok {
				series, label, _ := strings.Cut(strings.TrimSuffix(expr, ")"), ", ")
				for _, name := range check(t, file+" $"+v.Name, series, all) {
					if !slices.Contains(all[name].labels, label) && !slices.Contains(added, label) {
						t.Errorf("%s: %s has no label %q", file, name, label)
					}
				}
			}
		}
		if !variables["datasource"] {
			t.Errorf("%s has no variable for its data source", file)
		}
		ids := map[int]bool{}
		for _, p := range d.Panels {
			if ids[p.ID] {
				t.Errorf("%s: two panels have the id %d", file, p.ID)
			}
			ids[p.ID] = true
			for _, target := range p.Targets {
				where := filepath.Base(file) + ", " + p.Title
				if target.Datasource.UID != "${datasource}" || p.Datasource.UID != "${datasource}" {
					t.Errorf("%s: not the data source of the variable", where)
				}
				for _, m := range variable.FindAllStringSubmatch(target.Expr, -1) {
					if !variables[m[1]] {
						t.Errorf("%s: no variable $%s", where, m[1])
					}
				}
				if len(check(t, where, variable.ReplaceAllString(target.Expr, "x"), all)) == 0 {
					t.Errorf("%s names no metric", where)
				}
			}
		}
	}
}

// A check that finds nothing wrong must be able to.
func TestCheckFindsWhatIsWrong(t *testing.T) {
	all := map[string]known{"a_total": {"counter", []string{"x"}}}
	for _, expr := range []string{`rate(b_total[5m])`, `a_total{y="1"}`, `sum by (y) (a_total)`, `sum(`} {
		probe := &testing.T{}
		if check(probe, "probe", expr, all); !probe.Failed() {
			t.Errorf("%s is let through", expr)
		}
	}
	if named := check(t, "probe", `sum by (x) (rate(a_total{x="1"}[5m]))`, all); !slices.Equal(named, []string{"a_total"}) {
		t.Errorf("%v", named)
	}
}
