// Numbers and times as people read them. The server's clock is the one that counts: its
// answers carry their time, and ages are reckoned from that.

let skew = 0;

/** Takes an answer's time as what the server's clock says now. */
export function clock(at) {
  const t = Date.parse(at);
  if (!Number.isNaN(t)) skew = t - Date.now();
}

/** The server's time now, in milliseconds since 1970. */
export const now = () => Date.now() + skew;

/** Seconds as "45 s", "12 m", "3 h 12 m", "2 d 4 h". */
export function span(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  const x = Math.max(0, seconds);
  if (x < 10 && x % 1 >= 0.05) return `${x.toFixed(1)} s`;
  if (x < 60) return `${Math.round(x)} s`;
  if (x < 3600) return `${Math.floor(x / 60)} m${x < 600 && Math.floor(x % 60) ? ` ${Math.floor(x % 60)} s` : ""}`;
  if (x < 86400) return two(x, 3600, "h", 60, "m");
  return two(x, 86400, "d", 3600, "h");
}

function two(x, big, bigName, small, smallName) {
  const rest = Math.floor((x % big) / small);
  return `${Math.floor(x / big)} ${bigName}${rest ? ` ${rest} ${smallName}` : ""}`;
}

/** How long ago a time was, without "ago". */
export const age = (at) => (at ? span(Math.floor((now() - Date.parse(at)) / 1000)) : "–");

/** "in 3 h", "2 m ago". */
export function when(at) {
  if (!at) return "–";
  const d = (Date.parse(at) - now()) / 1000;
  return d > 0 ? `in ${span(Math.floor(d))}` : `${span(Math.floor(-d))} ago`;
}

/** A time in full, UTC: "2026-11-28 07:49:12Z". */
export const full = (at) => (at ? `${new Date(at).toISOString().slice(0, 19).replace("T", " ")}Z` : "");

/** The time of the day, UTC: "07:49:12". */
export const timeOfDay = (at) => (at ? new Date(at).toISOString().slice(11, 19) : "");

const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** Bytes as "453 GiB". */
export function bytes(n) {
  if (!Number.isFinite(n)) return "–";
  let i = 0;
  let x = n;
  while (Math.abs(x) >= 1024 && i < units.length - 1) { x /= 1024; i++; }
  return `${x >= 100 || i === 0 ? Math.round(x) : x.toFixed(1)} ${units[i]}`;
}

/** Whole numbers with thin groups: 12 345. */
export const count = (n) => (Number.isFinite(n) ? Math.round(n).toLocaleString("en-GB") : "–");

/** "1 sector", "3 sectors". */
export const many = (n, one, more = `${one}s`) => `${count(n)} ${n === 1 ? one : more}`;

/** A rate that may be small: 0.4, 12, 1,340. */
export const rate = (n) => (Number.isFinite(n) ? (n > 0 && n < 10 && n % 1 ? n.toFixed(1) : count(n)) : "–");
