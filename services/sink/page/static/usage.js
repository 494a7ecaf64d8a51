// Usage and cost of tenants, from the sink's store; what patterns gain; what caches served.
import { $, cost, count, empty, h, keyed, s, short, text } from "./dom.js";
import { ask } from "./link.js";

const AWAY = "No store keeps usage here. Name a MongoDB for the sink with `TUTTI_SINK__STORE`, such as `mongodb://127.0.0.1:27017`.";
let asked = { at: -1e9, days: -1 };

export async function drawUsage(now, again = false) {
  const days = Number($("period").value);
  if (!again && asked.days === days && now - asked.at < 10) return;
  asked = { at: now, days };
  const iso = (at) => new Date(1000 * at).toISOString().slice(0, 10);
  try {
    const [period, today] = await Promise.all([ask(`/v1/usage?by=tenant&from=${iso(now - 86_400 * days)}&to=${iso(now)}`), ask(`/v1/usage?by=tenant&from=${iso(now)}&to=${iso(now)}`)]);
    showCost(period.rows, days);
    showToday(today.rows);
  } catch (error) {
    asked.at = now - 9; // soon again: a sink that has just started does not know all keys yet
    empty("cost-empty", error.code === "store_away" ? AWAY : error.message);
    $("cost").hidden = true;
    $("today").replaceChildren(h("p", { class: "empty" }, error.code === "store_away" ? ["No store keeps usage here: set ", h("code", {}, "TUTTI_SINK__STORE"), "."] : error.message));
  }
}

const tokens = (row) => (row.prompt_tokens || 0) + (row.completion_tokens || 0);
/** By cost; by tokens where nothing has a price. */
const weigh = (rows) => (rows.some((row) => row.cost > 0) ? (row) => row.cost : tokens);

function showCost(rows, days) {
  const weight = weigh(rows);
  const all = rows.reduce((sum, row) => sum + weight(row), 0) || 1;
  const sorted = [...rows].sort((a, b) => weight(b) - weight(a));
  empty("cost-empty", rows.length ? "" : `Nothing was used ${days ? "in this time" : "today"} (UTC).`);
  $("cost").hidden = !rows.length;
  text($("cost-note"), rows.length ? `${count(rows.reduce((sum, row) => sum + row.jobs, 0))} jobs, ${short(rows.reduce((sum, row) => sum + tokens(row), 0))} tokens, cost ${cost(rows.reduce((sum, row) => sum + row.cost, 0))}` : "");
  keyed($("cost").tBodies[0], sorted, (row) => row.tenant, (row) => h("tr", {}, h("th", { scope: "row" }, row.tenant), h("td", { class: "n" }, count(row.jobs)), h("td", { class: "n" }, count(row.calls)), h("td", { class: "n" }, short(tokens(row))),
    h("td", { class: "n" }, short(row.wasted_tokens)), h("td", { class: "n strong" }, cost(row.cost)), h("td", { "width%": 30 }, meter(weight(row) / all, `${Math.round((100 * weight(row)) / all)} %`))));
}

function meter(share, label) {
  return h("span", { class: "meter", role: "img", "aria-label": label, title: label }, h("i", { "width%": Math.max(1, 100 * share) }));
}

function showToday(rows) {
  const weight = weigh(rows);
  const all = rows.reduce((sum, row) => sum + weight(row), 0) || 1;
  const sorted = [...rows].sort((a, b) => weight(b) - weight(a));
  const shown = sorted.slice(0, 5);
  $("today").replaceChildren(shown.length ? h("div", { class: "shares" }, shown.map((row) => h("div", {}, h("span", { class: "strong" }, row.tenant), h("span", { class: "soft" }, row.cost > 0 ? `cost ${cost(row.cost)}` : `${short(tokens(row))} tokens`), meter(weight(row) / all, `${Math.round((100 * weight(row)) / all)} %`)))) : h("p", { class: "empty" }, "Nothing was used today (UTC)."));
}

const share = (part, whole) => `${((100 * part) / whole).toFixed(1)} %`;

export function drawCache(told) {
  const { exact, semantic, answers } = told.cache;
  const hits = exact + semantic;
  const fact = (name, value) => [h("dt", {}, name), h("dd", {}, value)];
  $("cache").replaceChildren(hits ? h("dl", { class: "facts" }, fact("answers", count(answers)), fact("served exactly", `${count(exact)} (${share(exact, answers)})`), fact("served by meaning", `${count(semantic)} (${share(semantic, answers)})`)) :
    h("p", { class: "empty" }, `No answer of ${count(answers)} came from a cache: it is off, or nothing was asked twice.`));
  return hits ? `${share(hits, answers)} of ${short(answers)} answers` : "off, or nothing served";
}

export function drawGains(told) {
  empty("gains-empty", told.rows.length ? "" : "No comparisons were read. Planners compare a share of the jobs with a simpler answer: `TUTTI_PLANNER__COMPARED_SHARE=0.05`. `tutti patterns report` reads all of the last 7 days.");
  $("gains").hidden = !told.rows.length;
  keyed($("gains").tBodies[0], told.rows, (row) => `${row.tenant}/${row.pattern}`, (row) => h("tr", {}, h("th", { scope: "row" }, row.pattern), h("td", {}, row.tenant), h("td", {}, row.baselines.join(", ")), h("td", { class: "n" }, count(row.comparisons)),
    h("td", { title: `${row.better} better, ${row.equal} equal, ${row.worse} worse` }, thirds(row)), h("td", { class: "keep" }, whisker(row)), h("td", { class: "n" }, row.cost_ratio === null ? "–" : `${row.cost_ratio.toFixed(2)}×`), h("td", { class: "n" }, row.seconds_ratio === null ? "–" : `${row.seconds_ratio.toFixed(2)}×`), h("td", { class: "soft" }, row.evidence)));
}

function thirds(row) {
  let x = 0;
  const parts = [["good", row.better], ["none", row.equal], ["bad", row.worse]].map(([look, n]) => {
    const wide = (120 * n) / row.comparisons;
    const bar = s("rect", { class: `bar-${look}`, x, width: Math.max(0, wide - 1), height: 8, rx: 1.5 });
    x += wide;
    return bar;
  });
  return s("svg", { width: 120, height: 8, role: "img", "aria-label": `${row.better} better, ${row.equal} equal, ${row.worse} worse` }, parts);
}

function whisker(row) {
  const at = (gain) => 4 + (56 * (gain + 1));
  const [low, high] = row.interval;
  const label = `${row.gain > 0 ? "+" : ""}${row.gain.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`;
  const look = low > 0 ? "good" : high < 0 ? "bad" : "idle";
  return h("span", { title: label }, s("svg", { width: 120, height: 14, role: "img", "aria-label": label }, s("line", { class: "axis", x1: at(0), x2: at(0), y1: 1, y2: 13 }), s("rect", { class: `bar-${look}`, x: at(low), y: 6, width: at(high) - at(low), height: 2 }), s("circle", { class: `bar-${look}`, cx: at(row.gain), cy: 7, r: 3.6 })), ` ${row.gain > 0 ? "+" : ""}${row.gain.toFixed(2)}`);
}
