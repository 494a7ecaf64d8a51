"""What the kinds of tools share: the call, and how it fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from services.worker.backends.base import ModelCallFailed
from shared.contracts.failure import FailureKind as K

_MOST_CHARACTERS = 2_000
"""Of an argument."""


class ToolCall(NamedTuple):
    """`step`: the call's id, the same at each attempt: an endpoint that takes idempotency keys can know it again."""

    arguments: dict[str, Any]
    step: str
    trace: str | None = None


Serve = Callable[[ToolCall], Awaitable[str]]
"""One tool at work: the result as text, of any length. It raises only `ModelCallFailed`: NODE_UNREACHABLE where nothing can have begun."""


def refused(message: str) -> ModelCallFailed:
    """The arguments are wrong, wherever the tool is called: a sentence for who wrote them."""
    return ModelCallFailed(K.BAD_REQUEST, message)


def text_argument(call: ToolCall, name: str) -> str:
    """Raises BAD_REQUEST."""
    value = call.arguments.get(name)
    if not isinstance(value, str) or not value.strip() or len(value) > _MOST_CHARACTERS:
        raise refused(f"`{name}` is a text of at most {_MOST_CHARACTERS} characters")
    return value
