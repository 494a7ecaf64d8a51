// The flow of jobs through their stages, drawn at the size it has on the screen.
import { $, count, h, rate, s, seconds, short, text } from "./dom.js";

const REASONS = {
  place: "for a free slot", node: "for a node that can run it", retry: "to try again", budget: "for its tenant's budget", people: "for people",
  time: "until a time", turn: "for its turn in a conversation",
};
const TALL = 96;

function stages({ flow, reasons, rates, ended }) {
  const [first] = Object.entries(reasons);
  const total = Object.values(ended).reduce((a, b) => a + b, 0);
  return [
    { label: "in Kafka", big: flow.unread, sub: flow.unread ? "no planner has read them yet" : "all are read", out: rates.accepted },
    { label: "waiting", big: flow.waiting, sub: first ? `${count(first[1])} ${REASONS[first[0]] || first[0]}` : "nothing waits", out: rates.started },
    { label: "at a node", big: flow.placed, sub: "given, not begun", out: rates.started },
    { label: "answering", big: flow.answering, sub: rates.retried ? `${rate(rates.retried)} tried again` : "a model writes", out: rates.ended },
    { label: "ended", big: total, ended, sub: "since reading began" },
  ];
}

function stage(one, x, y, width) {
  const on = !one.ended && one.big > 0;
  const group = s("g", { transform: `translate(${x} ${y})` },
    s("rect", { class: on ? "stage on" : "stage", width, height: TALL, rx: 9 }),
    s("text", { class: "t-label", x: 13, y: 23 }, one.label),
    s("text", { class: "t-big", x: 13, y: 54 }, short(one.big)));
  if (one.ended) group.append(...outcome(one.ended, width - 26, one.big));
  else group.append(s("text", { class: "t-sub", x: 13, y: 77 }, fit(one.sub, width - 22)));
  return group;
}

const fit = (sentence, width) => (sentence.length * 6.1 > width ? `${sentence.slice(0, Math.max(1, Math.floor(width / 6.1) - 1))}…` : sentence);

function outcome(ended, width, total) {
  const kinds = [["succeeded", "good"], ["failed", "bad"], ["expired", "warn"], ["cancelled", "idle"]];
  let x = 13;
  const bars = kinds.filter(([name]) => ended[name]).map(([name, look]) => {
    const wide = Math.max(2, (ended[name] / total) * width);
    const bar = s("rect", { class: `bar-${look}`, x, y: 66, width: wide, height: 5, rx: 2 });
    x += wide + 1;
    return bar;
  });
  const told = total ? `${(100 * ended.succeeded / total).toFixed(ended.succeeded === total ? 0 : 1)} % succeeded` : "none yet";
  return [s("rect", { class: "bar-none", x: 13, y: 66, width, height: 5, rx: 2 }), ...bars, s("text", { class: "t-sub", x: 13, y: 86 }, told)];
}

function pipe(x, y, long, one, down) {
  const busy = one.out > 0;
  const wide = busy ? Math.min(7, 2 + Math.log10(1 + one.out) * 2) : 2;
  const line = down ? { x1: x, y1: y, x2: x, y2: y + long } : { x1: x, y1: y, x2: x + long, y2: y };
  const told = busy ? rate(one.out) : "";
  return s("g", {}, s("line", { class: "pipe", "stroke-width": wide, ...line }), busy && s("line", { class: "moves", "stroke-width": wide, ...line }),
    s("text", { class: "t-rate", "text-anchor": down ? "start" : "middle", x: down ? x + 12 : x + long / 2, y: down ? y + long / 2 + 4 : y - 10 }, told));
}

function curves(series, x, y, width, tall, step) {
  const top = Math.max(1, ...series.accepted, ...series.ended);
  const points = (values) => values.map((value, n) => [x + (n / (values.length - 1)) * width, y + tall - (value / top) * (tall - 3)]);
  const path = (values) => `M${points(values).map(([a, b]) => `${a.toFixed(1)} ${b.toFixed(1)}`).join("L")}`;
  const failed = points(series.failed).filter((_, n) => series.failed[n]).map(([a]) => s("rect", { class: "bar-bad", x: a - 1, y: y + tall - 6, width: 2.4, height: 6 }));
  return s("g", {},
    s("line", { class: "axis", x1: x, y1: y + tall + .5, x2: x + width, y2: y + tall + .5 }),
    s("path", { class: "area", d: `${path(series.accepted)}L${x + width} ${y + tall}L${x} ${y + tall}Z` }),
    s("path", { class: "curve", d: path(series.accepted) }), s("path", { class: "curve out", d: path(series.ended) }), ...failed,
    width > 560 && s("text", { class: "t-sub", x, y: y + tall + 16 }, "5 min ago"),
    legend(width > 560 ? x + width / 2 - 150 : x, y + tall + 12, `peak ${rate(top / step)}`),
    width > 560 && s("text", { class: "t-sub", x: x + width, y: y + tall + 16, "text-anchor": "end" }, "now"));
}

function legend(x, y, peak) {
  const kinds = [["curve", "accepted", 76], ["curve out", "ended", 62], ["curve fail", "failed", 62]];
  let at = x;
  return s("g", {}, kinds.map(([look, name, wide]) => {
    const part = [s("line", { class: look, x1: at, x2: at + 12, y1: y, y2: y, "stroke-width": 2 }), s("text", { class: "t-sub", x: at + 17, y: y + 4 }, name)];
    at += wide + 14;
    return part;
  }), s("text", { class: "t-sub", x: at, y: y + 4 }, peak));
}

export function drawFlow(told) {
  const box = $("flow");
  const width = Math.max(260, box.clientWidth - 28);
  const all = stages(told);
  const down = width < 720;
  const gap = down ? 30 : Math.max(46, width * .052);
  const wide = down ? width : (width - gap * (all.length - 1)) / all.length;
  const parts = all.flatMap((one, n) => {
    const [x, y] = down ? [0, n * (TALL + gap)] : [n * (wide + gap), 4];
    const joint = n < all.length - 1 && (down ? pipe(24, y + TALL, gap, one, true) : pipe(x + wide, y + TALL / 2, gap, one, false));
    return [joint, stage(one, x, y, wide)];
  });
  const below = (down ? all.length * (TALL + gap) - gap : TALL + 4) + 14;
  const tall = below + 62 + 22;
  box.replaceChildren(s("svg", { width, height: tall, viewBox: `0 0 ${width} ${tall}`, role: "img", "aria-labelledby": "flow-words" }, ...parts, curves(told.series, 0, below, width, 62, told.series_step)));
  const failed = told.ended.failed + told.ended.expired;
  text($("flow-words"), `${all.map((one) => `${one.label}: ${count(one.big)}`).join(", ")}. ${rate(told.rates.accepted)} accepted, ${rate(told.rates.ended)} ended, ${count(failed)} failed or expired.`);
  text($("flow-note"), told.ready ? `${rate(told.rates.accepted)} accepted  ·  ${rate(told.rates.ended)} ended` : `reading history: ${Math.round(100 * told.read)} %`);
}

export function drawQueues(told) {
  const rows = told.queues.map((one) => ({ ...one, unread: count(one.unread) }));
  const body = $("queues").tBodies[0];
  body.replaceChildren(...rows.map((one) => {
    const { predicted } = one;
    const range = predicted.seconds === null ? "not known yet" : `${seconds(predicted.earliest)} to ${seconds(predicted.latest)}, at place ${count(predicted.place)}`;
    return h("tr", {}, h("th", { scope: "row" }, one.class), h("td", { class: "n" }, one.unread === "0" ? count(one.waiting) : `${count(one.waiting)} + ${one.unread} unread`),
      h("td", { class: "n" }, count(one.steps)), h("td", { class: "n" }, count(one.running)), h("td", { class: "n" }, seconds(one.oldest)),
      h("td", { class: "n strong", title: range }, !told.slots ? "no node serves" : predicted.seconds === null ? "–" : predicted.seconds < .05 ? "at once" : `~${seconds(predicted.seconds)}`),
      h("td", { class: "n" }, seconds(one.median)), h("td", { class: "n" }, seconds(one.p95)));
  }));
  $("agents").replaceChildren(...(told.agents.length ? ["steps "] : []), ...told.agents.slice(0, 12).map((one) => h("span", { class: "chip" }, `${one.agent}  ${count(one.waiting)} waiting, ${count(one.running)} running`)));
}
