"""Ollama's dialect, outwards: results and deltas become its JSON, streams lines of it, problems one text. Pure; bytes out.

Durations are nanoseconds as this cluster's callers wait for them, not as one node counts: `total_duration` is from the request to its
answer, `eval_duration`, of streams only, from the first piece to the last.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_json

from services.ingress.dialects.port import Told, arguments_of, origin
from services.ingress.problems import Problem
from shared.contracts.chat import Answer, FinishReason
from shared.contracts.usage import Usage

STREAM_HEADERS: list[tuple[bytes, bytes]] = [
    (b"content-type", b"application/x-ndjson"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
_REASON = {FinishReason.LENGTH: "length", FinishReason.BUDGET: "length"}
"""The dialect has no word for a budget; all else is `stop`, calls of tools too."""
_NANO = 1_000_000_000


def chat(told: Told, answer: Answer, consumed: Usage) -> bytes:
    """A whole chat answer."""
    return to_json(_head(told, answer.model) | {"message": _message(_shown(told, answer))} | _end(told, answer, consumed))


def generation(told: Told, answer: Answer, consumed: Usage) -> bytes:
    """A whole generation."""
    return to_json(_head(told, answer.model) | _response(_shown(told, answer)) | _end(told, answer, consumed))


def embedded(told: Told, answer: Answer, consumed: Usage) -> bytes:
    """Vectors in the order of the texts."""
    counts = {"total_duration": _nanoseconds(told.took()), "prompt_eval_count": consumed.prompt_tokens}
    return to_json({"model": answer.model or told.model, "embeddings": answer.embeddings, **counts})


def embedding(_: Told, answer: Answer, __: Usage) -> bytes:
    """The older form: one vector."""
    return to_json({"embedding": answer.embeddings[0] if answer.embeddings else ()})


def problem(found: Problem) -> bytes:
    """One text; the code beside it."""
    return to_json({"error": found.message, "code": found.code})


def unloaded(model: str, now: float, **nothing: Any) -> bytes:
    """Of a request that gives its model up: the cluster decides what stays loaded."""
    return to_json({"model": model, "created_at": instant(now), **nothing, "done": True, "done_reason": "unload"})


def no_vectors(model: str) -> bytes:
    """Of no texts."""
    return to_json({"model": model, "embeddings": ()})


def instant(seconds: float) -> str:
    """Seconds since 1970, in the dialect's words."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


class LineWriter:
    """The lines of one stream. What does not change is rendered once: a piece costs one JSON string.

    `chat`: pieces are messages; else they are responses.
    """

    __slots__ = ("_after", "_before", "_began", "_chat", "_thought", "_told")

    def __init__(self, told: Told, *, chat: bool) -> None:
        self._told, self._chat = told, chat
        self._before = self._thought = self._after = b""
        self._began = 0.0

    @property
    def begun(self) -> bool:
        """The model that answers is known."""
        return bool(self._before)

    def begin(self, model: str | None, simulated: bool) -> bytes:
        """Nothing goes out before the first piece; from now on each names the model that answers."""
        self._began = self._told.took()
        head = to_json(_head(self._told, model))[:-1]
        if self._chat:
            self._before = head + b',"message":{"role":"assistant","content":'
            self._thought = head + b',"message":{"role":"assistant","content":"","thinking":'
            self._after = b'},"done":false}\n'
        else:
            self._before, self._thought = head + b',"response":', head + b',"response":"","thinking":'
            self._after = b',"done":false}\n'
        return b""

    def text(self, text: str) -> bytes:
        """New text."""
        return self._before + to_json(text) + self._after

    def thinking(self, text: str) -> bytes:
        """New thinking."""
        return self._thought + to_json(text) + self._after

    def last(self, answer: Answer, consumed: Usage) -> bytes:
        """A line of tool calls if any, then the one that is done, with counts."""
        if not self.begun:
            self.begin(answer.model, answer.simulated)
        head = _head(self._told, answer.model)
        empty: dict[str, Any] = {"message": {"role": "assistant", "content": ""}} if self._chat else {"response": ""}
        end = _end(self._told, answer, consumed) | {"eval_duration": _nanoseconds(self._told.took() - self._began)}
        calls = b""
        if answer.tool_calls and self._chat:
            calls = to_json(head | {"message": _message(answer) | {"content": ""}, "done": False}) + b"\n"
        return calls + to_json(head | empty | end) + b"\n"

    def failed(self, found: Problem) -> bytes:
        """An error after the stream began: a line with its text, which ends it."""
        return problem(found) + b"\n"


def _head(told: Told, model: str | None) -> dict[str, Any]:
    return {"model": model or told.model, "created_at": instant(told.created)}


def _end(told: Told, answer: Answer, consumed: Usage) -> dict[str, Any]:
    reason = "load" if told.wishes else _REASON.get(answer.finish_reason, "stop")
    counts = {"prompt_eval_count": consumed.prompt_tokens, "eval_count": consumed.completion_tokens}
    return {
        "done": True,
        "done_reason": reason,
        "total_duration": _nanoseconds(told.took()),
        **({} if told.wishes else counts),
        "tutti": origin(answer),
    }


def _shown(told: Told, answer: Answer) -> Answer:
    """What a model said while it was only to be loaded is nobody's."""
    return answer.changed(text="", thinking=None, tool_calls=()) if told.wishes else answer


def _message(answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text}
    if answer.thinking:
        message["thinking"] = answer.thinking
    if answer.tool_calls:
        message["tool_calls"] = [_call(call) for call in answer.tool_calls]
    return message


def _response(answer: Answer) -> dict[str, Any]:
    return {"response": answer.text} | ({"thinking": answer.thinking} if answer.thinking else {})


def _call(call: dict[str, Any]) -> dict[str, Any]:
    name, arguments = arguments_of(call)
    shown: dict[str, Any] = {"function": {"name": name, "arguments": arguments}}
    return ({"id": call["id"]} if call.get("id") else {}) | shown


def _nanoseconds(seconds: float) -> int:
    return max(0, int(seconds * _NANO))
