// What happens, as it happens: one stream of server-sent events for the whole page, read by
// fetch rather than EventSource, because that tells no status, sends no Last-Event-ID at first,
// and notices a dead line only when the system does.
import { check, current } from "./api.js";

const silentAfter = 25_000; // ms; the server says something every 10 s
const hiddenFor = 60_000; // ms; then a hidden tab lets its connection go
const firstRetry = 500; // ms
const lastRetry = 15_000; // ms
const mostEvents = 500; // of one batch; more is as good as a reset

const listeners = new Set();
let batch = fresh();
let frame = 0;
let later = 0;
let lastId = "";
let abort = null;
let retry = firstRetry;
let timer = 0;
let state = { state: "connecting", since: Date.now() };

function fresh() { return { events: [], controls: [], sectors: new Set(), reset: false }; }

/** f is called with each batch {events, controls, sectors, reset, link}; returns how to stop. */
export function listen(f) {
  listeners.add(f);
  return () => listeners.delete(f);
}

/** The connection: {state: connecting|live|lost|paused, since, again}. */
export const link = () => state;

function become(next, more = {}) {
  if (next !== state.state) state = { state: next, since: Date.now(), ...more };
  else state = { ...state, ...more };
  flush();
}

function flush() {
  cancelAnimationFrame(frame);
  clearTimeout(later);
  frame = later = 0;
  const full = batch;
  batch = fresh();
  for (const f of listeners) f({ ...full, link: state });
}

// At most once a frame; a hidden page has no frames.
function soon() {
  if (frame || later) return;
  if (document.hidden) later = setTimeout(flush, 250);
  else frame = requestAnimationFrame(flush);
}

function take(name, id, data) {
  if (id) lastId = id;
  if (name === "reset") batch.reset = true;
  else if (name === "control") batch.controls.push(JSON.parse(data));
  else if (name === "event") {
    const e = JSON.parse(data);
    batch.sectors.add(e.sector);
    if (batch.events.length < mostEvents) batch.events.push(e);
    else batch.reset = true;
  } else return;
  soon();
}

// One message of the stream: lines of "field: value".
function message(text) {
  let name = "message";
  let id = "";
  const data = [];
  for (const line of text.split("\n")) {
    const colon = line.indexOf(":");
    if (colon <= 0) continue;
    const value = line.slice(colon + 1).replace(/^ /, "");
    const field = line.slice(0, colon);
    if (field === "event") name = value;
    else if (field === "id") id = value;
    else if (field === "data") data.push(value);
  }
  take(name, id, data.join("\n"));
}

async function read() {
  abort = new AbortController();
  const mine = abort;
  let watch = setTimeout(() => mine.abort(), silentAfter);
  try {
    const headers = { Accept: "text/event-stream", ...(lastId ? { "Last-Event-ID": lastId } : {}) };
    const asked = current();
    const response = await check(await fetch("/v1/stream", { headers, signal: mine.signal, cache: "no-store" }), asked);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    // Without an id nothing is known of what came between: what is shown is read again.
    if (!lastId) batch.reset = true;
    become("live");
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      retry = firstRetry;
      clearTimeout(watch);
      watch = setTimeout(() => mine.abort(), silentAfter);
      const parts = (rest + value.replaceAll("\r\n", "\n")).split("\n\n");
      rest = parts.pop();
      parts.forEach(message);
    }
  } finally {
    clearTimeout(watch);
  }
}

async function run() {
  clearTimeout(timer);
  timer = 0;
  let why = "";
  try {
    await read();
  } catch (e) {
    why = e.code === "unreachable" || !e.status ? "" : e.message;
  }
  abort = null;
  if (state.state === "paused") return;
  const wait = retry * (0.75 + Math.random() / 2);
  retry = Math.min(retry * 2, lastRetry);
  become("lost", { again: Date.now() + wait, why });
  timer = setTimeout(run, wait);
}

/** Connects now, if not connected. */
export function connect() {
  if (abort) return;
  if (state.state !== "lost") become("connecting");
  run();
}

/** Starts the stream; it goes on as long as the page is there. */
export function start() {
  connect();
  let hiding = 0;
  // A browser opens six connections to a server, over all its tabs.
  document.addEventListener("visibilitychange", () => {
    clearTimeout(hiding);
    if (document.hidden) {
      hiding = setTimeout(() => { state = { state: "paused", since: Date.now() }; clearTimeout(timer); abort?.abort(); }, hiddenFor);
    } else if (state.state === "paused") {
      connect();
    }
  });
  addEventListener("online", connect);
}

/** Runs read at once, then again when asked, never two at a time and not oftener than the
 *  answers allow: an operator sees the first change at once, and a flood costs a quarter of
 *  the time. failed gets what readNow throws. every: ms after which it reads again unasked (0: never). */
export function refresher(readNow, failed, every = 10_000) {
  let running = false;
  let again = false;
  let due = 0;
  let gone = false;
  let next = 0; // not before
  let abortRead = null;
  async function go() {
    clearTimeout(due);
    due = 0;
    running = true;
    again = false;
    const began = performance.now();
    abortRead = new AbortController();
    try {
      await readNow(abortRead.signal);
    } catch (e) {
      if (!gone && e.name !== "AbortError") failed(e);
    } finally {
      running = false;
    }
    if (gone) return;
    const took = performance.now() - began;
    next = performance.now() + Math.max(200, 3 * took);
    if (again) plan();
    else if (every) due = setTimeout(go, every);
  }
  function plan() {
    clearTimeout(due);
    due = setTimeout(go, Math.max(0, next - performance.now()));
  }
  go();
  return {
    ask() {
      if (gone) return;
      if (running) again = true;
      else plan();
    },
    stop() { gone = true; clearTimeout(due); abortRead?.abort(); },
  };
}
