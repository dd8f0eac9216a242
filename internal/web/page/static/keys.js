// Keys: one table, from which also the help is made.
import { h } from "./dom.js";
import { dialog } from "./act.js";

const table = [
  ["g then o f s h p b", "Overview, Failed, Sectors, Hosts, Pace, Bus"],
  ["/", "to the search or the first filter"],
  ["j k or ↓ ↑", "next, previous row"],
  ["Enter", "open the row"],
  ["x or Space", "choose the row"],
  ["r", "redo what is chosen, or the sector shown"],
  ["u or Escape", "up: from a sector to the list"],
  ["t", "theme: as the system, light, dark"],
  ["?", "this list"],
];

let view = {};
let pending = "";
let timer = 0;

/** The view's own keys: {grid, search, redo, up}. */
export const viewKeys = (v) => { view = v ?? {}; };

/** Shows the table of keys. */
export function help() {
  const box = dialog("Keys", [
    h("h2", {}, "Keys"),
    h("dl", { class: "keys" }, table.map(([k, what]) => [h("dt", {}, k.split(" ").map((w) => (["or", "then"].includes(w) ? ` ${w} ` : h("kbd", {}, w)))), h("dd", {}, what)])),
    h("p", { class: "fine" }, "A full disc runs; a hollow one waits; a dashed one waits for its next attempt; a square one is parked and needs an operator."),
    h("div", { class: "buttons" }, h("button", { type: "button", class: "primary", onclick: () => box.close() }, "Close")),
  ]);
}

const places = { o: "#/", f: "#/failed", s: "#/sectors", h: "#/hosts", p: "#/pace", b: "#/bus" };

function plain(e, theme) {
  switch (e.key) {
    case "?": return help();
    case "t": return theme();
    case "/": return view.search?.()?.focus();
    case "j": view.grid?.move(1); return view.grid?.scroller.focus();
    case "k": view.grid?.move(-1); return view.grid?.scroller.focus();
    case "x": return view.grid?.pickActive();
    case "r": return view.redo?.();
    case "u":
    case "Escape": return view.up?.();
    case "Enter": return e.target === document.body || e.target.id === "main" ? view.grid?.enter() : false;
    case "g": {
      pending = "g";
      clearTimeout(timer);
      timer = setTimeout(() => { pending = ""; }, 1500);
      return undefined;
    }
  }
  return false;
}

/** Listens to keys; theme changes the theme. */
export function start(theme) {
  document.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || document.querySelector("dialog[open]")) return;
    if (e.target.closest("input, select, textarea")) {
      if (e.key === "Escape") e.target.blur();
      return;
    }
    if (pending === "g" && places[e.key]) {
      pending = "";
      location.hash = places[e.key];
      e.preventDefault();
      return;
    }
    if (plain(e, theme) !== false) e.preventDefault();
  });
}
