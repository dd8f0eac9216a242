package web

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Build is what a program was built from.
type Build struct {
	Version  string `json:"version"`
	Revision string `json:"revision"`
	Modified bool   `json:"modified"` // the tree had changes that the revision lacks
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// ReadBuild reads what the linker recorded. version is the release's, set by the linker's
// -X; if it is empty, the module's version is taken.
func ReadBuild(version string) Build {
	b := Build{Version: version, Revision: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if ok {
		if b.Version == "" {
			b.Version = info.Main.Version
		}
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Revision = s.Value
			case "vcs.modified":
				b.Modified = s.Value == "true"
			}
		}
	}
	if b.Version == "" {
		b.Version = "(devel)"
	}
	return b
}

// String is a line for people.
func (b Build) String() string {
	changed := ""
	if b.Modified {
		changed = " with changes"
	}
	return fmt.Sprintf("%s (revision %s%s, %s, %s)", b.Version, b.Revision, changed, b.Go, b.Platform)
}

// NewRegistry makes a registry of one's own (nothing that a library registers by itself
// gets in) with the program's build and the runtime's and process's numbers.
func NewRegistry(program string, b Build) *prometheus.Registry {
	r := prometheus.NewRegistry()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sealfleet_build_info", Help: "What this program was built from; always 1.",
		ConstLabels: prometheus.Labels{"program": program, "version": b.Version, "revision": b.Revision, "goversion": b.Go},
	})
	info.Set(1)
	r.MustRegister(info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}
