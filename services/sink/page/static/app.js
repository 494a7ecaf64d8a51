// The page: its views, what is known, and when it is drawn. Everything is drawn at most twice a second, and only what is looked at.
import { $, count, h, say, text } from "./dom.js";
import { drawFlow, drawQueues } from "./flow.js";
import * as jobs from "./jobs.js";
import { beginLetters, drawLetters } from "./letters.js";
import { Refused, ask, config, follow, keep, key } from "./link.js";
import { drawFleet, drawNodes, ill } from "./nodes.js";
import { beginPlay, drawPlay } from "./play.js";
import { drawReviews } from "./reviews.js";
import { drawCache, drawGains, drawUsage } from "./usage.js";

const VIEWS = ["overview", "jobs", "nodes", "letters", "reviews", "usage", "play"];
const known = { overview: null, nodes: null, gains: null };
const skew = { seconds: 0, began: null };
let view = "overview";
let due = false;
let reviewed = -1e9;
let waiting = 0;

const now = () => Date.now() / 1000 + skew.seconds;

function badge(name, value, look = "") {
  const element = document.querySelector(`[data-badge="${name}"]`);
  element.hidden = !value;
  element.className = `badge ${look}`;
  text(element, count(value));
}

function draw() {
  due = false;
  const { overview, nodes, gains } = known;
  if (!overview) return;
  jobs.tick(now());
  badge("jobs", overview.flow.waiting + overview.flow.placed + overview.flow.answering);
  badge("letters", overview.letters, "bad");
  if (nodes) badge("nodes", ill(nodes), "warn");
  $("trouble").hidden = !overview.trouble;
  if (overview.trouble) text($("trouble"), `Kafka: ${overview.trouble}`);
  document.title = overview.flow.answering ? `tutti · ${count(overview.flow.answering)} answering` : "tutti";
  if (view === "overview") {
    drawFlow(overview);
    drawQueues(overview);
    if (nodes) drawFleet(nodes);
    jobs.drawRecent(overview.ready);
    glance(overview, gains);
    drawUsage(now());
  } else if (view === "jobs") {
    jobs.drawJobs(overview.ready);
    jobs.refresh();
  } else if (view === "nodes" && nodes) drawNodes(nodes);
  else if (view === "letters") drawLetters(overview, now());
  else if (view === "usage") {
    drawUsage(now());
    drawCache(overview);
    if (gains) drawGains(gains);
  }
  people();
}

function glance(overview, gains) {
  const proven = (gains?.rows || []).filter((row) => row.evidence === "better" || row.evidence === "worse");
  const rows = [["cache", drawCache(overview)], ["dead letters", count(overview.letters)], ["reviews", waiting === null ? "not known" : waiting ? `${count(waiting)} wait for people` : "none"],
    ["pattern gain", proven.length ? proven.map((row) => `${row.pattern} ${row.gain > 0 ? "+" : ""}${row.gain.toFixed(2)}`).join(", ") : "no evidence yet"]];
  $("glance").replaceChildren(...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

async function people() {
  if (now() - reviewed < (view === "reviews" ? 3 : 15)) return;
  reviewed = now();
  if (document.activeElement?.tagName === "TEXTAREA" && view === "reviews") return;
  waiting = await drawReviews(now(), view === "reviews");
  badge("reviews", waiting || 0, "warn");
}

function soon() {
  if (due) return;
  due = true;
  setTimeout(() => requestAnimationFrame(draw), 120);
}

function go(moved = true) {
  const [name, ...rest] = location.hash.slice(1).split("/");
  view = VIEWS.includes(name) ? name : "overview";
  for (const one of VIEWS) $(`view-${one}`).hidden = one !== view;
  for (const link of document.querySelectorAll(".top nav a")) {
    if (link.getAttribute("href") === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (view === "jobs" && rest.length) jobs.open(decodeURIComponent(rest.join("/")));
  else if (moved) $("main").focus({ preventScroll: true });
  if (view === "play") drawPlay();
  reviewed = -1e9;
  draw();
}

function state(word) {
  const look = { live: "good", lost: "warn" }[word] || "bad";
  $("dot").className = `dot ${look}`;
  if (word instanceof Refused) return password(word);
  text($("link"), word === "live" ? "live" : "reconnecting");
  return true;
}

/** Asks for the key; returns when there is one to try. */
function password(refused) {
  text($("link"), "needs a key");
  if (refused.code === "unknown_host") {
    $("trouble").hidden = false;
    text($("trouble"), `${refused.message}: open the page at 127.0.0.1 or localhost.`);
    return false;
  }
  $("ask-wrong").hidden = !key();
  text($("ask-wrong"), refused.message);
  const dialog = $("ask");
  if (!dialog.open) dialog.showModal();
  return new Promise((done) => $("ask-form").addEventListener("submit", (event) => {
    keep(new FormData(event.target).get("key").trim());
    event.target.reset();
    done(true);
  }, { once: true }));
}

function theme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("tutti-theme", root.dataset.theme);
}

async function begin() {
  Object.assign(config, await ask("/page/config"));
  $("key").hidden = !config.keys;
  $("key").addEventListener("click", () => { keep(""); location.reload(); });
  $("theme").addEventListener("click", theme);
  let told;
  $("filters").addEventListener("input", () => {
    jobs.drawJobs(true);
    clearTimeout(told);
    told = setTimeout(() => say($("found").textContent), 700);
  });
  $("filters").addEventListener("reset", () => setTimeout(() => jobs.drawJobs(true)));
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("detail").addEventListener("keydown", (event) => { if (event.key === "Escape") jobs.close(); });
  $("period").addEventListener("change", () => drawUsage(now(), true));
  addEventListener("hashchange", () => go());
  addEventListener("resize", soon);
  beginLetters(now);
  beginPlay();
  go(false);
  setInterval(soon, 1000);
  const on = {
    hello: (told) => { jobs.begin(told); },
    overview: (told) => { known.overview = told; skew.seconds = told.now - Date.now() / 1000; soon(); },
    nodes: (told) => { known.nodes = told; soon(); },
    gains: (told) => { known.gains = told; soon(); },
    jobs: (told) => { jobs.take(told); soon(); },
  };
  await follow(on, state);
}

begin();
