// A table of any length: only the rows that can be seen are in the document. Keys move the
// active row, which stays the same sector or host when rows move.
import { h, patch } from "./dom.js";

const spare = 8; // rows drawn above and below what is seen
let grids = 0;

export class Grid {
  /**
   * columns: [{name, head, cell(item)}], name is also the class that style sheets place it by.
   * key(item) names a row; open(item) is Enter or a click; pick: rows can be chosen (a Set of
   * keys is kept in picked); need(index) is called when rows from index on should be read.
   */
  constructor({ label, name, columns, key, open, rowClass, pick, picking, need, seen }) {
    Object.assign(this, { columns, key, open, rowClass, pick, picking, need, seen });
    this.id = `grid${++grids}`;
    this.items = [];
    this.total = 0;
    this.active = null;
    this.picked = new Set();
    this.drawn = new Map();
    this.body = h("div", { class: "rows", role: "rowgroup" });
    this.head = h("div", { class: "row head", role: "row", "aria-rowindex": "1" });
    this.scroller = h("div", {
      class: "scroller", role: "grid", tabindex: "0", id: this.id, "aria-label": label, "aria-multiselectable": pick ? "true" : null,
      onkeydown: (e) => this.#keydown(e), onscroll: () => this.#soon(),
    }, h("div", { role: "rowgroup", class: "heads" }, this.head), this.body);
    this.el = h("div", { class: `grid ${name}` }, this.scroller);
    this.watch = new ResizeObserver(() => this.draw(true));
    this.watch.observe(this.scroller);
  }

  stop() { this.watch.disconnect(); cancelAnimationFrame(this.frame); }

  /** What to show: the items read so far, and how many there are in all. */
  set(items, total) {
    this.items = items;
    this.total = total;
    this.draw(true);
  }

  #soon() {
    this.frame ||= requestAnimationFrame(() => { this.frame = 0; this.draw(false); });
  }

  /** The indexes of the rows that can be seen: [first, last). */
  range() {
    const height = this.rowHeight || 36;
    const first = Math.floor(this.scroller.scrollTop / height);
    return [first, Math.min(this.items.length, first + Math.ceil(this.scroller.clientHeight / height) + 1)];
  }

  #row(item, i) {
    const k = this.key(item);
    const active = k === this.active;
    return h("div", {
      class: `row ${this.rowClass?.(item) ?? ""}${active ? " active" : ""}`, role: "row", id: `${this.id}-${k}`,
      "aria-rowindex": String(i + 2), "aria-selected": this.pick ? String(this.picked.has(k)) : active ? "true" : null,
      css: { transform: `translateY(${i * this.rowHeight}px)` },
      onclick: (e) => this.#clicked(e, item, k),
    },
    this.pick && h("div", { class: "cell c-pick", role: "gridcell" }, h("input", {
      type: "checkbox", tabindex: "-1", "aria-label": `choose ${k}`, checked: this.picked.has(k), disabled: !this.pick(item),
    })),
    this.columns.map((c) => h("div", { class: `cell c-${c.name}`, role: "gridcell", "data-head": typeof c.head === "string" ? c.head : null }, c.cell(item, i))));
  }

  /** Draws the rows that can be seen; all of them anew, or only those that came into view. */
  draw(anew) {
    const measured = parseFloat(getComputedStyle(this.el).getPropertyValue("--row")) || 36;
    if (measured !== this.rowHeight) { this.rowHeight = measured; anew = true; }
    if (anew) this.#drawHead();
    this.body.style.height = `${this.items.length * this.rowHeight}px`;
    this.scroller.setAttribute("aria-rowcount", String(this.total + 1));
    let [first, last] = this.range();
    first = Math.max(0, first - spare);
    last = Math.min(this.items.length, last + spare);
    const keep = new Map();
    for (let i = first; i < last; i++) {
      const item = this.items[i];
      const k = this.key(item);
      const had = this.drawn.get(k);
      if (had && !anew && had.item === item && had.i === i) { keep.set(k, had); continue; }
      const now = this.#row(item, i);
      const el = had ? patch(had.el, now) : now;
      if (!had) this.body.append(el);
      keep.set(k, { el, item, i });
    }
    for (const [k, d] of this.drawn) if (!keep.has(k)) d.el.remove();
    this.drawn = keep;
    const act = this.active !== null && keep.has(this.active) ? `${this.id}-${this.active}` : null;
    if (act) this.scroller.setAttribute("aria-activedescendant", act);
    else this.scroller.removeAttribute("aria-activedescendant");
    if (last >= this.items.length - 2 * spare && this.items.length < this.total) this.need?.(this.items.length);
    this.seen?.(first, last);
  }

  #drawHead() {
    const able = this.pick ? this.items.filter((i) => this.pick(i)) : [];
    const all = able.length > 0 && able.every((i) => this.picked.has(this.key(i)));
    this.head = patch(this.head, h("div", { class: "row head", role: "row", "aria-rowindex": "1" },
      this.pick && h("div", { class: "cell c-pick", role: "columnheader" }, h("input", {
        type: "checkbox", "aria-label": "choose all", checked: all, indeterminate: !all && this.picked.size > 0,
        onclick: () => this.pickAll(!all),
      })),
      this.columns.map((c) => h("div", { class: `cell c-${c.name}`, role: "columnheader" }, typeof c.head === "function" ? c.head() : c.head))));
  }

  #clicked(e, item, k) {
    if (e.target.closest("a, button")) return;
    this.active = k;
    if (e.target.closest(".c-pick")) {
      if (this.pick(item)) this.#toggle(k);
    } else if (!getSelection().toString()) {
      this.open?.(item);
    }
    this.draw(true);
  }

  #toggle(k) {
    if (!this.picked.delete(k)) this.picked.add(k);
    this.picking?.();
  }

  /** Chooses all rows that may be chosen, or none. */
  pickAll(on) {
    this.picked = new Set(on ? this.items.filter((i) => this.pick(i)).map(this.key) : []);
    this.picking?.();
    this.draw(true);
  }

  /** Moves the active row by so many, and into view. */
  move(by) {
    if (!this.items.length) return;
    let i = this.items.findIndex((x) => this.key(x) === this.active);
    i = i < 0 ? this.range()[0] : Math.max(0, Math.min(this.items.length - 1, i + by));
    this.active = this.key(this.items[i]);
    const top = i * this.rowHeight;
    const room = this.scroller.clientHeight - this.head.parentElement.offsetHeight;
    if (top < this.scroller.scrollTop) this.scroller.scrollTop = top;
    else if (top + this.rowHeight > this.scroller.scrollTop + room) this.scroller.scrollTop = top + this.rowHeight - room;
    this.draw(true);
  }

  /** Opens the active row. */
  enter() {
    const item = this.items.find((x) => this.key(x) === this.active);
    if (item) this.open?.(item);
  }

  /** Chooses or unchooses the active row. */
  pickActive() {
    const item = this.items.find((x) => this.key(x) === this.active);
    if (!item || !this.pick?.(item)) return;
    this.#toggle(this.key(item));
    this.draw(true);
  }

  #keydown(e) {
    if (e.target !== this.scroller || e.ctrlKey || e.metaKey || e.altKey) return;
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / this.rowHeight) - 2);
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (e.key in moves) this.move(moves[e.key]);
    else if (e.key === "Enter") this.enter();
    else if (e.key === " " && this.pick) this.pickActive();
    else return;
    e.preventDefault();
  }
}
