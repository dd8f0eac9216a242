//go:build browser

package page_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"sealfleet/internal/phases"
)

// parkedFarm has sector 3 parked at p1, and 1 and 2 waiting for p2; one host tells of itself.
func parkedFarm(t *testing.T) *farm {
	f := newFarm(t, farmOptions{})
	f.fail = firstFails(3)
	f.submit(1, 3)
	f.work(phases.P1)
	f.until("sector 3 is parked", func() bool { return f.state("s-t01000-3") == "parked" })
	type total struct {
		Total int `json:"total"`
	}
	f.until("the others wait for p2", func() bool {
		var v total
		f.get("/v1/jobs?phase=p2&state=waiting", &v)
		return v.Total == 2
	})
	f.tell("h1")
	f.until("the host is known", func() bool {
		var v total
		f.get("/v1/hosts?state=up", &v)
		return v.Total == 1
	})
	return f
}

// Each view shows what the API says, with the same numbers.
func TestViewsShowWhatTheAPISays(t *testing.T) {
	f := parkedFarm(t)
	b := f.open("/")
	b.until("the flow is shown", `document.querySelectorAll(".stage").length === 8`)
	var o struct {
		Phases []struct {
			Phase           string
			Waiting         int
			Running         int
			OnChain         int `json:"on_chain"`
			Parked          int
			DoneAnHour      int `json:"done_per_hour"`
			FailedAnHour    int `json:"failed_per_hour"`
			OldestWaitInSec float64
		}
		Sectors struct{ Sealing, Parked, Finished int }
		Groups  []struct {
			Group            string
			InFlight         int `json:"in_flight"`
			Waiting, Running int
		}
		Hosts struct{ Up int }
	}
	f.get("/v1/overview", &o)
	if len(o.Phases) != 8 || o.Sectors.Parked != 1 || o.Hosts.Up != 1 {
		t.Fatalf("the API: %+v", o)
	}
	for _, p := range o.Phases {
		at := ".stage.at-" + p.Phase
		first := p.Running
		if p.Phase == "precommit" || p.Phase == "commit" {
			first = p.OnChain
		}
		for selector, want := range map[string]int{
			at + " .two a:nth-child(1) b": first, at + " .n-waiting b": p.Waiting, at + " dd:nth-of-type(2)": p.DoneAnHour, at + " dd:nth-of-type(3)": p.FailedAnHour,
		} {
			if got := b.text(selector); got != strconv.Itoa(want) {
				t.Errorf("%s: the page says %s, the API %d", selector, got, want)
			}
		}
	}
	for selector, want := range map[string]string{
		".figure:nth-child(1) b": strconv.Itoa(o.Sectors.Sealing), ".figure:nth-child(2) b": strconv.Itoa(o.Sectors.Parked),
		".groups tbody th": group, ".groups td:nth-child(2)": strconv.Itoa(o.Groups[0].InFlight), ".groups td:nth-child(4)": strconv.Itoa(o.Groups[0].Waiting),
		"#link": "live",
	} {
		if got := b.text(selector); got != want {
			t.Errorf("%s: the page says %q, want %q", selector, got, want)
		}
	}
	b.until("the badge says one is parked", `document.querySelector('#nav a[href="#/failed"] .badge').innerText === "1"`)
	b.picture("overview")

	b.show("#/failed")
	b.until("what failed is shown", `document.querySelectorAll(".rows .row").length === 1`)
	row := b.text(".rows .row")
	for _, want := range []string{"s-t01000-3", "p1", "parked", "no_memory", "short of memory: 12 GiB of 56 GiB", "h1"} {
		if !strings.Contains(row, want) {
			t.Errorf("the failed row lacks %q: %q", want, row)
		}
	}
	b.picture("failed")

	b.show("#/sectors")
	b.until("sectors are shown", `document.querySelectorAll(".rows .row").length === 3`)
	b.run(chromedp.SendKeys(".search", "1000-2", chromedp.ByQuery))
	b.until("the search narrows", `document.querySelectorAll(".rows .row").length === 1 && location.hash.includes("q=1000-2")`)
	b.eval(`document.querySelector(".search").value = ""; document.querySelector(".search").dispatchEvent(new Event("input"))`, nil)
	b.until("all are back", `document.querySelectorAll(".rows .row").length === 3`)
	b.run(chromedp.SendKeys(".search", "nothing-like-this", chromedp.ByQuery))
	b.until("an empty list says so", `document.querySelector(".empty").innerText.includes("Nothing passes these filters")`)
	b.show("#/sectors?state=parked")
	b.until("the address filters", `document.querySelectorAll(".rows .row").length === 1`)
	b.picture("sectors")

	b.show("#/sectors/s-t01000-3")
	b.until("the sector is shown", `document.querySelector(".sechead h1").innerText.includes("s-t01000-3")`)
	b.until("its timeline has a failed attempt", `document.querySelectorAll(".timeline .k-failed").length === 1`)
	for selector, want := range map[string]string{".sector": "short of memory", ".log": "submitted", ".why": "parked", "tbody tr": "no_memory"} {
		if got := b.text(selector); !strings.Contains(got, want) {
			t.Errorf("%s lacks %q: %q", selector, want, got)
		}
	}
	b.picture("sector")

	b.show("#/hosts")
	b.until("the host is shown", `document.querySelector(".rows .row").innerText.includes("h1")`)
	if got := b.text(".rows .row"); !strings.Contains(got, "p1 0/10") {
		t.Errorf("slots: %q", got)
	}
	b.click(".rows .row")
	b.until("the host opens", `document.querySelector("dialog").innerText.includes("Test CPU")`)
	b.press("\u001b")
	b.until("and closes", `!document.querySelector("dialog")`)
	b.picture("hosts")

	b.show("#/pace")
	b.until("the advice is shown", `document.querySelectorAll(".paceview section").length === 3`)
	pace := b.text(".paceview")
	for _, want := range []string{"FALLS BEHIND", "group1", "How long phases take", "Test CPU", "Sectors a day"} {
		if !strings.Contains(strings.ToUpper(pace), strings.ToUpper(want)) {
			t.Errorf("the pace lacks %q: %q", want, pace)
		}
	}
	b.picture("pace")

	b.show("#/bus")
	b.until("streams are shown", `document.querySelectorAll("tbody tr").length > 4`)
	bus := b.text(".busview")
	for _, want := range []string{"SEAL_EVENTS", "SEAL_TASKS", "connected"} {
		if !strings.Contains(bus, want) {
			t.Errorf("the bus lacks %q: %q", want, bus)
		}
	}
	b.picture("bus")
}

// What is not there is said in words, with what would help.
func TestEmptyAndUnknown(t *testing.T) {
	f := newFarm(t, farmOptions{})
	b := f.open("/#/sectors")
	b.until("there is no sector", `document.querySelector(".empty").innerText.includes("No sector was submitted yet")`)
	b.show("#/failed")
	b.until("nothing failed", `document.querySelector(".empty").innerText.includes("Nothing failed")`)
	b.show("#/hosts")
	b.until("there is no host", `document.querySelector(".empty").innerText.includes("No host has been heard of")`)
	f.submit(7, 1)
	b.allow(func(c string) bool {
		return strings.Contains(c, "404") && strings.Contains(c, "/v1/sectors/s-t01000-8")
	})
	b.show("#/sectors/s-t01000-8")
	b.until("an unknown sector is said, with a near one", `document.querySelector(".trouble a").innerText === "s-t01000-7"`)
	b.show("#/nowhere")
	b.until("an unknown view is said", `document.querySelector(".trouble").innerText.includes("nowhere")`)
}

// Events come to the page as they happen, whichever view is shown.
func TestEventsComeLive(t *testing.T) {
	f := newFarm(t, farmOptions{})
	b := f.open("/")
	b.until("the page is live", `document.getElementById("link").innerText === "live"`)
	f.submit(1, 1)
	b.until("the event is shown", `[...document.querySelectorAll(".ev")].some((e) => e.innerText.includes("s-t01000-1") && e.innerText.includes("submitted"))`)
	b.until("the number follows", `document.querySelector(".stage.at-p1 .n-waiting b").innerText === "1"`)
	b.show("#/sectors")
	b.until("the list is shown", `document.querySelectorAll(".rows .row").length === 1`)
	f.submit(2, 1)
	b.until("the list grows", `document.querySelectorAll(".rows .row").length === 2`)
	b.show("#/sectors/s-t01000-1")
	b.until("the sector waits for p1", `document.querySelectorAll(".timeline .k-waiting").length === 1`)
	f.work(phases.P1)
	b.until("its p1 is done", `document.querySelectorAll(".timeline .k-done").length === 1`)
}

// Redo, by mouse: choose, say who and why; the log has both, and the page follows.
func TestRedoFromThePage(t *testing.T) {
	f := parkedFarm(t)
	b := f.open("/#/failed")
	b.until("it is listed", `document.querySelectorAll(".rows .row").length === 1`)
	b.click(".rows .c-pick input")
	b.until("it is chosen", `document.querySelector("#redo").innerText === "Redo 1"`)
	b.click("#redo")
	b.until("who and why are asked", `document.querySelector("dialog input[name=by]")`)
	b.run(chromedp.SendKeys("dialog input[name=by]", "ana@desk", chromedp.ByQuery), chromedp.SendKeys("dialog input[name=reason]", "memory added\r", chromedp.ByQuery))
	b.until("nothing failed any more", `document.querySelector(".empty").innerText.includes("Nothing failed")`)
	f.until("the sector goes on", func() bool { return f.state("s-t01000-3") == "sealing" })
	var s struct {
		Operator []struct{ Type, By, Reason, Target string }
	}
	f.get("/v1/sectors/s-t01000-3", &s)
	if last := s.Operator[len(s.Operator)-1]; last.Type != "redo" || !strings.Contains(last.By, "ana") || last.Reason != "memory added" {
		t.Errorf("the log says %+v", s.Operator)
	}
}

// Redo in bulk, by keys alone; one request, each sector answered for by itself.
func TestRedoInBulk(t *testing.T) {
	f := newFarm(t, farmOptions{})
	f.fail = func(task phases.Task) *phases.Result { return firstFails(task.Spec.Number)(task) } // all of them
	f.submit(1, 3)
	f.work(phases.P1)
	b := f.open("/#/failed")
	b.until("all are listed", `document.querySelectorAll(".rows .row.is-parked").length === 3`)
	b.press("jx")
	b.until("one is chosen", `document.querySelector("#redo").innerText === "Redo 1"`)
	b.press("jx")
	b.until("two are", `document.querySelector("#redo").innerText === "Redo 2"`)
	b.press("r")
	b.until("who and why are asked", `document.querySelector("dialog input[name=by]") === document.activeElement`)
	b.run(chromedp.SendKeys("dialog input[name=by]", "ana@desk", chromedp.ByQuery), chromedp.SendKeys("dialog input[name=reason]", "memory added\r", chromedp.ByQuery))
	b.until("what was done is said", `document.getElementById("said").innerText.includes("2 sectors are done again")`)
	b.until("the third is left", `document.querySelectorAll(".rows .row").length === 1`)
}

// What the API refuses is said in its words, and the dialog stays.
func TestARefusalIsSaid(t *testing.T) {
	f := parkedFarm(t)
	b := f.open("/#/sectors/s-t01000-3")
	b.until("the sector is shown", `document.querySelector(".sechead .primary")`)
	b.press("r")
	b.until("who and why are asked", `document.querySelector("dialog input[name=by]")`)
	// Somebody else is quicker.
	if code, data := f.ask(http.MethodPost, "/v1/sectors/s-t01000-3/redo", `{"by":"other@desk","reason":"quicker"}`); code != http.StatusOK {
		t.Fatalf("%d %s", code, data)
	}
	f.until("it goes on", func() bool { return f.state("s-t01000-3") == "sealing" })
	b.allow(func(c string) bool { return strings.Contains(c, "409") })
	b.run(chromedp.SendKeys("dialog input[name=by]", "ana@desk", chromedp.ByQuery), chromedp.SendKeys("dialog input[name=reason]", "too late\r", chromedp.ByQuery))
	b.until("the refusal is said", `document.querySelector("dialog .trouble").innerText.length > 10`)
	if got := b.text("dialog .trouble"); !strings.Contains(got, "code ") {
		t.Errorf("said %q", got)
	}
}

func TestKeys(t *testing.T) {
	f := parkedFarm(t)
	b := f.open("/")
	b.until("the page is there", `document.querySelectorAll(".stage").length === 8`)
	for key, hash := range map[string]string{"f": "#/failed", "s": "#/sectors", "h": "#/hosts", "p": "#/pace", "b": "#/bus", "o": "#/"} {
		b.press("g" + key)
		b.until("g "+key, fmt.Sprintf(`location.hash === %q && document.querySelector("#nav a[aria-current]").hash === %q`, hash, hash))
	}
	b.press("?")
	b.until("keys are explained", `document.querySelector("dialog .keys").innerText.includes("Overview, Failed, Sectors")`)
	b.press("\u001b")
	b.until("the dialog closes", `!document.querySelector("dialog")`)
	b.press("gs")
	b.until("sectors", `document.querySelectorAll(".rows .row").length === 3`)
	b.press("jj")
	b.until("the second row is active, and said to be", `document.querySelector(".row.active .c-id").innerText === "s-t01000-2" && document.querySelector(".scroller").getAttribute("aria-activedescendant").endsWith("s-t01000-2")`)
	b.press("\r")
	b.until("Enter opens it", `location.hash === "#/sectors/s-t01000-2" && document.querySelector(".sechead h1").innerText.includes("s-t01000-2")`)
	b.press("u")
	b.until("u goes up", `location.hash === "#/sectors" && document.querySelectorAll(".rows .row").length === 3`)
	b.press("/")
	b.until("/ goes to the search", `document.activeElement.classList.contains("search")`)
	b.press("t")
	b.until("what is typed there is text", `document.querySelector(".search").value === "t" && !document.documentElement.dataset.theme`)
	b.press("\u001b")
	for _, theme := range []string{"light", "dark", ""} {
		b.press("t")
		b.until("theme "+theme, fmt.Sprintf(`(document.documentElement.dataset.theme ?? "") === %q && localStorage.getItem("sealfleet.theme") === %q`, theme, theme))
	}
}
