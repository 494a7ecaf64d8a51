"""What no registered node could ever answer, told before anything is queued: a prompt beyond every window, an image nobody sees. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from services.ingress.problems import Problem, context_exceeded
from shared.contracts.chat import Operation
from shared.contracts.job import Job
from shared.contracts.node import Ability, NodeModel
from shared.estimates import fewest_tokens
from shared.model_names import AUTO

_CHARACTERS_OF_A_WORD = 2
"""At least, with the space or the end behind it: most texts need not be counted word by word."""
_THOUGHTS_END = "</think>"


@dataclass(frozen=True, slots=True)
class Offer:
    """What is to be had of some models on all registered nodes, those that are away, draining or asleep included."""

    window: int | None = None
    """The largest, tokens; None: some node does not tell."""
    lacking: frozenset[Ability] = frozenset()
    """What each of them says that it cannot."""

    def either(self, other: Offer) -> Offer:
        """Of these models or those."""
        known = self.window is not None and other.window is not None
        return Offer(max(self.window or 0, other.window or 0) if known else None, self.lacking & other.lacking)


def offer_of(model: NodeModel) -> Offer:
    """Of one model on one node."""
    return Offer(model.room, frozenset(ability for ability, able in model.abilities.items() if not able))


def refusal(job: Job, offer: Offer | None) -> Problem | None:
    """Why nobody could answer, whatever becomes free. `offer` None: nothing is known of the models that may answer."""
    if offer is None:
        return None
    if job.tools and "tools" in offer.lacking:
        return _unable(job.model, "call tools", "tools")
    if "vision" in offer.lacking and any(message.images for message in job.messages or ()):
        return _unable(job.model, "see images", "messages")
    fewest = None if offer.window is None else _more_than(job, offer.window)
    return None if fewest is None or offer.window is None else context_exceeded(offer.window, fewest)


def _unable(model: str, what: str, param: str) -> Problem:
    message = f"no model here can {what}" if model == AUTO else f"the model {model!r} cannot {what}"
    return Problem(400, "unsupported", message, param)


def _more_than(job: Job, window: int) -> int | None:
    """How many tokens the prompt has at least, where that is more than the window."""
    if job.kind is Operation.EMBED:  # a call each
        return max((found for text in job.texts or () if (found := _beyond((text,), window))), default=None)
    texts = [job.prompt or "", job.system or ""]
    return _beyond([*texts, *(_read(message.role, message.content) for message in job.messages or ())], window)


def _beyond(texts: Iterable[str], window: int) -> int | None:
    texts = tuple(texts)
    if sum(map(len, texts)) + len(texts) <= _CHARACTERS_OF_A_WORD * window:
        return None
    fewest = fewest_tokens(texts)
    return fewest if fewest > window else None


def _read(role: str, content: str) -> str:
    """Without what was thought in earlier turns: many templates leave that out."""
    return content.rpartition(_THOUGHTS_END)[2] if role == "assistant" else content
