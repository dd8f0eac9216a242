package web

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"sealfleet/internal/version"
)

// NewRegistry makes a registry of one's own (nothing that a library registers by itself
// gets in) with the program's build and the runtime's and process's numbers.
func NewRegistry(program string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sealfleet_build_info", Help: "What this program was built from; always 1.",
		ConstLabels: prometheus.Labels{"program": program, "version": version.String(), "goversion": runtime.Version()},
	})
	info.Set(1)
	r.MustRegister(info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}
