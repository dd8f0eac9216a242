// Package page is the web page of a dispatcher: static files, built into the program, that
// read and act through the API under /v1 and know nothing else.
//
// The files hold nothing secret, so they are given to anybody who may connect; what they show
// they ask of the API, with the reader's token or cookie. The Content-Security-Policy lets the
// page load its own files and talk to its own server, and nothing else: no inline script or
// style, no other origin, no frames.
package page

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
)

//go:embed static
var static embed.FS

// policy is what the page may do; the page's code never builds HTML from text, and with
// trusted types the browser holds it to that.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Patterns are those of http.ServeMux under which Handler answers.
var Patterns = []string{"GET /{$}", "GET /page/"}

type file struct {
	kind   string
	etag   string
	plain  []byte
	zipped []byte
}

// files are compressed once: they are the same for every reader.
var files = sync.OnceValue(func() map[string]file {
	all := map[string]file{}
	_ = fs.WalkDir(static, "static", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := static.ReadFile(name)
		if err != nil {
			return err
		}
		var zipped bytes.Buffer
		z := gzip.NewWriter(&zipped)
		_, _ = z.Write(text) // a bytes.Buffer refuses nothing
		_ = z.Close()
		sum := sha256.Sum256(text)
		all[strings.TrimPrefix(name, "static/")] = file{
			kind: kind(name), etag: `"` + hex.EncodeToString(sum[:8]) + `"`, plain: text, zipped: zipped.Bytes(),
		}
		return nil
	}) // an embedded file system has no errors
	return all
})

// kind does not ask the machine's mime tables: some give scripts a type that browsers refuse.
func kind(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	}
	return mime.TypeByExtension(path.Ext(name))
}

// Handler answers GET / with the page and GET /page/… with its files.
func Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, isFile := strings.CutPrefix(r.URL.Path, "/page/")
		if r.URL.Path == "/" {
			name = "index.html"
		}
		f, known := files()[name]
		if !known || !isFile && r.URL.Path != "/" {
			http.Error(w, "no such page: the page is at /, the API under /v1 (see /v1/openapi.yaml)", http.StatusNotFound)
			return
		}
		head := w.Header()
		head.Set("Content-Security-Policy", policy)
		head.Set("X-Content-Type-Options", "nosniff")
		head.Set("Referrer-Policy", "no-referrer")
		head.Set("Cross-Origin-Opener-Policy", "same-origin")
		head.Set("Cross-Origin-Resource-Policy", "same-origin")
		head.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
		// Asked for again at each load, and answered with 304: a new dispatcher's page is
		// never mixed with files of an old one.
		head.Set("Cache-Control", "no-cache")
		head.Set("ETag", f.etag)
		head.Set("Vary", "Accept-Encoding")
		if r.Header.Get("If-None-Match") == f.etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		head.Set("Content-Type", f.kind)
		body := f.plain
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			head.Set("Content-Encoding", "gzip")
			body = f.zipped
		}
		head.Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body) // the reader has gone: nobody is left to tell
	})
}
