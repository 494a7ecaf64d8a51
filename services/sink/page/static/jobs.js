// The newest jobs: held here as they come, filtered and sorted here, and of the list only what is in sight is drawn.
import { $, ago, cost, count, empty, h, moment, public_, s, seconds, short, text } from "./dom.js";
import { ask } from "./link.js";

const ROW = 32;
const rows = new Map();
const sight = { list: [], sort: "accepted", way: -1, chosen: "", cursor: -1 };
let now = Date.now() / 1000;
let columns = [];
let most = 10_000;

export const LOOKS = { succeeded: "good", failed: "bad", expired: "warn", cancelled: "", waiting: "", placed: "info", answering: "info" };
const NAMES = { placed: "at a node" };
export const stateOf = (job) => job.status || job.stage;
const pill = (job) => h("span", { class: `pill ${LOOKS[stateOf(job)] ?? ""}` }, NAMES[stateOf(job)] || stateOf(job));
const took = (job) => (job.seconds === null ? Math.max(0, now - job.accepted) : job.seconds);

const COLUMNS = [
  ["state", "state", pill, stateOf, ""], ["id", "job", (job) => h("span", { class: "mono", title: job.id }, public_(job.id)), (job) => job.id, ""],
  ["tenant", "tenant", (job) => job.tenant, (job) => job.tenant, "mid"], ["class", "class", (job) => job.class, (job) => job.class, "wide"],
  ["pattern", "pattern", (job) => job.pattern, (job) => job.pattern, "wide"], ["model", "model", (job) => job.model || "–", (job) => job.model, "wide"],
  ["node", "node", (job) => job.node || "–", (job) => job.node, "wide"], ["seconds", "time", (job) => seconds(took(job)), took, "n"],
  ["steps", "steps", (job) => count(job.steps), (job) => job.steps, "n wide"], ["tokens", "tokens", (job) => short(job.tokens), (job) => job.tokens, "n mid"],
  ["accepted", "accepted", (job) => moment(job.accepted, now), (job) => job.accepted, "n"],
];

export function begin(hello) {
  ({ columns, most } = hello);
  if (hello.fresh) rows.clear();
}

export function take(told) {
  for (const values of told.rows) {
    const job = Object.fromEntries(columns.map((name, n) => [name, values[n]]));
    rows.delete(job.id);
    rows.set(job.id, job);
  }
  for (const id of rows.keys()) {
    if (rows.size <= most) break;
    rows.delete(id);
  }
}

export const size = () => rows.size;
export const tick = (at) => { now = at; };
const newest = (n) => {
  const found = [];
  for (const job of rows.values()) {
    if (found.length < n || job.accepted > found[n - 1].accepted) {
      found.push(job);
      found.sort((a, b) => b.accepted - a.accepted);
      found.length = Math.min(n, found.length);
    }
  }
  return found;
};

export function drawRecent(ready) {
  const shown = newest(9);
  empty("recent-empty", shown.length || !ready ? "" : "No job yet. Ask something in the playground, or `tutti submit 'Name a planet.'`");
  $("recent").hidden = !shown.length;
  $("recent").tBodies[0].replaceChildren(...shown.map((job) =>
    h("tr", { class: "go", onclick: () => { location.hash = `jobs/${encodeURIComponent(job.id)}`; } }, h("td", {}, pill(job)),
      h("td", { class: "cut mono", "width%": 26 }, h("a", { href: `#jobs/${encodeURIComponent(job.id)}`, title: job.id }, public_(job.id))), h("td", { class: "narrow-off" }, job.tenant), h("td", { class: "narrow-off" }, job.pattern),
      h("td", { class: "cut narrow-off", title: job.node, "width%": 16 }, job.node || "–"), h("td", { class: "n" }, seconds(took(job))), h("td", { class: "n narrow-off" }, short(job.tokens)), h("td", { class: "n soft" }, ago(job.accepted, now)))));
}

// Filters

const wanted = () => Object.fromEntries(new FormData($("filters")));

export function filter() {
  const { text: written, tenant, class: class_, pattern, state } = wanted();
  const part = written.trim().toLowerCase();
  const fits = (job) => (!tenant || job.tenant === tenant) && (!class_ || job.class === class_) && (!pattern || job.pattern === pattern) && (!state || stateOf(job) === state) &&
    (!part || job.id.toLowerCase().includes(part) || job.model.toLowerCase().includes(part) || job.node.toLowerCase().includes(part) || job.failure.includes(part));
  const list = [];
  for (const job of rows.values()) if (fits(job)) list.push(job);
  const value = COLUMNS.find(([name]) => name === sight.sort)[3];
  const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  sight.list = list.map((job) => [value(job), job]).sort(([a, one], [b, other]) => sight.way * compare(a, b) || compare(other.accepted, one.accepted)).map(([, job]) => job);
  if (sight.chosen) sight.cursor = sight.list.findIndex((job) => job.id === sight.chosen);  // it moves as others come
}

function offer(name, values) {
  const select = $("filters").elements[name];
  const have = [...select.options].map((option) => option.value);
  for (const value of [...values].sort()) if (!have.includes(value) && select.options.length < 200) select.append(h("option", { value }, NAMES[value] || value));
}

export function drawJobs(ready) {
  const kinds = { tenant: new Set(), class: new Set(), pattern: new Set(), state: new Set() };
  for (const job of rows.values()) {
    kinds.tenant.add(job.tenant); kinds.class.add(job.class); kinds.pattern.add(job.pattern); kinds.state.add(stateOf(job));
  }
  for (const [name, values] of Object.entries(kinds)) offer(name, values);
  const held = view && view.scrollTop > 0 ? sight.list[Math.floor(view.scrollTop / ROW)] : null;
  filter();
  if (held) stay(held);
  draw();
  empty("grid-empty", sight.list.length || !ready ? "" : rows.size ? "No job fits these filters." : "No job yet. Ask something in the playground, or `tutti submit 'Name a planet.'`");
}

/** Who has scrolled goes on looking at the same jobs, whatever comes above them. */
function stay(held) {
  const at = sight.list.findIndex((job) => job.id === held.id);
  if (at >= 0) view.scrollTop = at * ROW + (view.scrollTop % ROW);
}

// The list

let view, canvas, head;
function build() {
  head = h("div", { class: "grid-head", role: "row" }, COLUMNS.map(([name, label, , , look]) =>
    h("span", { role: "columnheader", class: look, "data-name": name }, h("button", { type: "button", onclick: () => sortBy(name) }, label))));
  canvas = h("div", { role: "rowgroup" });
  view = h("div", { class: "grid-view", tabindex: "-1", onscroll: () => requestAnimationFrame(draw) }, canvas);
  $("grid").replaceChildren(h("div", { class: "grid", id: "list", role: "grid", tabindex: "0", "aria-label": "Jobs", onkeydown: onKey }, h("div", { role: "rowgroup" }, head), view));
}

function sortBy(name) {
  sight.way = sight.sort === name ? -sight.way : ["accepted", "seconds", "tokens", "steps"].includes(name) ? -1 : 1;
  sight.sort = name;
  filter();
  draw();
}

function line(job, n) {
  const row = h("div", { class: job.id === sight.chosen ? "grid-row chosen" : "grid-row", role: "row", id: `r-${n}`, "aria-rowindex": n + 2, "aria-selected": job.id === sight.chosen ? "true" : "false", onclick: () => choose(n) },
    COLUMNS.map(([, , show, , look]) => h("span", { role: "gridcell", class: look }, show(job))));
  row.style.top = `${n * ROW}px`;
  return row;
}

export function draw() {
  if (!view) build();
  const list = $("list");
  canvas.style.height = `${sight.list.length * ROW}px`;
  const first = Math.max(0, Math.floor(view.scrollTop / ROW) - 6);
  const last = Math.min(sight.list.length, first + Math.ceil((view.clientHeight || 600) / ROW) + 12);
  canvas.replaceChildren(...sight.list.slice(first, last).map((job, n) => line(job, first + n)));
  list.setAttribute("aria-rowcount", sight.list.length + 1);
  if (sight.cursor >= first && sight.cursor < last) list.setAttribute("aria-activedescendant", `r-${sight.cursor}`);
  else list.removeAttribute("aria-activedescendant");
  for (const cell of head.children) {
    const mine = cell.dataset.name === sight.sort;
    cell.setAttribute("aria-sort", mine ? (sight.way < 0 ? "descending" : "ascending") : "none");
    cell.firstChild.toggleAttribute("data-way", mine);
    text(cell.firstChild, COLUMNS.find(([name]) => name === cell.dataset.name)[1] + (mine ? (sight.way < 0 ? " ↓" : " ↑") : ""));
  }
  text($("found"), `${count(sight.list.length)} of ${count(rows.size)} jobs`);
}

function onKey(event) {
  const page = Math.max(1, Math.floor(view.clientHeight / ROW) - 1);
  const step = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -1e9, End: 1e9 }[event.key];
  if (event.target !== event.currentTarget && !step) return;
  if (event.key === "Escape") return close();
  if (step) {
    event.preventDefault();
    sight.cursor = Math.max(0, Math.min(sight.list.length - 1, sight.cursor + step));
    const top = sight.cursor * ROW;
    if (top < view.scrollTop) view.scrollTop = top;
    else if (top + ROW > view.scrollTop + view.clientHeight) view.scrollTop = top + ROW - view.clientHeight;
    if (sight.list[sight.cursor]) mark(sight.list[sight.cursor].id);
  } else if ((event.key === "Enter" || event.key === " ") && sight.cursor >= 0) {
    event.preventDefault();
    choose(sight.cursor);
  }
}

function mark(id) {
  sight.chosen = id;
  draw();
}

function choose(n) {
  sight.cursor = n;
  const job = sight.list[n];
  if (job) location.hash = `jobs/${encodeURIComponent(job.id)}`;
}

export function close() {
  sight.chosen = "";
  $("detail").hidden = true;
  $("detail").parentElement.classList.remove("open");
  if (location.hash.startsWith("#jobs/")) history.replaceState(null, "", "#jobs");
  if (view) { draw(); $("list").focus(); }
}

// One job

let shown = "";
let told = "";
export async function open(id, focus = true) {
  const detail = $("detail");
  const fresh = shown !== id || detail.hidden;
  sight.chosen = shown = id;
  detail.hidden = false;
  detail.parentElement.classList.add("open");
  if (view) draw();
  let found = null;
  let trouble = "";
  try {
    found = await ask(`/page/jobs/${id.split("/").map(encodeURIComponent).join("/")}`);
  } catch (error) {
    trouble = error.message;
  }
  if (shown !== id || detail.hidden) return;
  const look = JSON.stringify(found) + trouble;
  if (fresh || look !== told) {
    told = look;
    detail.replaceChildren(...(found ? whole(found) : [heading(id), h("p", { class: "empty" }, trouble)]));
  }
  if (fresh && focus) detail.focus({ preventScroll: innerWidth > 1020 });
}

export const refresh = () => { if (!$("detail").hidden && rows.get(shown)?.seconds === null) open(shown, false); };

const heading = (id, job) => h("header", {}, h("h2", { id: "h-detail", class: "mono" }, public_(id)), job && pill(job), h("button", { type: "button", class: "plain", onclick: close }, "Close"));
const fact = (name, value) => (value ? [h("dt", {}, name), h("dd", {}, value)] : []);

function whole({ job, tree, why }) {
  const begin = job.accepted;
  const end = Math.max(begin + .001, begin + (job.seconds ?? now - begin));
  const under = new Map();
  for (const node of tree.nodes) under.set(node.parent || "", [...(under.get(node.parent || "") || []), node]);
  /** A branch of one call is that call. */
  const only = (node) => (node.kind === "branch" && under.get(node.path)?.length === 1 ? only(under.get(node.path)[0]) : node);
  const list = (parent) => h("ul", { class: "steps" }, (under.get(parent) || []).map(only).map((node) =>
    h("li", {}, node.step ? step(node, why[node.step.id], begin, end) : h("p", { class: "branch" }, node.kind === "gather" ? "side by side" : "branch"), under.has(node.path) && list(node.path))));
  const waited = { place: "a free slot", node: "a node that can run it", retry: "its next try", budget: "its tenant's budget", people: "people", time: "a time", turn: "its turn" }[job.reason];
  return [heading(job.id, job),
    h("dl", { class: "facts" }, fact("waits for", job.stage === "waiting" && waited), fact("failure", job.failure && h("span", { class: "bad" }, job.failure.replaceAll("_", " "))), fact("tenant", job.tenant), fact("class", job.class), fact("pattern", job.pattern),
      fact("model", job.model), fact("accepted", moment(job.accepted, now)), fact("time", `${seconds(took(job))}${job.waited ? `, ${seconds(job.waited)} of it until the first step began` : ""}`),
      fact("tokens", `${count(job.tokens)}${job.wasted ? `, ${count(job.wasted)} wasted` : ""}`), fact("cost", job.cost ? cost(job.cost) : ""), fact("cache", job.served && `served, ${job.served}`), fact("critical path", tree.critical_seconds ? seconds(tree.critical_seconds) : "")),
    h("header", {}, h("h2", {}, "Steps"), h("p", { class: "soft" }, `${count(tree.steps)} in ${count(tree.attempts)} attempts`)),
    tree.nodes.length ? list("") : h("p", { class: "empty" }, "No step is held here any longer. ", h("code", {}, `tutti jobs show --tree ${public_(job.id)}`), " asks the ingress."),
    !tree.whole && tree.nodes.length ? h("p", { class: "empty" }, "Steps are missing: reading began after some of them.") : ""];
}

const STEPS = { answered: "good", failed: "bad", running: "info", retrying: "warn", unplaced: "warn", unfunded: "warn" };
function step({ step: one, critical, kind }, why, begin, end) {
  const node = one.nodes?.at(-1);
  const chosen = why ? `${node || "its node"}: ${why}` : node && kind === "step" ? `${node}: a router gave it there when it had a free place and the lowest predicted end` : one.missing?.length ? `no node has ${one.missing.join(", ")}` : "";
  const used = one.usage ? one.usage.prompt_tokens + one.usage.completion_tokens : 0;
  const times = [one.seconds !== undefined && seconds(one.seconds), one.waited_seconds ? `${seconds(one.waited_seconds)} waiting` : "", used && `${short(used)} tokens`, one.attempt > 1 && `attempt ${one.attempt}`].filter(Boolean).join(", ");
  return h("div", { class: "step" }, h("div", { class: "line" }, h("span", { class: `pill ${STEPS[one.state] || ""}` }, one.state), h("span", { class: "strong" }, kind === "pause" ? "pause" : one.agent || "step"),
    critical && h("span", { class: "soft", title: "on the path that decided how long the job took" }, "critical"), h("span", { class: "soft" }, times)), bar(one, begin, end),
    h("p", { class: "why" }, one.model && kind === "step" ? `${one.model}. ` : "", chosen), one.failures?.length ? h("p", { class: "why bad" }, `failed: ${one.failures.slice(-3).join(", ").replaceAll("_", " ")}`) : "");
}

function bar(one, begin, end) {
  if (!one.asked_at) return "";
  const at = (instant) => Math.max(0, Math.min(100, (100 * (instant - begin)) / (end - begin)));
  const from = at(one.asked_at);
  const to = one.seconds === undefined ? 100 : at(one.asked_at + one.seconds);
  const ran = Math.min(to, at(one.asked_at + (one.waited_seconds || 0)));
  return s("svg", { viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": true }, s("rect", { class: "bar-none", width: 100, height: 1, y: 2.5 }),
    s("rect", { class: "bar-idle", x: from, width: Math.max(0, ran - from), height: 2, y: 2 }), s("rect", { class: one.state === "failed" ? "bar-bad" : "bar-accent", x: ran, width: Math.max(.8, to - ran), height: 6, rx: .4 }));
}
