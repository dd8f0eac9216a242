package bus

import "sync"

// Words bounds the values that a label gets from the wire: the first so many different
// ones are let through, and every further one is "other". A program that makes up a new
// code for each failure must not fill a Prometheus.
type Words struct {
	mu   sync.Mutex
	most int
	seen map[string]struct{}
}

const (
	otherWord   = "other"
	longestWord = 64
)

// NewWords lets so many different values through.
func NewWords(most int) *Words { return &Words{most: most, seen: map[string]struct{}{}} }

// Known returns the word, or other.
func (w *Words) Known(word string) string {
	if word == "" || len(word) > longestWord {
		return otherWord
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.seen[word]; ok {
		return word
	}
	if len(w.seen) >= w.most {
		return otherWord
	}
	w.seen[word] = struct{}{}
	return word
}
