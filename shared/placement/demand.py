"""Demand: what a step asks of a node, as one hashable value. Steps of equal demand can be given to the same nodes. Pure.

Sizes are rounded (the least to an eighth of an octave down, the likely to half an octave up), so that demands stay few.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, floor, log2
from typing import NamedTuple

from shared.contracts.chat import Operation
from shared.contracts.node import Ability
from shared.contracts.step import Step
from shared.estimates import cautious_tokens, fewest_tokens


class Demand(NamedTuple):
    """`model` may be `auto`; the fallbacks are tried in order when no live node has it. Bytes and tokens are 0 when not asked for.

    `fewest_tokens`: what the prompt has by any tokenizer, so that a smaller window cannot hold it. `likely_tokens`: what prompt and answer
    may well need, so that a larger window is asked. Both 0 for small steps. `beyond_window`: an earlier attempt did not fit this one.
    """

    capability: str
    operation: str
    model: str
    fallback_models: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    min_vram_bytes: int = 0
    min_context: int = 0
    tags: tuple[str, ...] = ()
    node: str | None = None
    abilities: tuple[Ability, ...] = ()
    fewest_tokens: int = 0
    likely_tokens: int = 0
    beyond_window: int | None = None
    prefers: tuple[str, ...] = ()


MOST_TOKENS = 10**9
"""Of one step, or ahead on one node, as far as choices and shares count them."""
MIN_COST_TOKENS = 64
"""A step costs at least this in fair shares: every call has a fixed part."""


def demand_of(step: Step) -> Demand:
    """The demand of `step`."""
    needs = step.needs
    fewest, likely = _sizes(step)
    return Demand(
        step.capability,
        step.operation.value,
        step.model,
        step.fallback_models,
        step.avoid,
        needs.min_vram_bytes or 0,
        needs.min_context or 0,
        needs.tags,
        needs.node,
        _abilities(step),
        fewest,
        likely,
        step.beyond_window,
        needs.prefers or (),
    )


def cost_of(step: Step) -> int:
    """What `step` weighs in shares and on its node, in tokens."""
    return min(MOST_TOKENS, max(MIN_COST_TOKENS, step.estimated_tokens))


_SMALL_TOKENS = 1024
"""Steps that are likely to need less fit everywhere."""
_MOST_BYTES = 4
"""Of a character."""
_MOST_ANSWER_TOKENS = 2048
"""Who allows a long answer need not get one: it ends with the window."""
_NO_ABILITIES: tuple[Ability, ...] = ()


def _sizes(step: Step) -> tuple[int, int]:
    """(fewest, likely) tokens, rounded. Each text of an embedding is read for itself: the longest counts."""
    answer_tokens = min(step.options.max_tokens or 0, _MOST_ANSWER_TOKENS)
    if step.context is not None:
        before, own = step.context, step.input_ref
        texts = (step.prefix or "",) if own is not None else texts_of(step)
        fewest = before.fewest_tokens + fewest_tokens(texts) + (own.fewest_tokens if own else 0)
        return _rounded_both(fewest, before.longest + sum(map(_bytes, texts)) + (own.longest if own else 0), answer_tokens)
    if step.input_ref is not None:
        more = step.prefix or ""
        return _rounded_both(step.input_ref.fewest_tokens + fewest_tokens((more,)), step.input_ref.longest + _bytes(more), answer_tokens)
    if step.operation is Operation.EMBED:
        return _measured((max(step.texts, key=len, default=""),), 0)
    return _measured(texts_of(step), answer_tokens)


def _measured(texts: tuple[str, ...], answer_tokens: int) -> tuple[int, int]:
    if _likely(_MOST_BYTES * sum(map(len, texts)), answer_tokens) <= _SMALL_TOKENS:
        return 0, 0
    size = sum(map(_bytes, texts))
    return (0, 0) if _likely(size, answer_tokens) <= _SMALL_TOKENS else _rounded_both(fewest_tokens(texts), size, answer_tokens)


def _rounded_both(fewest: int, size: int, answer_tokens: int) -> tuple[int, int]:
    return _rounded(fewest, 8, floor), _rounded(_likely(size, answer_tokens), 2, ceil)


def _likely(size: int, answer_tokens: int) -> int:
    return cautious_tokens(size) + answer_tokens


def texts_of(step: Step) -> tuple[str, ...]:
    """All text that the model is to read."""
    return (step.prompt or "", *[message.content for message in step.messages], *step.texts, step.prefix or "")


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _rounded(tokens: int, parts: int, towards: Callable[[float], int]) -> int:
    """To `parts` values an octave; 0 stays."""
    return towards(2 ** (towards(log2(tokens) * parts) / parts)) if tokens > 0 else 0


def _abilities(step: Step) -> tuple[Ability, ...]:
    if step.input_ref is not None:
        sees, calls = step.input_ref.images, step.input_ref.tools
    else:
        sees, calls = any(message.images for message in step.messages), bool(step.tools)
    if not sees and not calls:
        return _NO_ABILITIES
    return (*(("vision",) if sees else ()), *(("tools",) if calls else ()))
