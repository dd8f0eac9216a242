// The API under /v1: reading, acting, and its errors in words.
import { clock } from "./format.js";

/** What the API refused or could not do; code is stable, mend says what would help. */
export class Refused extends Error {
  constructor(status, { code, message, mend, near }) {
    super(message);
    Object.assign(this, { status, code, mend, near });
  }
}

const unreachable = () => new Refused(0, {
  code: "unreachable", message: "The dispatcher does not answer.",
  mend: "See whether it runs (systemctl status sealfleet-dispatcher) and whether this address is still its own.",
});

const listeners = { unauthorized: () => {} };

/** f is called when the API asks for a token. */
export const onUnauthorized = (f) => { listeners.unauthorized = f; };

let session = 0;

/** Which sign-in a request belongs to: check wants to know of when it was sent. */
export const current = () => session;

/** Somebody signed in: what was asked before may still be refused, and says nothing. */
export const signedIn = () => { session++; };

/** Refuses a response that is not ok, in the API's words. */
export async function check(response, asked) {
  if (response.ok) return response;
  let error;
  try { error = (await response.json()).error; } catch { /* not the API: a proxy's page, say */ }
  if (response.status === 401 && asked === session) listeners.unauthorized();
  throw new Refused(response.status, error ?? {
    code: "http", message: `The server answered ${response.status} ${response.statusText}.`,
    mend: response.status === 404 ? "This dispatcher may be of an older version than its page." : undefined,
  });
}

/** A path with its parameters; empty ones are left out, lists are joined with commas. */
export function address(path, params = {}) {
  const pairs = Object.entries(params)
    .map(([k, v]) => [k, Array.isArray(v) ? v.join(",") : v])
    .filter(([, v]) => v !== "" && v !== null && v !== undefined);
  return pairs.length ? `${path}?${new URLSearchParams(pairs)}` : path;
}

/** Reads JSON from the API. */
export async function get(path, params, signal) {
  const asked = session;
  let response;
  try {
    response = await fetch(address(path, params), { signal, headers: { Accept: "application/json" }, cache: "no-store" });
  } catch (e) {
    if (e.name === "AbortError") throw e;
    throw unreachable();
  }
  const answer = await (await check(response, asked)).json();
  if (answer.at) clock(answer.at);
  return answer;
}

/** Asks the API to change something. The same key with the same body is done once, however
 *  often it is sent: after a lost connection it is sent again as it was. */
export async function act(method, path, body, key) {
  const asked = session;
  let response;
  try {
    response = await fetch(path, {
      method, cache: "no-store", body: body === undefined ? undefined : JSON.stringify(body),
      headers: { "Content-Type": "application/json", Accept: "application/json", ...(key ? { "Idempotency-Key": key } : {}) },
    });
  } catch {
    throw unreachable();
  }
  return (await check(response, asked)).json();
}

/** A new idempotency key. */
export function newKey() {
  const raw = crypto.getRandomValues(new Uint8Array(16));
  return `page-${Array.from(raw, (b) => b.toString(16).padStart(2, "0")).join("")}`;
}
