// Elements from descriptions, and patching: views say what should be there, and patch changes
// what differs, so that focus, scrolling and selections stay where they are.

const svgSpace = "http://www.w3.org/2000/svg";

function build(el, attrs, children) {
  el.handlers = {};
  for (const [name, value] of Object.entries(attrs ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "key") el.patchKey = String(value);
    else if (name === "css") for (const [k, v] of Object.entries(value)) el.style.setProperty(k, v);
    else if (name.startsWith("on")) el.handlers[name] = el[name] = value;
    else if (name === "checked" || name === "indeterminate") { el[name] = value; el.hasState = true; }
    else el.setAttribute(name, value === true ? "" : value);
  }
  add(el, children);
  return el;
}

function add(el, children) {
  for (const c of children) {
    if (c === null || c === undefined || c === false || c === "") continue;
    if (Array.isArray(c)) add(el, c);
    else el.append(c);
  }
}

/** An HTML element; attributes that are null or false are left out. */
export const h = (tag, attrs, ...children) => build(document.createElement(tag), attrs, children);

/** An SVG element. */
export const s = (tag, attrs, ...children) => build(document.createElementNS(svgSpace, tag), attrs, children);

function alike(a, b) {
  return a.nodeType === b.nodeType && a.nodeName === b.nodeName && a.patchKey === b.patchKey;
}

function patchAttributes(old, now) {
  for (const { name } of [...old.attributes]) {
    if (name !== "style" && !now.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of now.attributes) {
    if (name !== "style" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  // Through the object model: as an attribute, the page's policy refuses it.
  if (old.style.cssText !== now.style.cssText) old.style.cssText = now.style.cssText;
  for (const name of Object.keys(old.handlers ?? {})) if (!now.handlers[name]) old[name] = null;
  for (const [name, f] of Object.entries(now.handlers ?? {})) old[name] = f;
  old.handlers = now.handlers;
  if (now.hasState) { old.checked = now.checked; old.indeterminate = now.indeterminate; }
}

/** Makes old what now is, in place; returns the element that is in the document. */
export function patch(old, now) {
  if (!alike(old, now)) {
    old.replaceWith(now);
    return now;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== now.data) old.data = now.data;
    return old;
  }
  patchAttributes(old, now);
  // What is marked data-keep is filled by somebody else.
  if (!now.hasAttribute("data-keep")) patchChildren(old, [...now.childNodes]);
  return old;
}

/** Makes parent's children what the list says; those with a key are found by it. */
export function patchChildren(parent, wanted) {
  const keyed = new Map();
  for (const c of parent.childNodes) if (c.patchKey !== undefined) keyed.set(c.patchKey, c);
  let at = parent.firstChild;
  for (const now of wanted) {
    let old = now.patchKey === undefined ? at : keyed.get(now.patchKey);
    if (old && old.patchKey !== undefined && now.patchKey === undefined) old = null;
    if (!old || !alike(old, now)) {
      parent.insertBefore(now, at);
      continue;
    }
    if (old !== at) parent.insertBefore(old, at);
    else at = at.nextSibling;
    patch(old, now);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

/** Shows the given nodes in parent, and nothing else. */
export function show(parent, ...nodes) {
  const flat = nodes.flat(Infinity).filter((n) => n !== null && n !== undefined && n !== false && n !== "");
  patchChildren(parent, flat.map((n) => (n instanceof Node ? n : document.createTextNode(n))));
}
