// A long list of the API, page by page: read on as it is scrolled, read again where it is
// looked at when something happened.
import { get } from "./api.js";

export class Pages {
  /** limit: items of a page; key: an item's name, by which doubles are left out. */
  constructor(path, params, key, limit = 200) {
    Object.assign(this, { path, params, key, limit, pages: [], total: 0, at: "", sequence: 0, reading: null });
    this.items = [];
  }

  get complete() { return this.pages.length > 0 && !this.pages.at(-1).next; }

  async #read(cursor, signal) {
    return get(this.path, { ...this.params, limit: this.limit, cursor }, signal);
  }

  #take(answer) {
    this.total = answer.total;
    this.at = answer.at;
    this.sequence = answer.sequence ?? 0;
    const seen = new Set();
    this.items = [];
    for (const p of this.pages) {
      p.first = this.items.length;
      for (const item of p.items) {
        const k = this.key(item);
        if (!seen.has(k)) { seen.add(k); this.items.push(item); }
      }
      p.last = this.items.length;
    }
  }

  /** Reads the next page, if there is one; only once at a time. */
  more(signal) {
    if (this.complete) return Promise.resolve(false);
    this.reading ??= (async () => {
      try {
        const cursor = this.pages.at(-1)?.next;
        const answer = await this.#read(cursor, signal);
        this.pages.push({ cursor, items: answer.items, next: answer.next });
        this.#take(answer);
        return true;
      } finally {
        this.reading = null;
      }
    })();
    return this.reading;
  }

  /** Reads again the pages that hold the items first to last, and what comes after them if
   *  the list has moved. */
  async again(first, last, signal) {
    if (this.reading) await this.reading;
    if (!this.pages.length) return this.more(signal);
    const touched = this.pages.filter((p) => p.first < Math.max(last, first + 1) && p.last >= first);
    for (const page of touched.length ? touched : [this.pages[0]]) {
      const answer = await this.#read(page.cursor, signal);
      const moved = answer.next !== page.next;
      page.items = answer.items;
      page.next = answer.next;
      // Later pages begin elsewhere now; they are read again when they are scrolled to.
      if (moved) this.pages.length = this.pages.indexOf(page) + 1;
      this.#take(answer);
      if (moved) break;
    }
    return true;
  }
}
