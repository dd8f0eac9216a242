package api

import (
	"crypto/sha256"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	shortestKey = 8
	longestKey  = 200
	mostKeys    = 10_000

	actWithin = 5 * time.Minute
)

// keys remembers the answers to requests with an Idempotency-Key, so that a request that is
// sent again (its answer was lost, a button was pressed twice) does nothing twice.
type keys struct {
	mu    sync.Mutex
	of    map[string]*kept
	order []string // oldest first
}

type kept struct {
	request [32]byte
	ready   chan struct{} // closed when the answer is there
	status  int
	body    []byte
}

func newKeys() *keys { return &keys{of: map[string]*kept{}} }

// begin returns the request's place; mine says that it is this caller's to fill.
func (k *keys) begin(key string, request [32]byte) (place *kept, mine bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p := k.of[key]; p != nil {
		return p, false
	}
	if len(k.order) >= mostKeys {
		delete(k.of, k.order[0])
		k.order = k.order[1:]
	}
	p := &kept{request: request, ready: make(chan struct{})}
	k.of[key] = p
	k.order = append(k.order, key)
	return p, true
}

// forget lets a request be tried again: it did not come to a decision.
func (k *keys) forget(key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.of, key)
}

// once reads a request's body, and answers it; again with the same answer if its key is known.
func (a *API) once(w http.ResponseWriter, r *http.Request, f func(*http.Request, []byte) (any, error)) {
	// Ten thousand sectors take longer to be written than a page to be read.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(actWithin)) // without it the server's own limit holds
	body, err := io.ReadAll(r.Body)
	if err != nil {
		answer(w, nil, err)
		return
	}
	key := r.Header.Get("Idempotency-Key")
	if key == "" {
		v, err := f(r, body)
		answer(w, v, err)
		return
	}
	if len(key) < shortestKey || len(key) > longestKey {
		answer(w, nil, failf(http.StatusBadRequest, "bad_request", "an Idempotency-Key has %d to %d characters", shortestKey, longestKey))
		return
	}
	request := sha256.Sum256([]byte(r.Method + " " + r.URL.Path + "\n" + string(body)))
	p, mine := a.keys.begin(key, request)
	if !mine {
		if p.request != request {
			answer(w, nil, failf(http.StatusConflict, "key_reused", "this Idempotency-Key was sent with another request").mended("use a new key for each request"))
			return
		}
		select {
		case <-p.ready:
			w.Header().Set("Idempotency-Replayed", "true")
			write(w, p.status, p.body)
		case <-r.Context().Done():
		}
		return
	}
	v, err := f(r, body)
	p.status, p.body = encode(v, err)
	if p.status >= http.StatusInternalServerError {
		a.keys.forget(key)
	}
	close(p.ready)
	write(w, p.status, p.body)
}
