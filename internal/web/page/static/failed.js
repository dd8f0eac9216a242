// What failed comes first: where, why, for how long, how often; and having it done again.
import { h, show } from "./dom.js";
import { ago, choice, chip, sectorLink, steps } from "./parts.js";
import { count, full, when } from "./format.js";
import { liveList, none, settled } from "./lists.js";
import { redo } from "./act.js";

const columns = [
  { name: "id", head: "Sector", cell: (f) => sectorLink(f.sector) },
  { name: "phase", head: "Stage", cell: (f) => h("b", {}, f.phase) },
  { name: "state", head: "State", cell: (f) => chip(f.state, f.state === "failing" ? "tried again" : "parked") },
  { name: "code", head: "Code", cell: (f) => h("span", { class: "code" }, f.code) },
  { name: "reason", head: "Reason", cell: (f) => h("span", { class: "reason", title: f.mend ? `${f.message} – ${f.mend}` : f.message }, f.message, f.mend && h("span", { class: "mend" }, f.mend)) },
  { name: "age", head: "Failed", cell: (f) => ago(f.at) },
  { name: "attempts", head: "Attempts", cell: (f) => h("span", { title: `${f.attempt} of the phase's attempts spent; ${f.issue} tries in all` }, count(f.attempt), f.issue > f.attempt ? h("span", { class: "fine" }, ` of ${f.issue}`) : null) },
  { name: "host", head: "Host", cell: (f) => f.host ?? "" },
  { name: "group", head: "Group", cell: (f) => f.group },
  { name: "deadline", head: "Deadline", cell: (f) => (f.deadline_at ? h("time", { datetime: f.deadline_at, title: full(f.deadline_at) }, when(f.deadline_at)) : "") },
];

export function mount(root, params) {
  const code = h("input", {
    type: "search", class: "search", "aria-label": "Code of the failure", placeholder: "code, such as disk_full  ( / )", value: params.code ?? "", maxlength: "200",
    oninput: settled((e) => list.filter({ code: e.target.value.trim() })),
  });
  const group = h("input", {
    type: "text", class: "short", "aria-label": "Group", placeholder: "group", value: params.group ?? "", maxlength: "200",
    oninput: settled((e) => list.filter({ group: e.target.value.trim() })),
  });
  const buttons = h("div", { class: "bulk" });
  const bar = h("form", { class: "filters", role: "search", onsubmit: (e) => e.preventDefault() }, code,
    choice("Stage", params.phase ?? "", [["", "any stage"], ...steps.map((s) => [s, s])], (v) => list.filter({ phase: v })),
    choice("State", params.state ?? "", [["", "parked and tried again"], ["parked", "parked"], ["failing", "tried again by itself"]], (v) => list.filter({ state: v })),
    group, buttons);

  async function redoPicked() {
    const { grid } = list;
    const chosen = grid.picked.size ? [...grid.picked] : grid.active !== null ? [grid.active] : [];
    const rows = list.pages().items.filter((f) => f.redo && chosen.includes(rowKey(f)));
    if (!rows.length) return;
    const answer = await redo([...new Set(rows.map((f) => f.sector))], rows.length === 1 && rows[0].state !== "parked" ? rows[0].phase : undefined);
    if (!answer) return;
    grid.pickAll(false);
    list.ask();
  }

  function drawButtons() {
    const n = list.grid.picked.size;
    show(buttons,
      h("button", { type: "button", class: "primary", id: "redo", disabled: n === 0, onclick: redoPicked }, n ? `Redo ${count(n)}` : "Redo chosen"),
      n > 0 && h("button", { type: "button", class: "quiet", onclick: () => list.grid.pickAll(false) }, "Choose none"));
  }

  const rowKey = (f) => `${f.sector}.${f.phase}`;
  const list = liveList({
    root, view: "failed", path: "/v1/failed", params, key: rowKey, heading: "Failed first", bar,
    grid: {
      label: "What failed", name: "g-failed", columns, rowClass: (f) => `is-${f.state}`, pick: (f) => f.redo, picking: () => drawButtons(),
      open: (f) => { location.hash = `#/sectors/${encodeURIComponent(f.sector)}`; },
    },
    nothing: (filtered) => none("Nothing failed.", "No sector is parked and none is being tried again.", filtered),
  });
  drawButtons();
  return {
    title: "Failed", keys: { grid: list.grid, search: () => code, redo: redoPicked },
    update(batch) {
      if (batch.reset || batch.controls.length || batch.events.some((e) => e.type !== "progress")) list.ask();
    },
    leave: () => list.leave(),
  };
}
