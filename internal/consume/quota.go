package consume

import (
	"context"
	"sync"
	"time"

	"sealfleet/internal/storage"
)

// quotas knows how full the object stores are that have a quota: a bucket does not tell,
// but it can be listed. Between two listings only this host's own copies are added, so
// hosts that fill one bucket together may pass its quota by what all of them copy within
// listingFresh; keep= leaves room for that.
type quotas struct {
	mu    sync.Mutex
	nodes map[string]*filling
}

// filling is what is known of one store.
type filling struct {
	listed time.Time
	bytes  int64                // that lay there
	copies map[string]*quotaUse // by sector: what the listing may not have seen
}

type quotaUse struct {
	bytes int64
	ended time.Time // zero: it runs
}

const (
	// listingFresh is how old a listing may be: each costs a request for every thousand objects.
	listingFresh = 10 * time.Minute
	// listingWithin ends one that does not come to an end.
	listingWithin = 10 * time.Minute
)

func (q *quotas) at(node string) *filling {
	f := q.nodes[node]
	if f == nil {
		f = &filling{copies: map[string]*quotaUse{}}
		if q.nodes == nil {
			q.nodes = map[string]*filling{}
		}
		q.nodes[node] = f
	}
	return f
}

// free returns what a store may still take beside what other sectors' copies will add. It
// lists the store if nobody did lately, which may take minutes; one at a time may ask for a node.
func (q *quotas) free(n Node, sector string) (int64, error) {
	q.mu.Lock()
	fresh := time.Since(q.at(n.Name).listed) < listingFresh
	q.mu.Unlock()
	if !fresh {
		if err := q.list(n); err != nil {
			return 0, err
		}
	}
	free, _ := q.known(n, sector)
	return free, nil
}

func (q *quotas) list(n Node) error {
	store, err := storage.OpenStore(n.Dir, n.S3)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), listingWithin)
	defer cancel()
	began := time.Now()
	bytes, err := store.Used(ctx)
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	f := q.at(n.Name)
	f.listed, f.bytes = time.Now(), bytes
	for sector, c := range f.copies {
		if !c.ended.IsZero() && c.ended.Before(began) {
			delete(f.copies, sector)
		}
	}
	return nil
}

// known returns what free does from what was listed last, and whether anything was.
func (q *quotas) known(n Node, sector string) (free int64, known bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	f := q.at(n.Name)
	free = n.Quota - f.bytes
	for other, c := range f.copies {
		if other != sector {
			free -= c.bytes
		}
	}
	return free, !f.listed.IsZero()
}

// take counts a copy that begins. Whether it succeeds, the next listing tells.
func (q *quotas) take(n Node, sector string, bytes int64) (ended func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := &quotaUse{bytes: bytes}
	q.at(n.Name).copies[sector] = c
	return func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		c.ended = time.Now()
	}
}
