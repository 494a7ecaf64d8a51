"""Caching: which steps may have an answer already, by what equal ones are known, and which answers are kept for others. Pure.

A fingerprint holds all that decides an answer: what the step's id holds (`StepRequest.rendered`, so no field is forgotten), the model as it
is resolved with the digest of its file, and who shares the entry. Not how the answer travels, nor which other models might have given it.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from pydantic_core import to_json

from services.planner.draft import Draft
from services.planner.job.live import LiveJob
from services.planner.job.open_step import Lookup, OpenStep
from shared.contracts.budget import TenantLimits
from shared.contracts.cache import CacheAbandoned, CacheControl, CacheFill, CacheLookup, Meaning, TenantCache
from shared.contracts.chat import FinishReason, Operation
from shared.contracts.job import Job
from shared.contracts.outcome import StepSucceeded
from shared.contracts.step import Content, StepRequest
from shared.model_names import canonical

FORM = 1
"""Of fingerprints: raised when what is hashed is another."""
SAMPLED = frozenset({"sample", "proposer", "baseline"})
"""Agents that are asked for several answers on purpose, or for one to compare with."""
_COMPARISON = "compare"
_QUESTION_CHARACTERS = 8_000


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """`asked`: jobs that ask for it are answered from the cache. Seconds that a step waits: for the cache's word, exact or by meaning; and
    for another step's answer, at most so often.
    """

    asked: bool = True
    exact_seconds: float = 0.02
    meaning_seconds: float = 0.08
    follow_seconds: float = 5.0
    follows: int = 24
    ttl_seconds: float = 3_600.0

    def control_of(self, request: Job, own: TenantLimits | None) -> CacheControl | None:
        """What holds of the job: what it asks for, within what its tenant may; None for nearly all: nothing of it is asked or kept."""
        if not self.asked or (request.cache is None and (own is None or own.cache is None)):
            return None
        control = _within(request.cache, TenantCache() if own is None or own.cache is None else own.cache, self.ttl_seconds)
        return None if control.mode == "off" else control


def _within(said: CacheControl | None, allowed: TenantCache, seconds: float) -> CacheControl:
    said = (said or CacheControl()) if allowed.allowed else CacheControl(mode="off")
    ttls = [ttl for ttl in (said.ttl or seconds, allowed.ttl) if ttl is not None]
    thresholds = [threshold for threshold in (said.threshold, allowed.threshold) if threshold is not None]
    scope = "tenant" if said.scope == "global" != allowed.scope else said.scope
    return said.changed(mode=said.mode or allowed.mode, scope=scope, ttl=min(ttls), threshold=max(thresholds, default=None))


_ASKED_OF_MODELS = (Operation.CHAT, Operation.GENERATE, Operation.EMBED)
"""No tool is called twice the same way, and a critic is faster than this."""


def eligible(request: Job, step: StepRequest, control: CacheControl) -> bool:
    """Whether an answer to this step is one to any equal step."""
    if step.operation not in _ASKED_OF_MODELS or step.tools or not step.idempotent:
        return False
    if step.agent in SAMPLED or request.pattern == _COMPARISON:
        return False
    if step.operation is Operation.EMBED:
        return True
    drawn = step.options.temperature != 0.0 and step.options.seed is None
    return not drawn or (control.creative and request.pattern == "single")  # another pattern may ask several times for the same


def sharers(request: Job, control: CacheControl) -> tuple[str, ...]:
    """Who shares the entry. The tenant is always among it, unless that is everybody."""
    match control.scope:
        case "global":
            return ("global",)
        case "user":
            return ("user", request.tenant, request.metadata["user"])
        case "session":
            return ("session", request.tenant, request.conversation or "")
        case _:
            return ("tenant", request.tenant)


def fingerprint(step: StepRequest, model: str, digest: str, who: tuple[str, ...], content: Content | None = None) -> str:
    """`digest`: of the model's file, empty where no endpoint tells it. `content`: the request's, if it is there already."""
    shown = step.model_copy(update={"model": canonical(model), "fallback_models": (), "stream": False}).rendered(content)
    return blake2b(to_json((FORM, digest, *who)) + shown, digest_size=32).hexdigest()


def meaning_of(step: StepRequest, model: str, digest: str, who: tuple[str, ...], control: CacheControl) -> Meaning | None:
    """What a semantic lookup compares: the last words of the user, among steps that are equal but for them; None where there are none."""
    if control.mode not in ("semantic", "exact_then_semantic") or step.input_ref is not None:
        return None
    if step.operation is Operation.GENERATE and step.prompt:
        question, rest = step.prompt, step.model_copy(update={"prompt": ""})
    elif step.operation is Operation.CHAT and step.messages and step.messages[-1].role == "user" and not step.messages[-1].images:
        last = step.messages[-1]
        question, rest = last.content, step.model_copy(update={"messages": (*step.messages[:-1], last.model_copy(update={"content": ""}))})
    else:
        return None
    if not question.strip() or len(question) > _QUESTION_CHARACTERS:
        return None
    return Meaning(partition=fingerprint(rest, model, digest, who), question=question, threshold=control.threshold)


def lookup_of(
    job: LiveJob, step: OpenStep, home: int, digest: str | None, control: CacheControl, *, content: Content | None = None
) -> CacheLookup | None:
    """What is asked of the cache before this first attempt. `digest`: None where the nodes that have the model differ, or none is known."""
    request, asked = job.accepted.request, step.request
    if control.no_cache or digest is None or asked is None or not eligible(request, asked, control):
        return None
    who = sharers(request, control)
    return CacheLookup(
        key=fingerprint(asked, asked.model, digest, who, content),
        tenant=request.tenant,
        job=job.id,
        step=step.id,
        attempt=step.attempt,
        home=home,
        priority_class=job.accepted.priority_class,
        exact=control.mode != "semantic",
        meaning=meaning_of(asked, asked.model, digest, who, control),
        max_age=control.max_age,
    )


def fill_of(job: LiveJob, step: OpenStep, outcome: StepSucceeded, control: CacheControl) -> CacheFill | None:
    """What is kept of an accepted answer: all of a complete one that a model has given to an eligible step. A function of history, so that
    a successor would say the same.
    """
    request, asked, answer = job.accepted.request, step.request, outcome.answer
    if control.no_store or asked is None or step.prefix or not eligible(request, asked, control):
        return None
    if answer.finish_reason is not FinishReason.STOP or answer.tool_calls or answer.blob is not None or answer.served is not None:
        return None
    if answer.model is None or not (answer.text.strip() or answer.embeddings):
        return None
    assert control.ttl is not None, "it is filled"
    who, digest = sharers(request, control), answer.digest or ""
    return CacheFill(
        key=fingerprint(asked, answer.model, digest, who),
        tenant=request.tenant,
        job=job.id,
        step=step.id,
        answer=answer,
        usage=outcome.usage,
        ttl=control.ttl,
        model=canonical(answer.model),
        tags=control.tags,
        documents=control.documents,
        meaning=meaning_of(asked, answer.model, digest, who, control),
    )


def begin(draft: Draft, step: OpenStep, lookup: CacheLookup, policy: CachePolicy) -> None:
    """Ask; the step is sent when there is no answer, or no word in time."""
    step.lookup = Lookup(lookup)
    ask(draft, step, policy)


def ask(draft: Draft, step: OpenStep, policy: CachePolicy) -> None:
    """Ask, perhaps again."""
    assert step.lookup is not None, "it has begun"
    by_meaning = step.lookup.said.meaning is not None
    step.due_at = draft.now + (policy.meaning_seconds if by_meaning else policy.exact_seconds)
    draft.lookups.append(step.lookup.said)


def answered(draft: Draft, job: LiveJob, step: OpenStep, outcome: StepSucceeded, control: CacheControl | None) -> None:
    """The step has this answer: it is kept; who waits for an answer that cannot be kept need not."""
    if outcome.answer.served is not None:
        step.lookup = None
        return
    fill = None if control is None else fill_of(job, step, outcome, control)
    if fill is not None:
        draft.after.append(fill)
        if step.lookup is not None and step.lookup.said.key == fill.key:
            step.lookup = None
    abandon(draft, step)


def abandon(draft: Draft, step: OpenStep) -> None:
    """It asked, and nothing is kept of it: whoever waits for it need not."""
    if step.lookup is not None:
        said, step.lookup = step.lookup.said, None
        draft.after.append(CacheAbandoned(key=said.key, tenant=said.tenant, job=said.job, step=said.step))
