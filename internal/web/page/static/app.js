// The page's frame: views by address, the connection's state, theme, keys, signing in.
import { h, show } from "./dom.js";
import { act, get, onUnauthorized, signedIn } from "./api.js";
import * as live from "./live.js";
import { span } from "./format.js";
import * as keys from "./keys.js";
import { dialog } from "./act.js";
import { trouble } from "./parts.js";
import * as overview from "./overview.js";
import * as failed from "./failed.js";
import * as sectors from "./sectors.js";
import * as sector from "./sector.js";
import * as hosts from "./hosts.js";
import * as pace from "./pace.js";
import * as bus from "./bus.js";

const views = [
  { name: "", text: "Overview", module: overview },
  { name: "failed", text: "Failed", module: failed, badge: (o) => o.sectors.parked },
  { name: "sectors", text: "Sectors", module: sectors, one: sector },
  { name: "hosts", text: "Hosts", module: hosts, badge: (o) => o.hosts.away + o.hosts.silent },
  { name: "pace", text: "Pace", module: pace },
  { name: "bus", text: "Bus", module: bus },
];

const main = document.getElementById("main");
let current = null;
let at = views[0];
let farm = null; // the last overview, for the badges and for what is not ready

function nav() {
  show(document.getElementById("nav"), h("ul", {}, views.map((v) => {
    const n = farm && v.badge ? v.badge(farm) : 0;
    return h("li", { key: v.name }, h("a", { href: `#/${v.name}`, "aria-current": v === at ? "page" : null }, v.text, n > 0 && h("span", { class: "badge", title: `${n}` }, n > 999 ? "999+" : String(n))));
  })));
}

function route() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, id] = path.split("/");
  const found = views.find((v) => v.name === name);
  current?.leave();
  at = found ?? views[0];
  main.className = `view-${id ? "sector" : at.name || "overview"}`;
  main.replaceChildren();
  if (!found) {
    current = null;
    keys.viewKeys({});
    show(main, trouble({ message: `There is no view "${name}".`, mend: "Choose one above." }));
  } else {
    const module = id && found.one ? found.one : found.module;
    let decoded = id ?? "";
    try { decoded = decodeURIComponent(decoded); } catch { /* a malformed address: the API says so */ }
    current = module.mount(main, Object.fromEntries(new URLSearchParams(query ?? "")), decoded);
    keys.viewKeys(current.keys);
    document.title = `${current.title} – sealfleet`;
  }
  nav();
}

function connection() {
  const l = live.link();
  const words = { live: "live", connecting: "connecting …", lost: "connection lost", paused: "paused" };
  const el = document.getElementById("link");
  el.className = `link l-${l.state}`;
  if (el.textContent !== words[l.state]) el.textContent = words[l.state];
  const banner = document.getElementById("banner");
  const lostFor = (Date.now() - l.since) / 1000;
  if (l.state === "lost" && lostFor > 1) {
    show(banner, h("p", {}, `The connection to the dispatcher is lost; what is shown is ${span(Math.round(lostFor))} old. `,
      l.why ? `${l.why} ` : "", l.again > Date.now() ? `Trying again in ${span(Math.ceil((l.again - Date.now()) / 1000))}. ` : "Trying again … ",
      h("button", { type: "button", class: "quiet", onclick: () => live.connect() }, "Try now")));
  } else if (farm && !farm.ready) {
    show(banner, h("p", { class: "soft" }, "The dispatcher is still reading the log: these numbers are of the past."));
  } else {
    show(banner);
  }
}

function theme() {
  const root = document.documentElement;
  const next = { "": "light", light: "dark", dark: "" }[root.dataset.theme ?? ""];
  if (next) root.dataset.theme = next;
  else delete root.dataset.theme;
  try { localStorage.setItem("sealfleet.theme", next); } catch { /* for this time only */ }
  drawTheme();
}

function drawTheme() {
  const chosen = document.documentElement.dataset.theme ?? "";
  document.getElementById("theme").textContent = { "": "auto", light: "light", dark: "dark" }[chosen];
}

let signing = false;
function signIn() {
  if (signing) return;
  signing = true;
  const problem = h("div", {});
  const token = h("input", { type: "password", name: "token", required: true, maxlength: "1000", autocomplete: "current-password" });
  const box = dialog("Sign in", h("form", {
    method: "dialog",
    onsubmit: async (e) => {
      e.preventDefault();
      try {
        await act("POST", "/v1/session", { token: token.value.trim() });
        signedIn();
        box.close();
      } catch (error) {
        show(problem, trouble(error));
      }
    },
  },
  h("h2", {}, "Sign in"), h("p", {}, "This dispatcher asks for its token: the content of HTTP_TOKEN_FILE."), h("label", {}, "Token ", token), problem,
  h("div", { class: "buttons" }, h("button", { type: "submit", class: "primary" }, "Sign in"))));
  box.addEventListener("close", () => { signing = false; live.connect(); route(); });
}

async function badges(signal) {
  farm = at.name === "" && current?.answer?.() ? current.answer() : await get("/v1/overview", {}, signal);
  nav();
  connection();
}

onUnauthorized(signIn);
live.listen((batch) => {
  overview.remember(batch.events);
  connection();
  if (batch.events.length || batch.controls.length || batch.reset) current?.update(batch);
});
addEventListener("hashchange", route);
document.getElementById("theme").onclick = theme;
document.getElementById("help").onclick = keys.help;
document.querySelector(".skip").onclick = (e) => { e.preventDefault(); main.focus(); };
keys.start(theme);
drawTheme();
route();
live.start();
setInterval(connection, 1000);
live.refresher(badges, () => {}, 10_000);
