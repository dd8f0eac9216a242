// Package version says which release this is.
package version

import "runtime/debug"

// Version is set by the linker (see the Makefile); a plain `go build` leaves it empty.
var Version string

// String returns the release, or the commit that a plain `go build` recorded, or "dev".
func String() string {
	if Version != "" {
		return Version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				return s.Value[:12]
			}
		}
	}
	return "dev"
}
