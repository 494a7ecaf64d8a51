// What is asked of the sink and of the ingress; and the live stream, by fetch, since an EventSource could not send the key.

const KEY = "tutti-key";
export const config = { ingress: "", keys: false, most: 10_000 };

export const key = () => sessionStorage.getItem(KEY) || "";
export const keep = (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY));

export class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    Object.assign(this, { status, code });
  }
}

async function refused(answer) {
  let told = {};
  try {
    told = (await answer.json()).error || {};
  } catch { /* no JSON: the status says enough */ }
  return new Refused(answer.status, told.code || "", told.message || `the answer was ${answer.status}`);
}

const withKey = (headers) => (key() ? { ...headers, authorization: `Bearer ${key()}` } : headers);

export async function call(url, options = {}) {
  const answer = await fetch(url, { ...options, headers: withKey(options.headers || {}), cache: "no-store" });
  if (!answer.ok) throw await refused(answer);
  return answer;
}

export const ask = async (path) => (await call(path)).json();
export const act = async (path, body) =>
  (await call(path, { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json", "x-tutti-page": "1" } })).json();
export const ingress = (path, options = {}) => call(config.ingress + path, options);

/** Server-sent events of an answer's body: (name, data, id) for each. */
export async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      held += value.replaceAll("\r", "");
      const frames = held.split("\n\n");
      held = frames.pop();
      for (const frame of frames) {
        const told = { event: "message", data: "", id: "" };
        for (const line of frame.split("\n")) {
          const at = line.indexOf(":");
          if (at > 0) told[line.slice(0, at)] = line.slice(at + 1).replace(/^ /, "");
        }
        if (told.data) yield [told.event, told.data, told.id];
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Follow the page's stream for ever. `on`: name of an event → handler; `state`: told "live", "lost" or what was refused. */
export async function follow(on, state) {
  let after = "";
  for (let pause = 500; ; pause = Math.min(2 * pause, 8_000)) {
    try {
      const answer = await call(`/page/stream${after ? `?after=${after}` : ""}`);
      state("live");
      for await (const [name, data, id] of events(answer)) {
        pause = 500;
        if (id) after = id;
        on[name]?.(JSON.parse(data));
      }
      pause = 250;
    } catch (error) {
      if (error instanceof Refused && (error.status === 401 || error.status === 403)) {
        after = "";
        if (!(await state(error))) return;
        continue;
      }
    }
    state("lost");
    await new Promise((go) => setTimeout(go, pause));
  }
}
