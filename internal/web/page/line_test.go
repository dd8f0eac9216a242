//go:build browser

package page_test

import (
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"

	"sealfleet/internal/web"
)

// line is the network between the browser and the dispatcher; it can be cut.
type line struct {
	net.Listener
	mu   sync.Mutex
	cut  bool
	open map[net.Conn]bool
}

func newLine(t *testing.T, to string) *line {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := &line{Listener: l, open: map[net.Conn]bool{}}
	var all sync.WaitGroup
	pass := func(from, into net.Conn) {
		_, _ = io.Copy(into, from)
		from.Close()
		into.Close()
	}
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			there, err := net.Dial("tcp", to)
			if err != nil || !p.join(c, there) {
				c.Close()
				continue
			}
			all.Go(func() { pass(c, there) })
			all.Go(func() { pass(there, c) })
		}
	})
	t.Cleanup(func() { l.Close(); p.set(true); all.Wait() })
	return p
}

func (p *line) join(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		if p.cut {
			c.Close()
		} else {
			p.open[c] = true
		}
	}
	return !p.cut
}

// set cuts the line, or mends it.
func (p *line) set(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	for c := range p.open {
		if cut {
			c.Close()
			delete(p.open, c)
		}
	}
}

// A lost connection is said in words; when it is back, what came between is there.
func TestALostConnectionIsSaidAndMended(t *testing.T) {
	f := newFarm(t, farmOptions{})
	p := newLine(t, strings.TrimPrefix(f.url, "http://"))
	b := openAt(t, "http://"+p.Addr().String(), "/")
	b.allow(func(c string) bool { return strings.Contains(c, "net::ERR_") })
	b.until("the page is live", `document.getElementById("link").innerText === "live"`)
	f.submit(1, 1)
	b.until("the first event is shown", `document.querySelectorAll(".ev").length > 0`)
	p.set(true)
	b.until("the loss is said", `document.getElementById("link").innerText === "connection lost"`)
	b.until("with the age of what is shown", `/connection to the dispatcher is lost.*old/.test(document.getElementById("banner").innerText)`)
	f.submit(2, 1)
	p.set(false)
	b.eval(`document.querySelector("#banner button")?.click()`, nil) // the page may be quicker
	b.until("the page is live again", `document.getElementById("link").innerText === "live" && document.getElementById("banner").innerText === ""`)
	b.until("what was missed is there", `[...document.querySelectorAll(".ev")].some((e) => e.innerText.includes("s-t01000-2"))`)
	b.until("and counted", `document.querySelector(".stage.at-p1 .n-waiting b").innerText === "2"`)
	var twice bool
	b.eval(`(() => { const ids = [...document.querySelectorAll(".ev")].map((e) => e.dataset.event); return new Set(ids).size !== ids.length; })()`, &twice)
	if twice {
		t.Error("an event is shown twice")
	}
}

// With a token, the page asks for it, and then shows everything.
func TestSigningIn(t *testing.T) {
	const token = "a-token-that-is-long-enough"
	path := t.TempDir() + "/token"
	must(t, os.WriteFile(path, []byte(token), 0o600))
	f := newFarm(t, farmOptions{access: web.Access{TokenFile: path}, unasked: true})
	b := openAt(t, f.url, "/")
	b.allow(func(c string) bool { return strings.Contains(c, "401") })
	b.until("the token is asked for", `document.querySelector("dialog input[type=password]")`)
	b.run(chromedp.SendKeys("dialog input", "wrong-wrong-wrong-wrong\r", chromedp.ByQuery))
	b.until("a wrong one is refused", `document.querySelector("dialog .trouble").innerText.includes("not the token")`)
	b.eval(`document.querySelector("dialog input").value = ""`, nil)
	b.run(chromedp.SendKeys("dialog input", token+"\r", chromedp.ByQuery))
	b.until("the flow is shown", `document.querySelectorAll(".stage").length === 8 && !document.querySelector("dialog")`)
	b.until("and it is live", `document.getElementById("link").innerText === "live"`)

	// What was asked before somebody signed in, and is refused after it, asks for nothing; what
	// is asked now and refused does.
	var asks []bool
	b.run(chromedp.Evaluate(`(async () => {
		const api = await import("/page/api.js");
		const refused = async (asked) => {
			await api.check(new Response("{}", { status: 401 }), asked).catch(() => {});
			return document.querySelector("dialog") !== null;
		};
		return [await refused(api.current() - 1), await refused(api.current())];
	})()`, &asks, awaited))
	if !slices.Equal(asks, []bool{false, true}) {
		t.Errorf("whether the token is asked for again: %v, want false, true", asks)
	}
}
