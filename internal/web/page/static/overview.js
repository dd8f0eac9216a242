// The farm on one page: alarms, the flow from p1 to p6, groups, and what happens now.
import { h, show } from "./dom.js";
import { get } from "./api.js";
import { refresher } from "./live.js";
import { count, many, rate, span, timeOfDay, full } from "./format.js";
import { chip, empty, eventWords, sectorLink, stepNames, trouble, ago } from "./parts.js";
import { ask } from "./act.js";

const feedLength = 60;

function figure(value, label, href, tone) {
  return h(href ? "a" : "div", { class: `figure ${tone ?? ""}`, href: href ?? null }, h("b", {}, value), h("span", {}, label));
}

function figures(o) {
  const hosts = o.hosts.up + o.hosts.draining + o.hosts.away + o.hosts.silent;
  return h("section", { class: "figures", "aria-label": "In short" },
    figure(count(o.sectors.sealing), "sealing", "#/sectors?state=sealing"),
    figure(count(o.sectors.parked), "parked", "#/failed", o.sectors.parked ? "bad" : ""),
    figure(count(o.sectors.finished), "finished", "#/sectors?state=finished&sort=ended"),
    figure(count(o.sectors.failed), "failed", "#/sectors?state=failed&sort=ended"),
    figure(rate(o.finished_per_day), "finished a day"),
    figure(`${count(o.hosts.up)}/${count(hosts)}`, o.hosts.draining ? `hosts up, ${o.hosts.draining} draining` : "hosts up", "#/hosts", o.hosts.away + o.hosts.silent ? "warn" : ""));
}

function alarmLink(a) {
  if (a.sector) return `#/sectors/${encodeURIComponent(a.sector)}`;
  if (a.host) return `#/hosts?q=${encodeURIComponent(a.host)}`;
  if (a.code === "sector_parked") return `#/failed${a.group ? `?group=${encodeURIComponent(a.group)}` : ""}`;
  if (a.code === "bus_lag") return "#/bus";
  return null;
}

const severities = ["critical", "warning", "info"];

function alarms(o) {
  const list = [...o.alarms].sort((a, b) => severities.indexOf(a.severity) - severities.indexOf(b.severity));
  return h("section", { class: "panel alarms", "aria-labelledby": "alarms-h" },
    h("h2", { id: "alarms-h" }, list.length ? many(list.length, "alarm") : "Alarms"),
    list.length === 0 && h("p", { class: "calm" }, o.sectors.parked
      ? ["No alarm; ", h("a", { href: "#/failed" }, `${many(o.sectors.parked, "sector is", "sectors are")} parked`), " and wait for an operator."]
      : "Nothing needs you."),
    list.length > 0 && h("ul", {}, list.map((a) => {
      const link = alarmLink(a);
      return h("li", { class: `alarm lv-${a.severity}`, key: [a.code, a.group, a.phase, a.sector, a.host].join("/") },
        h("span", { class: "severity" }, a.severity),
        h("div", {}, link ? h("a", { href: link }, a.message) : h("span", {}, a.message), a.mend && h("p", { class: "mend" }, a.mend)),
        a.since && h("span", { class: "fine" }, ago(a.since)));
    })));
}

function bar(p) {
  const all = p.running + p.waiting + p.delayed + p.on_chain + p.parked + p.held;
  const part = (n, kind) => n > 0 && h("i", { class: kind, css: { "flex-grow": String(n) } });
  return h("div", { class: `bar${all ? "" : " none"}`, "aria-hidden": "true" },
    part(p.running, "b-running"), part(p.on_chain, "b-chain"), part(p.waiting, "b-waiting"), part(p.delayed, "b-delayed"), part(p.held, "b-held"), part(p.parked, "b-parked"));
}

function more(n, state, href) {
  return n > 0 && h("li", {}, h("a", { href }, chip(state, `${count(n)} ${state}`)));
}

function stage(p) {
  const gate = p.phase === "precommit" || p.phase === "commit";
  const link = (state) => `#/sectors?phase=${p.phase}&state=${state}&sort=wait`;
  return h("li", { class: `stage${gate ? " gate" : ""} at-${p.phase}`, key: p.phase },
    h("h3", {}, p.phase, h("span", { class: "fine" }, gate ? "gate" : stepNames[p.phase])),
    h("div", { class: "two" },
      gate
        ? h("a", { class: "n n-chain", href: link("on-chain") }, h("b", {}, count(p.on_chain)), h("span", {}, "on chain"))
        : h("a", { class: "n n-running", href: link("running") }, h("b", {}, count(p.running)), h("span", {}, "running")),
      h("a", { class: `n n-waiting${p.waiting ? "" : " zero"}`, href: link("waiting") }, h("b", {}, count(p.waiting)), h("span", {}, "waiting"))),
    bar(p),
    h("dl", {},
      h("dt", {}, "oldest wait"), h("dd", { class: p.oldest_wait_seconds > 0 ? "" : "zero" }, p.oldest_wait_seconds > 0 ? span(p.oldest_wait_seconds) : "none"),
      h("dt", {}, "done an hour"), h("dd", {}, rate(p.done_per_hour)),
      h("dt", {}, "failed an hour"), h("dd", { class: p.failed_per_hour ? "bad" : "zero" }, rate(p.failed_per_hour))),
    h("ul", { class: "more" },
      more(p.delayed, "delayed", link("delayed")),
      more(p.held, "held", link("held")), more(p.parked, "parked", `#/failed?phase=${p.phase}`),
      p.paused && h("li", {}, chip("paused"))));
}

function flow(o) {
  return h("section", { class: "flow", "aria-labelledby": "flow-h" },
    h("h2", { id: "flow-h" }, "Flow"),
    o.phases.length ? h("ol", {}, o.phases.map(stage)) : empty("No phase is known yet."));
}

function groupRow(g, refresh) {
  const whole = g.paused.find((c) => c.key === `pause.${g.group}`) ?? g.paused.find((c) => (c.key.match(/\./g) ?? []).length === 1);
  const change = async () => {
    const verb = whole ? "resume" : "pause";
    const answer = await ask({
      title: whole ? `Resume group ${g.group}` : `Pause group ${g.group}`, verb: whole ? "Resume" : "Pause",
      detail: whole ? "Hosts take its tasks again." : "No host takes its tasks; what runs goes on to its end.", path: `/v1/groups/${encodeURIComponent(g.group)}/${verb}`,
    });
    if (answer) refresh();
  };
  return h("tr", { key: g.group },
    h("th", { scope: "row" }, h("a", { href: `#/sectors?group=${encodeURIComponent(g.group)}` }, g.group)),
    h("td", { class: "num" }, count(g.in_flight)),
    h("td", { class: "num run" }, count(g.running)),
    h("td", { class: "num wait" }, count(g.waiting)),
    h("td", { class: `num${g.held ? "" : " zero"}`, title: g.hold_limit ? `p1 is held while ${g.hold_limit} are in flight` : null }, count(g.held)),
    h("td", { class: `num${g.oldest_wait_seconds > 0 ? "" : " zero"}` }, g.oldest_wait_seconds > 0 ? span(g.oldest_wait_seconds) : "none"),
    h("td", { class: `num${g.sectors.parked ? " bad" : " zero"}` }, g.sectors.parked ? h("a", { href: `#/failed?group=${encodeURIComponent(g.group)}` }, count(g.sectors.parked)) : "0"),
    h("td", { class: "num" }, count(g.sectors.finished)),
    h("td", { class: "num" }, h("a", { href: `#/hosts?group=${encodeURIComponent(g.group)}` }, count(g.hosts)), g.hosts_away ? h("span", { class: "bad" }, ` ${g.hosts_away} away`) : null),
    h("td", { class: "mini" }, g.phases.filter((p) => /^p\d$/.test(p.phase)).map((p) =>
      h("span", { class: "m", title: `${p.phase}: ${p.running} running, ${p.waiting} waiting` }, h("b", {}, p.phase), h("span", { class: "run" }, count(p.running)), h("span", { class: "wait" }, count(p.waiting))))),
    h("td", { class: "acts" }, g.paused.length ? chip("paused", whole ? "paused" : g.paused.map((c) => c.key.split(".").at(-1)).join(" ")) : null,
      h("button", { type: "button", class: "quiet", onclick: change }, whole ? "Resume" : "Pause")));
}

function groups(o, refresh) {
  const heads = [["Group", ""], ["In flight", "num"], ["Running", "num"], ["Waiting", "num"], ["Held", "num"], ["Oldest wait", "num"], ["Parked", "num"], ["Finished", "num"], ["Hosts", "num"], ["Running and waiting by phase", ""], ["", ""]];
  return h("section", { class: "panel", "aria-labelledby": "groups-h" }, h("h2", { id: "groups-h" }, "Groups"),
    o.groups.length === 0
      ? empty("No group has a sector yet.", h("p", {}, "Submit one: ", h("code", {}, "dispatcher submit --group group1 --miner f01000 --sector 1")))
      : h("div", { class: "wide", tabindex: "0", role: "region", "aria-labelledby": "groups-h" }, h("table", { class: "groups" },
        h("thead", {}, h("tr", {}, heads.map(([t, c]) => h("th", { scope: "col", class: c }, t || h("span", { class: "hidden" }, "Actions"))))),
        h("tbody", {}, o.groups.map((g) => groupRow(g, refresh))))));
}

const feed = []; // kept while other views are shown

/** Takes what the stream brought, also while another view is shown. */
export function remember(events) {
  for (const e of events) if (e.type !== "progress") feed.unshift(e);
  feed.length = Math.min(feed.length, feedLength);
}

function activity() {
  return h("section", { class: "panel activity", "aria-labelledby": "activity-h" }, h("h2", { id: "activity-h" }, "What happens now"),
    feed.length === 0 ? h("p", { class: "calm" }, "Nothing happened since this page was opened.") : h("ol", {}, feed.map((e) =>
      h("li", { key: e.id, class: `ev ev-${e.type}`, "data-event": e.id },
        h("time", { datetime: e.at, title: full(e.at) }, timeOfDay(e.at)), sectorLink(e.sector), h("b", {}, e.phase), h("span", { class: "what" }, eventWords(e))))));
}

export function mount(root) {
  const [strip, alarm, stages, table, now] = ["figures", "alarms", "flow", "groups", "activity"].map((n) => h("div", { class: `slot-${n}` }));
  show(root, h("h1", { class: "hidden" }, "Overview"), h("div", { class: "overview" }, strip, alarm, stages, table, now));
  let last = null;
  const fresh = refresher(async (signal) => {
    last = await get("/v1/overview", {}, signal);
    draw();
    performance.mark("sealfleet-overview");
  }, (error) => { if (!last) show(stages, trouble(error, () => fresh.ask())); });
  function draw() {
    show(strip, figures(last));
    show(alarm, alarms(last));
    show(stages, flow(last));
    show(table, groups(last, () => fresh.ask()));
  }
  show(now, activity());
  return {
    title: "Overview",
    update(batch) {
      if (batch.events.length) show(now, activity());
      if (batch.events.length || batch.controls.length || batch.reset) fresh.ask();
    },
    answer: () => last,
    leave: () => fresh.stop(),
  };
}
