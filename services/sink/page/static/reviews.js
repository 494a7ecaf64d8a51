// Reviews: what people are asked, at the ingress, as any client of it may answer them.
import { $, empty, h, keyed, moment, say, seconds } from "./dom.js";
import { config, ingress } from "./link.js";

const drafts = new Map();
const texts = new Map();

const query = (one) => `?tenant=${encodeURIComponent(one.tenant)}`;

/** Returns how many wait, or null where that is not known. */
export async function drawReviews(now, looking) {
  if (!config.ingress) {
    empty("reviews-empty", "The page does not know the ingress: set `TUTTI_SINK__INGRESS_URL`.");
    return null;
  }
  let found;
  try {
    found = (await (await ingress("/v1/reviews")).json()).reviews;
  } catch (error) {
    empty("reviews-empty", `${error.message === "Failed to fetch" ? `The ingress at ${config.ingress} does not answer this page: it must run, and allow this origin with` : `${error.message}.`} ${error.message === "Failed to fetch" ? "`TUTTI_INGRESS__ORIGINS`." : ""}`);
    $("reviews").replaceChildren();
    return null;
  }
  if (looking) {
    empty("reviews-empty", found.length ? "" : "Nothing waits for people. A step with a `review`, or `ctx.review(...)` in a pattern, asks them.");
    for (const one of found) if (texts.get(one.id)?.digest !== one.digest) await load(one);
    keyed($("reviews"), found, (one) => one.id, (one) => review(one, now));
  }
  return found.length;
}

async function load(one) {
  try {
    texts.set(one.id, await (await ingress(`/v1/reviews/${encodeURIComponent(one.id)}${query(one)}`)).json());
  } catch (error) {
    texts.set(one.id, { digest: one.digest, artefact: `(the text cannot be read: ${error.message})` });
  }
}

function review(one, now) {
  const id = `v-${one.id}`;
  const text = h("textarea", { rows: 3, "data-hold": "text", "aria-label": "Remark, other text or answer", placeholder: "A remark; the other text for Edit; the answer for Answer", oninput: (event) => drafts.set(one.id, event.target.value) });
  text.value = drafts.get(one.id) || "";
  const problem = h("p", { class: "bad", role: "alert" });
  const decide = async (verdict) => {
    try {
      const told = await (await ingress(`/v1/reviews/${encodeURIComponent(one.id)}${query(one)}`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ verdict, text: text.value, digest: one.digest }) })).json();
      say(told.heard === null ? "Sent; the planner has not answered yet" : `Review of ${one.job}: ${verdict}`);
      drafts.delete(one.id);
      await drawReviews(now, true);
    } catch (error) {
      problem.textContent = error.message;
    }
  };
  const button = (verdict, label, look) => h("button", { type: "button", class: look, "data-hold": verdict, onclick: () => decide(verdict) }, label);
  const left = one.due_at - now;
  return h("article", { class: "card review", "aria-labelledby": id }, h("header", {}, h("h2", { id }, one.question), h("p", { class: "soft" }, `${one.tenant}, job ${one.job}`)),
    h("div", { class: "body" }, h("div", { class: "artefact", tabindex: "0", role: "region", "aria-label": "Text to review" }, texts.get(one.id)?.artefact || ""),
      h("p", { class: "soft" }, `Asked: ${one.assignees?.join(", ") || "anyone of the tenant"}. ${one.said.length} of ${one.quorum || 1} said. Until ${moment(one.due_at, now)} (${seconds(Math.max(0, left))}), then: ${one.default || "reject"}.`),
      text, h("div", { class: "row" }, button("approve", "Approve", "main"), button("reject", "Reject", ""), button("edit", "Edit", ""), button("answer", "Answer", "")), problem));
}
