// Nodes: what each has and does, and what to do where something is wrong.
import { $, bytes, count, empty, h, keyed, short, text, words } from "./dom.js";

const NONE = "No node has announced itself. Start one beside a model endpoint with `tutti run worker`, or everything on this machine with `tutti up`.";
const worst = (node) => node.advice[0]?.level;
export const ill = (told) => told.rows.filter((node) => ["bad", "warn"].includes(worst(node))).length;

function slots(node) {
  const shown = Math.min(node.slots, 16);
  const busy = Math.round((Math.min(node.running, node.slots) / node.slots) * shown);
  return [h("span", { class: "slots", "aria-hidden": true }, Array.from({ length: shown }, (_, n) => h("i", { class: n < busy ? "on" : "" }))), `${count(node.running)} of ${count(node.slots)}`];
}

const speed = (node) => {
  const measured = node.speed || Math.max(0, ...node.models.map((model) => model.decode || 0));
  return measured ? `${measured.toFixed(measured < 10 ? 1 : 0)} tok/s` : "–";
};

function state(node) {
  const level = worst(node);
  const [look, name] = level === "bad" ? ["bad", "not serving"] : level === "warn" ? ["warn", "look at it"] : node.advice.some((one) => one.text.startsWith("It takes no")) ? ["", "draining"] : ["good", "serving"];
  return h("span", { class: `pill ${look}` }, name);
}

export function drawFleet(told) {
  const busy = told.rows.reduce((sum, node) => sum + node.running, 0);
  const all = told.rows.reduce((sum, node) => sum + node.slots, 0);
  text($("fleet-note"), told.total ? `${count(busy)} of ${count(all)} slots in use` : "");
  empty("fleet-empty", told.total ? "" : NONE);
  $("fleet").hidden = !told.total;
  const order = { bad: 0, warn: 1 };
  const rows = [...told.rows].sort((a, b) => (order[worst(a)] ?? 2) - (order[worst(b)] ?? 2) || b.running / b.slots - a.running / a.slots || a.id.localeCompare(b.id)).slice(0, 40);
  keyed($("fleet").tBodies[0], rows, (node) => node.id, (node) => {
    const loaded = node.models.filter((model) => model.resident).map((model) => model.name);
    return h("tr", {}, h("td", { class: "cut strong", title: node.id, "width%": 34 }, h("span", { class: `dot ${worst(node) === "bad" ? "bad" : worst(node) === "warn" ? "warn" : "good"}`, role: "img", "aria-label": worst(node) === "bad" ? "not serving" : worst(node) === "warn" ? "look at it" : "serving" }), node.id),
      h("td", { class: "keep" }, slots(node)), h("td", { class: "n" }, speed(node)), h("td", { class: "cut soft narrow-off", title: loaded.join(", "), "width%": 34 }, loaded.join(", ") || "nothing yet"));
  });
}

const title = (name, value) => [h("dt", {}, name), h("dd", {}, value)];

export function drawNodes(told) {
  empty("nodes-empty", told.total ? "" : NONE);
  keyed($("nodes"), told.rows, (node) => node.id, (node) => {
    const memory = [node.vram && `${bytes(node.vram)} graphics`, node.ram && `${bytes(node.ram)} memory`].filter(Boolean).join(", ");
    const id = `n-${node.id}`;
    return h("article", { class: "card node", "aria-labelledby": id },
      h("header", {}, h("h2", { id }, node.id), state(node)),
      h("dl", { class: "facts" }, title("slots", h("span", {}, slots(node))), title("speed", `${speed(node)}${node.queued_tokens ? `, ${short(node.queued_tokens)} tokens ahead` : ""}`),
        title("machine", [node.accelerator, node.cpus && `${node.cpus} cores`, memory].filter(Boolean).join(", ") || "not told"), title("endpoint", node.backend || "–"),
        title("serves", node.capabilities.slice(0, 8).join(", ") + (node.capabilities.length > 8 ? ", …" : ""))),
      h("div", { class: "scroll" }, h("table", {}, h("caption", { class: "hidden" }, `Models of ${node.id}`),
        h("thead", {}, h("tr", {}, ["model", "size", "window", "speed", "loaded"].map((name, n) => h("th", { scope: "col", class: n ? "n" : "" }, name)))),
        h("tbody", {}, node.models.map((model) => h("tr", {}, h("td", { class: "cut", title: `${model.name} ${model.quantisation}`, "width%": 44 }, model.name), h("td", { class: "n" }, bytes(model.bytes)),
          h("td", { class: "n" }, model.window ? short(model.window) : "–"), h("td", { class: "n" }, model.decode ? `${model.decode.toFixed(0)} tok/s` : "–"), h("td", { class: "n" }, model.resident ? "yes" : "no")))))),
      node.advice.map((one) => h("p", { class: `advice ${one.level}` }, h("span", {}, words(one.text)))));
  });
}
