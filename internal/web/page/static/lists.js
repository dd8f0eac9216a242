// What the views of long lists share: the filter bar, reading on, reading again, words for
// nothing and for errors.
import { h, show } from "./dom.js";
import { refresher } from "./live.js";
import { Grid } from "./grid.js";
import { Pages } from "./pages.js";
import { count } from "./format.js";
import { empty, trouble } from "./parts.js";

/** Writes a view's filters into the address, so that it can be kept and sent. */
export function writeAddress(view, params) {
  const pairs = Object.entries(params).filter(([, v]) => v);
  history.replaceState(null, "", `#/${view}${pairs.length ? `?${new URLSearchParams(pairs)}` : ""}`);
}

/** Calls f once nothing was typed for a moment. */
export function settled(f, ms = 200) {
  let timer = 0;
  return (...args) => { clearTimeout(timer); timer = setTimeout(() => f(...args), ms); };
}

/**
 * A list that lives: view and path; params the filters; grid what Grid takes; nothing: words
 * for no items, without and with filters; every: ms between readings without events.
 */
export function liveList({ root, view, path, params, key, grid: gridOptions, bar, heading, nothing, limit, every }) {
  let pages = new Pages(path, params, key, limit);
  let failure = null;
  const status = h("p", { class: "status", role: "status" });
  const notice = h("div", { class: "notice" });
  const grid = new Grid({ ...gridOptions, key, need: () => readOn(), seen: () => tell() });
  show(root, h("div", { class: "list" }, h("div", { class: "listhead" }, h("h1", {}, heading), status), bar, notice, grid.el));

  const filtered = () => Object.entries(pages.params).some(([k, v]) => k !== "sort" && v);

  function tell() {
    const n = pages.items.length;
    show(status, pages.pages.length ? `${count(pages.total)}${n < pages.total ? `, ${count(n)} read` : ""}` : "reading …");
  }

  function draw() {
    grid.set(pages.items, pages.total);
    tell();
    grid.el.hidden = pages.pages.length > 0 && pages.items.length === 0;
    show(notice, failure ? trouble(failure, () => fresh.ask()) : null,
      !failure && pages.pages.length > 0 && pages.items.length === 0 ? nothing(filtered()) : null);
  }

  const failed = (e) => {
    if (e.name === "AbortError") return;
    failure = e;
    draw();
  };

  async function readOn() {
    const mine = pages;
    try {
      if (await mine.more() && mine === pages) { failure = null; draw(); }
    } catch (e) {
      if (mine === pages) failed(e);
    }
  }

  const fresh = refresher(async (signal) => {
    const mine = pages;
    const [first, last] = grid.range();
    await mine.again(first, last, signal);
    if (mine !== pages) return;
    failure = null;
    draw();
  }, failed, every ?? 15_000);
  const ticking = setInterval(() => grid.draw(true), 5000); // ages go on

  return {
    grid,
    pages: () => pages,
    ask: () => fresh.ask(),
    failure: () => failure,
    /** Reads anew with these filters. */
    filter(next) {
      Object.assign(params, next);
      writeAddress(view, params);
      pages = new Pages(path, { ...params }, key, limit);
      grid.scroller.scrollTop = 0;
      readOn();
    },
    leave() { clearInterval(ticking); fresh.stop(); grid.stop(); },
  };
}

/** The words for an empty list. */
export const none = (plain, more, filtered) => (filtered ? empty("Nothing passes these filters.") : empty(plain, more && h("p", {}, more)));
