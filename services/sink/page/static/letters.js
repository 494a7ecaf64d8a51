// Dead letters: read when they are looked at and when there are more; sent again by whoever has looked at them.
import { $, count, empty, h, keyed, moment, say, words } from "./dom.js";
import { act, ask } from "./link.js";

let chosen = new Set();
let rows = [];
let seen = -1;

export async function drawLetters(told, now) {
  if (told.letters === seen) return;
  try {
    const found = await ask("/page/letters?limit=500");
    ({ rows } = found);
    seen = found.seen;
  } catch (error) {
    return empty("letters-empty", error.message);
  }
  show(now);
}

function show(now) {
  const known = new Set(rows.map((one) => one.id));
  chosen = new Set([...chosen].filter((id) => known.has(id)));
  empty("letters-empty", rows.length ? "" : "Nothing was refused lately. Records that cannot be processed come here, with the reason.");
  $("letters").hidden = !rows.length;
  keyed($("letters").tBodies[0], rows, (one) => one.id, (one) => h("tr", {},
    h("td", {}, h("input", { type: "checkbox", checked: chosen.has(one.id), disabled: !one.whole, "data-hold": one.id, "aria-label": `Select ${one.id}`, title: one.whole ? null : "kept only in part, it was too large: it cannot be sent again", onchange: (event) => pick(one.id, event.target.checked) })),
    h("td", { class: "keep soft" }, moment(one.at, now)), h("td", { class: "mono keep" }, one.id), h("td", { class: "mono" }, `${one.topic}/${one.partition}/${one.offset}`), h("td", {}, one.service),
    h("td", {}, words(one.reason), " ", h("span", { class: "pill" }, one.code.replaceAll("_", " "))), h("td", { class: "soft" }, one.replays.length ? `${moment(one.replays.at(-1).at, now)} by ${one.replays.at(-1).by}` : "")));
  buttons();
}

function pick(id, on) {
  chosen[on ? "add" : "delete"](id);
  buttons();
}

function buttons() {
  const able = rows.filter((one) => one.whole);
  $("replay").disabled = !chosen.size;
  $("replay").textContent = chosen.size ? `Replay ${count(chosen.size)}` : "Replay";
  $("every").checked = able.length > 0 && chosen.size === able.length;
  $("every").indeterminate = chosen.size > 0 && chosen.size < able.length;
}

function sure(many) {
  $("h-sure").textContent = `Send ${many === 1 ? "this record" : `these ${count(many)} records`} again?`;
  $("sure-words").textContent = "The original bytes go to their original topics. Who was refused because of what it holds will be refused again.";
  $("sure").showModal();
  return new Promise((go) => $("sure").addEventListener("close", () => go($("sure").returnValue === "yes"), { once: true }));
}

export function beginLetters(clock) {
  $("every").addEventListener("change", (event) => {
    chosen = new Set(event.target.checked ? rows.filter((one) => one.whole).map((one) => one.id) : []);
    for (const box of $("letters").querySelectorAll("tbody input")) box.checked = chosen.has(box.dataset.hold);
    buttons();
  });
  $("replay").addEventListener("click", async () => {
    const ids = [...chosen];
    if (!(await sure(ids.length))) return;
    let sent = 0;
    try {
      for (let n = 0; n < ids.length; n += 100) sent += (await act("/page/letters/replay", { ids: ids.slice(n, n + 100) })).sent.length;
      say(`${count(sent)} sent again`);
      chosen.clear();
    } catch (error) {
      say(`${count(sent)} sent again; then: ${error.message}`);
      $("trouble").hidden = false;
      $("trouble").textContent = `Replay stopped after ${count(sent)}: ${error.message}`;
    }
    seen = -1;
    await drawLetters({ letters: -2 }, clock());
    $("replay").focus();
  });
}
