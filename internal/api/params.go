package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"hash/fnv"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"sealfleet/internal/dispatch"
	"sealfleet/internal/phases"
)

const (
	usualPage = 100
	mostPage  = 1000
)

// params reads a query, and remembers the first thing that is wrong with it.
type params struct {
	values url.Values
	err    error
	used   map[string]bool
}

func query(r *http.Request) *params {
	p := &params{used: map[string]bool{}}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		p.err = failf(http.StatusBadRequest, "bad_query", "the query cannot be read: %v", err)
	}
	p.values = values
	return p
}

func (p *params) bad(name, format string, args ...any) {
	if p.err == nil {
		p.err = failf(http.StatusBadRequest, "bad_query", name+": "+format, args...)
	}
}

func (p *params) text(name string) string {
	p.used[name] = true
	v := p.values[name]
	if len(v) > 1 {
		p.bad(name, "given twice")
	}
	if len(v) == 0 {
		return ""
	}
	return v[0]
}

// list reads words with commas between them, of those that are allowed (nil: any).
func (p *params) list(name string, allowed []string) (words []string) {
	text := p.text(name)
	if text == "" {
		return nil
	}
	for w := range strings.SplitSeq(text, ",") {
		if allowed != nil && !slices.Contains(allowed, w) {
			p.bad(name, "%q is unknown: use %s", w, strings.Join(allowed, ", "))
		}
		words = append(words, w)
	}
	return words
}

func (p *params) groups() (groups []string) {
	for _, g := range p.list("group", nil) {
		name, err := phases.ParseGroup(g)
		if err != nil {
			p.bad("group", "%v", err)
		}
		groups = append(groups, name)
	}
	return groups
}

func (p *params) steps() (steps []phases.Step) {
	var all []string
	for _, s := range phases.Steps() {
		all = append(all, string(s))
	}
	for _, s := range p.list("phase", all) {
		steps = append(steps, phases.Step(s))
	}
	return steps
}

func (p *params) flag(name string, most int) *int {
	n, ok := dispatch.ParseFlag(p.text(name), most)
	if !ok {
		p.bad(name, "use a number from 0 to %d", most)
	}
	return n
}

func (p *params) yes(name string) bool {
	text := p.text(name)
	if text == "" {
		return false
	}
	yes, err := strconv.ParseBool(text)
	if err != nil {
		p.bad(name, "use true or false")
	}
	return yes
}

// cursor is where a page ends. It is bound to the list's filters and order: with others it
// would point nowhere.
type cursor struct {
	List uint64       `json:"l"`
	Key  dispatch.Key `json:"k"`
}

// fingerprint is of the path and all parameters but limit and cursor.
func fingerprint(r *http.Request, values url.Values) uint64 {
	h := fnv.New64a()
	rest := url.Values{}
	for k, v := range values {
		if k != "limit" && k != "cursor" {
			rest[k] = v
		}
	}
	_, _ = h.Write([]byte(r.URL.Path + "?" + rest.Encode())) // never fails
	return h.Sum64()
}

func (p *params) page(r *http.Request) (limit int, after *dispatch.Key) {
	limit = usualPage
	if text := p.text("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > mostPage {
			p.bad("limit", "use 1 to %d", mostPage)
		}
		limit = n
	}
	text := p.text("cursor")
	if text == "" {
		return limit, nil
	}
	var c cursor
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil || c.List != fingerprint(r, p.values) {
		if p.err == nil {
			p.err = failf(http.StatusBadRequest, "bad_cursor", "the cursor is damaged, or of a list with other filters").mended("begin again without a cursor")
		}
		return limit, nil
	}
	return limit, &c.Key
}

// done returns what was wrong; a parameter that nobody read is.
func (p *params) done() error {
	for name := range p.values {
		if !p.used[name] {
			p.bad(name, "there is no such parameter here")
		}
	}
	return p.err
}

func next(r *http.Request, p *params, key *dispatch.Key) string {
	if key == nil {
		return ""
	}
	data, err := json.Marshal(cursor{fingerprint(r, p.values), *key})
	if err != nil {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(data)
}

// sectorOf reads the sector of a path.
func (a *API) sectorOf(r *http.Request) (string, error) {
	text := r.PathValue("sector")
	id, err := phases.ParseSector(text)
	switch {
	case errors.Is(err, phases.ErrNoSector), strings.Contains(text, "/"): // 1000/7 would be two parts of a path
		return "", failf(http.StatusBadRequest, "bad_sector", "%q is no sector", text).mended("write s-t01000-7 or f01000-7")
	case err != nil:
		return "", failf(http.StatusBadRequest, "bad_sector", "%q is no sector: its numbers are too large", text)
	}
	if a.Dispatcher.Known(id) {
		return id, nil
	}
	if err := a.Dispatcher.Ready(); err != nil {
		return "", failf(http.StatusServiceUnavailable, "starting", "the sector %s is not known yet: %v", id, err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), seenWithin)
	defer cancel()
	known, near, err := a.Dispatcher.Find(ctx, id)
	if err != nil {
		return "", failf(http.StatusServiceUnavailable, "starting", "the sector %s is not known yet: this dispatcher has read the log up to %d: %v", id, a.Dispatcher.Position(), err)
	}
	if known {
		return id, nil
	}
	f := failf(http.StatusNotFound, "unknown_sector", "no such sector: %s", id)
	f.Near = near
	return "", f
}
