// What several views show alike: states, errors, empty lists, filters.
import { h } from "./dom.js";
import { age, full } from "./format.js";

/** The steps of a sector in their order, gates among them. */
export const steps = ["p1", "p2", "precommit", "p3", "p4", "p5", "commit", "p6"];

/** The words of the field for each step. */
export const stepNames = {
  p1: "PreCommitPhase1", p2: "PreCommitPhase2", precommit: "gate: precommit", p3: "CommitPhase1",
  p4: "CommitPhase2", p5: "CopyTask", commit: "gate: commit", p6: "CleanTask",
};

/** A state as a word with its mark: a full disc runs, a hollow one waits. */
export const chip = (state, text = state) =>
  h("span", { class: `chip s-${String(state).replaceAll(" ", "-")}` }, h("i", { "aria-hidden": "true" }), text);

/** An error in words, and what would help. */
export function trouble(error, again) {
  return h("div", { class: "trouble", role: "alert" },
    h("strong", {}, error.message),
    error.near?.length ? h("p", {}, "Perhaps ", error.near.map((n, i) => [i ? ", " : "", h("a", { href: `#/sectors/${encodeURIComponent(n)}` }, n)]), "?") : null,
    error.mend && h("p", {}, error.mend),
    error.code && h("p", { class: "fine" }, `code ${error.code}`),
    again && h("button", { type: "button", onclick: again }, "Try again"));
}

/** What is said where a list has nothing in it. */
export const empty = (title, ...more) => h("div", { class: "empty" }, h("p", { class: "lead" }, title), ...more);

/** A table that scrolls in its own place where it is too wide; heads are [text, class]. */
export const table = (label, heads, rows) => h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": label }, h("table", {},
  h("thead", {}, h("tr", {}, heads.map(([t, c]) => h("th", { scope: "col", class: c ?? "" }, t)))), h("tbody", {}, rows)));

/** A time as its age, in full on pointing at it. */
export const ago = (at) => (at ? h("time", { datetime: at, title: full(at) }, age(at)) : "–");

/** A sector's name as a link to it. */
export const sectorLink = (id) => h("a", { href: `#/sectors/${encodeURIComponent(id)}`, class: "id" }, id);

/** A choice in a filter bar; changed(value) is called. */
export function choice(label, value, options, changed) {
  return h("label", { class: "choice" }, h("span", {}, label),
    h("select", { onchange: (e) => changed(e.target.value) },
      options.map(([v, text]) => h("option", { value: v, selected: v === value }, text))));
}

/** What a sector is at now, as chips: "p1 running host3". */
export function nowChips(now) {
  return (now ?? []).map((n) => h("span", { class: "now" }, h("b", {}, n.phase), " ", chip(n.state),
    n.percent ? h("span", { class: "fine" }, ` ${Math.floor(n.percent)} %`) : null));
}

/** What went on in a log's event, in a few words. */
export function eventWords(e) {
  const where = e.host ? ` on ${e.host}` : "";
  const result = e.result?.code ? `: ${e.result.code}${e.result.message ? `, ${e.result.message}` : ""}` : "";
  const by = e.reason ? ` (${e.reason})` : "";
  const far = e.note ? `: ${e.note}` : "";
  return `${e.type}${e.target ? ` ${e.target}` : ""}${where}${e.type === "progress" ? far : result}${by}`;
}
