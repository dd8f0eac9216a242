package page_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"sealfleet/internal/web/page"
)

func ask(t *testing.T, path string, head map[string]string) *http.Response {
	t.Helper()
	mux := http.NewServeMux()
	for _, p := range page.Patterns {
		mux.Handle(p, page.Handler())
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	for k, v := range head {
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	return w.Result()
}

func text(t *testing.T, r *http.Response) string {
	t.Helper()
	defer func() { _ = r.Body.Close() }()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The page and each file carry the policy, and the policy allows nothing inline.
func TestThePolicyIsStrict(t *testing.T) {
	for _, path := range []string{"/", "/page/app.js", "/page/base.css"} {
		r := ask(t, path, nil)
		_ = r.Body.Close()
		if r.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d", path, r.StatusCode)
		}
		p := r.Header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"} {
			if !strings.Contains(p, want) {
				t.Errorf("%s: the policy lacks %s: %q", path, want, p)
			}
		}
		if strings.Contains(p, "unsafe") || strings.Contains(p, "http") {
			t.Errorf("%s: the policy lets too much through: %q", path, p)
		}
		if r.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: browsers may guess its type", path)
		}
	}
}

var (
	asset    = regexp.MustCompile(`(?:src|href)="([^"#]+)"`)
	imported = regexp.MustCompile(`(?m)from "\./([a-z]+\.js)";`)
	inline   = regexp.MustCompile(`(?i)<script>|<style|\sstyle=|\son[a-z]+="|javascript:`)
	sinks    = regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function`)
)

// Whatever the page names is in the program, of the type that browsers want, and each module
// is asked for at once rather than when another one turns out to need it.
func TestThePageIsWhole(t *testing.T) {
	index := text(t, ask(t, "/", nil))
	if m := inline.FindString(index); m != "" {
		t.Errorf("the page has something inline, which its policy forbids: %q", m)
	}
	named := map[string]bool{}
	for _, m := range asset.FindAllStringSubmatch(index, -1) {
		path := m[1]
		if !strings.HasPrefix(path, "/page/") {
			t.Errorf("%s is not the page's own", path)
			continue
		}
		named[strings.TrimPrefix(path, "/page/")] = true
	}
	if len(named) < 10 {
		t.Fatalf("only %d files are named", len(named))
	}
	for name := range named {
		r := ask(t, "/page/"+name, nil)
		body := text(t, r)
		if r.StatusCode != http.StatusOK {
			t.Errorf("%s: %d", name, r.StatusCode)
			continue
		}
		if !strings.HasSuffix(name, ".js") {
			continue
		}
		if kind := r.Header.Get("Content-Type"); kind != "text/javascript; charset=utf-8" {
			t.Errorf("%s: %s", name, kind)
		}
		if m := sinks.FindString(body); m != "" {
			t.Errorf("%s makes code or HTML of text: %s", name, m)
		}
		for _, m := range imported.FindAllStringSubmatch(body, -1) {
			if !named[m[1]] {
				t.Errorf("%s needs %s, which the page does not load ahead", name, m[1])
			}
		}
	}
}

func TestFilesAreAskedForAgainAndSentOnce(t *testing.T) {
	r := ask(t, "/page/app.js", nil)
	plain := text(t, r)
	if r.Header.Get("Cache-Control") != "no-cache" || r.Header.Get("ETag") == "" {
		t.Errorf("a new dispatcher's page could be mixed with an old one's: %v", r.Header)
	}
	again := ask(t, "/page/app.js", map[string]string{"If-None-Match": r.Header.Get("ETag")})
	if body := text(t, again); again.StatusCode != http.StatusNotModified || body != "" {
		t.Errorf("%d, %d bytes", again.StatusCode, len(body))
	}
	zipped := ask(t, "/page/app.js", map[string]string{"Accept-Encoding": "gzip"})
	defer func() { _ = zipped.Body.Close() }()
	z, err := gzip.NewReader(zipped.Body)
	if err != nil {
		t.Fatal(err)
	}
	unzipped, err := io.ReadAll(z)
	if err != nil || string(unzipped) != plain {
		t.Errorf("compressed, it is another file (%v)", err)
	}
}

func TestWhatIsNotThereIsNotFound(t *testing.T) {
	for _, path := range []string{"/page/", "/page/none.js", "/page/../page.go", "/other", "/page/%2e%2e/page.go"} {
		r := ask(t, path, nil)
		if body := text(t, r); r.StatusCode == http.StatusOK {
			t.Errorf("%s: %d %.60s", path, r.StatusCode, body)
		}
	}
}
