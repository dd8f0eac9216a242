package throttle

import (
	"math"
	"slices"
)

// Fair divides a limit among those who want a part of it: all get equally much, but
// nobody more than he can use, and what one cannot use the others share (max-min
// fairness). wants are what each can use, 0 for any amount. The parts together are never
// more than the limit; each is at least 1, so that nobody stands still for good.
func Fair(limit int64, wants []int64) []int64 {
	parts := make([]int64, len(wants))
	order := make([]int, len(wants))
	for i := range wants {
		order[i] = i
	}
	most := func(i int) int64 {
		if wants[i] <= 0 {
			return math.MaxInt64
		}
		return wants[i]
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case most(a) < most(b):
			return -1
		case most(a) > most(b):
			return 1
		}
		return 0
	})
	left := limit
	for n, i := range order {
		even := left / int64(len(order)-n)
		parts[i] = max(min(even, most(i)), 1)
		left = max(left-parts[i], 0)
	}
	return parts
}
