// A sector's time from its submission on: a row for each step, a bar for each attempt (hollow
// while it waited, full while it ran), gates, deadlines as marks. Drawn as SVG.
import { s } from "./dom.js";
import { full, now, span, when } from "./format.js";
import { steps } from "./parts.js";

const rowHeight = 30;
const top = 34; // for the axis and the deadlines' names
const left = 92;
const right = 20;
const minute = 60_000;
const ticks = [1, 5, 15, 30].map((m) => m * minute).concat([1, 2, 3, 6, 12, 24, 48, 96, 168].map((x) => x * 60 * minute), [1000, 5000, 15_000].map((x) => x)).sort((a, b) => a - b);
const ms = (at) => (at ? Date.parse(at) : undefined);

/** The pieces of each row: {phase, kind, from, to, label}, kind being a class of the bar. */
export function pieces(sector, at) {
  const out = [];
  for (const a of sector.attempts) {
    const issued = ms(a.issued_at);
    const claimed = ms(a.claimed_at);
    const ended = ms(a.ended_at);
    const host = a.host ? ` on ${a.host}` : "";
    const name = `${a.phase} attempt ${a.attempt}`;
    const until = claimed ?? ended ?? at;
    const delayed = ms(a.not_before);
    if (delayed > issued) {
      const to = Math.min(delayed, until);
      out.push({ phase: a.phase, kind: "delayed", from: issued, to, label: `${name}: delayed for ${span((to - issued) / 1000)}` });
    }
    const from = Math.max(issued, Math.min(delayed || issued, until));
    if (until > from) out.push({ phase: a.phase, kind: "waiting", from, to: until, label: `${name}: waited for ${span((until - from) / 1000)}` });
    if (claimed) {
      const to = ended ?? at;
      const kind = a.status === "issued" ? "running" : a.status;
      const why = a.result?.code && a.status === "failed" ? `, ${a.result.code}: ${a.result.message ?? ""}` : "";
      out.push({ phase: a.phase, kind, from: claimed, to, label: `${name}${host}: ${kind} ${ended ? "after" : "for"} ${span((to - claimed) / 1000)}${why}`, open: !ended });
    }
  }
  for (const g of sector.gates) {
    if (!g.opened_at) continue;
    const to = ms(g.ended_at) ?? at;
    out.push({ phase: g.phase, kind: `gate ${g.state.replaceAll(" ", "-")}`, from: ms(g.opened_at), to, label: `gate ${g.phase}: ${g.state}, ${span((to - ms(g.opened_at)) / 1000)}${g.note ? `, ${g.note}` : ""}`, open: !g.ended_at });
  }
  return out;
}

function scale(sector, bars, at) {
  const from = ms(sector.submitted_at);
  const ended = ms(sector.ended_at);
  const last = Math.max(ended ?? at, ...bars.map((b) => b.to), from + 1000);
  // A deadline that is far off would press all else together: it is named at the edge instead.
  const span = last - from;
  const near = sector.deadlines.map((d) => ms(d.at)).filter((t) => t > last && t - last < span * 0.6);
  const to = Math.max(last + span * 0.04, ...near.map((t) => t + span * 0.05));
  return { from, to };
}

function axis(from, to, x, height, width) {
  const step = ticks.find((t) => (to - from) / t <= Math.max(3, width / 110)) ?? Math.ceil((to - from) / 8 / 86_400_000) * 86_400_000;
  const out = [];
  for (let t = Math.ceil(from / step) * step; t <= to; t += step) {
    const text = step >= 86_400_000 ? new Date(t).toISOString().slice(5, 10) : step < minute ? new Date(t).toISOString().slice(11, 19) : new Date(t).toISOString().slice(11, 16);
    out.push(s("line", { class: "tick", x1: x(t), x2: x(t), y1: top - 6, y2: height }), s("text", { class: "ticktext", x: x(t) + 3, y: top - 10 }, text));
  }
  return out;
}

function deadline(d, i, x, to, width, height) {
  const t = ms(d.at);
  const name = d.name === "precommit_by" ? "precommit by" : "commit by";
  const kind = `deadline${d.met ? " met" : t < now() ? " missed" : ""}`;
  const words = `${name}: ${full(d.at)}, ${d.met ? "met" : when(d.at)}`;
  if (t > to) {
    return s("g", { class: kind }, s("title", {}, words),
      s("text", { class: "deadtext", x: width - right, y: height + 14 + 14 * i, "text-anchor": "end" }, `${name} ${d.met ? "(met)" : when(d.at)} →`));
  }
  return s("g", { class: kind }, s("title", {}, words),
    s("line", { x1: x(t), x2: x(t), y1: top - 4, y2: height + 4 }),
    s("path", { d: `M${x(t) - 5},${height + 4} l5,-7 l5,7 z` }),
    s("text", { class: "deadtext", x: Math.min(width - right, Math.max(left, x(t))), y: height + 14 + 14 * i, "text-anchor": x(t) > width * 0.7 ? "end" : "start" }, `${name} ${d.met ? "(met)" : when(d.at)}`));
}

/** The timeline of a sector as SVG, so wide. */
export function timeline(sector, width) {
  const at = now();
  const bars = pieces(sector, at);
  const { from, to } = scale(sector, bars, at);
  const room = width - left - right;
  const x = (t) => Math.round((left + ((t - from) / (to - from)) * room) * 10) / 10;
  const height = top + steps.length * rowHeight;
  const all = height + 8 + 14 * Math.max(1, sector.deadlines.length);
  const y = (phase) => top + steps.indexOf(phase) * rowHeight;
  return s("svg", {
    class: "timeline", viewBox: `0 0 ${width} ${all}`, width: String(width), height: String(all), role: "img",
    "aria-label": `Timeline of ${sector.sector}; the table of attempts below says the same`,
  },
  steps.map((p, i) => s("g", { class: "lane", key: `lane-${p}` },
    s("rect", { class: i % 2 ? "stripe odd" : "stripe", x: 0, y: y(p), width, height: rowHeight }),
    s("text", { class: "lanetext", x: 8, y: y(p) + rowHeight / 2 + 4 }, p))),
  s("g", { key: "axis" }, axis(from, to, x, height, room)),
  bars.map((b, i) => s("g", { class: "piece", key: `bar-${i}` }, s("title", {}, b.label),
    s("rect", { class: `block k-${b.kind}`, x: x(b.from), y: y(b.phase) + (b.kind === "waiting" || b.kind === "delayed" ? 10 : 6), width: Math.max(2, x(b.to) - x(b.from)), height: b.kind === "waiting" || b.kind === "delayed" ? 10 : 18, rx: 2 }),
    // Beside the bar, so that the shortest failure can be seen, and without colour.
    b.kind === "failed" && s("path", { class: "cross", d: `M${x(b.to) + 4},${y(b.phase) + 11} l8,8 m0,-8 l-8,8` }))),
  !sector.ended_at && s("line", { class: "nowline", key: "now", x1: x(at), x2: x(at), y1: top - 4, y2: height }),
  s("g", { key: "deadlines" }, sector.deadlines.map((d, i) => deadline(d, i, x, to, width, height))));
}
