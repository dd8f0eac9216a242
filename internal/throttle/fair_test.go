package throttle

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestFair(t *testing.T) {
	for _, c := range []struct {
		limit       int64
		wants, want []int64
	}{
		{500, nil, []int64{}},
		{500, []int64{0}, []int64{500}},
		{500, []int64{0, 0, 0, 0}, []int64{125, 125, 125, 125}},
		{500, []int64{0, 50, 0}, []int64{225, 50, 225}},
		{500, []int64{100, 100}, []int64{100, 100}},
		{2, []int64{0, 0, 0}, []int64{1, 1, 1}},
	} {
		if got := Fair(c.limit, c.wants); !slices.Equal(got, c.want) {
			t.Errorf("%d among %v: %v, want %v", c.limit, c.wants, got, c.want)
		}
	}
}

func TestFairHoldsForAny(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.Int64Range(1000, 1<<40).Draw(t, "limit")
		wants := rapid.SliceOfN(rapid.Int64Range(0, 1<<40), 1, 50).Draw(t, "wants")
		parts := Fair(limit, wants)
		var sum, asked int64
		greedy := false
		for i, p := range parts {
			sum += p
			asked += wants[i]
			greedy = greedy || wants[i] == 0
			if wants[i] > 0 && p > wants[i] {
				t.Fatalf("%d gets %d and can use %d", i, p, wants[i])
			}
			// Nobody who could use more gets less than another.
			for j, q := range parts {
				if (wants[i] == 0 || p < wants[i]) && p < q-1 {
					t.Fatalf("%d gets %d and could use %d, %d gets %d", i, p, wants[i], j, q)
				}
			}
		}
		if sum > limit {
			t.Fatalf("%d of %d are given", sum, limit)
		}
		// Nothing is wasted but a rounding.
		if (greedy || asked >= limit) && sum < limit-int64(len(parts)) {
			t.Fatalf("only %d of %d are given, and more are asked for", sum, limit)
		}
	})
}
