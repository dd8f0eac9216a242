// One sector: its timeline, what it waits for, its attempts, what operators did, its log.
import { h, show } from "./dom.js";
import { get } from "./api.js";
import { refresher } from "./live.js";
import { bytes, full, span, timeOfDay, when } from "./format.js";
import { ago, chip, eventWords, nowChips, stepNames, trouble } from "./parts.js";
import { ask, redo, say } from "./act.js";
import { timeline } from "./timeline.js";

const shown = 200; // events of the log; the rest on asking

function head(sec, acts) {
  return h("header", { class: "sechead" },
    h("p", { class: "fine" }, h("a", { href: "#/sectors" }, "← Sectors")),
    h("h1", {}, h("span", { class: "id" }, sec.sector), " ", chip(sec.state), sec.paused && chip("paused")),
    h("p", { class: "facts" }, [`group ${sec.group}`, sec.size, `proof type ${sec.proof_type}`, sec.spec.storage_node && `to ${sec.spec.storage_node}`, sec.spec.submitted_by && `by ${sec.spec.submitted_by}`].filter(Boolean).join(" · "), " · submitted ", ago(sec.submitted_at), " ago",
      sec.ended_at && [" · ended ", when(sec.ended_at)], sec.freed > 0 && ` · ${bytes(sec.freed)} freed`),
    sec.now.length > 0 && h("p", {}, nowChips(sec.now)),
    sec.reason && h("p", { class: "warning" }, sec.reason),
    h("div", { class: "buttons left" }, acts));
}

function actions(sec, id, done) {
  const path = (verb) => `/v1/sectors/${encodeURIComponent(id)}/${verb}`;
  const over = ["finished", "cancelled"].includes(sec.state);
  const parked = sec.steps.find((s) => s.parked) ?? sec.steps.find((s) => s.status === "failed");
  const button = (text, f, kind = "quiet") => h("button", { type: "button", class: kind, onclick: async () => { if (await f()) done(); } }, text);
  const phase = h("select", { "aria-label": "Phase to redo", onchange: async (e) => {
    const p = e.target.value;
    e.target.value = "";
    if (p && await redo([id], p)) done();
  } }, h("option", { value: "" }, "Redo a phase …"), sec.steps.filter((s) => ["done", "failed"].includes(s.status)).map((s) => h("option", { value: s.phase }, s.phase)));
  return [
    parked && button(`Redo ${parked.phase}`, () => redo([id], parked.parked ? "" : parked.phase), "primary"),
    !over && phase,
    !over && (sec.paused
      ? button("Resume", () => ask({ title: `Resume ${id}`, verb: "Resume", path: path("resume"), detail: "It goes on with its next phase." }))
      : button("Pause", () => ask({ title: `Pause ${id}`, verb: "Pause", path: path("pause"), detail: "Nothing new is begun for it; what runs goes on to its end." }))),
    !over && sec.state !== "failed" && button("Cancel …", () => ask({
      title: `Give ${id} up`, verb: "Give it up", danger: true, path: path("cancel"), detail: "Its phases stop and its files are cleaned.", warning: "This cannot be undone.",
    }), "quiet danger"),
  ];
}

function whyPanel(why) {
  if (!why?.waits.length) return null;
  return h("section", { class: "panel", "aria-label": "What it waits for" }, h("h2", {}, "What it waits for"),
    h("ul", { class: "why" }, why.waits.map((w) => h("li", {}, h("b", {}, w.phase), " ", chip(w.state), h("div", {}, w.why, w.until && ` Until ${when(w.until)}.`, w.mend && h("p", { class: "mend" }, w.mend))))));
}

function attempts(sec) {
  const row = (a) => h("tr", { key: `${a.phase}.${a.issue}` },
    h("th", { scope: "row" }, a.phase, h("span", { class: "fine" }, ` ${stepNames[a.phase] ?? ""}`)),
    h("td", { class: "num" }, String(a.attempt)), h("td", {}, chip(a.status === "issued" ? "waiting" : a.status, a.status === "issued" ? "waiting" : a.status)), h("td", {}, a.host ?? "", a.claims > 1 && h("span", { class: "fine" }, ` taken over ×${a.claims - 1}`)),
    h("td", { title: full(a.issued_at) }, timeOfDay(a.issued_at)),
    h("td", { class: "num wait" }, a.waited_seconds !== undefined ? span(a.waited_seconds) : a.claimed_at ? "–" : ago(a.issued_at)),
    h("td", { class: "num run" }, a.took_seconds !== undefined ? span(a.took_seconds) : a.claimed_at && !a.ended_at ? ago(a.claimed_at) : "–"),
    h("td", { class: "num" }, a.result?.bytes ? bytes(a.result.bytes) : ""),
    h("td", { class: "result" }, a.result?.code && a.result.code !== "ok" ? h("span", { class: a.status === "failed" ? "bad" : "" }, `${a.result.code}: ${a.result.message ?? ""}`) : a.note ?? ""));
  return h("section", { class: "panel", "aria-labelledby": "att-h" }, h("h2", { id: "att-h" }, "Attempts"),
    sec.attempts.length === 0 ? h("p", { class: "calm" }, "Nothing was issued for it yet.") : h("div", { class: "wide", tabindex: "0", role: "region", "aria-labelledby": "att-h" }, h("table", {},
      h("thead", {}, h("tr", {}, [["Phase"], ["Attempt", "num"], ["Status"], ["Host"], ["Issued"], ["Waited", "num"], ["Ran", "num"], ["Bytes", "num"], ["Result"]].map(([t, c]) => h("th", { scope: "col", class: c ?? "" }, t)))),
      h("tbody", {}, sec.attempts.map(row)))),
    sec.gates.some((g) => g.opened_at) && h("ul", { class: "gates" }, sec.gates.filter((g) => g.opened_at).map((g) =>
      h("li", {}, h("b", {}, `gate ${g.phase}`), " ", chip(g.state), ` opened ${timeOfDay(g.opened_at)}`, g.ended_at && `, ended ${timeOfDay(g.ended_at)}`, g.message_id && h("span", { class: "fine id" }, ` ${g.message_id}`), g.note && h("span", { class: "fine" }, ` ${g.note}`)))),
    sec.deadlines.length > 0 && h("ul", { class: "gates" }, sec.deadlines.map((d) =>
      h("li", {}, h("b", {}, d.name.replace("_", " ")), ` ${full(d.at)}, `, d.met ? chip("done", "met") : when(d.at)))));
}

function said(sec) {
  if (!sec.operator.length) return null;
  return h("section", { class: "panel", "aria-label": "What operators did" }, h("h2", {}, "What operators did"),
    h("ul", { class: "said" }, sec.operator.map((o) => h("li", {}, h("time", { datetime: o.at, title: full(o.at) }, full(o.at)), h("b", {}, ` ${o.by} `), `${o.type}${o.target ? ` ${o.target}` : ""}`, o.reason && h("q", {}, o.reason)))));
}

/** The log as text, to paste into a report. */
function asText(id, events) {
  return [`${id}, ${events.length} events`, ...events.map((e) => `${full(e.at)} ${String(e.sequence).padStart(8)} ${e.phase.padEnd(9)} ${eventWords(e)}`)].join("\n");
}

function log(id, events, all, showAll) {
  const copy = async () => {
    try { await navigator.clipboard.writeText(asText(id, events)); say("The log is in the clipboard."); } catch { say("The browser does not let the page write to the clipboard."); }
  };
  const list = all ? events : events.slice(-shown);
  return h("section", { class: "panel", "aria-labelledby": "log-h" },
    h("h2", { id: "log-h" }, "Log ", h("button", { type: "button", class: "quiet", onclick: copy }, "Copy for a report")),
    events.length > list.length && h("button", { type: "button", class: "quiet", onclick: showAll }, `Show the ${events.length - list.length} before`),
    h("ol", { class: "log" }, list.map((e) => h("li", { key: e.id, "data-event": e.id, class: e.disbelieved ? "doubted" : "" },
      h("time", { datetime: e.at, title: full(e.at) }, full(e.at).slice(5, 19)), h("b", {}, e.phase), h("span", {}, eventWords(e), e.disbelieved && h("span", { class: "bad" }, ` not believed: ${e.disbelieved}`))))));
}

export function mount(root, _params, id) {
  const place = h("div", { class: "sector" });
  const drawing = h("div", { class: "drawing", tabindex: "0", role: "region", "aria-label": "Timeline" });
  let sec = null;
  let why = null;
  let events = [];
  let all = false;
  const path = `/v1/sectors/${encodeURIComponent(id)}`;
  show(root, place);
  const fresh = refresher(async (signal) => {
    const [a, b, c] = await Promise.all([get(path, {}, signal), get(`${path}/events`, {}, signal), get(`${path}/why`, {}, signal).catch(() => null)]);
    [sec, events, why] = [a, b.items, c];
    draw();
  }, (error) => { if (!sec || error.code !== "unreachable") show(place, trouble(error, () => fresh.ask())); }, 15_000);
  const done = () => fresh.ask();

  function draw() {
    show(place, head(sec, actions(sec, id, done)), h("section", { class: "panel", "aria-label": "Timeline", key: "time" }, h("h2", {}, "Timeline"), legend(), h("div", { class: "drawhere", "data-keep": true })),
      whyPanel(why), attempts(sec), said(sec),
      sec.doubted.length > 0 && h("p", { class: "warning" }, `${sec.doubted.length} events of this sector are not believed: ${sec.doubted.join(", ")}`),
      log(id, events, all, () => { all = true; draw(); }));
    const spot = place.querySelector(".drawhere");
    if (drawing.parentElement !== spot) spot.replaceChildren(drawing);
    drawTime();
  }
  function drawTime() {
    if (sec && drawing.isConnected) show(drawing, timeline(sec, Math.max(330, drawing.clientWidth)));
  }
  const watch = new ResizeObserver(drawTime);
  watch.observe(drawing);
  const ticking = setInterval(drawTime, 2000);
  return {
    title: id,
    keys: {
      // Without a phase: if somebody else was quicker, it is refused rather than done twice.
      redo: async () => { if (sec?.steps.some((s) => s.parked) && await redo([id], "")) done(); },
      up: () => { location.hash = "#/sectors"; },
    },
    update(batch) { if (batch.reset || batch.sectors.has(id)) fresh.ask(); },
    leave() { fresh.stop(); watch.disconnect(); clearInterval(ticking); },
  };
}

function legend() {
  const item = (kind, text) => h("li", {}, h("i", { class: `k k-${kind}`, "aria-hidden": "true" }), text);
  return h("ul", { class: "legend" }, item("waiting", "waits"), item("running", "runs"), item("done", "done"), item("failed", "failed"), item("delayed", "delayed"), item("gate", "on chain"), item("deadline", "deadline"));
}
