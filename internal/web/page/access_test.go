//go:build browser

package page_test

import "testing"

// faults lists what people who see little, or use no mouse, would stumble over: things
// without a name, text whose contrast is below 4.5 to 1 (WCAG AA), a page wider than the screen.
const faults = `(() => {
	const out = [];
	const name = (e) => e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.labels?.[0]?.innerText || e.innerText || e.title;
	for (const e of document.querySelectorAll("button, a, input, select, [role=grid], [role=region], dialog")) {
		if (e.checkVisibility() && !name(e)?.trim()) out.push("no name: " + e.outerHTML.slice(0, 120));
	}
	for (const e of document.querySelectorAll("img:not([alt]), svg[role=img]:not([aria-label])")) out.push("no text for " + e.outerHTML.slice(0, 80));
	if (document.querySelectorAll("h1").length !== 1) out.push(document.querySelectorAll("h1").length + " h1");
	if (document.querySelectorAll("main, header, nav").length !== 3 && !document.querySelector(".sechead")) out.push("landmarks are missing");
	if (document.documentElement.scrollWidth > innerWidth) out.push("the page is wider than the screen");
	const parse = (c) => { const m = c.match(/[\d.]+/g)?.map(Number); return m && { rgb: m.slice(0, 3), a: m[3] ?? 1 }; };
	const light = ({ rgb }) => { const [r, g, b] = rgb.map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
	const under = (e) => { for (let p = e; p; p = p.parentElement) { const c = parse(getComputedStyle(p).backgroundColor); if (c && c.a > 0.9) return c; } return { rgb: [255, 255, 255] }; };
	const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (walk.nextNode()) {
		const e = walk.currentNode.parentElement;
		if (!walk.currentNode.data.trim() || !e.checkVisibility({ visibilityProperty: true }) || e.closest(":disabled, .hidden, .skip, noscript, option, svg")) continue;
		const [a, b] = [light(parse(getComputedStyle(e).color)), light(under(e))];
		const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
		if (ratio < 4.5) out.push("contrast " + ratio.toFixed(2) + ": " + walk.currentNode.data.trim().slice(0, 40) + " in " + e.className);
	}
	return [...new Set(out)];
})()`

func TestEverybodyCanReadIt(t *testing.T) {
	f := parkedFarm(t)
	b := f.open("/")
	b.until("the page is live", `document.getElementById("link").innerText === "live"`)
	for _, view := range []struct{ hash, there string }{
		{"#/", `document.querySelectorAll(".stage").length === 8`},
		{"#/failed", `document.querySelectorAll(".rows .row").length === 1`},
		{"#/sectors", `document.querySelectorAll(".rows .row").length === 3`},
		{"#/sectors/s-t01000-3", `document.querySelector(".timeline")`},
		{"#/hosts", `document.querySelectorAll(".rows .row").length === 1`},
		{"#/pace", `document.querySelectorAll("tbody tr").length > 6`},
		{"#/bus", `document.querySelectorAll("tbody tr").length > 4`},
	} {
		b.show(view.hash)
		b.until(view.hash, view.there)
		for _, scheme := range []string{"light", "dark"} {
			b.scheme(scheme)
			var found []string
			b.eval(faults, &found)
			for _, x := range found {
				t.Errorf("%s, %s: %s", view.hash, scheme, x)
			}
		}
	}
}
