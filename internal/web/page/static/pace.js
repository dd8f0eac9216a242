// Pace: which phase falls behind and how many slots it lacks, how long phases take by size and
// kind of host, and how many sectors end a day.
import { h, show } from "./dom.js";
import { get } from "./api.js";
import { refresher } from "./live.js";
import { count, many, rate, span } from "./format.js";
import { empty, table, trouble } from "./parts.js";

const took = (seconds) => h("td", { class: `num${seconds > 0 ? "" : " zero"}` }, seconds > 0 ? span(seconds) : "–");
const num = (n, tone = "") => h("td", { class: `num ${n ? tone : "zero"}` }, count(n));

function advice(list) {
  const short = list.filter((a) => a.need_more_slots > 0);
  const rows = [...list].sort((a, b) => (b.need_more_slots - a.need_more_slots)); // else as they come: by group and phase
  return h("section", { class: "panel", "aria-label": "What falls behind" },
    h("h2", {}, short.length ? `${many(short.length, "phase falls", "phases fall")} behind` : "Nothing falls behind"),
    rows.length === 0 ? empty("No group has a sector yet.") : table("What falls behind",
      [["Group"], ["Phase"], ["More slots", "num"], ["Waiting", "num"], ["Running", "num"], ["Slots seen", "num"], ["Oldest wait", "num"], ["Half within", "num"], ["95 % within", "num"], ["Come an hour", "num"], ["Why"]],
      rows.map((a) => h("tr", { key: `${a.group}/${a.phase}` },
        h("th", { scope: "row" }, h("a", { href: `#/sectors?group=${encodeURIComponent(a.group)}&phase=${a.phase}` }, a.group)), h("td", {}, a.phase),
        h("td", { class: `num ${a.need_more_slots ? "bad" : "zero"}` }, a.need_more_slots ? `+${count(a.need_more_slots)}` : "–"),
        h("td", { class: `num ${a.waiting ? "wait" : "zero"}` }, count(a.waiting), a.held ? h("span", { class: "fine" }, ` +${count(a.held)} held`) : null),
        num(a.running, "run"), num(a.slots), took(a.oldest_wait_seconds), took(a.p50_seconds), took(a.p95_seconds),
        h("td", { class: "num" }, rate(a.arrivals_per_hour)),
        h("td", { class: "why" }, a.why)))));
}

function durations(list) {
  return h("section", { class: "panel", "aria-label": "How long phases take" }, h("h2", {}, "How long phases take"),
    list.length === 0 ? empty("No phase has ended since this dispatcher started to read.") : table("How long phases take",
      [["Phase"], ["Size"], ["Host model"], ["Hosts", "num"], ["Attempts", "num"], ["Half within", "num"], ["95 % within", "num"]],
      list.map((x) => h("tr", { key: `${x.phase}/${x.size}/${x.model}` },
        h("th", { scope: "row" }, x.phase), h("td", {}, x.size), h("td", {}, x.model || h("span", { class: "fine" }, "not told")),
        num(x.hosts), num(x.count), took(x.p50_seconds), took(x.p95_seconds)))));
}

function days(list) {
  const most = Math.max(1, ...list.map((d) => d.finished + d.failed + d.cancelled));
  const part = (n, kind) => n > 0 && h("i", { class: kind, css: { width: `${(100 * n) / most}%` } });
  return h("section", { class: "panel", "aria-label": "Sectors a day" }, h("h2", {}, "Sectors a day (UTC)"),
    list.length === 0 ? empty("No sector has ended yet.") : table("Sectors a day",
      [["Day"], ["Finished", "num"], ["Failed", "num"], ["Cancelled", "num"], ["", "days"]],
      [...list].sort((a, b) => b.day.localeCompare(a.day)).map((d) => h("tr", { key: d.day },
        h("th", { scope: "row" }, d.day), num(d.finished), num(d.failed, "bad"), num(d.cancelled),
        h("td", { class: "days", "aria-hidden": "true" }, h("div", { class: "dayline" }, part(d.finished, "finished"), part(d.failed, "failed"), part(d.cancelled, "cancelled")))))));
}

export function mount(root) {
  const place = h("div", { class: "paceview" });
  show(root, h("h1", { class: "hidden" }, "Pace"), place);
  let shown = false;
  const fresh = refresher(async (signal) => {
    const [backlog, stats] = await Promise.all([get("/v1/backlog", {}, signal), get("/v1/stats", {}, signal)]);
    shown = true;
    show(place, advice(backlog.items), durations(stats.phases), days(stats.days));
  }, (error) => { if (!shown || error.code !== "unreachable") show(place, trouble(error, () => fresh.ask())); }, 5000);
  return {
    title: "Pace",
    update(batch) { if (batch.reset || batch.events.some((e) => ["issued", "claimed", "done", "failed", "finished"].includes(e.type))) fresh.ask(); },
    leave: () => fresh.stop(),
  };
}
