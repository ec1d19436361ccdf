// What the console's page is made with: calls to the pod, elements, and words for numbers.

export const TOKEN = "unread-admin-token";
export const SECOND = 1000;

export const $ = (id) => document.getElementById(id);

// ---------------------------------------------------------------------------------------------------------- asking the pod

class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** Asks for JSON. With `body` it is a POST. */
export async function ask(path, body) {
  const headers = {};
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers["Authorization"] = `Bearer ${token}`;
  if (body) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, {
      method: body ? "POST" : "GET",
      headers,
      body: body && JSON.stringify(body),
      cache: "no-store",
      credentials: "omit",
    });
  } catch {
    throw new Refused(0, "The pod does not answer.");
  }
  const found = await answer.json().catch(() => null);
  if (answer.ok && found) return found;
  throw new Refused(answer.status, found?.detail ?? `The pod answered ${answer.status}.`);
}

// ------------------------------------------------------------------------------------------------------ making and patching

const SVG = new Set(["svg", "path", "line", "rect"]);

/** Makes an element. Children are texts, elements, lists of these, or nothing. */
export function h(name, attributes, ...children) {
  const made = SVG.has(name)
    ? document.createElementNS("http://www.w3.org/2000/svg", name)
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) {
      made.append(child instanceof Node ? child : String(child));
    }
  }
  return made;
}

/** Makes `old` like `fresh` and keeps what need not change, so that focus, open parts and selections stay. */
function patch(old, fresh) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.nodeValue !== fresh.nodeValue) {
      old.nodeValue = fresh.nodeValue;
      const live = old.parentElement?.closest("[data-live]");
      if (live) flash(live);
    }
    return;
  }
  for (const { name } of [...old.attributes]) {
    const own = name === "open" || (name === "class" && old.hasAttribute("data-live"));
    if (!own && !fresh.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (name === "open" || old.getAttribute(name) === value) continue;
    // What has just changed goes on saying so.
    const changed = name === "class" && old.hasAttribute("data-live") && old.classList.contains("changed");
    old.setAttribute(name, changed ? `${value} changed` : value);
  }
  patchChildren(old, [...fresh.childNodes]);
}

function patchChildren(old, fresh) {
  const keyed = new Map();
  for (const child of old.children) if (child.dataset?.key) keyed.set(child.dataset.key, child);
  let at = old.firstChild;
  for (const next of fresh) {
    const key = next.dataset?.key;
    const known = key ? keyed.get(key) : at?.dataset?.key ? null : at;
    if (known && known.nodeName === next.nodeName) {
      if (known === at) at = at.nextSibling;
      else old.insertBefore(known, at);
      patch(known, next);
    } else {
      old.insertBefore(next, at);
      if (at && !key && !at.dataset?.key) {
        const gone = at;
        at = at.nextSibling;
        gone.remove();
      }
    }
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

export function show(place, ...children) {
  patchChildren(place, [...h("div", null, children).childNodes]);
}

function flash(element) {
  element.classList.remove("changed");
  void element.getBoundingClientRect();
  element.classList.add("changed");
}

let saidAt = 0;
/** Says something to a screen reader, at most every three seconds unless it is `awaited`. */
export function say(text, awaited = false) {
  if (!awaited && Date.now() - saidAt < 3 * SECOND) return;
  saidAt = Date.now();
  $("said").textContent = text;
}

// -------------------------------------------------------------------------------------------------------------------- words

export const whole = (n) => Number(n).toLocaleString("en");

export function rate(n) {
  if (n === 0) return "0";
  if (n < 0.1) return n.toFixed(2);
  return n < 10 ? n.toFixed(1) : whole(Math.round(n));
}

export function seconds(n) {
  if (n < 10) return `${n.toFixed(1)} s`;
  if (n < 120) return `${Math.round(n)} s`;
  return n < 7200 ? `${Math.round(n / 60)} min` : `${Math.round(n / 3600)} h`;
}

export const clock = (at) => new Date(at).toLocaleTimeString("en-GB");
export const day = (at) => `${new Date(at).toLocaleDateString("sv-SE")} ${clock(at)}`;
export const plural = (n, one) => `${whole(n)} ${one}${n === 1 ? "" : "s"}`;
