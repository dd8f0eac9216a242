//go:build browser

package page_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// chromium finds the browser: CHROMIUM, or the one of the path.
func chromium(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("CHROMIUM"); path != "" {
		return path
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("these tests need a browser: apt-get install chromium, or name one in CHROMIUM")
	return ""
}

// tab is a page in a browser of its own; whatever it complains of fails the test.
type tab struct {
	*testing.T
	ctx  context.Context
	base string

	mu         sync.Mutex
	complaints []string
	allowed    func(string) bool
}

func (f *farm) open(path string) *tab { return openAt(f.T, f.url, path) }

func openAt(t *testing.T, base, path string) *tab {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium(t)), chromedp.WSURLReadTimeout(patience), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.WindowSize(1440, 900),
		// It shall talk to nobody but the page's own server.
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-background-networking", true))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx, chromedp.WithErrorf(func(string, ...any) {})) // events newer than the library
	t.Cleanup(cancel)
	b := &tab{T: t, ctx: ctx, base: base}
	chromedp.ListenTarget(ctx, func(event any) {
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			b.complain(e.ExceptionDetails.Error())
		case *runtime.EventConsoleAPICalled:
			if e.Type == runtime.APITypeError || e.Type == runtime.APITypeWarning || e.Type == runtime.APITypeAssert {
				b.complain(fmt.Sprint(e.Type, " ", e.Args))
			}
		case *log.EventEntryAdded:
			if e.Entry.Level == log.LevelError || e.Entry.Level == log.LevelWarning {
				b.complain(e.Entry.Text + " " + e.Entry.URL)
			}
		}
	})
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, c := range b.complaints {
			t.Errorf("the browser complains: %s", c)
		}
		if t.Failed() && ctx.Err() == nil {
			var text string
			if chromedp.Run(ctx, chromedp.Evaluate(`document.body.innerText`, &text)) == nil {
				t.Logf("the page says:\n%.3000s", text)
			}
		}
	})
	// The browser lives as long as the context that starts it: not one that ends with an action.
	must(t, chromedp.Run(ctx))
	b.run(chromedp.Navigate(base + path))
	return b
}

func (b *tab) complain(what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.allowed == nil || !b.allowed(what) {
		b.complaints = append(b.complaints, what)
	}
}

// allow lets the browser complain of what a test brings about, and may have brought about when
// the page was opened.
func (b *tab) allow(f func(string) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.allowed = f
	b.complaints = slices.DeleteFunc(b.complaints, f)
}

func (b *tab) run(actions ...chromedp.Action) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Run(ctx, actions...); err != nil {
		b.Fatalf("the browser: %v", err)
	}
}

// until waits until an expression is true in the page.
func (b *tab) until(what, js string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	// The body runs at each frame; what is not there yet is not true yet.
	if err := chromedp.Run(ctx, chromedp.Poll(`(() => { try { return Boolean(`+js+`); } catch { return false; } })()`, nil, chromedp.WithPollingTimeout(patience))); err != nil {
		b.Fatalf("never happened: %s (%s): %v", what, js, err)
	}
}

// text is what the first element of a selector says.
func (b *tab) text(selector string) string {
	b.Helper()
	var s string
	b.run(chromedp.Evaluate(fmt.Sprintf(`document.querySelector(%q)?.innerText ?? "(nothing there)"`, selector), &s))
	return strings.TrimSpace(s)
}

func (b *tab) eval(js string, v any) {
	b.Helper()
	b.run(chromedp.Evaluate(js, v))
}

// show shows another view of the page without loading it anew.
func (b *tab) show(hash string) {
	b.Helper()
	b.eval(fmt.Sprintf(`location.hash = %q`, hash), nil)
}

func (b *tab) press(keys string) {
	b.Helper()
	for _, k := range keys {
		key, text := string(k), string(k)
		if name, special := map[rune]string{'\r': "Enter", '\x1b': "Escape"}[k]; special {
			key, text = name, strings.TrimSuffix(text, "\x1b")
		}
		// As a keyboard does it: what the page prevents is not typed.
		code := map[string]int64{"Enter": 13, "Escape": 27}[key]
		b.run(input.DispatchKeyEvent(input.KeyDown).WithKey(key).WithText(text).WithWindowsVirtualKeyCode(code), input.DispatchKeyEvent(input.KeyUp).WithKey(key).WithWindowsVirtualKeyCode(code))
	}
}

func (b *tab) click(selector string) {
	b.Helper()
	b.run(chromedp.Click(selector, chromedp.ByQuery))
}

func (b *tab) scheme(name string) {
	b.Helper()
	b.run(emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}}))
}

// picture keeps what the page looks like in SCREENSHOTS, if that is set.
func (b *tab) picture(name string) {
	b.Helper()
	dir := os.Getenv("SCREENSHOTS")
	if dir == "" {
		return
	}
	must(b.T, os.MkdirAll(dir, 0o755))
	for _, look := range []struct {
		name, scheme  string
		width, height int64
	}{{"light", "light", 1440, 900}, {"dark", "dark", 1440, 900}, {"phone", "light", 390, 844}} {
		var picture []byte
		b.scheme(look.scheme)
		b.run(chromedp.EmulateViewport(look.width, look.height), chromedp.Evaluate(`new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)))`, nil, func(p *runtime.EvaluateParams) *runtime.EvaluateParams {
			return p.WithAwaitPromise(true)
		}), chromedp.CaptureScreenshot(&picture))
		must(b.T, os.WriteFile(filepath.Join(dir, name+"-"+look.name+".png"), picture, 0o644))
	}
	b.run(chromedp.EmulateViewport(1440, 900))
	b.scheme("light")
}
