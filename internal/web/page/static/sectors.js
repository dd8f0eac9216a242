// All sectors: search, filters, order; any number of them.
import { h } from "./dom.js";
import { ago, choice, chip, nowChips, sectorLink, steps } from "./parts.js";
import { age, full, when } from "./format.js";
import { liveList, none, settled } from "./lists.js";

const states = [["", "any state"], ...["sealing", "parked", "failed", "cancelled", "finished", "paused", "waiting", "delayed", "running", "on-chain", "held"].map((s) => [s, s])];
const sorts = [["", "number"], ["-number", "number, last first"], ["-age", "latest submitted"], ["age", "oldest submitted"], ["wait", "longest in its state"], ["ended", "ended"], ["state", "state"]];

const since = (row) => (row.now ?? []).map((n) => n.since).filter(Boolean).sort()[0];

const columns = [
  { name: "id", head: "Sector", cell: (r) => sectorLink(r.sector) },
  { name: "state", head: "State", cell: (r) => [chip(r.state), r.paused && chip("paused")] },
  { name: "now", head: "At", cell: (r) => (r.now?.length ? nowChips(r.now) : h("span", { class: "fine" }, r.state === "finished" ? "sealed and cleaned" : "–")) },
  { name: "since", head: "For", cell: (r) => (r.ended_at ? h("span", { class: "fine", title: full(r.ended_at) }, when(r.ended_at)) : since(r) ? h("time", { datetime: since(r), title: full(since(r)) }, age(since(r))) : "–") },
  { name: "host", head: "Host", cell: (r) => [...new Set((r.now ?? []).map((n) => n.host).filter(Boolean))].join(" ") },
  { name: "group", head: "Group", cell: (r) => r.group },
  { name: "size", head: "Size", cell: (r) => r.size },
  { name: "deadline", head: "Deadline", cell: (r) => (r.deadline_at ? h("time", { datetime: r.deadline_at, title: full(r.deadline_at) }, when(r.deadline_at)) : "") },
  { name: "age", head: "Submitted", cell: (r) => ago(r.submitted_at) },
  { name: "reason", head: "Reason", cell: (r) => h("span", { class: "reason", title: r.reason ?? null }, r.reason ?? "") },
];

export function mount(root, params) {
  const search = h("input", {
    type: "search", class: "search", "aria-label": "Search: id, group, host or reason", placeholder: "Search: id, group, host, reason  ( / )", value: params.q ?? "", maxlength: "200",
    oninput: settled((e) => list.filter({ q: e.target.value.trim() })),
  });
  const group = h("input", {
    type: "text", class: "short", "aria-label": "Group", placeholder: "group", value: params.group ?? "", maxlength: "200",
    oninput: settled((e) => list.filter({ group: e.target.value.trim() })),
  });
  const bar = h("form", { class: "filters", role: "search", onsubmit: (e) => e.preventDefault() }, search,
    choice("State", params.state ?? "", states, (v) => list.filter({ state: v })),
    choice("At", params.phase ?? "", [["", "any step"], ...steps.map((s) => [s, s])], (v) => list.filter({ phase: v })),
    group,
    choice("Order", params.sort ?? "", sorts, (v) => list.filter({ sort: v })));
  const open = (r) => { location.hash = `#/sectors/${encodeURIComponent(r.sector)}`; };
  const list = liveList({
    root, view: "sectors", path: "/v1/sectors", params, key: (r) => r.sector, heading: "Sectors", bar,
    grid: { label: "Sectors", name: "g-sectors", columns, open, rowClass: (r) => `is-${r.state}` },
    nothing: (filtered) => none("No sector was submitted yet.", ["Submit one: ", h("code", {}, "dispatcher submit --help")], filtered),
  });
  return {
    title: "Sectors", keys: { grid: list.grid, search: () => search },
    update(batch) {
      if (batch.reset || batch.controls.length || batch.sectors.size) list.ask();
    },
    leave: () => list.leave(),
  };
}
