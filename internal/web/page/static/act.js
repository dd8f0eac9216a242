// Everything that changes something: who and why are asked, and one key is sent however often
// the request is.
import { h, show } from "./dom.js";
import { act, newKey } from "./api.js";
import { trouble } from "./parts.js";

const whoKey = "sealfleet.by";

function remembered() {
  try { return localStorage.getItem(whoKey) ?? ""; } catch { return ""; }
}

function remember(by) {
  try { localStorage.setItem(whoKey, by); } catch { /* asked again next time */ }
}

/** Says something for a while at the foot of the page, and to screen readers. */
export function say(text) {
  const box = document.getElementById("said");
  show(box, h("p", { class: "toast" }, text));
  clearTimeout(say.timer);
  say.timer = setTimeout(() => show(box), 8000);
}

/** A dialog with this content; it gives the focus back when it closes. */
export function dialog(label, content) {
  const before = document.activeElement;
  const box = h("dialog", { "aria-label": label }, content);
  box.addEventListener("close", () => { box.remove(); before?.focus?.(); });
  box.addEventListener("click", (e) => { if (e.target === box) box.close(); });
  document.body.append(box);
  box.showModal();
  return box;
}

/**
 * Asks who and why, then sends the request; resolves with the answer, or null if it was left.
 * title: what will be done; warning: what cannot be undone; danger: the button says so.
 */
export function ask({ title, detail, warning, verb, danger, method = "POST", path, body = {} }) {
  return new Promise((resolve) => {
    let key = newKey();
    let sent = null;
    let answer = null;
    const problem = h("div", {});
    const by = h("input", { name: "by", required: true, maxlength: "100", autocomplete: "username", placeholder: "name@host", value: remembered() });
    const reason = h("input", { name: "reason", required: true, maxlength: "500", autocomplete: "off", placeholder: "kept in the log with it" });
    const go = h("button", { type: "submit", class: danger ? "danger" : "primary" }, verb);
    const form = h("form", {
      method: "dialog",
      onsubmit: async (e) => {
        e.preventDefault();
        const request = { ...body, by: by.value.trim(), reason: reason.value.trim() };
        if (!request.by || !request.reason) {
          show(problem, trouble({ message: "Say who you are and why: both are kept in the log." }));
          return;
        }
        const text = JSON.stringify(request);
        if (sent !== null && sent !== text) key = newKey(); // another request than the one before
        sent = text;
        remember(request.by);
        go.disabled = true;
        try {
          answer = await act(method, path, request, key);
          box.close();
        } catch (error) {
          show(problem, trouble(error));
        } finally {
          go.disabled = false;
        }
      },
    },
    h("h2", {}, title), detail && h("p", {}, detail), warning && h("p", { class: "warning" }, warning),
    h("label", {}, "Who ", by), h("label", {}, "Why ", reason), problem,
    h("div", { class: "buttons" }, h("button", { type: "button", onclick: () => box.close() }, "Leave it"), go));
    const box = dialog(title, form);
    (by.value ? reason : by).focus();
    box.addEventListener("close", () => { if (answer?.message) say(answer.message); resolve(answer); });
  });
}

/** Has sectors done again, in requests of at most a thousand; phase may be empty: where each is parked. */
export async function redo(sectors, phase) {
  if (sectors.length === 1) {
    return ask({
      title: `Redo ${phase ? `${phase} of ` : ""}${sectors[0]}`, verb: "Redo", path: `/v1/sectors/${encodeURIComponent(sectors[0])}/redo`,
      detail: phase ? undefined : "The phase at which it is parked is done again.", body: phase ? { phase } : {},
    });
  }
  const most = 1000;
  const now = sectors.slice(0, most);
  const answer = await ask({
    title: `Redo ${now.length} sectors`, verb: `Redo ${now.length}`, path: "/v1/redo", body: { sectors: now, ...(phase ? { phase } : {}) },
    detail: sectors.length > most ? `The first ${most} of ${sectors.length}; ask again for the others.` : "Each at the phase where it is parked; each is answered for by itself.",
  });
  if (!answer) return null;
  const refused = answer.items.filter((i) => !i.ok);
  if (refused.length) {
    const box = dialog("What was refused", [
      h("h2", {}, `${answer.redone} redone, ${answer.refused} refused`),
      h("ul", { class: "refused" }, refused.map((i) => h("li", {}, h("span", { class: "id" }, i.sector), ` ${i.message ?? i.code}`))),
      h("div", { class: "buttons" }, h("button", { type: "button", class: "primary", onclick: () => box.close() }, "Seen")),
    ]);
  } else {
    say(`${answer.redone} sectors are done again.`);
  }
  return answer;
}
