"""Anthropic's dialect, outwards: results, deltas and problems become messages and server-sent events. Pure; bytes out."""

from __future__ import annotations

from typing import Any, Literal

from pydantic_core import to_json

from services.ingress.dialects.anthropic.requests import Counted, characters
from services.ingress.dialects.port import Inquired, Told, arguments_of, origin
from services.ingress.http import sse
from services.ingress.problems import Problem
from shared.contracts.chat import Answer, FinishReason
from shared.contracts.usage import Usage
from shared.estimates import likely_tokens

_REASON = {FinishReason.LENGTH: "max_tokens", FinishReason.BUDGET: "max_tokens"}
"""The dialect has no word for a budget. Which stop sequence ended an answer models do not tell: that is `end_turn`."""
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
Kind = Literal["text", "thinking"]


def message(told: Told, answer: Answer, consumed: Usage) -> bytes:
    """A whole message."""
    content: list[dict[str, Any]] = []
    if answer.thinking:
        content.append({"type": "thinking", "thinking": answer.thinking, "signature": ""})
    if answer.text or not answer.tool_calls:
        content.append({"type": "text", "text": answer.text})
    content += [{**_call(told.job, number, call)} for number, call in enumerate(answer.tool_calls)]
    end = {"stop_reason": _stop_reason(answer), "stop_sequence": None}
    return to_json(_head(told, answer.model) | {"content": content} | end | {"usage": _usage(consumed), "tutti": origin(answer)})


def problem(found: Problem) -> bytes:
    """`{"type": "error", "error": {type, message}}`, and tutti's own code."""
    default = "api_error" if found.status >= 500 else "invalid_request_error"
    error = {"type": _ERROR_TYPES.get(found.status, default), "message": found.message, "code": found.code}
    return to_json({"type": "error", "error": error | found.details})


def counted(asked: Inquired) -> bytes:
    """An estimate, which it says: no tokenizer is asked."""
    request = Counted.model_validate_json(asked.body)
    return to_json({"input_tokens": max(1, likely_tokens(characters(request))), "estimated": True})


class MessageWriter:
    """The events of one stream: blocks, one after another, each of text, of thinking or of a call."""

    __slots__ = ("_after", "_before", "_number", "_open", "_told")

    def __init__(self, told: Told) -> None:
        self._told = told
        self._number = -1
        self._open: Kind | None = None
        self._before = self._after = b""

    @property
    def begun(self) -> bool:
        """`message_start` has been rendered."""
        return self._number >= 0 or bool(self._after)

    def begin(self, model: str | None, simulated: bool) -> bytes:
        """The message without content. What it costs to read is known at its end."""
        self._after = b"}}\n\n"
        head = _head(self._told, model) | {"content": [], "stop_reason": None, "stop_sequence": None, "usage": _usage(Usage())}
        return _event("message_start", {"message": head | ({"simulated": True} if simulated else {})})

    def text(self, text: str) -> bytes:
        """New text."""
        opened = b"" if self._open == "text" else self._begin_block("text")
        return opened + self._before + to_json(text) + self._after

    def thinking(self, text: str) -> bytes:
        """New thinking."""
        opened = b"" if self._open == "thinking" else self._begin_block("thinking")
        return opened + self._before + to_json(text) + self._after

    def last(self, answer: Answer, consumed: Usage) -> bytes:
        """Calls of tools if any, why it ended, what it cost."""
        parts = [] if self.begun else [self.begin(answer.model, answer.simulated)]
        if self._number < 0 and not answer.tool_calls:
            parts.append(self._begin_block("text"))
        parts.append(self._end_block())
        for number, call in enumerate(answer.tool_calls):
            parts.append(self._called(_call(self._told.job, number, call)))
        delta = {"stop_reason": _stop_reason(answer), "stop_sequence": None}
        parts.append(_event("message_delta", {"delta": delta, "usage": _usage(consumed), "tutti": origin(answer)}))
        return b"".join([*parts, _event("message_stop", {})])

    def failed(self, found: Problem) -> bytes:
        """An error after the stream began."""
        return sse.event("error", problem(found))

    def _begin_block(self, kind: Kind) -> bytes:
        """Ends the one before."""
        ended = self._end_block()
        self._number, self._open = self._number + 1, kind
        empty = {"type": "text", "text": ""} if kind == "text" else {"type": "thinking", "thinking": "", "signature": ""}
        start = _event("content_block_start", {"index": self._number, "content_block": empty})
        delta = b'{"type":"text_delta","text":' if kind == "text" else b'{"type":"thinking_delta","thinking":'
        head = b'{"type":"content_block_delta","index":%d,"delta":' % self._number
        self._before = b"event: content_block_delta\ndata: " + head + delta
        return ended + start

    def _end_block(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return _event("content_block_stop", {"index": self._number})

    def _called(self, call: dict[str, Any]) -> bytes:
        self._number += 1
        arguments = {"type": "input_json_delta", "partial_json": to_json(call["input"]).decode()}
        return b"".join(
            (
                _event("content_block_start", {"index": self._number, "content_block": call | {"input": {}}}),
                _event("content_block_delta", {"index": self._number, "delta": arguments}),
                _event("content_block_stop", {"index": self._number}),
            )
        )


def _event(name: str, fields: dict[str, Any]) -> bytes:
    return sse.event(name, to_json({"type": name} | fields))


def _head(told: Told, model: str | None) -> dict[str, Any]:
    return {"id": f"msg_{told.job}", "type": "message", "role": "assistant", "model": model or told.model}


def _usage(found: Usage) -> dict[str, int]:
    return {"input_tokens": found.prompt_tokens, "output_tokens": found.completion_tokens}


def _stop_reason(answer: Answer) -> str:
    return "tool_use" if answer.tool_calls else _REASON.get(answer.finish_reason, "end_turn")


def _call(job: str, number: int, call: dict[str, Any]) -> dict[str, Any]:
    name, arguments = arguments_of(call)
    return {"type": "tool_use", "id": call.get("id") or f"call_{job}_{number}", "name": name, "input": arguments}
