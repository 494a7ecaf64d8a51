"""How a model goes on with an answer that another attempt began and whose text the caller has seen. Pure.

The text is the beginning of the assistant's last message: chat endpoints that understand this write on from its end.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from services.worker.backends.base import Completion, ModelCallFailed
from services.worker.settings import WorkerSettings
from shared.contracts.chat import ChatMessage, Operation
from shared.contracts.failure import FailureKind as K
from shared.contracts.step import Step
from shared.estimates import fewest_tokens


def check(step: Step) -> None:
    """Raises UNSUPPORTED for what no model can continue: a grammar begins anew with every call."""
    if step.prefix and step.format is not None:
        raise ModelCallFailed(K.UNSUPPORTED, "a broken answer in a fixed format cannot be continued")


def messages_of(step: Step) -> tuple[ChatMessage, ...]:
    """The conversation; its last message is the assistant's when there is an answer to go on with."""
    prompt = (ChatMessage(role="user", content=step.prompt or ""),)
    # A prompt to be continued comes with its system message.
    messages = (*step.messages, *prompt) if step.operation is Operation.GENERATE else step.messages or prompt
    if not step.prefix:
        return messages
    last = messages[-1]
    if last.role == "assistant" and not last.tool_calls:  # the caller's own beginning of the answer
        return (*messages[:-1], last.model_copy(update={"content": last.content + step.prefix}))
    return (*messages, ChatMessage(role="assistant", content=step.prefix))


def begun_by_caller(step: Step) -> bool:
    """Whether the conversation ends with the beginning of the answer, in the caller's own words."""
    return step.operation is Operation.CHAT and bool(step.messages) and step.messages[-1].role == "assistant"


def is_complete(step: Step, most: int) -> bool:
    """Whether the beginning has all tokens that the answer may have: whoever wrote the last one died before it said so."""
    return bool(step.prefix) and step.prefix_tokens is not None and step.prefix_tokens >= most


def tokens_left(step: Step, most: int) -> int:
    """Of `most` tokens for the whole answer, what is left for the rest of it, at least one.

    By the count of the nodes that wrote the beginning; without one, by what the text has at the very least: an answer that is continued
    is never shorter than the whole for a guess of ours.
    """
    if not step.prefix:
        return most
    written = fewest_tokens((step.prefix,)) if step.prefix_tokens is None else step.prefix_tokens
    return max(1, most - written)


def sampling(step: Step, settings: WorkerSettings) -> dict[str, Any]:
    """Options as a step names them; temperature and a token limit always."""
    given = step.options.model_dump(exclude_none=True, exclude={"think"})
    if not given.get("stop"):
        given.pop("stop", None)
    given.setdefault("temperature", settings.default_temperature)
    given["max_tokens"] = tokens_left(step, given.get("max_tokens", settings.default_max_tokens))
    return given


def whole(step: Step, rest: Completion) -> Completion:
    """The completion with the whole text."""
    if not step.prefix:
        return rest
    return replace(rest, answer=rest.answer.model_copy(update={"text": step.prefix + rest.answer.text}))
