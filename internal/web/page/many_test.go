//go:build browser

package page_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"golang.org/x/sync/errgroup"

	"sealfleet/internal/dispatch"
	"sealfleet/internal/phases"
)

func awaited(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }

// submitMany has so many sectors known, of which few may begin.
func (f *farm) submitMany(n int) {
	f.Helper()
	// Straight to the bus, which has no time limit as requests have; side by side, because each
	// is on the disk before the next of its part is written.
	const most, beside = 250, 16
	var g errgroup.Group
	g.SetLimit(beside)
	for from := 1; from <= n; from += most {
		g.Go(func() error {
			var specs []phases.Spec
			for i := from; i < min(from+most, n+1); i++ {
				specs = append(specs, phases.Spec{Miner: 1000, Number: uint64(i), ProofType: 5})
			}
			_, err := dispatch.Submit(f.ctx, f.bus, group, "me@here", specs, nil)
			return err
		})
	}
	must(f.T, g.Wait())
	f.until("all are known", func() bool {
		var v struct{ Total int }
		f.get("/v1/sectors?limit=1", &v)
		return v.Total == n
	})
}

// scrolls scrolls a list to its end and back, a screen and a half at a time, and answers
// with the longest that a frame was held up, in milliseconds, and the most rows that were in the
// document.
const scrolls = `(async () => {
	const s = document.querySelector(".scroller");
	let worst = 0, most = 0, last = performance.now();
	const frame = () => new Promise((r) => requestAnimationFrame((t) => { worst = Math.max(worst, t - last); last = t; r(); }));
	await frame(); worst = 0;
	for (const by of [1, -1]) for (let i = 0; i < 60; i++) {
		s.scrollTop += by * s.clientHeight * 1.5;
		await frame();
		most = Math.max(most, document.querySelectorAll(".rows .row").length);
	}
	return [worst, most];
})()`

// With ten thousand sectors and five hundred hosts the document stays small, and the last
// sector can be reached.
func TestManySectorsAndHosts(t *testing.T) {
	const sectors, hosts = 10_000, 500
	f := newFarm(t, farmOptions{hold: 10})
	f.submitMany(sectors)
	for i := range hosts {
		f.tell(fmt.Sprintf("host%d", i))
	}
	b := f.open("/#/sectors")
	b.until("sectors are shown", `document.querySelectorAll(".rows .row").length > 10`)
	var found []float64
	b.run(chromedp.Evaluate(scrolls, &found, awaited))
	t.Logf("sectors: the longest frame took %.0f ms, %v rows at most", found[0], found[1])
	if found[1] > 100 {
		t.Errorf("%v rows are in the document", found[1])
	}
	b.until("the number is right", `document.querySelector(".status").innerText.startsWith("10,000")`)
	b.until("the last one can be reached", `(() => { const s = document.querySelector(".scroller"); s.scrollTop = s.scrollHeight; return document.querySelector('.rows .row[aria-rowindex="10001"]').innerText.includes("s-t01000-10000"); })()`)
	b.show("#/hosts")
	b.until("hosts are shown", `document.querySelector(".status").innerText === "500"`)
	b.run(chromedp.Evaluate(scrolls, &found, awaited))
	t.Logf("hosts: the longest frame took %.0f ms, %v rows at most", found[0], found[1])
	if found[1] > 100 {
		t.Errorf("%v rows are in the document", found[1])
	}
	b.run(chromedp.SendKeys(".search", "host499", chromedp.ByQuery))
	b.until("a host is found by its name", `document.querySelectorAll(".rows .row").length === 1 && document.querySelector(".rows .row").innerText.includes("host499")`)
}

// TestMeasure prints what docs/benchmarks.md tells; it judges nothing.
func TestMeasure(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("SEALFLEET_BENCH_SECTORS"))
	if err != nil {
		t.Skip("make bench-web measures")
	}
	f := newFarm(t, farmOptions{hold: 100})
	began := time.Now()
	f.submitMany(n)
	t.Logf("%d sectors were submitted in %v", n, time.Since(began).Round(time.Second))

	var paints, reads []float64
	for range 5 {
		b := f.open("/")
		b.until("the flow is shown", `document.querySelectorAll(".stage").length === 8 && performance.getEntriesByName("first-contentful-paint").length`)
		var v []float64
		// A browser that was just started: nothing of the page is in its cache.
		b.eval(`[performance.getEntriesByName("first-contentful-paint")[0].startTime, performance.getEntriesByName("sealfleet-overview")[0].startTime]`, &v)
		paints, reads = append(paints, v[0]), append(reads, v[1])
		_ = chromedp.Cancel(b.ctx)
	}
	slices.Sort(paints)
	slices.Sort(reads)
	t.Logf("%d sectors: first paint median %.0f ms, worst %.0f; overview with its numbers median %.0f ms, worst %.0f", n, paints[2], paints[4], reads[2], reads[4])

	b := f.open("/")
	b.until("the page is live", `document.getElementById("link").innerText === "live" && document.querySelectorAll(".stage").length === 8`)
	b.eval(`(() => {
		globalThis.seen = {};
		new MutationObserver(() => {
			for (const e of document.querySelectorAll(".ev-submitted")) {
				const id = e.querySelector(".id").innerText;
				globalThis.seen[id] ??= Date.now();
			}
		}).observe(document.getElementById("main"), { subtree: true, childList: true });
	})()`, nil)
	const events = 200
	sent := map[string]int64{}
	for i := range events {
		id := phases.SectorID(1000, uint64(n+1+i))
		sent[id] = time.Now().UnixMilli()
		f.submit(n+1+i, 1)
		b.until("it is shown", fmt.Sprintf(`globalThis.seen[%q]`, id))
	}
	var seen map[string]int64
	b.eval(`globalThis.seen`, &seen)
	var took []int64
	for id, at := range sent {
		took = append(took, seen[id]-at)
	}
	slices.Sort(took)
	t.Logf("from asking for a submission to its event on the page: p50 %d ms, p95 %d ms, worst %d ms of %d", took[events/2], took[events*95/100], took[events-1], events)

	var lists []time.Duration
	for i := range 100 {
		q := []string{"", "&state=held", "&q=1000-77", "&sort=wait", "&sort=-number"}[i%5]
		at := time.Now()
		if code, data := f.ask(http.MethodGet, "/v1/sectors?limit=200"+q, ""); code != http.StatusOK {
			t.Fatalf("%d %s", code, data)
		}
		lists = append(lists, time.Since(at))
	}
	slices.Sort(lists)
	t.Logf("list of 200 of %d: p50 %v, p95 %v", n, lists[50].Round(time.Millisecond), lists[95].Round(time.Millisecond))
	if strings.TrimSpace(b.text("#link")) != "live" || context.Cause(b.ctx) != nil {
		t.Error("the page did not stay live")
	}
}
