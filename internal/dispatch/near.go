package dispatch

import (
	"iter"
	"slices"

	"github.com/agnivade/levenshtein"
)

// Near returns the names that look most like one that does not exist, at most three; of
// equals those that come first.
func Near(name string, among iter.Seq[string]) []string {
	type candidate struct {
		name     string
		distance int
	}
	const farthest, most = 3, 3
	var all []candidate
	for other := range among {
		if len(other) > len(name)+farthest || len(name) > len(other)+farthest {
			continue // each letter more or less counts
		}
		if d := levenshtein.ComputeDistance(other, name); d <= farthest {
			all = append(all, candidate{other, d})
		}
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return a.distance - b.distance })
	names := []string{}
	for _, c := range all[:min(most, len(all))] {
		names = append(names, c.name)
	}
	return names
}
