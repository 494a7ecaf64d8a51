"""OpenAI's responses, outwards: a job's answer, its status, its stream, as response objects and events. Pure; bytes out.

An event's `sequence_number` is a function of the answer: the text's deltas count characters, what comes before and after it counts on.
So it is the same at every instance and however the text comes in, and a stream goes on behind any of them (`starting_after`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic_core import to_json

from services.ingress.dialects.openai.response_requests import PREFIX, Echo
from services.ingress.dialects.openai.responses import tool_calls
from services.ingress.dialects.port import Told, origin
from services.ingress.http import sse
from services.ingress.problems import Problem
from shared.contracts.chat import Answer, FinishReason
from shared.contracts.usage import Usage

_INCOMPLETE = (FinishReason.LENGTH, FinishReason.BUDGET)
_DELTA = (
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":%d,%b,"delta":%b,"logprobs":[]}\n\n'
)
_BEFORE_TEXT = 3
"""Of the last event before the first character."""


def whole(told: Told, answer: Answer, consumed: Usage) -> bytes:
    """A response that is complete, or as complete as its limits allow."""
    return to_json(_ended(told, answer, consumed))


def unfinished(told: Told, status: str) -> bytes:
    """A response that is `queued`, `in_progress` or `cancelled`."""
    return to_json(_response(told, status))


def broken(told: Told, found: Problem) -> bytes:
    """A response that failed."""
    return to_json(_failed(told, found))


class ResponseWriter:
    """The events of one stream. `after`: its reader has all events up to this number.

    `text` takes what comes behind `characters`.
    """

    def __init__(self, told: Told, after: int = -1) -> None:
        self._told, self._after, self.begun = told, after, False
        self.characters = max(0, after - _BEFORE_TEXT)
        """Of the text, that its reader has."""
        self._opened = after >= _BEFORE_TEXT
        self._place = to_json(self._at() | {"content_index": 0})[1:-1]

    def begin(self, model: str | None, simulated: bool) -> bytes:
        """That it is begun."""
        self.begun = True
        self._told = self._told._replace(model=model or self._told.model)
        shown = _response(self._told, "in_progress")
        return self._event(0, "response.created", response=shown) + self._event(1, "response.in_progress", response=shown)

    def text(self, text: str) -> bytes:
        """New text."""
        head = b"" if self._opened else b"".join(self._open())
        self.characters += len(text)
        return head + _DELTA % (_BEFORE_TEXT + self.characters, self._place, to_json(text))

    def thinking(self, text: str) -> bytes:
        """Left out: the form has only summaries of it."""
        return b""

    def last(self, answer: Answer, consumed: Usage) -> bytes:
        """The ends of all items, and of the response."""
        parts = [] if self.begun else [self.begin(answer.model, answer.simulated)]
        if not self._opened and (answer.text or not answer.tool_calls):
            parts += self._open()
        ended = _ended(self._told, answer, consumed)
        kind = "response.incomplete" if ended["status"] == "incomplete" else "response.completed"
        events = [*self._closed(answer), *_calls(self._told, answer), (kind, {"response": ended})]
        first = _BEFORE_TEXT + len(answer.text) + 1
        return b"".join([*parts, *(self._event(first + number, name, **fields) for number, (name, fields) in enumerate(events))])

    def failed(self, found: Problem) -> bytes:
        """The response that failed, behind all text that there can be."""
        head = b"" if self.begun else self.begin(None, simulated=False)
        return head + self._event(_BEFORE_TEXT + self.characters + 1, "response.failed", response=_failed(self._told, found))

    def _open(self) -> Iterator[bytes]:
        self._opened = True
        item = _message(self._told, "", "in_progress") | {"content": []}
        yield self._event(2, "response.output_item.added", output_index=0, item=item)
        yield self._event(3, "response.content_part.added", **self._at(), content_index=0, part=_part(""))

    def _closed(self, answer: Answer) -> Iterator[tuple[str, dict[str, Any]]]:
        if not self._opened:
            return
        at = self._at() | {"content_index": 0}
        yield "response.output_text.done", {**at, "text": answer.text, "logprobs": []}
        yield "response.content_part.done", {**at, "part": _part(answer.text)}
        yield "response.output_item.done", {"output_index": 0, "item": _message(self._told, answer.text, "completed")}

    def _at(self) -> dict[str, Any]:
        return {"item_id": f"msg_{self._told.job}", "output_index": 0}

    def _event(self, number: int, name: str, /, **fields: Any) -> bytes:
        """Nothing where its reader has it."""
        if number <= self._after:
            return b""
        return sse.event(name, to_json({"type": name, "sequence_number": number, **fields}))


def _calls(told: Told, answer: Answer) -> Iterator[tuple[str, dict[str, Any]]]:
    first = 1 if answer.text else 0
    for number, item in enumerate(_call_items(told, answer)):
        at = {"item_id": item["id"], "output_index": first + number}
        yield "response.output_item.added", {"output_index": first + number, "item": item | {"arguments": "", "status": "in_progress"}}
        yield "response.function_call_arguments.delta", {**at, "delta": item["arguments"]}
        yield "response.function_call_arguments.done", {**at, "name": item["name"], "arguments": item["arguments"]}
        yield "response.output_item.done", {"output_index": first + number, "item": item}


def _ended(told: Told, answer: Answer, consumed: Usage) -> dict[str, Any]:
    cut = answer.finish_reason in _INCOMPLETE
    shown = _response(told._replace(model=answer.model or told.model), "incomplete" if cut else "completed")
    output = [_message(told, answer.text, "incomplete" if cut else "completed")] if answer.text or not answer.tool_calls else []
    tokens = {
        "input_tokens": consumed.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": consumed.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": consumed.prompt_tokens + consumed.completion_tokens,
    }
    shown |= {"output": [*output, *_call_items(told, answer)], "usage": tokens, "tutti": origin(answer)}
    return shown | ({"incomplete_details": {"reason": "max_output_tokens"}} if cut else {})


def _failed(told: Told, found: Problem) -> dict[str, Any]:
    code = "rate_limit_exceeded" if found.status == 429 else "invalid_prompt" if found.status < 500 else "server_error"
    return _response(told, "failed") | {"error": {"code": code, "message": found.message, "reason": found.code}}


def _response(told: Told, status: str) -> dict[str, Any]:
    echo: Echo = told.wishes
    return {
        "id": PREFIX + told.job,
        "object": "response",
        "created_at": told.created,
        "status": status,
        "background": echo.background,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": echo.max_output_tokens,
        "metadata": echo.metadata or {},
        "model": told.model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": echo.previous,
        "store": echo.store,
        "temperature": echo.temperature,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": echo.top_p,
        "truncation": "disabled",
        "usage": None,
    }


def _message(told: Told, text: str, status: str) -> dict[str, Any]:
    return {"id": f"msg_{told.job}", "type": "message", "role": "assistant", "status": status, "content": [_part(text)]}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _call_items(told: Told, answer: Answer) -> list[dict[str, Any]]:
    return [
        {"id": f"fc_{told.job}_{number}", "type": "function_call", "status": "completed", "call_id": call["id"], **call["function"]}
        for number, call in enumerate(tool_calls(told.job, answer))
    ]
