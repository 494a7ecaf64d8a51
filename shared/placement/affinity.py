"""Affinity: which node has read most of a step's prompt already, by what was placed of late. Pure; bounded; of one router, or planner.

Model servers keep what each slot has read. A chat whose client sends everything again begins with what its last call began with; the node
that had that call reads only what is new. How surely it still does sinks with what it has besides: the more steps, the less that counts.
"""

from __future__ import annotations

from collections import OrderedDict

from shared.contracts.step import Step
from shared.estimates import likely_tokens

MOST_KEPT = 10_000
KEPT_SECONDS = 300.0
"""As long as Ollama keeps an idle model."""
_FEWEST = 3
"""Messages: a question, an answer, and the next question."""
_HEAD = 512
"""Characters of a chat's first messages that tell it from others."""


def key_of(step: Step) -> tuple[int, int] | None:
    """(what its prompt begins with, tokens of it that an earlier call has read); None where nothing was read before."""
    if len(step.messages) < _FEWEST:
        return None
    head = tuple(message.content[:_HEAD] for message in step.messages[:2])
    return hash((step.tenant, step.model, head)), likely_tokens(sum(len(message.content) for message in step.messages[:-1]))


class Affinity:
    """Remembers who was given what."""

    def __init__(self) -> None:
        self._nodes: OrderedDict[int, tuple[str, float]] = OrderedDict()

    def note(self, key: int, node: str, now: float) -> None:
        """This node reads a prompt that begins so."""
        self._nodes.pop(key, None)
        self._nodes[key] = node, now
        if len(self._nodes) > MOST_KEPT:
            self._nodes.popitem(last=False)

    def near(self, key: int, now: float) -> str | None:
        """The node that has read it last, if that was not long ago."""
        node, at = self._nodes.get(key, ("", 0.0))
        return node if node and now - at < KEPT_SECONDS else None
