// The playground: one prompt to the ingress, as any client sends it, and its stream as it comes.
import { $, count, empty, h, say, seconds } from "./dom.js";
import { config, events, ingress } from "./link.js";

let running = null;

export async function beginPlay() {
  const form = $("play");
  if (!config.ingress) {
    empty("play-empty", "The page does not know the ingress: set `TUTTI_SINK__INGRESS_URL`.");
    form.querySelector("[type=submit]").disabled = true;
    return;
  }
  form.addEventListener("submit", (event) => { event.preventDefault(); send(form); });
  form.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); form.requestSubmit(); } });
  $("stop").addEventListener("click", () => running?.abort());
}

export async function drawPlay() {
  const select = $("play").elements.model;
  if (!config.ingress || select.options.length > 1) return;
  try {
    const { data } = await (await ingress("/v1/models")).json();
    select.replaceChildren(h("option", { value: "auto" }, "auto: whichever is best placed"), ...data.filter((one) => one.id !== "auto").map((one) => h("option", { value: one.id }, one.id)));
    empty("play-empty", "");
  } catch (error) {
    select.replaceChildren(h("option", { value: "auto" }, "auto"));
    empty("play-empty", error.status ? error.message : `The ingress at ${config.ingress} does not answer this page: it must run, and allow this origin with \`TUTTI_INGRESS__ORIGINS\`.`);
  }
}

async function send(form) {
  const { model, prompt, tokens } = Object.fromEntries(new FormData(form));
  const began = performance.now();
  const since = () => (performance.now() - began) / 1000;
  const told = { first: null, pieces: 0, usage: null, tutti: null };
  running?.abort();
  const mine = running = new AbortController();
  $("answer").replaceChildren();
  $("answer").setAttribute("aria-busy", "true");
  $("took").replaceChildren();
  $("stop").disabled = false;
  try {
    const body = { model: model || "auto", stream: true, stream_options: { include_usage: true }, messages: [{ role: "user", content: prompt }], ...(tokens ? { max_tokens: Number(tokens) } : {}) };
    const answer = await ingress("/v1/chat/completions", { method: "POST", signal: mine.signal, headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
    for await (const [, data] of events(answer)) {
      if (data === "[DONE]") break;
      const piece = JSON.parse(data);
      if (piece.error) throw new Error(piece.error.message);
      const words = piece.choices?.[0]?.delta?.content || "";
      if (words) {
        told.first ??= since();
        told.pieces += 1;
        $("answer").append(words);
      }
      told.usage = piece.usage || told.usage;
      told.tutti = piece.tutti || told.tutti;
      told.model = piece.model || told.model;
    }
    say(`Answer complete after ${seconds(since())}`);
  } catch (error) {
    $("answer").append(h("p", { class: "bad" }, mine.signal.aborted ? "Stopped." : error.message || "The ingress does not answer this page."));
    say(mine.signal.aborted ? "Stopped" : "The answer failed");
  } finally {
    $("answer").setAttribute("aria-busy", "false");
    if (running === mine) $("stop").disabled = true;
    took(told, since());
  }
}

function took(told, whole) {
  const fact = (name, value) => (value ? [h("dt", {}, name), h("dd", {}, value)] : []);
  const { usage, tutti } = told;
  const written = usage?.completion_tokens;
  $("took").replaceChildren(...[fact("first token", told.first === null ? "" : seconds(told.first)), fact("whole", seconds(whole)), fact("tokens", usage && `${count(usage.prompt_tokens)} in, ${count(written)} out`),
    fact("speed", written > 1 && whole > told.first ? `${((written - 1) / (whole - told.first)).toFixed(0)} tokens/s` : ""), fact("model", told.model), fact("node", tutti?.node), fact("job", tutti?.job), fact("simulated", tutti?.simulated && "yes: made up")].flat());
}
