// Elements and words. Text is always set as text: nothing that the cluster says is read as markup.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

function made(element, properties, children) {
  for (const [name, value] of Object.entries(properties || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "width%") element.style.width = `${value}%`;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const h = (tag, properties, ...children) => made(document.createElement(tag), properties, children);
export const s = (tag, properties, ...children) => made(document.createElementNS(SVG, tag), properties, children);

/** The children of `parent` become those of `items`, kept by key, so that focus and scroll stay where they are; drawn only where they differ. */
export function keyed(parent, items, key, draw) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let before = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    const look = JSON.stringify(item);
    let child = known.get(name);
    known.delete(name);
    if (!child || child.dataset.look !== look) {
      const drawn = draw(item);
      drawn.dataset.key = name;
      drawn.dataset.look = look;
      if (child) {
        const held = child.contains(document.activeElement) ? document.activeElement.dataset.hold : undefined;
        if (before === child) before = drawn;
        child.replaceWith(drawn);
        if (held) drawn.querySelector(`[data-hold="${CSS.escape(held)}"]`)?.focus();
      }
      child = drawn;
    }
    if (child === before) before = child.nextElementSibling;
    else parent.insertBefore(child, before);
  }
  for (const gone of known.values()) gone.remove();
}

export function text(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

/** Words with `code` in them. */
export const words = (sentence) => sentence.split("`").map((part, number) => (number % 2 ? h("code", {}, part) : part));

export function empty(id, sentence) {
  const element = $(id);
  element.hidden = !sentence;
  if (sentence && element.dataset.words !== sentence) {
    element.dataset.words = sentence;
    element.replaceChildren(...words(sentence));
  }
}

export function say(sentence) {
  $("said").textContent = sentence;
}

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
export const count = (n) => whole.format(n || 0);
export function short(n) {
  if (n < 10_000) return count(n);
  for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) if (n >= size) return `${(n / size).toFixed(n < 100 * size ? 1 : 0)}${unit}`;
  return count(n);
}
export const rate = (n) => `${n >= 100 ? count(n) : n >= 10 ? n.toFixed(0) : n.toFixed(1)}/s`;
export const cost = (n) => (!n ? "0" : n >= 100 ? count(n) : n >= 0.01 ? n.toFixed(2) : n.toPrecision(2));
export function seconds(n) {
  if (n === null || n === undefined) return "–";
  if (n < 1) return `${Math.round(1000 * n)} ms`;
  if (n < 10) return `${n.toFixed(1)} s`;
  if (n < 120) return `${Math.round(n)} s`;
  if (n < 7200) return `${Math.round(n / 60)} min`;
  return n < 172_800 ? `${Math.round(n / 3600)} h` : `${Math.round(n / 86_400)} d`;
}
export function bytes(n) {
  if (!n) return "–";
  for (const [size, unit] of [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]]) if (n >= size) return `${(n / size).toFixed(n < 10 * size ? 1 : 0)} ${unit}`;
  return `${n} B`;
}
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
export const moment = (at, now) => (Math.abs(now - at) < 43_200 ? clock : day).format(new Date(1000 * at));
export const ago = (at, now) => (now - at < 1.5 ? "now" : `${seconds(Math.max(0, now - at))} ago`);
/** An id as people know it: without its tenant. */
export const public_ = (id) => id.slice(id.lastIndexOf("/") + 1);
