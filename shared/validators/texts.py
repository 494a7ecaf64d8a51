"""Texts: every text of a job's input, or of an answer, in one order, so that what is found in them can be put back redacted. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from shared.contracts.base import Contract
from shared.contracts.chat import Answer, ChatMessage
from shared.contracts.job import Input, Job
from shared.contracts.verdict import CritiqueVerdict, Finding
from shared.validators.scan import redacted

Change = Callable[[str], str]
_OF_A_JOB = ("prompt", "messages", "texts", "system", "format", "tools", "input", "chain")
_OF_AN_ANSWER = ("text", "thinking", "tool_calls", "explanation")


def texts_of(whole: Job | Input | Answer) -> list[str]:
    """The main one first: the last words of a user, the prompt, an answer's text. Names in JSON, images and metadata are not among them."""
    texts: list[str] = []

    def note(text: str) -> str:
        texts.append(text)
        return text

    _changed(whole, note)
    main = _main(whole, texts)
    return [texts[main], *texts[:main], *texts[main + 1 :]] if texts else []


def with_redacted(whole: Job | Answer, verdicts: Iterable[CritiqueVerdict]) -> dict[str, Any]:
    """The fields with what was found in these texts replaced by its kind."""
    texts, places = texts_of(whole), dict[int, list[Finding]]()
    for verdict in verdicts:
        for finding in verdict.findings:
            places.setdefault(finding.text, []).append(finding)
    shown = [_shown(text, places.get(number, ())) for number, text in enumerate(texts)]
    order: list[str] = []
    _changed(whole, lambda text: order.append(text) or text)  # type: ignore[func-returns-value]
    main = _main(whole, order)
    left = iter([*shown[1 : main + 1], *shown[:1], *shown[main + 1 :]])
    return _changed(whole, lambda _: next(left))


def _shown(text: str, found: Iterable[Finding]) -> str:
    return redacted(text, ((each.start, each.end, each.kind or each.check) for each in found))


def _main(whole: Job | Input | Answer, texts: list[str]) -> int:
    """Of the texts in their order; the messages follow the prompt, and each has its content before its calls."""
    messages: tuple[ChatMessage, ...] = getattr(whole, "messages", None) or ()
    users = [message.content for message in messages if message.role == "user"]
    return len(texts) - 1 - texts[::-1].index(users[-1]) if users and getattr(whole, "prompt", None) is None else 0


def _changed(whole: Job | Input | Answer, change: Change) -> dict[str, Any]:
    names = _OF_AN_ANSWER if isinstance(whole, Answer) else _OF_A_JOB
    return {name: _each(getattr(whole, name), change) for name in names if hasattr(whole, name)}


def _each(part: Any, change: Change) -> Any:
    if isinstance(part, str):
        return change(part)
    if isinstance(part, ChatMessage):
        fields = {"content": _each(part.content, change), "tool_calls": _each(part.tool_calls, change)}
        return part.model_copy(update=fields)
    if isinstance(part, dict):
        return {name: _each(inner, change) for name, inner in part.items()}
    if isinstance(part, list | tuple):
        return type(part)(_each(inner, change) for inner in part)
    assert not isinstance(part, Contract), "a contract's texts are named one by one"
    return part
