// Hosts: slots, what runs, memory, disks, what the doctor found, last heartbeat.
import { h, show } from "./dom.js";
import { ago, choice, chip, sectorLink } from "./parts.js";
import { bytes, count, many, span } from "./format.js";
import { liveList, none, settled } from "./lists.js";
import { ask, dialog } from "./act.js";

const states = [["", "any state"], ["up", "up"], ["draining", "draining"], ["away", "away"], ["silent", "silent"]];

const free = (d) => d.free_bytes - (d.reserved_bytes ?? 0);

function slots(x) {
  const wanted = x.slots.filter((s) => s.slots > 0 || s.busy > 0);
  if (!wanted.length) return h("span", { class: "fine" }, "none told");
  return wanted.map((s) => h("span", { class: `slots${s.busy >= s.slots ? " full" : s.busy ? " some" : ""}`, title: `${s.phase}: ${s.busy} of ${s.slots} slots busy` }, h("b", {}, s.phase), ` ${s.busy}/${s.slots}`));
}

function disk(d) {
  const used = d.total_bytes ? (d.total_bytes - d.free_bytes) / d.total_bytes : 0;
  const reserved = d.total_bytes ? Math.min(1 - used, (d.reserved_bytes ?? 0) / d.total_bytes) : 0;
  const tight = d.total_bytes > 0 && free(d) / d.total_bytes < 0.1;
  return h("span", { class: `disk${tight ? " tight" : ""}`, title: `${d.path ?? d.name}: ${bytes(d.free_bytes)} free of ${bytes(d.total_bytes)}, ${bytes(d.reserved_bytes ?? 0)} of it reserved` },
    h("span", { class: "gauge", "aria-hidden": "true" }, h("i", { class: "used", css: { width: `${used * 100}%` } }), h("i", { class: "kept", css: { width: `${reserved * 100}%` } })),
    h("span", {}, h("b", {}, d.name || d.path), ` ${bytes(Math.max(0, free(d)))} free`));
}

function findings(x) {
  const list = x.status?.findings ?? [];
  if (!list.length) return h("span", { class: "fine" }, x.status ? "none" : "not told");
  const worst = list.some((f) => f.severity === "fatal" || f.severity === "error" || f.severity === "critical");
  return h("span", { class: worst ? "bad" : "warnt", title: list.map((f) => `${f.code}: ${f.evidence ?? ""}`).join("\n") }, `${list.length === 1 ? list[0].code : many(list.length, "finding")}`);
}

const columns = [
  { name: "id", head: "Host", cell: (x) => h("span", { class: "id" }, x.host) },
  { name: "state", head: "State", cell: (x) => chip(x.state) },
  { name: "slots", head: "Slots, busy of all", cell: slots },
  { name: "disks", head: "Disks", cell: (x) => ((x.status?.disks ?? []).length ? x.status.disks.slice(0, 2).map(disk) : h("span", { class: "fine" }, "not told")) },
  { name: "memory", head: "Memory free", cell: (x) => (x.status?.memory_total_bytes ? h("span", { title: `of ${bytes(x.status.memory_total_bytes)}` }, bytes(x.status.memory_available_bytes)) : "–") },
  { name: "copy", head: "Copies", cell: (x) => (x.status?.copy_bytes_per_second ? `${bytes(x.status.copy_bytes_per_second)}/s` : h("span", { class: "zero" }, "–")) },
  { name: "findings", head: "Findings", cell: findings },
  { name: "group", head: "Groups", cell: (x) => (x.groups ?? []).join(" ") },
  { name: "age", head: "Heartbeat", cell: (x) => (x.seen_at ? [ago(x.seen_at), " ago"] : "–") },
];

function details(x, asked) {
  const st = x.status ?? {};
  const drained = x.state === "draining" || Boolean(x.drain);
  const box = dialog(`Host ${x.host}`, h("div", { class: "hostbox" },
    h("h2", {}, h("span", { class: "id" }, x.host), " ", chip(x.state)),
    h("p", { class: "facts" }, [`groups ${(x.groups ?? []).join(", ") || "none"}`, st.ip, st.model, st.cores && `${st.cores} cores`, st.version && `version ${st.version}`, st.since && `up ${span((Date.now() - Date.parse(st.since)) / 1000)}`].filter(Boolean).join(" · ")),
    x.drain && h("p", { class: "warning" }, `Drained by ${x.drain.by}${x.drain.reason ? `: ${x.drain.reason}` : ""}. `, x.quiet_in_seconds > 0 ? `Quiet in about ${span(x.quiet_in_seconds)}.` : x.running ? "Something still runs." : "Nothing runs."),
    h("h3", {}, "Slots"), h("p", {}, slots(x)),
    h("h3", {}, many((st.jobs ?? []).length, "phase"), " running"),
    (st.jobs ?? []).length ? h("ul", { class: "plain" }, st.jobs.map((j) => h("li", {}, h("b", {}, j.phase), " ", sectorLink(j.sector), h("span", { class: "fine" }, ` attempt ${j.attempt}, for `, ago(j.since), j.fraction ? `, ${Math.floor(j.fraction * 100)} %` : "", j.note ? `, ${j.note}` : "")))) : h("p", { class: "calm" }, "Nothing."),
    (st.waiting ?? []).length > 0 && [h("h3", {}, "Takes nothing more because"), h("ul", { class: "plain" }, st.waiting.map((w) => h("li", {}, w)))],
    h("h3", {}, "Disks"), (st.disks ?? []).length ? h("div", { class: "disks" }, st.disks.map(disk)) : h("p", { class: "calm" }, "Not told."),
    h("h3", {}, "The doctor's findings"),
    (st.findings ?? []).length ? h("ul", { class: "plain" }, st.findings.map((f) => h("li", {}, h("b", {}, f.code), ` ${f.subject ?? ""} ${f.evidence ?? ""}`, f.mend && h("p", { class: "mend" }, f.mend)))) : h("p", { class: "calm" }, x.status ? "None." : "Not told."),
    h("div", { class: "buttons" },
      h("button", { type: "button", class: "quiet", onclick: async () => {
        box.close();
        if (await ask({
          title: `${drained ? "Undrain" : "Drain"} ${x.host}`, verb: drained ? "Undrain" : "Drain", path: `/v1/hosts/${encodeURIComponent(x.host)}/${drained ? "undrain" : "drain"}`,
          detail: drained ? "It takes work again." : "It takes nothing new; what runs on it goes on to its end.",
        })) asked();
      } }, drained ? "Undrain" : "Drain"),
      h("button", { type: "button", class: "primary", onclick: () => box.close() }, "Close"))));
  box.addEventListener("click", (e) => { if (e.target.closest("a")) box.close(); });
}

export function mount(root, params) {
  const wanted = { q: params.q ?? "" };
  delete params.q;
  const search = h("input", {
    type: "search", class: "search", "aria-label": "Host's name", placeholder: "host  ( / )", value: wanted.q, maxlength: "64",
    oninput: settled((e) => { wanted.q = e.target.value.trim().toLowerCase(); narrow(); }, 80),
  });
  const group = h("input", {
    type: "text", class: "short", "aria-label": "Group", placeholder: "group", value: params.group ?? "", maxlength: "200",
    oninput: settled((e) => list.filter({ group: e.target.value.trim() })),
  });
  const sums = h("span", { class: "fine sums" });
  const bar = h("form", { class: "filters", role: "search", onsubmit: (e) => e.preventDefault() }, search,
    choice("State", params.state ?? "", states, (v) => list.filter({ state: v })), group, sums);
  const list = liveList({
    root, view: "hosts", path: "/v1/hosts", params, key: (x) => x.host, heading: "Hosts", bar, limit: 1000, every: 5000,
    grid: { label: "Hosts", name: "g-hosts", columns, rowClass: (x) => `is-${x.state}`, open: (x) => details(x, () => list.ask()) },
    nothing: (filtered) => none("No host has been heard of.", ["Start a consumer there: ", h("code", {}, "consumer serve"), ", or ask it what is wrong: ", h("code", {}, "consumer doctor")], filtered),
  });
  // Names are searched here: all hosts are here anyway.
  const set = list.grid.set.bind(list.grid);
  let all = [];
  function narrow() {
    const items = wanted.q ? all.filter((x) => x.host.toLowerCase().includes(wanted.q)) : all;
    set(items, items.length);
    const busy = all.reduce((n, x) => n + x.running, 0);
    show(sums, all.length ? `${count(busy)} phases running` : "");
  }
  list.grid.set = (items) => { all = items; narrow(); };
  return {
    title: "Hosts", keys: { grid: list.grid, search: () => search },
    update(batch) {
      if (batch.reset || batch.controls.length || batch.events.some((e) => ["claimed", "done", "failed"].includes(e.type))) list.ask();
    },
    leave: () => list.leave(),
  };
}
