// The bus: streams, consumers, and what lags.
import { h, show } from "./dom.js";
import { get } from "./api.js";
import { refresher } from "./live.js";
import { bytes, count, many } from "./format.js";
import { ago, chip, empty, table, trouble } from "./parts.js";

const streamWords = {
  SEAL_EVENTS: "the log: every event of every sector", SEAL_TASKS: "phase tasks that nobody has finished", SEAL_ARCHIVE: "a word for each finished sector",
};

const num = (n, tone = "") => h("td", { class: `num ${n ? tone : "zero"}` }, count(n));

function streams(b) {
  return h("section", { class: "panel", "aria-label": "Streams" }, h("h2", {}, "Streams"),
    b.streams.length === 0 ? empty("The bus has no streams yet.") : table("Streams", [["Stream"], ["Messages", "num"], ["Bytes", "num"], ["First", "num"], ["Last", "num"], ["Last message"], ["Consumers", "num"], ["Replicas", "num"], ["Leader"]],
      b.streams.map((x) => h("tr", { key: x.name },
        h("th", { scope: "row" }, x.name, h("span", { class: "fine under" }, streamWords[x.name] ?? (x.subjects ?? []).join(" "))),
        num(x.messages), h("td", { class: "num" }, bytes(x.bytes)), num(x.first_sequence), num(x.last_sequence),
        h("td", {}, ago(x.last_at)), num(x.consumers), h("td", { class: "num" }, x.replicas ? count(x.replicas) : "–"), h("td", {}, x.leader ?? "–")))));
}

function consumers(b) {
  const rows = [...b.consumers].sort((x, y) => (y.lag - x.lag) || (y.pending - x.pending) || x.name.localeCompare(y.name));
  return h("section", { class: "panel", "aria-label": "Consumers" }, h("h2", {}, "Consumers"),
    rows.length === 0 ? empty("Nobody reads from the bus yet.") : table("Consumers", [["Consumer"], ["Group"], ["Phase"], ["Waiting", "num"], ["In hand", "num"], ["Delivered again", "num"], ["Hosts asking", "num"], ["Behind", "num"]],
      rows.map((c) => h("tr", { key: `${c.stream}/${c.name}` },
        h("th", { scope: "row" }, c.name, h("span", { class: "fine under" }, c.stream)), h("td", {}, c.group ?? ""), h("td", {}, c.phase ?? ""),
        num(c.pending, "wait"), num(c.in_flight, "run"), num(c.redelivered, "bad"), num(c.waiting_pulls), num(c.lag, "bad")))));
}

export function mount(root) {
  const place = h("div", { class: "busview" });
  show(root, h("h1", { class: "hidden" }, "Bus"), place);
  let last = null;
  const fresh = refresher(async (signal) => {
    last = await get("/v1/bus", {}, signal);
    const lag = Math.max(0, ...last.streams.filter((x) => x.name === "SEAL_EVENTS").map((x) => x.last_sequence - (last.position ?? x.last_sequence)));
    show(place,
      h("section", { class: "figures", "aria-label": "In short" },
        h("div", { class: "figure" }, h("b", {}, last.connected ? chip("up", "connected") : chip("away", "not connected")), h("span", {}, last.server ?? "to the bus")),
        h("div", { class: `figure ${lag > 1000 ? "warn" : ""}` }, h("b", {}, count(lag)), h("span", {}, "events not yet read by this dispatcher")),
        h("div", { class: `figure ${last.set_aside ? "bad" : ""}` }, h("b", {}, count(last.set_aside ?? 0)), h("span", {}, `${many(last.set_aside ?? 0, "message").replace(/^\S+ /, "")} set aside as unreadable`))),
      streams(last), consumers(last));
  }, (error) => { if (!last || error.code !== "unreachable") show(place, trouble(error, () => fresh.ask())); }, 3000);
  return { title: "Bus", update(batch) { if (batch.events.length || batch.reset) fresh.ask(); }, leave: () => fresh.stop() };
}
